"""What a reader counts in the notebook: cells, lines, names, look-ups. python tests/count_notebook.py [notebook]

Code lines are those neither blank nor comments. A name reaches what it mentions, and what that mentions in turn,
among the exported names. Statements that assign several names at once are counted as in "a, b = 1, 2".
"""

import ast
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "report"))

from hand_in import names_in  # noqa: E402

REGISTERED = {"UNet", "Reader"}  # what the dictionary NETWORKS leads the painter to


def read_cells(path):
    """[(kind, source)] of the notebook at `path`."""
    return [(c["cell_type"], "".join(c["source"])) for c in json.loads(Path(path).read_text(encoding="utf-8"))["cells"]]


def code_lines(sources):
    return sum(1 for source in sources for line in source.splitlines() if line.strip() and line.strip()[0] != "#")


def definitions(sources):
    """{exported function or class: (its node, number of its section)}; sources: [(source, section)]."""
    return {node.name: (node, section) for source, section in sources for node in ast.parse(source).body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def attached(sources):
    """Functions attached to classes, as in Denoiser.loss = denoising_loss: {"loss": "denoising_loss"}; a forward is
    called by its class's name, so it stands under that."""
    methods = {}
    for source, _ in sources:
        for node in ast.parse(source).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
                where = node.targets[0]
                methods[where.value.id if where.attr == "forward" else where.attr] = node.value.id
    return methods


def mentions(node, methods):
    """Names that a definition mentions, and what its attributes stand for among `methods`, as of `attached`."""
    return (names_in(node)
            | {methods[n.attr] for n in ast.walk(node) if isinstance(n, ast.Attribute) and n.attr in methods}
            | {methods.get(node.name, node.name)})


def reached(name, known, methods, registered=frozenset()):
    """All exported names that `name` needs, itself included; registered: what NETWORKS leads it to."""
    todo, seen = [name], set()
    while todo:
        if (this := todo.pop()) not in seen:
            seen.add(this)
            named = mentions(known[this][0], methods)
            todo += [other for other in named | (registered if "NETWORKS" in named else set()) if other in known]
    return seen


def count(path=ROOT / "diffusion_assignment.ipynb"):
    """The table of DESIGN.md, as a dict, and "backwards": definitions that use a name of a later section."""
    section, code, prose = 0, [], []
    for kind, source in read_cells(path):
        if kind == "markdown" and (found := re.match(r"## (\d+) ", source)):
            section = int(found[1])
        (code if kind == "code" else prose).append((source, section))
    exported = [(s, n) for s, n in code if s.startswith("#| export")]
    known = definitions(exported)
    methods = attached(exported)
    several = sum(isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple)
                  and isinstance(node.value, ast.Tuple) for s, _ in code for node in ast.walk(ast.parse(s)))
    backwards = [f"{name} ({n}) uses {other} ({known[other][1]})" for name, (node, n) in known.items()
                 for other in sorted(names_in(node)) if other in known and known[other][1] > n]
    first = next(i for i, (s, n) in enumerate(code) if n and "load_model(" in s and not s.startswith("#| export"))
    lines = code_lines(s for s, _ in code)
    return {"cells": len(code) + len(prose), "code lines": lines,
            "lines of definitions": code_lines(s for s, _ in exported),
            "exported functions and classes": len(known),
            "text_to_image reaches": len(reached("text_to_image", known, methods, REGISTERED)),
            "train reaches": len(reached("train", known, methods)),
            "code lines before the first trained sample": code_lines(s for s, _ in code[:first]),
            "words of prose": sum(len(s.split()) for s, _ in prose),
            "several names assigned at once, per 1,000 lines": round(1000 * several / lines), "backwards": backwards}


if __name__ == "__main__":
    for name, value in count(*sys.argv[1:]).items():
        print(f"{name:50s} {value}")
