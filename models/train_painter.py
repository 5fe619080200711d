"""The next painter, of scenes: network, loss and recipe. python models/train_painter.py [--out FOLDER] [--minutes M]

Trains on `scenes` with the notebook's own loop, from models/painter.safetensors where it is there, and goes on where it
was stopped. Its definitions move into the notebook when its pictures are better than those of the painter there.
"""

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "models")]

import scenes  # noqa: E402

from helpers import load_notebook  # noqa: E402

nb = load_notebook()


class ReadingBlock(nn.Module):
    """A ResBlock whose scale and shift come, at every place, from the vector [B, E] and from the words that the place
    attends to: [B, C_in, H, W] -> [B, C_out, H, W]. So a word can turn channels up and down where its thing stands."""

    def __init__(self, c_in, c_out, embedding, text_width, head=32):
        super().__init__()
        self.heads = max(1, c_out // head)
        self.norm1 = nn.GroupNorm(8, c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, c_out, affine=False)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.scale_shift = nn.Linear(embedding, 2 * c_out)
        self.q = nn.Linear(c_out, c_out)
        self.kv = nn.Linear(text_width, 2 * c_out)
        self.read = nn.Linear(c_out, 2 * c_out)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x, vector, text):
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        places = h.flatten(2).transpose(1, 2)
        q = self.q(places)
        (k, v) = self.kv(text.tokens).chunk(2, 2)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        scores = (q @ k.transpose(2, 3) / math.sqrt(q.shape[3])).masked_fill(~text.keep[:, None, None], -math.inf)
        words = (scores.softmax(3).to(v.dtype) @ v).transpose(1, 2).flatten(2)
        told = self.read(words) + self.scale_shift(vector)[:, None]
        scale, shift = told.transpose(1, 2).unflatten(2, x.shape[2:]).chunk(2, 1)
        return self.skip(x) + self.conv2(F.silu((1 + scale) * h + shift))


class ReadingStage(nn.Module):
    """A ReadingBlock, then self-attention (if `look`)."""

    def __init__(self, c_in, c_out, embedding, look, text_width):
        super().__init__()
        self.block = ReadingBlock(c_in, c_out, embedding, text_width)
        self.look = nb.Attention(c_out) if look else None

    def forward(self, x, vector, text):
        x = self.block(x, vector, text)
        return x if self.look is None else self.look(x)


class PainterUNet(nb.UNet):
    """nb.UNet with a ReadingStage in the place of every Stage, and a coarse path from the sentence: two linear layers
    make a map [B, 3, 16, 16] of its vector, which joins the input at every t, also where noise has covered everything.

    reading, coarse_path: False for a network without the one or the other, to measure what each is worth.
    """

    def __init__(self, widths=(32, 64, 160, 256), attention=(2, 3), embedding=256, text_width=384, reading=True,
                 coarse_path=True, **options):
        super().__init__(widths=widths, attention=attention, embedding=embedding, text_width=text_width,
                         draft=coarse_path, **options)
        for stages, wider in ((self.down, 1), (self.up, 2)) if reading else ():
            for level, width in enumerate(widths):
                stages[level] = ReadingStage(wider * width, width, embedding, level in attention, text_width)
        if reading:
            self.middle = ReadingStage(widths[-1], widths[-1], embedding, len(widths) - 1 in attention, text_width)
        self.plan = nn.Sequential(nn.Linear(text_width, 1024), nn.SiLU(), nn.Linear(1024, 3 * 16 * 16),
                                  nn.Unflatten(1, (3, 16, 16))) if coarse_path else None

    def forward(self, x, t, condition):
        if self.plan is not None:
            side = self.size // self.fold * (self.fold // 2)
            plan = F.interpolate(self.plan(condition.text.pooled), (side, side), mode="bilinear")
            condition = replace(condition, text=condition.text._replace(draft=plan))
        return nb.unet_forward(self, x, t, condition)


nb.NETWORKS["PainterUNet"] = PainterUNet


def painter_loss(model, index, generator, kinds=(0.5, 0.3, 0.2), max_weight=2.0):
    """`Denoiser.loss` on scenes, a quarter of them with a hole smaller than the picture; index: caption numbers; kinds:
    see `scenes.said`."""
    rng = np.random.default_rng(torch.randint(2**62, (1,), generator=generator).item())
    pictures, captions, _ = scenes.scene_batch(index, rng, kinds)
    x_0 = nb.to_model_range(pictures).contiguous(memory_format=torch.channels_last)
    count = len(index)
    whole = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    mask = torch.where(whole, 1.0, nb.training_masks(count, generator))
    condition = nb.Condition(prompt=captions, mask=mask, visible=x_0 * (1 - mask))
    drop = torch.where(mask.mean((1, 2, 3)) < 1, 0.25, 0.1)
    return model.loss(x_0, condition, drop=drop, max_weight=max_weight, generator=generator)


PAINTER = nb.Recipe("painter", {"net": "PainterUNet", "config": {"fold": 2, "inpaint": True},
                                "schedule": ["cosine", 1000, 2.0], "target": "x_0",
                                "reader": {"net": "Reader", "tokens": 2.5, "pooled": 4.0}}, painter_loss,
                    pictures=50_000, epochs=60, batch_size=16, lr=1e-3, decay="trapezoid", warmup=500, ema=0.9995)


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=nb.MODELS, type=Path, help="folder of the state and the weights")
    parser.add_argument("--minutes", default=math.inf, type=float, help="stop after so long, resumable")
    options = parser.parse_args(words)
    warm = (nb.MODELS / "painter.safetensors").is_file()
    model = nb.train(PAINTER, options.out, max_seconds=60 * options.minutes, save_every=300, warm=warm)
    nb.save_model(model, options.out.expanduser() / "painter.safetensors", torch.int8)
    print(nb.describe(model))


if __name__ == "__main__":
    main()
