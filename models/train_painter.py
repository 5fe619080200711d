"""The next painter, of scenes: network, loss and recipe. python models/train_painter.py [--out FOLDER] [--minutes M]

Trains with the notebook's own loop, and goes on where it was stopped, or from models/painter.safetensors. First things
alone, each filling a picture of 32 pixels: names bind to shapes slowly, and there no pixel is spent on anything else.
Then scenes. Its definitions move into the notebook when its pictures are better than those of the painter there.
"""

import argparse
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "models")]

import scenes  # noqa: E402

from helpers import load_notebook  # noqa: E402

nb = load_notebook()


class PainterUNet(nb.UNet):
    """nb.UNet that reads words, at the levels at which it attends."""

    def __init__(self, widths=(64, 128, 256), attention=(1, 2), text_width=384, **options):
        super().__init__(widths=widths, attention=attention, text_width=text_width, **options)
        for level in set(range(len(widths))) - set(attention):
            self.down[level].read = self.up[level].read = None


nb.NETWORKS["PainterUNet"] = PainterUNet


def filling_loss(model, pictures, captions, generator, max_weight):
    """`Denoiser.loss` on pictures [B, 3, S, S] in [0, 1] with captions, half of them with a hole of some kind."""
    x_0 = nb.to_model_range(pictures).contiguous(memory_format=torch.channels_last)
    whole = torch.rand(len(x_0), 1, 1, 1, generator=generator) < 0.5
    mask = torch.where(whole, 1.0, nb.training_masks(len(x_0), generator, x_0.shape[2]))
    condition = nb.Condition(prompt=captions, mask=mask, visible=x_0 * (1 - mask))
    drop = torch.where(mask.mean((1, 2, 3)) < 1, 0.25, 0.1)
    return model.loss(x_0, condition, drop=drop, max_weight=max_weight, generator=generator)


def things_loss(model, index, generator, max_weight=5.0):
    """`filling_loss` on single things that fill a small picture; index: numbers of captions."""
    rng = np.random.default_rng(torch.randint(2**62, (1,), generator=generator).item())
    return filling_loss(model, *scenes.thing_batch(index, rng), generator, max_weight)


def painter_loss(model, index, generator, kinds=(0.5, 0.3, 0.2), max_weight=5.0):
    """`filling_loss` on scenes; index: numbers of captions; kinds: see `scenes.said`."""
    rng = np.random.default_rng(torch.randint(2**62, (1,), generator=generator).item())
    return filling_loss(model, *scenes.scene_batch(index, rng, kinds)[:2], generator, max_weight)


PAINTER = nb.Recipe("painter", {"net": "PainterUNet", "config": {"fold": 2, "inpaint": True},
                                "schedule": ["cosine", 1000, 2.0], "target": "x_0",
                                "reader": {"net": "Reader", "tokens": 2.5, "pooled": 4.0}}, painter_loss,
                    pictures=30_000, epochs=60, batch_size=64, lr=8e-4, decay="trapezoid", warmup=300, ema=0.9995)
THINGS = replace(PAINTER, name="painter_things", loss=things_loss, pictures=20_000, epochs=30,
                 info={**PAINTER.info, "config": {**PAINTER.info["config"], "size": 32}})


def grow(things, folder):
    """Write the state of a painter's run whose network begins as that of `things`, its numbers for each place drawn
    out to the larger map."""
    run = nb.Run(PAINTER)
    state = things.state_dict()
    place = run.model.net.place
    state["net.place"] = F.interpolate(state["net.place"][None], place.shape[1:], mode="bilinear")[0]
    run.model.load_state_dict(state)
    run.ema = nb.EMA(run.model, PAINTER.ema)
    (folder / "training").mkdir(parents=True, exist_ok=True)
    torch.save(run.state_dict(), folder / "training" / "painter.pt")


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=nb.MODELS, type=Path, help="folder of the state and the weights")
    parser.add_argument("--minutes", default=math.inf, type=float, help="stop after so long, resumable")
    options = parser.parse_args(words)
    folder = options.out.expanduser()
    end = time.time() + 60 * options.minutes
    warm = (nb.MODELS / "painter.safetensors").is_file()
    if not warm and not (folder / "training" / "painter.pt").is_file():
        things = nb.train(THINGS, folder, max_seconds=60 * options.minutes, save_every=300)
        if things.info["step"] < THINGS.epochs * THINGS.epoch_steps:
            return
        grow(things, folder)
    model = nb.train(PAINTER, folder, max_seconds=end - time.time(), save_every=300, warm=warm)
    nb.save_model(model, folder / "painter.safetensors", torch.int8)
    print(nb.describe(model))


if __name__ == "__main__":
    main()
