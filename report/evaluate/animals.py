"""Animals, judged; writes `animals` into report/results.json. python report/evaluate/animals.py [--part ...]

shipped   samples of the shipped weights: class as asked (emoji judge) and copies, at several guidances
runs      short runs from the same first weights on the same batches and noise, one thing changed at a time

A copy: the nearest training picture, mirrored or not, is less than a third as far as the second nearest. Sample number
i has the noise of seed i, 50 steps (of the short runs 20), guidance 4. Half an hour on two cores.
"""

import argparse
import time
from dataclasses import replace

import torch
from common import RESULTS, in_parts, machine, nb, weights_of, write_results
from judges import copy_ratio, in_batches, load_judge


def as_asked(pictures, labels):
    """Share of pictures [B, 3, 64, 64] in [0, 1] in which the emoji judge sees an animal of the class asked for.

    It was never trained on mirrored glyphs, so it looks at each picture both ways round, and the mean counts.
    """
    judge, x, of = load_judge("emoji_judge"), nb.to_model_range(pictures), nb.emoji_data().characters.index
    seen = sum(in_batches(lambda part: judge(part)[0].softmax(1), way) for way in (x, x.flip(3))).argmax(1).tolist()
    known = set(nb.emoji_data().characters)
    belongs = [{of(c) for c in characters if c in known} for characters in nb.ANIMALS.values()]
    return sum(name in belongs[label] for name, label in zip(seen, labels.tolist(), strict=True)) / len(labels)


def judged(data, model, count, **options):
    """Class as asked and copies among the first `count` samples, the classes in turn."""
    labels, real = torch.arange(count) % len(data.names), nb.to_image_range(data.images)
    x = in_parts(count, 100, lambda a, b: nb.generate_animals(labels[a:b], seed=a, model=model, **options))
    distance = torch.minimum(*(torch.cdist(x.flatten(1), y.flatten(1)) for y in (real, real.flip(3))))
    ratio, nearest = copy_ratio(distance)
    return {"top1": as_asked(x, labels), "copies": (ratio < 1 / 3).float().mean().item(),
            "median_ratio": ratio.median().item(), "different_nearest": len(nearest.unique()),
            "nearest_of_class": (data.labels[nearest] == labels).float().mean().item()}


def evaluate_shipped(options, data):
    model = nb.load_model("animals")
    rows = {f"{g:g}": judged(data, model, options.samples, guidance=g) for g in (1.0, 2.0, 4.0, 8.0)}
    return {**rows["4"], "guidance": rows, "samples": options.samples, "pictures": len(data),
            "steps": model.info["step"], "judge_on_real": as_asked(nb.to_image_range(data.images), data.labels),
            "weights": weights_of(model)}


RUNS = {"L2 of x_0, as shipped": {}, "L1 of x_0": {"distance": "l1"}, "L2 of v": {"target": "v"},
        "L2 of epsilon": {"target": "eps"}, "learning rate a tenth": {"lr": 0.1},
        "learning rate ten times": {"lr": 10.0}}


def evaluate_runs(options, data):
    """Equal steps, one thing changed at a time."""
    rows = {}
    for name, change in RUNS.items():
        recipe = nb.animal_recipe(data, options.steps, distance=change.get("distance", "l2"))
        recipe = replace(recipe, info={**recipe.info, "target": change.get("target", "x_0")},
                         lr=recipe.lr * change.get("lr", 1.0))
        run, begun = nb.Run(recipe), time.perf_counter()
        for _ in nb.training_steps(run):
            pass
        rows[name] = {"steps": run.step, "seconds": time.perf_counter() - begun,
                      **judged(data, run.averaged(), 100, steps=20)}
        print(name, rows[name], flush=True)
    return {"rows": rows, "samples": 100}


PARTS = {"shipped": evaluate_shipped, "runs": evaluate_runs}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--steps", type=int, default=800, help="of each short run")
    parser.add_argument("--results", default=RESULTS, help="the file to write")
    options = parser.parse_args()
    for part in options.part:
        figures = PARTS[part](options, nb.AnimalPictures())
        print(part, figures, flush=True)
        write_results("animals", part, {**figures, "machine": machine()}, options.results)
