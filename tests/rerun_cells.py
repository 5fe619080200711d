"""Every experiment cell runs again, alone, and shows the same pictures. python tests/rerun_cells.py

First all cells of the notebook run, then each experiment cell a second time in the same kernel. Then each section runs
in a kernel of its own that ran only the export cells. Pictures and tables must be the same bytes each time. So as to
take minutes, every walk of a network is cut down to two steps and live training to two steps. Prints one line for each
cell that fails, and exits with 1 if there is one.
"""

import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]
FEWER = ("import tempfile\nREPORT = Path(tempfile.mkdtemp())\n"  # GIFs of so short walks must not replace the real ones
         "_walk = walk\n"
         "def walk(*args, steps=20, **options):\n    return _walk(*args, steps=min(int(steps), 2), **options)")


def shown(cell):
    """The pictures and tables of an executed cell; progress lines and printed seconds may differ."""
    found = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        found += [data[kind] for kind in ("image/png", "text/html", "text/markdown") if kind in data]
    return found


def run(client, cell, index):
    """Run one cell; returns what it shows, or the error's last line."""
    cell.outputs = []
    try:
        client.execute_cell(cell, index)
    except CellExecutionError as error:
        return f"raises {str(error).strip().splitlines()[-1][:200]}"
    return shown(cell)


def main(path=ROOT / "diffusion_assignment.ipynb"):
    os.environ["DIFFUSION_LIVE_STEPS"] = "2"
    notebook, section, cells = nbformat.read(path, 4), 0, []
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (found := re.match(r"## (\d+) ", cell.source)):
            section = int(found[1])
        if cell.cell_type == "code":
            cells.append((section, cell.source.startswith("#| export"), cell))
    exports = [cell for _, export, cell in cells if export]
    failures, first, begun = [], {}, time.time()
    notebook.cells = [cell for *_, cell in cells]

    def check(i, result, how):
        if isinstance(result, str) or (i in first and result != first[i]):
            failures.append(f"code cell {i + 1} (section {cells[i][0]}), {how}: "
                            f"{result if isinstance(result, str) else 'shows other pictures'}")
            print(failures[-1], flush=True)

    client = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(path.parent)}})
    with client.setup_kernel():
        for i, (_, export, cell) in enumerate(cells):
            result = run(client, cell, i)
            check(i, result, "first time")
            if export and "def walk(" in cell.source:
                run(client, nbformat.v4.new_code_cell(FEWER), i)
            if not export and not isinstance(result, str):
                first[i] = result
        for i in first:
            check(i, run(client, cells[i][2], i), "a second time")
    print(f"all cells, twice: {time.time() - begun:.0f} s", flush=True)
    for number in sorted({section for section, *_ in cells}):
        client = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(path.parent)}})
        with client.setup_kernel():
            for cell in exports:
                run(client, cell, 0)
            run(client, nbformat.v4.new_code_cell(FEWER), 0)
            for i in first:
                if cells[i][0] == number:
                    check(i, run(client, cells[i][2], i), "with its section only")
    print(f"{len(first)} experiment cells, {len(failures)} failures, {time.time() - begun:.0f} s")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
