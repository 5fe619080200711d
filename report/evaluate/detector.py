"""The judge of scenes, a detector of drawn things.

Trained apart from the painter by the notebook's own loop: `python report/evaluate/detector.py` trains it from nothing
and writes models/scene_judge.safetensors.
"""

import functools
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from helpers import load_notebook  # noqa: E402
from models import scenes  # noqa: E402

nb = load_notebook()


class SceneJudge(nn.Module):
    """A detector of drawn things (after CenterNet, Zhou et al. 2019): x [B, 3, 64, 64] in [-1, 1] -> (map, colour).

    map [B, 1 + 3 + things + 4, 16, 16]: at each place, whether the middle of a thing lies there (a logit); where in the
    place, x and y from 0 to 1, and its side / 64; logits of what and of which style. colour [B, 11]: logits of the
    background.
    """

    def __init__(self, things=300, colours=11):
        super().__init__()
        self.things = things
        self.down1 = nn.Sequential(nn.PixelUnshuffle(2), nb.Conv(12, 48), nb.DownConv(48, 96), nb.Conv(96, 96))
        self.down2 = nn.Sequential(nb.DownConv(96, 160), nb.Conv(160, 160))
        self.down3 = nn.Sequential(nb.DownConv(160, 192), nb.Conv(192, 192))
        self.up2 = nn.Sequential(nn.Conv2d(352, 160, 1), nb.Conv(160, 160))
        self.up1 = nn.Sequential(nn.Conv2d(256, 128, 1), nb.Conv(128, 128))
        self.map = nn.Conv2d(128, 4 + things + 4, 1)
        self.colour = nn.Linear(128, colours)
        nn.init.constant_(self.map.bias[:1], -4.0)  # most places hold no middle

    @property
    def body(self):
        """The layers in which perceptual distances are taken."""
        return self.down1, self.down2, self.down3

    def forward(self, x):
        fine = self.down1(x)
        middle = self.down2(fine)
        h = F.interpolate(self.down3(middle), scale_factor=2.0)
        h = F.interpolate(self.up2(torch.cat([h, middle], 1)), scale_factor=2.0)
        h = self.up1(torch.cat([h, fine], 1))
        return self.map(h), self.colour(h.mean((2, 3)))


def any_scene(rng):
    """A complete Scene of any things, styles and colours, also those that are kept back from the painter."""
    data = scenes.drawings()
    kind = rng.choice(3, p=(0.4, 0.4, 0.2))
    things = tuple(rng.choice(len(data.names), 1 + (kind == 1), replace=False).tolist())
    styles = tuple(rng.integers(4, size=len(things)).tolist())
    count = int(rng.integers(2, 5)) if kind == 2 else 1
    return scenes.complete(scenes.Scene(things, count, styles, colour=int(rng.integers(11))), rng)


def scene_judge_loss(model, index, generator):
    """Focal loss of the middles, cross-entropies of thing, style and background, L1 of place and side, on scenes drawn
    anew; a third are blurred and all are noised, by a random amount, so that no last detail decides."""
    rng = np.random.default_rng(torch.randint(2**62, (1,), generator=generator).item())
    drawn = [any_scene(rng) for _ in index]
    x = torch.stack([scenes.paint(scene) for scene in drawn])
    blurred = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
    x = nb.to_model_range(torch.where(torch.rand(len(x), 1, 1, 1, generator=generator) < 0.3, blurred, x))
    x = x + 0.2 * torch.rand(len(x), 1, 1, 1, generator=generator) * torch.randn(x.shape, generator=generator)
    device = next(model.parameters()).device
    found, colour = (part.float() for part in model(x.to(device)))
    boxes = torch.tensor([[i, *box] for i, scene in enumerate(drawn) for box in scene.boxes], device=device)
    at, thing, style = boxes[:, 0], boxes[:, 1], boxes[:, 2]
    middle = (boxes[:, 3:5] + boxes[:, 5:] / 2) / 4
    column, row = middle.long().clamp(0, 15).T
    there = torch.zeros_like(found[:, 0])
    there[at, row, column] = 1
    chance = found[:, 0].sigmoid()
    wrong = torch.where(there > 0, 1 - chance, chance)  # focal loss: what is right already counts little
    focal = wrong.square() * F.binary_cross_entropy_with_logits(found[:, 0], there, reduction="none")
    here = found[at, :, row, column]
    shape = torch.cat([middle - torch.stack([column, row], 1), boxes[:, 5:] / 64], 1)
    return (focal.sum() / len(boxes) + F.cross_entropy(here[:, 4 : 4 + model.things], thing)
            + F.cross_entropy(here[:, 4 + model.things :], style) + 2 * F.l1_loss(here[:, 1:4], shape)
            + F.cross_entropy(colour, torch.tensor([scene.colour for scene in drawn], device=device)))


@torch.no_grad()
def detect(judge, x, threshold=0.3):
    """What a SceneJudge sees in pictures [B, 3, 64, 64] in [0, 1]: [(things, colour)], one for each picture.

    things: [{"thing", "style", "names": the five likeliest things, "box": (x, y, side) in pixels, "score"}], the
    surest first; a middle counts if no neighbour is surer. colour: a number of scenes.COLOURS.
    """
    device = next(judge.parameters()).device
    seen = []
    for part in x.split(250):
        found, colour = (y.float().cpu() for y in judge(nb.to_model_range(part).to(device)))
        score = found[:, 0].sigmoid()
        peaks = (score == F.max_pool2d(score, 3, 1, 1)) & (score > threshold)
        for i in range(len(part)):
            things = []
            for row, column in peaks[i].nonzero().tolist():
                here = found[i, :, row, column]
                side = 64 * here[3].item()
                (x_0, y_0) = (4 * (column + here[1].item()) - side / 2, 4 * (row + here[2].item()) - side / 2)
                names = here[4 : 4 + judge.things].topk(5).indices.tolist()
                things.append({"thing": names[0], "names": names, "style": int(here[4 + judge.things :].argmax()),
                               "box": (x_0, y_0, side), "score": score[i, row, column].item()})
            seen.append((sorted(things, key=lambda found: -found["score"]), int(colour[i].argmax())))
    return seen


@torch.no_grad()
def evidence(judge, x):
    """How plainly each thing is seen in pictures [B, 3, 64, 64] in [0, 1]: the largest product, over the places, of the
    probabilities that a middle lies there and that it is this thing, [B, things]."""
    parts = []
    for part in x.split(250):
        found = judge(nb.to_model_range(part).to(next(judge.parameters()).device))[0].float()
        things = found[:, 4 : 4 + judge.things].softmax(1)
        parts.append((found[:, :1].sigmoid() * things).amax((2, 3)).cpu())
    return torch.cat(parts)


RECIPE = nb.Recipe("scene_judge", {"net": "SceneJudge", "config": {"things": len(scenes.drawings().names)}},
                   scene_judge_loss, pictures=20_000, epochs=8, batch_size=64, lr=2e-3, decay="trapezoid", warmup=200,
                   classes=(SceneJudge,))


@functools.cache
def load_judge(name="scene_judge"):
    """The detector of models/, loaded once; errors as of nb.load_model."""
    return nb.load_model(name, classes=(SceneJudge,))


if __name__ == "__main__":
    nb.train(RECIPE)
