"""Static checks of the two committed notebooks and of the code's style. That they run is checked by .ci/run."""

import ast
import json
import re
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT, nb

MAIN, COMPANION = "diffusion_assignment.ipynb", "test_single_sample.ipynb"
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
# A home or work folder, a kernel's temporary file (which means a warning was stored), a drive.
MACHINE_PATH = re.compile(
    r"(?<![\w.~-])/(?:home|root|Users|work|opt|tmp|mnt|var)/[\w.]|/content/drive|\b[C-Z]:\\\\?\w{2,}")


@pytest.fixture(params=[MAIN, COMPANION])
def notebook(request):
    path = ROOT / request.param
    assert path.is_file(), f"{request.param} is missing"
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(notebook):
    """Pairs (number, source) of the code cells, counted from 1."""
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return list(enumerate(sources, 1))


def exported_cells():
    cells = code_cells(json.loads((ROOT / MAIN).read_text(encoding="utf-8")))
    return [(i, source) for i, source in cells if source.startswith("#| export\n")]


def outputs(notebook):
    return [(cell, output) for cell in notebook["cells"] for output in cell.get("outputs", [])]


def text_of(output):
    """What a reader can read in an output: streams, text, HTML and tracebacks, without pictures in base64."""
    parts = [output.get("text", ""), *(value for kind, value in output.get("data", {}).items()
                                       if kind.startswith("text/"))]
    text = "\n".join("".join(part) for part in parts)
    return re.sub(r"base64,[A-Za-z0-9+/=\s]+", "base64,", text)


def test_notebook_is_valid(notebook):
    nbformat.validate(nbformat.from_dict(notebook))


def test_no_error_is_stored(notebook):
    for cell, output in outputs(notebook):
        assert output["output_type"] != "error", "".join(cell["source"])
        assert "Traceback (most recent call last)" not in text_of(output)


def test_the_notebook_was_run_top_to_bottom(notebook):
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]
    counts = [cell["execution_count"] for cell in cells]
    assert counts == list(range(1, len(cells) + 1))


def test_outputs_are_committed(notebook):
    kinds = [kind for _, output in outputs(notebook) for kind in output.get("data", {})]
    assert any(kind in ("image/png", "image/svg+xml", "image/jpeg") for kind in kinds)


def test_no_widget_state_is_stored(notebook):
    assert "widgets" not in notebook["metadata"]
    assert "widget-state" not in json.dumps(notebook["metadata"])


def test_beside_every_widget_stands_a_static_picture(notebook):
    for cell in notebook["cells"]:
        kinds = [kind for output in cell.get("outputs", []) for kind in output.get("data", {})]
        if any("widget-view" in kind for kind in kinds):
            later = notebook["cells"][notebook["cells"].index(cell):][:2]
            shown = [k for c in later for output in c.get("outputs", []) for k in output.get("data", {})]
            assert any(kind.startswith("image/") for kind in shown), "".join(cell["source"])


def test_no_path_of_one_machine(notebook):
    for cell in notebook["cells"]:
        for text in ("".join(cell["source"]), *(text_of(output) for output in cell.get("outputs", []))):
            if cell["cell_type"] == "markdown":
                text = re.sub(r"https?://\S+", "", text)
            found = MACHINE_PATH.search(text)
            assert not found, f"{found.group()!r} in: {text[max(0, found.start() - 80):found.end() + 80]}"


@pytest.mark.parametrize(("text", "hit"), [
    ("/work/main/data", True), ("see /home/me", True), ("File /tmp/ipykernel_3/12.py", True), ("E:\\\\data", True),
    ("C:\\Users", True), ("'/content/drive/MyDrive'", True), ("data/MNIST/raw", False), ("models/tmp/x", False),
    ("$T:\\, x$", False), ("https://a.b/c", False), ("a/b", False)])
def test_the_search_for_paths_finds_them(text, hit):
    assert bool(MACHINE_PATH.search(text)) is hit


def test_no_cell_is_long(notebook):
    long = {i: len(source.splitlines()) for i, source in code_cells(notebook) if len(source.splitlines()) > 40}
    assert not long, f"code cells with more than 40 lines, by number: {long}"


def test_the_file_is_small_enough():
    for name in (MAIN, COMPANION):
        assert (ROOT / name).stat().st_size < 10_000_000


def test_cells_export_definitions_and_nothing_else():
    cells = exported_cells()
    assert len(cells) > 5
    for i, source in cells:
        for node in ast.parse(source).body:
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            assert isinstance(node, DEFINITIONS) or docstring, f"code cell {i}, line {node.lineno}: {ast.unparse(node)}"


def test_every_mark_is_where_it_is_seen():
    """'#| export' with a space before it, or lower down, would be a comment that does nothing."""
    for name in (MAIN, COMPANION):
        for i, source in code_cells(json.loads((ROOT / name).read_text(encoding="utf-8"))):
            assert not re.search(r"(?m)^\s*#\s*\|\s*export", source.removeprefix("#| export\n")), f"{name}, cell {i}"


def test_nothing_is_defined_twice():
    names = [node.name for _, source in exported_cells() for node in ast.parse(source).body if hasattr(node, "name")]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice


def test_every_definition_says_what_it_is_for():
    for i, source in exported_cells():
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert ast.get_docstring(node), f"code cell {i}: {node.name} has no docstring"


def test_the_companion_imports_every_definition():
    cells = code_cells(json.loads((ROOT / COMPANION).read_text(encoding="utf-8")))
    assert any("load_notebook(" in source for _, source in cells)
    for i, source in cells:
        assert not re.search(r"(?m)^\s*(?:async\s+def|def|class)\s+\w+", source), f"code cell {i} defines its own"
        assert "#| export" not in source


def test_ruff_finds_nothing():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_measured_weights_are_those_that_are_shipped():
    results = json.loads((ROOT / "report" / "results.json").read_text(encoding="utf-8"))
    states = {name: nb.load_model(name, "cpu").state_dict() for name in ("digits", "draft", "emoji")}
    for name, weights in (("digits", states["digits"]), ("emoji", [states["emoji"], states["draft"]])):
        shipped = nb.fingerprint(weights)[:12]
        assert {part["weights"] for part in results[name].values() if isinstance(part, dict)} == {shipped}, name
    assert {part["weights"] for part in results["editing"].values()} == {shipped}
    upscaler = nb.fingerprint(nb.load_model("upscaler", "cpu").state_dict())[:12]
    assert results["editing"]["upscale"]["upscaler"] == upscaler
    animals = nb.fingerprint(nb.load_model("animals", "cpu").state_dict())[:12]
    assert results["animals"]["shipped"]["weights"] == animals


def test_shipped_weights_are_finished_runs_of_their_recipes():
    for name, recipe in nb.RECIPES.items():
        settings = recipe["settings"]
        content = nb.load_checkpoint(nb.MODELS / f"{name}.pt")
        assert {"seed": 0, **content["settings"]} == {"seed": 0, **settings}, name
        assert all(content[key] == value for key, value in recipe["info"].items()), name
        n = nb.recipe_loss(recipe, nb.recipe_data(recipe))[1]
        epoch = settings.get("epoch_pictures", n) // settings["batch_size"]
        assert content["step"] == settings["epochs"] * epoch, name


def test_the_repository_stays_small():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no clone: what belongs to the repository is not known")
    size = sum((ROOT / name).stat().st_size for name in listed.stdout.split("\0") if name and (ROOT / name).is_file())
    assert size < 60 * 2**20


def test_the_readme_shows_the_results_that_were_measured():
    check = [sys.executable, str(ROOT / "tests" / "benchmarks" / "update_readme.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
