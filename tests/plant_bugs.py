"""Plant bugs in a copy of the repository, one at a time, and see which test turns red.

python tests/plant_bugs.py [name ...]

Each bug is one change of one place of the notebook's definitions, and the tests that should notice it. Ends with status
1 if a bug is not noticed. Before all of them the tests must pass on a copy without a bug, or a red one would say
nothing. Some twenty minutes on two cores.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUGS = {  # name: (what stands there, what the bug makes of it, the files of tests)
    "posterior": ("math.sqrt(ab_s) * beta / (1 - ab_t) * x_0", "math.sqrt(ab_t) * beta / (1 - ab_t) * x_0",
                  "definitions"),
    "variance of the posterior": ("return mean, beta * (1 - ab_s) / (1 - ab_t)", "return mean, beta", "definitions"),
    "t off by one": ("t = torch.randint(1, model.schedule.T + 1,", "t = torch.randint(0, model.schedule.T,",
                     "definitions training"),
    "guidance": ("return x_u + guidance * (x_c - x_u)", "return x_c + guidance * (x_c - x_u)", "definitions"),
    "averaged weights": ("self.state[name].lerp_(value, 1 - decay)", "self.state[name].lerp_(value, decay)",
                         "training"),
    "clipping": ("x_0 = x_0.clamp(-1, 1) if clip else x_0", "x_0 = x_0 if clip else x_0.clamp(-1, 1)", "definitions"),
    "eta": ("sigma = eta * noise_s / noise_t", "sigma = noise_s / noise_t", "definitions"),
    "coefficient of 2M": ("(x_0 - previous[1]) / (2 * r)", "(x_0 - previous[1]) / r", "definitions"),
    "dropped class": ("torch.where(dropped, null.label, self.label)", "self.label", "training definitions"),
    "dropped words": ('["" if d else words for d, words', "[words for d, words", "training definitions painter"),
    "padding": ("scores = scores.masked_fill(~text.keep[:, None, None], -math.inf)", "scores = scores", "definitions"),
    "hole": ("((mask * error).mean(1).sum((1, 2)) / mask.sum((1, 2, 3))).mean()", "error.mean()", "definitions"),
    "known pixels": ("return torch.where(masks > 0, filled, images)", "return filled", "painter"),
    "what is visible": ("visible=x_0 * (1 - mask))", "visible=x_0 * mask)", "painter"),
    "noise of a batch": (".manual_seed(seed + i) for i", ".manual_seed(seed) for i", "generate definitions painter"),
    "last variance": ("math.sqrt(beta if variance == \"beta\" and s else own)", "math.sqrt(beta)", "definitions"),
    "weight of the loss": ("(1 / noise**2).clamp(max=max_weight)", "(1 / signal**2).clamp(max=max_weight)",
                           "training definitions"),
    "estimate from v": ('"v": signal * x_t - noise * y', '"v": signal * x_t + noise * y', "definitions"),
    "one-hot class": ("F.one_hot(label + 1, classes + 1)[:, 1:]", "F.one_hot(label + 1, classes + 1)[:, :-1]",
                      "definitions"),
    "resumed optimiser": ('self.optimizer.load_state_dict(state["optimizer"])', "pass", "training"),
    "shuffle of a resumed run": ("manual_seed((run.seed << 32) + step)", "manual_seed(run.seed << 32)", "training"),
    "learning rate": ("recipe.lr * 0.1 ** (step // recipe.epoch_steps / recipe.epochs)",
                      "recipe.lr * 0.1 ** (step / recipe.epochs)", "training"),
    "anagram": ("(a(x_t, t) + back(b(forth(x_t), t))) / 2", "(a(x_t, t) + b(forth(x_t), t)) / 2", "editing"),
    "hybrid": ("gaussian_blur(far(x_t, t) - close,", "gaussian_blur(close - far(x_t, t),", "editing"),
    "start of SDEdit": ("t = max(1, round(check_number(\"start\", start, 0, 1) * T))", "t = T",
                        "editing definitions"),
    "RePaint's noise": ("math.sqrt(alpha) * x_s + math.sqrt(1 - alpha)", "x_s + math.sqrt(1 - alpha)", "painter"),
    "signal of the schedule": ("(alpha_bar + check_number(\"shift\", shift, 0.01, 100) ** 2 * (1 - alpha_bar))",
                               "(alpha_bar + check_number(\"shift\", shift, 0.01, 100) * (1 - alpha_bar))",
                               "definitions")}


def plant(path, old, new):
    """Change one place of the notebook at `path`; ValueError unless it stands there just once."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    places = [cell for cell in notebook["cells"] if old in "".join(cell["source"])]
    if len(places) != 1 or "".join(places[0]["source"]).count(old) != 1:
        raise ValueError(f"{old!r} must stand once in the notebook: mend tests/plant_bugs.py")
    places[0]["source"] = "".join(places[0]["source"]).replace(old, new).splitlines(keepends=True)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False), encoding="utf-8")


def first_failure(folder, files):
    """The first test that fails in a copy of the repository, or None; RuntimeError if the tests could not be run."""
    tests = [f"tests/test_{name}.py" for name in files.split()]
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests], cwd=folder,
                          capture_output=True, text=True)
    found = re.search(r"(?m)^(?:FAILED|ERROR) (\S+::\S+)", done.stdout)
    if done.returncode and not found:  # such as a module that cannot be imported
        raise RuntimeError(f"the tests did not run: {done.stdout[-300:]}{done.stderr[-300:]}")
    return found and found[1]


def noticed(files, *change):
    """What `first_failure` finds in a copy of the repository with one change (what stands there, what comes there)."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", "training", "__pycache__"))
        if change:
            plant(copy / "diffusion_assignment.ipynb", *change)
        return first_failure(copy, files)


def main(names):
    chosen = {name: BUGS[name] for name in names or BUGS}
    if red := noticed(" ".join(sorted({file for *_, files in chosen.values() for file in files.split()}))):
        sys.exit(f"red without any bug: {red}")
    missed = []
    for name, (old, new, files) in chosen.items():
        found = noticed(files, old, new)
        print(f"{name:28s} {found or 'NOT NOTICED'}", flush=True)
        missed += [name] * (found is None)
    sys.exit(f"not noticed: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
