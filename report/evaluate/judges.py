"""The judge of digits, and what is measured with judges: accuracy, Fréchet and perceptual distance, hole PSNR.

A small classifier, trained apart from the generators by the notebook's own loop: `python report/evaluate/judges.py`
trains it from nothing and writes models/digit_classifier.safetensors.
"""

import functools
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from helpers import load_notebook  # noqa: E402

nb = load_notebook()


class DigitClassifier(nn.Module):
    """A small convolutional judge of digits: x [B, 1, 28, 28] in [-1, 1] -> logits [B, 10].

    `features(x)` are the 64 numbers before the last layer; Fréchet distances are taken there.
    """

    def __init__(self, width=16):
        super().__init__()
        w = width
        self.body = nn.Sequential(nb.Conv(1, w), nb.DownConv(w, 2 * w), nb.Conv(2 * w, 4 * w),
                                  nb.DownConv(4 * w, 4 * w), nb.Conv(4 * w, 8 * w), nn.Flatten(1),
                                  nn.Linear(8 * w * 49, 64), nn.GELU())
        self.head = nn.Linear(64, 10)

    def features(self, x):
        return self.body(x)

    def forward(self, x):
        return self.head(self.features(x))


def digit_classifier_loss(model, index, generator):
    """Cross-entropy on training digits turned by up to 11 degrees, scaled by a tenth and moved by two pixels."""
    images, labels = nb.load_mnist()
    device = next(model.parameters()).device
    r = torch.rand(4, len(index), generator=generator) * 2 - 1
    angle, zoom = 0.2 * r[0], 1 + 0.1 * r[1]
    turn = torch.stack([torch.stack([zoom * angle.cos(), -zoom * angle.sin(), 0.14 * r[2]], 1),
                        torch.stack([zoom * angle.sin(), zoom * angle.cos(), 0.14 * r[3]], 1)], 1)
    x = images[index].to(device) + 1  # background 0, which is what grid_sample pads with
    grid = F.affine_grid(turn.to(device), list(x.shape), align_corners=False)
    return F.cross_entropy(model(F.grid_sample(x, grid, align_corners=False) - 1).float(), labels[index].to(device))


RECIPE = nb.Recipe("digit_classifier", {"net": "DigitClassifier", "config": {}}, digit_classifier_loss,
                   pictures=60_000, epochs=6, batch_size=128, lr=2e-3, decay="trapezoid", warmup=200,
                   classes=(DigitClassifier,))


@functools.cache
def load_judge(name, classes=(DigitClassifier,)):
    """A judge of models/ by name, loaded once; errors as of nb.load_model."""
    return nb.load_model(name, classes=classes)


@torch.no_grad()
def in_batches(function, x, size=500):
    """function over x [N, ...] in batches of `size` on the device of the judges, the results joined, on the CPU."""
    return torch.cat([function(part.to(nb.default_device())).cpu() for part in x.split(size)])


def accuracy(judge, x, labels):
    """Share of pictures x [N, 1, 28, 28] in [-1, 1] that the judge reads as their label [N]."""
    return (in_batches(judge, x).argmax(1) == labels.cpu()).float().mean().item()


def frechet_distance(a, b):
    """Fréchet distance, squared as in FID, of Gaussians fitted to features a [N, F], b [M, F] (Heusel et al. 2017).

    |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)); the last trace is the sum of the square roots of the
    eigenvalues of S_a^(1/2) S_b S_a^(1/2), which is symmetric. Never negative, except by rounding.
    """
    a, b = a.cpu().double(), b.cpu().double()
    s_a, s_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(s_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ s_b @ root).clamp(min=0).sqrt().sum()
    return ((a.mean(0) - b.mean(0)).square().sum() + s_a.trace() + s_b.trace() - 2 * cross).item()


def nearest_neighbours(x, reference):
    """For each x [N, ...] the nearest of reference [M, ...]: (index [N], distance [N]), Euclidean over pixels."""
    distance, index = torch.cdist(x.flatten(1), reference.flatten(1)).min(1)
    return index, distance


def copy_ratio(distances):
    """Nearest over second nearest distance [B], and the index of the nearest [B]; distances [B, n]."""
    two, index = distances.topk(2, dim=1, largest=False)
    return two[:, 0] / two[:, 1], index[:, 0]


def hole_psnr(a, b, masks):
    """Peak signal-to-noise ratio in decibels, of the mean squared error over the pictures and their holes' pixels.

    a, b [B, 3, H, W] in [0, 1]; masks [B, 1, H, W]; every picture counts alike. Returns a number.
    """
    error = ((a - b).square() * masks).sum((1, 2, 3)) / (3 * masks.sum((1, 2, 3)))
    return -10 * error.mean().clamp(min=1e-10).log10().item()


def seam(a, b, masks):
    """How visible the holes' rims are: the mean step of colour across them in fills a, over that in the originals b.

    a, b [B, 3, H, W] in [0, 1]; masks [B, 1, H, W], 1 = hole. 1: as in the originals; more: edges that were not there;
    less: edges that are missing. Returns a number.
    """
    steps = [sum((x.diff(dim=d).abs() * masks.diff(dim=d).abs()).sum() for d in (2, 3)) for x in (a, b)]
    return (steps[0] / steps[1]).item()


@torch.no_grad()
def perceptual_distance(judge, a, b):
    """Distance of pictures [B, 3, H, W] in [0, 1] in a judge's features, after Zhang et al. (2018): [B].

    After each convolution block the channels at every place are scaled to length 1; squared differences, summed over
    channels, are averaged over places and then over blocks.
    """
    device, parts = next(judge.parameters()).device, []
    a, b = nb.to_model_range(a).to(device), nb.to_model_range(b).to(device)
    for layer in judge.body:
        if isinstance(layer, nn.Flatten):
            break
        a, b = layer(a), layer(b)
        parts.append((F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean((1, 2)))
    return torch.stack(parts).mean(0).cpu()


if __name__ == "__main__":
    nb.train(RECIPE)
