"""What the benchmarks share: the file of results, and the machine that a figure was measured on."""

import json
import os
import platform
import sys
from datetime import date
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from helpers import load_notebook, write_whole  # noqa: E402

nb = load_notebook()
RESULTS = ROOT / "report" / "results.json"


def read_results(path=RESULTS):
    return json.loads(Path(path).read_text(encoding="utf-8")) if Path(path).is_file() else {}


def write_results(key, part, value, path=RESULTS):
    """Put `value` under results[key][part], whole or not at all; everything else in the file stays."""
    results = read_results(path)
    results.setdefault(key, {})[part] = value
    write_whole((json.dumps(results, indent=1) + "\n").encode(), path)


def weights_of(model):
    """The first twelve letters of the SHA-256 of a model's weights."""
    return nb.fingerprint({}, model.state_dict())[:12]


def machine():
    """The machine and versions that a figure was measured with."""
    return {"torch": torch.__version__, "python": platform.python_version(), "cores": os.cpu_count(),
            "device": str(nb.default_device()), "date": date.today().isoformat()}


def in_parts(count, size, draw):
    """draw(first, last) of consecutive ranges of at most `size`, joined: picture i has the noise of seed i."""
    return torch.cat([draw(i, min(i + size, count)) for i in range(0, count, size)])
