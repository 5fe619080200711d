"""Animals, judged; writes `animals` into report/results.json. python report/evaluate/animals.py [--part ...]

shipped      samples of the shipped weights: class as asked and copies, at several guidances
runs         short runs from the same first weights on the same batches and noise, one thing changed at a time; their
             samples go to report/animal_runs.png
photographs  photographs of animals on white: `--stamps`, the folder /usr/share/tuxpaint/stamps/animals of Debian's
             package tuxpaint-stamps-default (GPL-2); samples and their nearest photographs go to report/photographs.png

The judge is a small classifier, trained here on the same drawings turned, moved, stained and noised; `judge_on_style`
is its accuracy on the drawings of a style that it was not trained on. A copy: the nearest training picture, mirrored or
not, is less than a third as far as the second nearest. Sample number i has the noise of seed i; 50 steps, of the short
runs 20; guidance 4 where nothing else is said. An hour on two cores.
"""

import argparse
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import RESULTS, ROOT, in_parts, machine, nb, weights_of, write_results
from judges import copy_ratio, in_batches
from torch import nn
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid, save_image

PHOTOGRAPHS = {  # class: folders, or pictures, of the stamps
    "birds": ["birds"], "hoofed animals": ["mammals/bovines", "mammals/deer", "mammals/equines", "mammals/camel"],
    "cats, dogs and bears": ["mammals/cats", "mammals/dogs", "mammals/bears"],
    "rodents and rabbits": ["mammals/rodents", "mammals/rabbit_little.png"],
    "fish": [f"fish/{name}.png" for name in ("bluegroper", "butterflyfish", "clownfish", "coraltrout", "dolphinfish",
                                             "lionfish", "moonwrasse", "seahorse", "stripedfish")]}
RUNS = {"baseline": {}, "L1": {"distance": "l1"}, "predicting epsilon": {"target": "eps"},
        "predicting v": {"target": "v"}, "all noise alike": {"max_weight": 1.0},
        "learning rate a tenth": {"lr": 0.1}, "learning rate ten times": {"lr": 10.0}}


def train_judge(images, labels, classes, steps=400):
    """A classifier of pictures [N, 3, S, S] in [-1, 1] on white."""
    torch.manual_seed(0)
    judge = nn.Sequential(nb.DownConv(3, 32), nb.DownConv(32, 64), nb.DownConv(64, 128), nb.DownConv(128, 128),
                          nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(512, classes)).train()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        index = torch.randint(len(images), (64,))
        angle, zoom, mirror = 0.6 * torch.rand(64) - 0.3, 0.8 + 0.45 * torch.rand(64), 1 - 2.0 * (torch.rand(64) < 0.5)
        shift = 0.3 * torch.rand(2, 64) - 0.15
        turn = torch.stack([torch.stack([mirror * zoom * angle.cos(), -zoom * angle.sin(), shift[0]], 1),
                            torch.stack([mirror * zoom * angle.sin(), zoom * angle.cos(), shift[1]], 1)], 1)
        grid = F.affine_grid(turn, [64, *images.shape[1:]], align_corners=False)
        x = F.grid_sample(images[index] - 1, grid, align_corners=False)  # white is 0, which is what it pads with
        x = x * (0.7 + 0.6 * torch.rand(64, 3, 1, 1)) + 1 + 0.2 * torch.rand(64, 1, 1, 1) * torch.randn(x.shape)
        with nb.autocast_for("cpu"):
            loss = F.cross_entropy(judge(x).float(), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return nb.place(judge.eval(), nb.default_device())


def judge_on_style(data):
    """The judge's accuracy on each quarter of the drawings, one style, when it is trained on the other three."""
    styles = torch.cat([torch.arange(n) * 4 // n for n in data.labels.bincount().tolist()])
    right = []
    for style in range(4):
        judge = train_judge(data.images[styles != style], data.labels[styles != style], len(data.names))
        right.append(in_batches(judge, data.images[styles == style]).argmax(1) == data.labels[styles == style])
    return torch.cat(right).float().mean().item()


def judged(data, model, count, judge=None, **options):
    """({figure: value}, pictures, index of the nearest of data.images) of `count` samples, the classes in turn."""
    labels = torch.arange(count) % len(data.names)
    _, first = np.unique(data.images.flatten(1).numpy(), axis=0, return_index=True)  # two of the drawings are the same
    real = nb.to_image_range(data.images[first])
    x = in_parts(count, 100, lambda a, b: nb.generate_animals(labels[a:b], seed=a, model=model, **options))
    distance = torch.minimum(*(torch.cdist(x.flatten(1), y.flatten(1)) for y in (real, real.flip(3))))
    ratio, nearest = copy_ratio(distance)
    nearest = torch.from_numpy(first)[nearest]
    found = {"copies": (ratio < 1 / 3).float().mean().item(), "median_ratio": ratio.median().item(),
             "different_nearest": len(nearest.unique()),
             "nearest_of_class": (data.labels[nearest] == labels).float().mean().item()}
    if judge is not None:
        seen = in_batches(judge, nb.to_model_range(x)).argmax(1)
        found = {"top1": (seen == labels).float().mean().item(), **found}
    return found, x, nearest


def evaluate_shipped(options):
    model, data = nb.load_model("animals"), nb.AnimalPictures()
    judge = train_judge(data.images, data.labels, len(data.names))
    rows = {f"{g:g}": judged(data, model, options.samples, judge, guidance=g)[0] for g in (1.0, 2.0, 4.0, 8.0)}
    real = in_batches(judge, data.images).argmax(1) == data.labels
    return {**rows["4"], "guidance": rows, "samples": options.samples, "pictures": len(data),
            "steps": model.info["step"], "judge_on_real": real.float().mean().item(),
            "judge_on_style": judge_on_style(data), "weights": weights_of(model)}


def evaluate_runs(options):
    """Equal steps, one thing changed at a time."""
    data, rows, pictures = nb.AnimalPictures(), {}, []
    judge = train_judge(data.images, data.labels, len(data.names))
    for name, change in RUNS.items():
        recipe = nb.animal_recipe(data, options.steps, distance=change.get("distance", "l2"))
        if "max_weight" in change:
            recipe = replace(recipe, loss=nb.animal_loss(data, max_weight=change["max_weight"]))
        info = {**recipe.info, "target": change.get("target", recipe.info["target"])}
        recipe = replace(recipe, info=info, lr=recipe.lr * change.get("lr", 1.0))
        run, begun = nb.Run(recipe), time.perf_counter()
        for _ in nb.training_steps(run):
            pass
        found, x, _ = judged(data, run.averaged(), 100, judge, steps=20)
        rows[name] = {"steps": run.step, "lr": recipe.lr, "seconds": time.perf_counter() - begun, **found}
        pictures.append(x[:10])
        print(name, rows[name], flush=True)
    picture = to_pil_image(make_grid(torch.cat(pictures), nrow=10, padding=0))
    picture.quantize(256, kmeans=5, dither=0).save(ROOT / "report" / "animal_runs.png")  # noise: half of it
    return {"rows": rows, "samples": 100}


def photographs(stamps, folder):
    """Copy the stamps into a folder of class folders."""
    for name, places in PHOTOGRAPHS.items():
        (folder / name).mkdir(parents=True)
        for place in places:
            path = stamps / place
            for picture in sorted(path.glob("*.png")) if path.is_dir() else [path]:
                shutil.copy(picture, folder / name)


def evaluate_photographs(options):
    if not options.stamps:
        raise SystemExit("--part photographs needs --stamps, see --help")
    with tempfile.TemporaryDirectory() as folder:
        photographs(Path(options.stamps).expanduser(), Path(folder))
        data = nb.AnimalPictures(folder)
    model = nb.train(nb.animal_recipe(data, options.photograph_steps), options.keep, save_every=120)
    found, x, nearest = judged(data, model, options.samples)
    pairs = torch.stack([x[:20], nb.to_image_range(data.images[nearest[:20]])], 1).unflatten(0, (2, 10)).transpose(1, 2)
    save_image(pairs.flatten(0, 2), ROOT / "report" / "photographs.png", nrow=10, padding=0)
    return {**found, "samples": options.samples, "pictures": len(data), "names": data.names,
            "steps": model.info["step"], "seconds": model.info["seconds"]}


PARTS = {"shipped": evaluate_shipped, "runs": evaluate_runs, "photographs": evaluate_photographs}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=["shipped", "runs"])
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--steps", type=int, default=400, help="of each short run")
    parser.add_argument("--stamps", help="the folder of photographs")
    parser.add_argument("--photograph-steps", type=int, default=7_000)
    parser.add_argument("--keep", default=Path(tempfile.gettempdir()) / "photographs", help="where that run is kept")
    parser.add_argument("--results", default=RESULTS, help="the file to write")
    options = parser.parse_args()
    for part in options.part:
        figures = PARTS[part](options)
        print(part, figures, flush=True)
        write_results("animals", part, {**figures, "machine": machine()}, options.results)
