"""What the benchmarks share: the notebook's definitions, the judge's features, and the file of results."""

import json
import os
import platform
import sys
from datetime import date
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from helpers import load_notebook  # noqa: E402

nb = load_notebook("diffusion_assignment.ipynb")
RESULTS = ROOT / "report" / "results.json"


def write_results(key, value, path=RESULTS):
    """Put `value` under `key` in the file of results, whole or not at all; everything else in it stays."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(path.read_text()) if path.is_file() else {}
    results[key] = value
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(part, path)


def machine():
    """The machine and versions that a figure was measured with."""
    return {"torch": torch.__version__, "python": platform.python_version(), "cores": os.cpu_count(),
            "device": str(nb.default_device()), "date": date.today().isoformat()}


def labels_like_the_data(count, seed=0):
    """`count` labels in the proportions of the training set: a draw without replacement, int64 [count]."""
    labels = nb.load_mnist()[1]
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[:count]]


def digits(model, labels, size=250, **options):
    """generate_digits in batches, each with its own seed (0, 1, ...), in [-1, 1]: float32 [N, 1, 28, 28]."""
    parts = [nb.generate_digits(part, seed=i, model=model, **options) for i, part in enumerate(labels.split(size))]
    return nb.to_model_range(torch.cat(parts))


def digit_run(steps, loss="l2", drop=0.1, **changes):
    """Train the digit recipe from nothing for `steps`, the learning rate constant: (last, averaged network, losses).

    loss, drop: of `diffusion_loss`; changes: of the recipe's settings. Weights, batches and noise are those of seed 0.
    """
    r, (images, labels) = nb.recipe("digits"), nb.load_mnist()
    torch.manual_seed(0)
    model = nb.build_model(r["info"]).to(nb.default_device(), memory_format=torch.channels_last)
    run, schedule = nb.Run(model), nb.Schedule(*r["info"]["schedule"])
    batch_loss = nb.diffusion_loss(images, labels, schedule, r["info"]["target"], loss, drop)
    settings = {**r["settings"], "decay": "constant", **changes}
    for step in nb.training_steps(model, batch_loss, len(images), run, **settings):
        if step == steps:
            break
    return model.eval(), nb.averaged(model, run), run.losses
