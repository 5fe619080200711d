"""The hand-in: names, every package against its course's rules, files run where they are unpacked, no half package."""

import ast
import html
import os
import re
import subprocess
import sys
import zipfile
import zlib

import nbformat
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "report"))

import hand_in  # noqa: E402

NAME, NUMBER, COURSES = "Zoë <Ann>", "21L-1234", ("C0", "C1", "C2", "C3", "C4")
RAN = "the notebook was run from top to bottom, without errors"


def not_run(notebook, files):
    """In the place of `hand_in.run`, which takes minutes."""
    for i, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), 1):
        cell.execution_count = i


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hand_in, "run", not_run)
        yield


@pytest.fixture(scope="module")
def packages(quick):
    """{course: (file name, {name inside: bytes})}."""
    return {course: hand_in.package(course, NAME, NUMBER) for course in COURSES}


def unpack(course, folder):
    """Write a package into a folder and unpack it there; returns the folder that was packed."""
    path = hand_in.hand_in(course, NAME, NUMBER, folder)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return path.with_suffix("")


def python(*words, cwd):
    """Run Python in a folder, away from the repository; returns its output, or with its error status that of stderr."""
    away = {**os.environ, "PYTHONPATH": "", "MPLBACKEND": "Agg", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, *map(str, words)], cwd=cwd, env=away, capture_output=True, text=True,
                          encoding="utf-8", timeout=300)
    return done.returncode, done.stderr if done.returncode else done.stdout


# ----------------------------------------------------------------------------- names
@pytest.mark.parametrize(("name", "plain"), [
    ("Zoë", "Zoe"), ("Zoe\u0308", "Zoe"), ("José María Ruiz", "Jose"), ("  Anne  Marie ", "Anne"), ("D'Arcy", "DArcy"),
    ("Jean-Luc Picard", "Jean-Luc"), ("D\u2019Arcy", "DArcy"), ("Анна", "Анна"), ("Андрей", "Андрей"),
    ("王小明", "王小明"), ("민준", "민준"), ("हिन्दी", "हिन्दी"), ("Ｚｏｅ", "Zoe"), ("../../etc/passwd", "etcpasswd"),
    ("a\\b:c*?", "abc"), ("Zoe 🙂", "Zoe"), ("-rf x", "rf"), ("Zoe\x00\n", "Zoe")])
def test_first_names_become_parts_of_file_names(name, plain):
    assert hand_in.plain_name(name) == plain
    assert hand_in.plain_name(plain) == plain


def test_numbers_are_kept_and_what_a_file_name_cannot_hold_is_refused():
    for number in ("1234", "0012", "21L-1234", "i210001"):
        assert hand_in.package("C0", NAME, number)[0] == f"Zoe_{number}.ipynb"
    assert hand_in.package("C1", NAME, "7", "4")[0] == "Zoe_7_04.zip"
    wrong = [("C0", name, NUMBER, "05", "name") for name in ("", "  ", "...", "123", "'", "🙂", "/", "x" * 61)]
    wrong += [("C0", NAME, number, "05", "number must be") for number in (
        "", "abc", "12/34", "12 34", "../12", "12_34", "-5", "5-", "1--2", "1\n2", "1'2", "é1", "٣", "1" * 41, "12\n")]
    wrong += [("C1", NAME, NUMBER, assignment, "assignment") for assignment in ("", "five", "005", "-4", "../5")]
    wrong += [(course, NAME, NUMBER, "05", "C0, C1, C2, C3, C4") for course in ("C5", "c1", "")]
    for *words, advice in wrong:
        with pytest.raises(ValueError, match=advice):
            hand_in.package(*words)


# ----------------------------------------------------------------------------- the packages
@pytest.mark.parametrize("course", COURSES)
def test_a_package_keeps_every_rule_of_its_course(packages, course):
    file, files = packages[course]
    root = {"C0": "Zoe_21L-1234.ipynb", "C1": "Zoe_21L-1234_05"}.get(course, f"Zoe_21L-1234_{course}")
    assert file.removesuffix(".zip") == root
    assert {name.split("/")[0] for name in files} == {root}
    assert [sentence for sentence, kept in hand_in.check(course, files) if not kept] == []
    names = {name.partition("/")[2] for name in files}
    if course == "C1":  # C1.8
        assert names == {"21L-1234_05.py", "21L-1234_05_allCode.py", "Report.pdf", "Readme.txt",
                         "test_single_sample.ipynb", "saved_models/animals.safetensors", "saved_models/animals.json.gz"}
    if course != "C1":  # C3.4
        inside = root if course == "C0" else f"{root}/diffusion_assignment.ipynb"
        notebook = nbformat.reads(files[inside].decode(), 4)
        cells, names = notebook.cells, names | set(notebook.metadata.get("files", ()))
        assert names >= {"helpers.py", "requirements.txt", *(
            f"models/{weights}.safetensors" for weights in hand_in.WEIGHTS[course])}
        alien = {"C0": "digits|animals|upscaler", "C4": "animals|judge"}.get(course, "painter|drawings|animals|upsc|C4")
        assert not [name for name in names if re.search(alien, name)]
        alien = {"C0": "AnimalPictures|CourseUNet|generate_digits|upscale", "C4": "AnimalPictures|load_judge"}
        alien = alien.get(course, "AnimalPictures|text_to_image|upscale")
        assert not [cell.source for cell in cells if re.search(r"\bC[0-4]\.[0-9AB]", cell.source)]
        assert not [cell.source for cell in cells if re.search(alien, cell.source)]
        assert "Zoë <Ann>, 21L-1234" in cells[0].source


@pytest.mark.parametrize(("course", "change"), [
    ("C1", "21L-1234_05.py"), ("C1", "21L-1234_05_allCode.py"), ("C1", "Report.pdf"), ("C1", "Readme.txt"),
    ("C1", "test_single_sample.ipynb"), ("C1", "saved_models/animals.safetensors"), ("C1", "+helpers.py"),
    ("C3", "Report.pdf"), ("C2", "Answers.html"), ("C2", "models/digits.safetensors"), ("C3", "README.txt"),
    ("C2", "diffusion_assignment.ipynb"), ("C4", "index.html"),
    ("C4", "gifs/digits_time_epoch05.gif"), ("C3", "+data/train-images-idx3-ubyte"), ("C1", "+cats/1.JPG"),
    ("C0", "+big.bin")])
def test_the_rules_notice_what_is_missing_or_too_much(packages, course, change):
    root, files = packages[course][0].removesuffix(".zip"), dict(packages[course][1])
    before = sum(kept for _, kept in hand_in.check(course, files))
    if change[0] == "+":
        files[f"{root}/{change[1:]}"] = bytes(10**8 if "big" in change else 1)
    else:
        del files[f"{root}/{change}"]
    assert sum(kept for _, kept in hand_in.check(course, files)) < before


def test_a_notebook_that_was_not_run_is_noticed():
    failed = nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])
    for good, *cells in ((True, (1, []), (2, [])), (False, (2, []), (1, [])), (False, (None, [])), (False,),
                         (False, (1, [failed]))):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", execution_count=n, outputs=outputs)
                                                   for n, outputs in cells])
        assert dict(hand_in.check("C0", {"a.ipynb": nbformat.writes(notebook).encode()}))[RAN] is good


def test_a_package_is_told_what_is_its_own_and_a_reference_to_another_place_is_noticed():
    text = "a <!-- only C3 C4 -->b <!-- /only -->c (8.1, check 2) d (`report/evaluate/digits.py`)"
    assert [hand_in.plain(text, course=course) for course in ("C2", "C3")] == ["a c d", "a b c d"]
    row = "| (7) `ConvBlock`; (8) `DownBlock`: after (2) or (3) | as there (8.4) |"  # the course's own numbers stay
    assert hand_in.plain(row) == "| (7) `ConvBlock`; (8) `DownBlock`: after (2) or (3) | as there |"
    rule = "no reference to what is not in it"
    for kept, words in ((True, "Ho et al., section 3.2"), (False, "as section 9 says"), (False, "seen in 9.6"),
                        (False, "the shares (10.5 has them)"), (False, "[C2.3]"), (False, "`report/viva.md`")):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(words)])
        assert dict(hand_in.check("C0", {"a.ipynb": nbformat.writes(notebook).encode()}))[rule] is kept, words


def test_a_package_leaves_out_what_no_experiment_in_it_needs():
    sources = ("#| export\nimport os\n\n\ndef a():\n    return b()\n\n\ndef b():\n    return 1\n\n\ndef c():\n    a()",
               "#| export\n@staticmethod\ndef d():\n    return 2", "#| export\nNETWORKS['e'] = e", "a()")
    cells = hand_in.without_unused([nbformat.v4.new_code_cell(source) for source in sources], ())
    assert [re.findall(r"def (\w)", cell.source) for cell in cells] == [["a", "b"], [], []]
    assert cells[0].source == sources[0].partition("\n\n\ndef c")[0]
    assert hand_in.plain("The course's U-Net, a network", course="C3") == "The plain U-Net, a network"


def test_the_page_has_captions_formulas_and_contents_no_code_and_the_short_report_has_two_pages(packages):
    files = packages["C4"][1]
    page = files["Zoe_21L-1234_C4/index.html"].decode()
    gifs = {name.partition("/")[2] for name in files if name.endswith(".gif")}
    assert len(gifs) == 10
    shown = re.findall(r'src="(gifs/[^"]+)"', page)
    assert shown == sorted(shown, key=lambda gif: ("time" not in gif, gif)), "by network, then by epoch"
    assert gifs == set(shown)
    assert page.count("image/gif;base64") == 1  # of our own network
    assert "seed is 0" in page
    assert not re.search(r"\d%\||it/s", page), "progress bars"
    assert page.count("<figcaption>") == page.count("<img") > 40
    assert page.count("<math") > 40
    assert not re.search(r"\$\$|\\frac|<script|C4\.[ABC]", page), "formulas need no network; no numbers of demands"
    assert [*re.findall(r'<h1 id="(Part-[ABC])', page)] == ["Part-A", "Part-B", "Part-C"]
    links = re.findall(r'href="#([^"]+)"', page)
    assert len(links) > 20
    assert {html.unescape(link) for link in links} <= {html.unescape(i) for i in re.findall(r'id="([^"]+)"', page)}
    assert "#| export" not in page
    assert "def forward" not in page
    assert "Zoë &lt;Ann&gt;" in page
    assert "<Ann>" not in page
    answers = packages["C2"][1]["Zoe_21L-1234_C2/Answers.html"].decode()
    assert "<title>Answers: Zoë" in answers
    assert not re.search(r"\$[^{]|<script", answers)
    pdf = packages["C3"][1]["Zoe_21L-1234_C3/Report.pdf"]  # its pages are objects, packed ones too (C3.3)
    objects = [zlib.decompress(packed) for packed in re.findall(rb"/ObjStm.*?stream\r?\n(.*?)endstream", pdf, re.S)]
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", b"".join([pdf, *objects]))) <= 2


@pytest.mark.parametrize("course", ["C2", "C3", "C4"])
def test_a_package_has_all_that_its_notebook_needs(course, tmp_path):
    folder = unpack(course, tmp_path)
    path = folder / "diffusion_assignment.ipynb"
    unknown = subprocess.run([sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", path], text=True,
                             capture_output=True)
    assert unknown.returncode == 0, unknown.stdout
    sources = "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code")
    judges = re.findall(r"(?m)^from report\..*", sources)
    assert judges or course in ("C2", "C4")
    status, output = python("-c", "\n".join([
        "from helpers import load_notebook, results", "nb = load_notebook()", "results('digits')", *judges,
        "assert nb.generate_digits([3], steps=2).shape == (1, 1, 28, 28)",
        *["assert nb.text_to_image('a', steps=2).shape == (1, 3, 64, 64)"] * (course == "C4"),
    ]), cwd=folder)
    assert status == 0, output


def test_c0_is_a_notebook_that_unpacks_what_it_needs_and_paints_with_nothing_beside_it(tmp_path):
    path = hand_in.hand_in("C0", NAME, NUMBER, tmp_path)
    unknown = subprocess.run([sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", path], text=True,
                             capture_output=True)
    assert unknown.returncode == 0, unknown.stdout
    (tmp_path / "first.py").write_text(nbformat.read(path, 4).cells[1].source)
    status, output = python("-c", "\n".join([
        "exec(open('first.py').read())", "from helpers import load_notebook, results", "results('scenes')",
        f"nb = load_notebook('{path.name}')", "assert nb.text_to_image('a', steps=2).shape == (1, 3, 64, 64)",
        "assert nb.inpaint(nb.torch.ones(1, 3, 64, 64), nb.make_masks('half', 1), steps=2).shape == (1, 3, 64, 64)"]),
        cwd=tmp_path)
    assert status == 0, output
    (tmp_path / path.name).rename(tmp_path / "elsewhere")
    status, output = python("first.py", cwd=tmp_path)
    assert status
    assert "its weights are in it" in output


def test_c1_is_one_file_of_code_that_runs_anywhere_and_draws_with_its_own_weights(tmp_path):
    folder, elsewhere, found = unpack("C1", tmp_path / "hand in"), tmp_path / "elsewhere", {}
    for node in ast.parse((folder / "21L-1234_05_allCode.py").read_text(encoding="utf-8")).body:
        assert getattr(node, "module", "") != "helpers"
        targets = [t for part in getattr(node, "targets", []) for t in ast.walk(part) if isinstance(t, ast.Name)]
        for name in [node.name] if hasattr(node, "name") else [t.id for t in targets if isinstance(t.ctx, ast.Store)]:
            assert found.setdefault(name, node) is node, f"{name}: lines {found[name].lineno} and {node.lineno}"
    assert found.keys() >= {"UNet", "Denoiser", "generate", "train", "AnimalPictures", "generate_animals", "main"}
    assert not found.keys() & {"TextEncoder", "CourseUNet", "inpaint", "text_to_image", "generate_digits", "load_mnist"}
    code = (folder / "21L-1234_05_allCode.py").read_text(encoding="utf-8")
    assert not re.search(r"\bC[0-4]\.[0-9AB]", code), "demands of other courses"
    assert "# - up: transposed convolution -> nearest neighbour" in code, "the reasons of the layers, as a list"
    alone = re.search(r"MNIST|[^_]models/|git checkout|\bnb\.|# \|", code)
    assert not alone, f"it means something in the whole notebook only: {alone}"
    elsewhere.mkdir()
    status, output = python(folder / "21L-1234_05.py", "--help", cwd=elsewhere)
    assert status == 0, output
    assert "usage: 21L-1234_05.py" in output
    readme, options = (folder / "Readme.txt").read_text(encoding="utf-8"), set(re.findall(r"--[a-z-]+", output))
    assert options >= {"--data", "--output", "--steps"}
    assert all(f"{option} " in readme for option in options - {"--help"})
    status, output = python(folder / "21L-1234_05.py", "--drawn", "--classes", "none", cwd=elsewhere)
    assert status
    assert "Traceback" not in output
    assert not list(elsewhere.iterdir())
    status, output = python(folder / "21L-1234_05.py", *"--drawn --size 16 --steps 1 --classes 2 --per-class 2".split(),
                            cwd=elsewhere)
    assert status == 0, output
    assert {p.name for p in (elsewhere / "my_run").iterdir()} >= {"animals.safetensors", "samples.png"}
    cells = nbformat.read(folder / "test_single_sample.ipynb", 4).cells
    (tmp_path / "cells.py").write_text("\n".join(
        [*(cell.source for cell in cells if cell.cell_type == "code"), "from pathlib import Path",
         "assert code.MODELS == Path.cwd().resolve() / 'saved_models'", "assert 'helpers' not in sys.modules"]))
    status, output = python("-c", "exec(open('../../cells.py').read())", cwd=folder)
    assert status == 0, output


# ----------------------------------------------------------------------------- nothing lost, nothing half made
def test_nothing_is_written_over_and_nothing_is_written_where_something_is_missing(tmp_path, monkeypatch):
    for course in ("C0", "C1"):
        path = hand_in.hand_in(course, NAME, NUMBER, tmp_path / "there")
        before = path.read_bytes()
        with pytest.raises(FileExistsError, match="delete it, or choose another folder"):
            hand_in.hand_in(course, NAME, NUMBER, tmp_path / "there")
        assert path.read_bytes() == before
    with pytest.raises(FileNotFoundError, match="mine.pdf"):
        hand_in.hand_in("C2", NAME, NUMBER, tmp_path / "out", report=tmp_path / "mine.pdf")
    monkeypatch.setattr(hand_in, "ROOT", tmp_path)
    for course in COURSES:
        with pytest.raises(FileNotFoundError, match="git checkout"):
            hand_in.hand_in(course, NAME, NUMBER, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot limit the size of a file")
def test_a_full_disk_leaves_no_half_package(tmp_path):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, before[1]))
    try:
        with pytest.raises(OSError, match="large"):
            hand_in.hand_in("C1", NAME, NUMBER, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("words", [("C1", "🙂", NUMBER, "."), ("C2", NAME, NUMBER, ".", "--report", "mine.pdf")])
def test_wrong_words_on_the_command_line_are_told_without_a_traceback(tmp_path, words):
    status, output = python(ROOT / "report" / "hand_in.py", *words, cwd=tmp_path)
    assert status
    assert "error:" in output
    assert "Traceback" not in output
    assert not list(tmp_path.iterdir())
