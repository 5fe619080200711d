"""The hand-in: names, the all-in-one file, each package unpacked, and rules that notice what is missing."""

import ast
import json
import os
import subprocess
import sys
import zipfile
import zlib

import nbformat
import pytest
from conftest import ROOT, nb

NAME, NUMBER = "Zoë", "21L-1234"
ROLL, FOLDER = "21L-1234_05", "Zoe_21L-1234_05"
CODE = f"{ROLL}_allCode"
PARTS = [ROOT / "models" / "animals.pt", *(ROOT / "report" / "gifs" / f"digits_{kind}_epoch20.gif"
                                           for kind in ("time", "class"))]


def tiny_pdf(pages):
    """As much of a PDF as the rules look at."""
    return b"%PDF-1.7\n1 0 obj << /Type /Pages >> endobj\n" + b"2 0 obj << /Type /Page >> endobj\n" * pages


@pytest.fixture(scope="module")
def pdf(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "my report.pdf"
    path.write_bytes(tiny_pdf(2))
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory, pdf):
    """All five packages in one folder: (folder, course -> rules)."""
    missing = [path.name for path in PARTS if not path.is_file()]
    if missing:
        pytest.skip(f"not in this repository yet: {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("hand in")  # with a space
    return folder, {course: nb.hand_in(course, NAME, NUMBER, folder, report=pdf) for course in nb.COURSES}


def broken(rules):
    return [text for text, kept in rules if not kept]


def repacked(built, course, tmp_path, leave_out=None, add=None):
    """Copy a package without some file, or with one more, and return the rules that this breaks."""
    source, root = nb.package_path(course, nb.student(NAME, NUMBER), built[0])
    files = nb.read_package(source)
    if leave_out:
        del files[root + leave_out]
    with zipfile.ZipFile(tmp_path / source.name, "w") as archive:
        for name, content in {**files, **{root + name: b"x" for name in add or ()}}.items():
            archive.writestr(name, content)
    return broken(nb.check_hand_in(course, NAME, NUMBER, tmp_path))


def python(*words, cwd):
    """Run Python in a folder, away from the repository."""
    away = {**os.environ, "PYTHONPATH": "", "MPLBACKEND": "Agg", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run([sys.executable, *map(str, words)], cwd=cwd, env=away, capture_output=True, text=True,
                          encoding="utf-8", timeout=300)


# ----------------------------------------------------------------------------- names
@pytest.mark.parametrize(("name", "plain"), [
    ("Zoë", "Zoe"), ("Zoe\u0308", "Zoe"), ("José María", "Jose-Maria"), ("  Anne  Marie ", "Anne-Marie"),
    ("Jean\u2010Luc", "Jean-Luc"), ("D'Arcy", "DArcy"), ("D\u2019Arcy", "DArcy"), ("Łukasz", "Lukasz"),
    ("Søren", "Soren"), ("Đỗ Thị", "Do-Thi"), ("Weiß", "Weiss"), ("Ana_Maria", "Ana-Maria"), ("Анна", "Анна"),
    ("Андрей", "Андрей"),
    ("王小明", "王小明"), ("민준", "민준"), ("हिन्दी", "हिन्दी"), ("Ｚｏｅ", "Zoe"), ("../../etc/passwd", "etc-passwd"),
    ("a\\b:c*?", "abc"), ("Zoe 🙂", "Zoe"), ("X Æ", "X-Ae"), ("Ann\nMarie", "Ann-Marie"), ("-rf x", "rf-x")])
def test_first_names_become_parts_of_file_names(name, plain):
    assert nb.plain_name(name) == plain
    assert nb.plain_name(plain) == plain


@pytest.mark.parametrize("name", ["", "  ", "...", "123", "'", "🙂", "/", "x" * 61, None, 5, b"Zoe", ["Zoe"]])
def test_names_without_letters_are_refused(name):
    with pytest.raises(ValueError, match="name"):
        nb.student(name, NUMBER)


@pytest.mark.parametrize(("number", "kept"), [
    (1234, "1234"), ("0012", "0012"), ("21L-1234", "21L-1234"), (" i210001 ", "i210001"), ("１２３", "123")])
def test_roll_numbers_are_kept_as_they_are(number, kept):
    assert nb.student(NAME, number).number == kept


@pytest.mark.parametrize("number", ["", "abc", "12/34", "12 34", "../12", "12_34", "-5", "5-", "1--2", -5, 1.5, None,
                                    True, "1\n2", "1'2", "é1", "٣", "1" * 41, [1]])
def test_other_roll_numbers_are_refused(number):
    with pytest.raises(ValueError, match="roll number must be"):
        nb.student(NAME, number)


def test_the_assignment_has_two_digits():
    assert [nb.student(NAME, 1, a).assignment for a in ("05", "4", 4, 12)] == ["05", "04", "04", "12"]
    for wrong in ("", "five", "005", -4, 100, None, "../5", True):
        with pytest.raises(ValueError, match="assignment"):
            nb.student(NAME, 1, wrong)


def test_a_course_must_be_one_of_the_five(tmp_path):
    for wrong in ("C5", "c1", "", None):
        with pytest.raises(ValueError, match="C0, C1, C2, C3, C4"):
            nb.hand_in(wrong, NAME, NUMBER, tmp_path)
        with pytest.raises(ValueError, match="C0, C1, C2, C3, C4"):
            nb.check_hand_in(wrong, NAME, NUMBER, tmp_path)


# ----------------------------------------------------------------------------- all code in one file
def meanings(source):
    """What each name at the left edge of Python source means: pairs (name, import or definition)."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            yield from ((a.asname or a.name.split(".")[0], "import " + a.name.split(".")[0]) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((a.asname or a.name, f"from {node.module} import {a.name}") for a in node.names)
        elif isinstance(node, ast.Assign):
            yield from ((t.id, f"line {node.lineno}") for part in node.targets for t in ast.walk(part)
                        if isinstance(t, ast.Name) and isinstance(t.ctx, ast.Store))
        elif hasattr(node, "name"):
            yield node.name, f"line {node.lineno}"


def test_the_all_in_one_file_has_all_code_and_no_name_with_two_meanings():
    code = nb.all_code()
    assert nb.is_whole_code(code.encode())
    assert "#| export" not in "\n".join(line for line in code.splitlines() if line.startswith("#|"))
    found = {}
    for name, meaning in meanings(code):
        assert found.setdefault(name, meaning) == meaning, f"{name}: {found[name]}, and {meaning}"


def test_what_is_missing_is_noticed_in_the_all_in_one_file():
    code = nb.all_code()
    assert not nb.is_whole_code(code.replace("def hand_in(", "def hand_on(").encode())
    assert not nb.is_whole_code(("from helpers import png\n" + code).encode())
    with pytest.raises(SyntaxError):
        nb.is_whole_code(b"def f(:")


def test_imports_of_one_module_are_left_out():
    source = "from helpers import (\n    a,\n    b,\n)\nimport os\nfrom helpers import c\n\n\ndef f():\n    return 1"
    assert nb.without_import(source, "helpers") == "import os\n\n\ndef f():\n    return 1"


# ----------------------------------------------------------------------------- the packages
@pytest.mark.parametrize("course", nb.COURSES)
def test_every_rule_is_kept(built, course):
    assert broken(built[1][course]) == []
    assert nb.check_hand_in(course, NAME, NUMBER, built[0]) == built[1][course]


@pytest.mark.parametrize("course", nb.COURSES[1:])
def test_packages_unpack_where_they_are(built, tmp_path, course):
    path, root = nb.package_path(course, nb.student(NAME, NUMBER), built[0])
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    assert nb.folder_files(tmp_path) == nb.read_package(path)
    assert [p.name + "/" for p in tmp_path.iterdir()] == [root] or not root


def test_c0_is_this_notebook_and_nothing_else(built):
    assert (built[0] / "Zoe_21L-1234.ipynb").read_bytes() == (ROOT / "diffusion_assignment.ipynb").read_bytes()


def test_c1_starts_from_any_folder_and_explains_itself(built, tmp_path):
    done = python(built[0] / FOLDER / f"{ROLL}.py", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"usage: {ROLL}.py" in done.stdout
    options = nb.options_in((built[0] / FOLDER / f"{CODE}.py").read_bytes())
    assert "--data" in options
    assert all(option in done.stdout for option in options)
    wrong = python(built[0] / FOLDER / f"{ROLL}.py", "--classes", "none", cwd=tmp_path)
    assert wrong.returncode != 0
    assert "Traceback" not in wrong.stderr
    assert list(tmp_path.iterdir()) == []


def test_c1_draws_its_sample_where_it_is_unpacked(built, tmp_path):
    with zipfile.ZipFile(built[0] / f"{FOLDER}.zip") as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / FOLDER
    notebook = json.loads((folder / "test_single_sample.ipynb").read_text(encoding="utf-8"))
    nbformat.validate(nbformat.from_dict(notebook))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    cells.append("assert code.MODELS == Path.cwd().resolve() / 'saved_models', code.MODELS\n"
                 "assert 'helpers' not in sys.modules\n"
                 "assert pictures.shape == (len(names), 3, model.size, model.size)\n"
                 "assert 0 <= pictures.min() < pictures.max() <= 1")
    (tmp_path / "cells.py").write_text("\n".join(cells), encoding="utf-8")
    done = python("-c", "exec(open('../cells.py', encoding='utf-8').read())", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "classes" in done.stdout


def test_c1_takes_another_number(built, tmp_path, pdf):
    rules = nb.hand_in("C1", NAME, 7, tmp_path, report=pdf, assignment="04")
    assert broken(rules) == []
    assert {"7_04.py", "7_04_allCode.py"} <= {p.name for p in (tmp_path / "Zoe_7_04").iterdir()}


def test_c4_shows_all_gifs_and_no_code(built):
    page = nb.read_package(built[0] / "Zoe_21L-1234_C4.zip")["Zoe_21L-1234_C4/index.html"].decode()
    gifs = {f"gifs/{p.name}" for p in (ROOT / "report" / "gifs").glob("*.gif")}
    assert gifs <= set(nb.pictures_in(page.encode()))
    assert "#| export" not in page
    assert "Zoë" in page


@pytest.mark.parametrize("name", [f"{ROLL}.py", f"{CODE}.py", "Report.pdf", "Readme.txt", "test_single_sample.ipynb",
                                  "saved_models/animals.pt"])
def test_c1_rules_notice_each_missing_file(built, tmp_path, name):
    found = repacked(built, "C1", tmp_path, leave_out=name)
    assert any(name.split("/")[0] in rule for rule in found)
    assert "the folder beside it holds the same files" in found


@pytest.mark.parametrize(("course", "name", "rule"), [
    ("C2", "models/text_encoder.pt", "weights"), ("C2", "diffusion_assignment.ipynb", "was run"),
    ("C2", "helpers.py", "the notebook reads"), ("C2", "Report.pdf", "Report.pdf"), ("C3", "README.txt", "README.txt"),
    ("C3", "models/digits.pt", "weights"), ("C4", "index.html", "part A"), ("C4", "code/all_code.py", "all_code.py"),
    ("C4", "gifs/digits_ours.gif", "every picture"), ("C4", "gifs/digits_time_epoch05.gif", "GIFs")])
def test_the_other_rules_notice_a_missing_file(built, tmp_path, course, name, rule):
    assert any(rule in text for text in repacked(built, course, tmp_path, leave_out=name))


@pytest.mark.parametrize("name", ["data/train-images-idx3-ubyte", "data/animals/cat/1.JPG", "data/mnist.npz", "a.zip",
                                  "x/cat.png", "train-images-idx3-ubyte.gz"])
def test_a_data_set_is_noticed(built, tmp_path, name):
    assert any("no data set" in text for text in repacked(built, "C1", tmp_path, add=[name]))


def test_more_python_files_and_folders_are_noticed(built, tmp_path):
    found = repacked(built, "C1", tmp_path, add=["helpers.py", "other/notes.txt"])
    assert any("two Python files" in text for text in found)
    assert any("nothing else" in text for text in found)


def test_a_file_deleted_or_changed_in_the_folder_is_noticed(tmp_path, built, pdf):
    nb.hand_in("C1", NAME, NUMBER, tmp_path, report=pdf)
    (tmp_path / FOLDER / "Readme.txt").write_text("changed", encoding="utf-8")
    assert broken(nb.check_hand_in("C1", NAME, NUMBER, tmp_path)) == ["the folder beside it holds the same files"]
    (tmp_path / FOLDER / "Readme.txt").unlink()
    assert broken(nb.check_hand_in("C1", NAME, NUMBER, tmp_path)) == ["the folder beside it holds the same files"]


def test_a_damaged_or_missing_package_keeps_no_rule(built, tmp_path):
    assert len(broken(nb.check_hand_in("C1", NAME, NUMBER, tmp_path))) > 5
    content = (built[0] / f"{FOLDER}.zip").read_bytes()
    for bad in (content[: len(content) // 2], b"", b"no zip", content[:5000] + b"????" + content[5004:]):
        (tmp_path / f"{FOLDER}.zip").write_bytes(bad)
        assert not any(kept for _, kept in nb.check_hand_in("C1", NAME, NUMBER, tmp_path))


def test_damaged_weights_are_noticed():
    content = bytearray((ROOT / "models" / "digits_denoiser.pt").read_bytes())
    assert nb.is_weights(bytes(content))
    content[len(content) // 2] ^= 255
    assert not nb.is_kept(lambda: nb.is_weights(bytes(content)))
    assert not nb.is_kept(lambda: nb.is_weights(b"x"))


# ----------------------------------------------------------------------------- nothing lost, nothing half done
def test_nothing_is_written_over(built, pdf):
    before = {p: p.stat().st_mtime_ns for p in built[0].rglob("*")}
    for course in nb.COURSES:
        with pytest.raises(FileExistsError, match="delete it, or choose another folder"):
            nb.hand_in(course, NAME, NUMBER, built[0], report=pdf)
    assert {p: p.stat().st_mtime_ns for p in built[0].rglob("*")} == before


def test_a_folder_of_the_same_name_is_left_alone(tmp_path, pdf):
    (tmp_path / FOLDER).mkdir()
    with pytest.raises(FileExistsError, match=FOLDER):
        nb.hand_in("C1", NAME, NUMBER, tmp_path, report=pdf)
    assert [p.name for p in tmp_path.rglob("*")] == [FOLDER]


@pytest.mark.parametrize(("folder", "course", "advice"), [
    ("MODELS", "C1", "animals.pt: .*train_recipe"), ("MODELS", "C2", "git checkout models"),
    ("REPORT", "C1", "report_detailed.pdf: build the report first"), ("REPORT", "C3", "report.pdf: build the report"),
    ("REPORT", "C4", "section 8"), ("ROOT", "C0", "clone of the whole repository")])
def test_what_is_missing_is_named_and_nothing_is_written(tmp_path, monkeypatch, folder, course, advice, pdf):
    monkeypatch.setattr(nb, folder, tmp_path / "nothing" / "models")
    report = None if folder == "REPORT" else pdf
    with pytest.raises(FileNotFoundError, match=advice):
        nb.hand_in(course, NAME, NUMBER, tmp_path / "out", report=report)
    assert not (tmp_path / "out").exists()


def test_a_report_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="mine.pdf: build the report first, or give the path"):
        nb.hand_in("C2", NAME, NUMBER, tmp_path, report=tmp_path / "mine.pdf")


# ----------------------------------------------------------------------------- parts of the rules
def test_pages_of_a_pdf_are_counted():
    hidden = zlib.compress(b"<< /Type /Pages /Count 3 >> << /Type/Page >> << /Type /Page/Parent 1 >> << /Type /Page >>")
    assert [nb.pdf_pages(tiny_pdf(n)) for n in range(4)] == [0, 1, 2, 3]
    assert nb.pdf_pages(b"%PDF-1.7\n5 0 obj << /Type /ObjStm >> stream\n" + hidden + b"\nendstream") == 3
    assert nb.pdf_pages(b"no PDF /Type /Page") == 0
    assert nb.pdf_pages(b"%PDF-1.7 stream\nnot packed\nendstream /Type /Page ") == 1


def test_c3_takes_two_pages_and_no_more():
    rule = dict(nb.c3_rules({"Report.pdf": tiny_pdf(2)}, None))["Report.pdf is a PDF of one or two pages"]
    assert rule()
    assert not dict(nb.c3_rules({"Report.pdf": tiny_pdf(3)}, None))["Report.pdf is a PDF of one or two pages"]()


def test_a_notebook_that_was_not_run_is_noticed():
    def cell(count, *outputs):
        return {"cell_type": "code", "source": "1", "execution_count": count, "outputs": list(outputs)}

    def run(*cells):
        return nb.was_run(json.dumps({"cells": [{"cell_type": "markdown", "source": "x"}, *cells]}).encode())

    picture = {"output_type": "display_data", "data": {"image/png": ""}}
    assert run(cell(1), cell(2, picture))
    assert not run(cell(1), cell(2))
    assert not run(cell(2), cell(1, picture))
    assert not run(cell(None), cell(None, picture))
    assert not run(cell(1, picture), cell(2, {"output_type": "error"}))


# ----------------------------------------------------------------------------- the page
@pytest.mark.parametrize(("text", "page"), [
    ("## 8 Digits", "<h2>8 Digits</h2>"), ("a < b & **c**", "<p>a &lt; b &amp; <b>c</b></p>"),
    ("`x < 1 **y**`", "<p><code>x &lt; 1 **y**</code></p>"), ("$a_1 < **b**$", "<p>$a_1 &lt; **b**$</p>"),
    ("[a](#b) [c](https://d.e)", '<p>a <a href="https://d.e">c</a></p>'), ("<script>x</script>", "&lt;script&gt;"),
    ("- a\n- b\n  c", "<ul><li>a</li><li>b\n  c</li></ul>"), ("1. a\n2. b", "<ol><li>a</li><li>b</li></ol>"),
    ("*Predict: is $a * b$ or `*c*` **more**?* 2 * 3 * 4",
     "<p><em>Predict: is $a * b$ or <code>*c*</code> <b>more</b>?</em> 2 * 3 * 4</p>"),
    ("| a | $\\|b\\|$ |\n|---|---|\n| c | d |", "<tr><td>a</td><td>$\\|b\\|$</td></tr><tr><td>c</td><td>d</td></tr>"),
    ("a\n\n<details><summary>q</summary>\n\nb\n\n</details>\n\nc", "<p>a</p>\n<p>c</p>"), ("", "")])
def test_markdown_becomes_html(text, page):
    assert page in nb.markdown_html(text)


def test_the_page_takes_the_parts_that_name_the_course():
    texts = ["# T\n\nC4.B1", "## 1 A (C4.A1)", "### 1.1", "## 2 B", "x C4.B1", "### 2.1 c (C4.B2, C3.1)", "y",
             "### 2.2", "z"]
    cells = [{"cell_type": "markdown", "source": [text]} for text in texts]
    assert ["".join(cell["source"]) for cell in nb.course_cells(cells, "C4")] == [texts[i] for i in (1, 2, 5, 6)]


def test_names_in_the_page_are_text(built):
    assert "<script>alert" not in nb.web_page(nb.student("<script>alert(1)</script>", 1), [], {})
