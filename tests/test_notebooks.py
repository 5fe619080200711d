"""The two committed notebooks as files: executed, clean, in order, within their limits; and the style of all code.

That they run is checked by .ci/run; what is said here of outputs holds once both were executed and saved.
"""

import ast
import builtins
import json
import re
import subprocess
import sys

import nbformat
import PIL.Image
import pytest
from conftest import ROOT, nb
from count_notebook import count

MAIN, COMPANION = "diffusion_assignment.ipynb", "test_single_sample.ipynb"
SECTIONS = ["Set-up", "Data preprocessing", "Mask generation", "The U-Net", "The forward process",
            "The reverse process", "Training", "Digits", "Inpainting", "Text-to-image", "Editing", "Animals",
            "Evaluation", "Answers"]
LIMITS = {"cells": 202, "code lines": 1885, "exported functions and classes": 100, "text_to_image reaches": 35,
          "train reaches": 45, "code lines before the first trained sample": 600, "words of prose": 8200,
          "several names assigned at once, per 1,000 lines": 5}
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
# A home or work folder, a kernel's temporary file (which means a warning was stored), a drive.
MACHINE_PATH = re.compile(
    r"(?<![\w.~-])/(?:home|root|Users|work|opt|tmp|mnt|var)/[\w.]|/content/drive|\b[C-Z]:\\\\?\w{2,}")


@pytest.fixture(params=[MAIN, COMPANION])
def notebook(request):
    return nbformat.read(ROOT / request.param, 4)


@pytest.fixture
def main():
    return nbformat.read(ROOT / MAIN, 4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def pictures(cell):
    """The alternative texts, or None, of a cell's pictures."""
    return [output.metadata.get(kind, {}).get("alt") for output in cell.outputs for kind in output.get("data", {})
            if kind.startswith("image/")]


def text_of(output):
    """What a reader can read in an output: streams, text, HTML, without pictures in base64."""
    parts = [output.get("text", ""), *(v for kind, v in output.get("data", {}).items() if kind.startswith("text/"))]
    return re.sub(r"base64,[A-Za-z0-9+/=\s]+", "base64,", "\n".join(parts))


# ----------------------------------------------------------------------------- executed, and fit to be committed
def test_the_notebook_was_run_from_top_to_bottom_without_a_word_on_stderr(notebook):
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    for output in (output for cell in code(notebook) for output in cell.outputs):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        assert "Traceback (most recent call last)" not in text_of(output)


def test_every_picture_has_a_text_for_those_who_cannot_see_it(notebook):
    assert sum(len(pictures(cell)) for cell in code(notebook)) > 5, "the notebook was not executed"
    assert [cell.source[:90] for cell in code(notebook) if not all(pictures(cell))] == []
    assert not any(re.search(r"!\[\s*\]\(", text) for text in prose(notebook))


def test_widgets_are_the_companions_stand_beside_a_picture_and_leave_no_state(notebook, main):
    assert "widget" not in json.dumps(notebook.metadata)
    assert not [cell.source[:90] for cell in code(main) if "widget-view" in str(cell.outputs)]
    assert all(pictures(cell) for cell in code(notebook) if "widget-view" in str(cell.outputs))


def test_no_path_of_one_machine(notebook):
    for hit in ("/work/main/data", "see /home/me", "File /tmp/ipykernel_3/12.py", "E:\\\\data", "'/content/drive/My'"):
        assert MACHINE_PATH.search(hit)
    for cell in notebook.cells:
        source = re.sub(r"https?://\S+", "", cell.source) if cell.cell_type == "markdown" else cell.source
        for text in (source, *map(text_of, cell.get("outputs", []))):
            found = MACHINE_PATH.search(text)
            assert not found, f"{found.group()!r} in: {text[max(0, found.start() - 80):found.end() + 80]}"


def test_files_are_small_enough():
    assert all((ROOT / name).stat().st_size < 10_000_000 for name in (MAIN, COMPANION))
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no clone: what belongs to the repository is not known")
    sizes = [(ROOT / name).stat().st_size for name in listed.stdout.split("\0") if (ROOT / name).is_file()]
    assert max(sizes) < 20 * 2**20
    assert sum(sizes) < 60 * 2**20


def test_the_gifs_are_of_whole_walks():
    for path in (ROOT / "report" / "gifs").glob("*.gif"):
        with PIL.Image.open(path) as gif:
            assert gif.n_frames > 10, f"{path.name} has {gif.n_frames} frames: run the notebook again"


# ----------------------------------------------------------------------------- order, links, limits
def test_the_sections_stand_in_their_order_and_every_link_leads_somewhere(notebook, main):
    numbered = [f"{i} {name}" for i, name in enumerate(SECTIONS, 1)]
    found = re.findall(r"(?m)^#+ +(\d.*?)\s*$", "\n".join(prose(main)))
    assert [line for line in found if re.match(r"\d+ ", line)] == numbered
    section = part = 0
    for line in found:
        section, part = (section, part + 1) if re.match(r"\d+\.", line) else (section + 1, 0)
        assert line.split(" ")[0] == (f"{section}.{part}" if part else f"{section}")
    contents = next(text for text in prose(main) if "| Section |" in text)
    assert re.findall(r"\]\(#([^)]+)\)", contents) == [line.replace(" ", "-") for line in numbered]
    anchors = {line.replace(" ", "-") for line in re.findall(r"(?m)^#+ +(.+?)\s*$", "\n".join(prose(notebook)))}
    for text in (*prose(notebook), (ROOT / "README.md").read_text(encoding="utf-8")):
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            assert "://" in link or (link[1:] in anchors if link[0] == "#" else (ROOT / link).is_file()), link


def test_the_viva_counts_its_questions_its_index_leads_to_them_and_the_code_that_it_names_is_there(main):
    text = (ROOT / "report" / "viva.md").read_text(encoding="utf-8")
    headings = re.findall(r"(?m)^### (\d+)\. (.+)$", text)
    assert [int(number) for number, _ in headings] == list(range(1, len(headings) + 1))
    assert f"\n{len(headings)} questions" in text
    anchors = {f"{n}-" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for n, title in headings}
    assert {anchor for _, anchor in re.findall(r"(?m)^\[(\d+)\]: #(.+)$", text)} == anchors
    (index,) = re.findall(r"(?m)^\*\*By word.+$", text)
    assert set(re.findall(r"\[(\d+)\]", index)) <= {n for n, _ in headings}
    for of, part in re.findall(r"`([A-Z]\w+)\.(\w+)", text):
        source = next(cell.source for cell in code(main) if f"class {of}" in cell.source)
        assert hasattr(getattr(nb, of), part) or f"self.{part} =" in source, f"{of}.{part}"


def test_readme_from_python_runs_as_written_and_its_comments_are_true():
    (block,) = re.findall(r"(?s)```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"))
    found = {}
    exec(block, found)  # noqa: S102
    said = re.findall(r"(?m)^(\w+) = .*# float32 (\[[\d, ]+\])", block)
    assert len(said) >= 3
    for name, shape in said:
        assert list(found[name].shape) == json.loads(shape), name
    for name in ("digits", "words", "images", "filled", "edited", "two", "mixed", "large", "animals"):
        assert 0 <= found[name].min() <= found[name].max() <= 1, name
    known = (found["masks"] == 0).expand_as(found["images"])
    assert found["filled"][known].equal(found["images"][known])


def test_the_notebook_keeps_its_limits_and_no_definition_uses_a_later_section(main):
    found = count()
    assert found["backwards"] == []
    assert {name: f"{found[name]}, at most {most}" for name, most in LIMITS.items() if found[name] > most} == {}
    assert not [cell.source[:90] for cell in code(main) if len(cell.source.splitlines()) > 40]


def test_an_experiment_uses_only_definitions_and_names_of_its_own_section(main):
    section, names, missing = None, {*vars(builtins), *vars(nb), "display"}, []
    for cell in main.cells:
        if cell.cell_type == "markdown" and (found := re.match(r"## (\d+) ", cell.source)):
            section, names = found[1], {*vars(builtins), *vars(nb), "display"}
        elif cell.cell_type == "code" and not cell.source.startswith("#| export"):
            nodes = list(ast.walk(ast.parse(cell.source)))
            names |= {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
            names |= {n.arg for n in nodes if isinstance(n, ast.arg)}
            names |= {(n.asname or n.name).split(".")[0] for n in nodes if isinstance(n, ast.alias)}
            names |= {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler)}
            missing += [f"{n.id}, section {section}" for n in nodes if isinstance(n, ast.Name) and n.id not in names]
    assert missing == []


# ----------------------------------------------------------------------------- definitions
def test_cells_export_definitions_each_once_and_each_with_its_purpose(main):
    names = []
    for cell in code(main):
        if cell.source.startswith("#| export\n"):
            for node in ast.parse(cell.source).body:
                docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
                assert isinstance(node, DEFINITIONS) or docstring, ast.unparse(node)
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    assert ast.get_docstring(node), f"{node.name} has no docstring"
                    names.append(node.name)
    assert sorted(names) == sorted(set(names) & set(vars(nb)))


def test_the_companion_repeats_no_definition_uses_names_that_exist_and_marks_stand_where_they_are_seen(notebook, main):
    for cell in code(notebook):  # a mark lower down, or with a space, would be a comment that does nothing
        assert not re.search(r"(?m)^\s*#\s*\|\s*export", cell.source.removeprefix("#| export\n")), cell.source
    if notebook != main:
        nodes = [node for cell in code(notebook) for node in ast.walk(ast.parse(cell.source))]
        used = {n.attr for n in nodes if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") == "nb"}
        own = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert "text_to_image" in used <= set(vars(nb))
        assert not own & set(vars(nb))


def test_ruff_finds_nothing():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
