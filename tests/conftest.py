"""What several test files use: the notebook's definitions as `nb`, a tiny network, real digits, exact comparison."""

import io
import os
import sys
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"  # no test opens a window
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pytest  # noqa: E402
import torch  # noqa: E402

import helpers  # noqa: E402

nb = helpers.load_notebook("diffusion_assignment.ipynb")

# A class-conditioned diffusion model of digits that trains a step in about ten milliseconds.
TINY = {"net": "UNet", "schedule": ["cosine", 50], "target": "v",
        "config": {"channels": 1, "size": 28, "fold": 2, "widths": [8, 32], "attention": [1], "classes": 10,
                   "embedding": 16}}


def same_content(a, b):
    """True if two nests of dicts, lists, tensors and numbers are equal bit for bit, in type, order and value."""
    if torch.is_tensor(a) or torch.is_tensor(b):
        return torch.is_tensor(a) and torch.is_tensor(b) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same_content(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same_content(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


def stirred(module):
    """The module with every weight random, so that no part is silent because training begins with zeros there."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return module.eval().requires_grad_(False)


def exact_denoiser(schedule, points):
    """The optimal x_0 estimate (x_t, t) -> x_0 when the data are exactly these points [N, ...], all equally likely:
    their mean, weighted by how likely each is to have become x_t."""
    def x_0(x_t, t):
        signal, noise = schedule.signal_and_noise(t, x_t)
        distance = (x_t.flatten(1)[:, None] - signal * points.flatten(1)).square().sum(2)
        return torch.einsum("bn,n...->b...", torch.softmax(-distance / (2 * noise**2), 1), points)
    return x_0


class Payload:
    """What pickle reads by running code: it sets sys.owned."""

    def __reduce__(self):
        return exec, ("import sys; sys.owned = True",)


def torch_file(thing):
    """The bytes of a file of torch.save."""
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


@pytest.fixture
def tiny():
    """A tiny untrained diffusion model on the CPU, in eval mode; the same weights each time."""
    torch.manual_seed(0)
    return nb.build_model(TINY).eval()


@pytest.fixture(autouse=True)
def no_code_is_run():
    yield
    assert not vars(sys).pop("owned", False)


@pytest.fixture(scope="session")
def digits():
    """The 10,000 real test digits: images in [-1, 1], labels."""
    return nb.load_mnist(train=False)
