"""Short runs of the scene painter at equal minutes, one thing changed in each: `scenes/pilots` in results.json.

python report/evaluate/pilots.py [--minutes 10] [--run "as chosen" ...]

All run one after the other, from nothing, with the same seeds. Measured with averaged weights, on fresh scenes of one
thing each: how much larger the error of the estimate is when the caption names another thing (at several t), and how
many samples the judge names as asked (guidance 2, 10 steps).
"""

import argparse
import time
from dataclasses import replace

import detector
import numpy as np
import skills
import torch
from common import RESULTS, machine, nb, read_results, write_results

from models import scenes

BASE = nb.PAINTER
LEVELS = (990, 800, 600, 400)


def changed(batch_size=BASE.batch_size, reader=None, lr=BASE.lr, muon=BASE.muon, **config):
    """The painter's recipe for a pilot, with changes; **config: arguments of its network."""
    reader = {**BASE.info["reader"], **(reader or {})}
    info = {**BASE.info, "config": {**BASE.info["config"], **config}, "reader": reader}
    return replace(BASE, info=info, batch_size=batch_size, lr=lr, muon=muon, warmup=100, ema=0.99)


RUNS = {
    "as chosen": changed(),
    "Adam in the place of Muon": changed(muon=False),
    "text as the encoder gives it, unscaled": changed(reader={"tokens": 1.0, "pooled": 1.0}),
    "text scaled twice as much": changed(reader={"tokens": 5.0, "pooled": 8.0}),
    "batches of 32": changed(batch_size=32),
    "blocks of 4 x 4 pixels, one level less": changed(fold=4, widths=(64, 128, 256), attention=(1, 2)),
    "half the learning rate": changed(lr=BASE.lr / 2)}


def fresh_scenes(count, seed=99):
    """Real scenes of one thing: pictures in [-1, 1], their captions, and the same captions with another thing."""
    data = scenes.drawings()
    pictures, own, other = [], [], []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        told = scenes.Scene((int(rng.choice(data.train)),), colour=int(rng.integers(11)))
        told = replace(told, styles=scenes.some_styles(told, rng)[:1], sizes=("large",))
        swapped = replace(told, things=(int(rng.choice([t for t in data.train if t != told.things[0]])),))
        pictures.append(scenes.paint(scenes.complete(told, rng)))
        own.append(scenes.caption(told, np.random.default_rng(i), plain=True))
        other.append(scenes.caption(swapped, np.random.default_rng(i), plain=True))
    return nb.to_model_range(torch.stack(pictures)), own, other


@torch.no_grad()
def measure(model, judge, count=192):
    """{"error", "margin"}: by t, the squared error with the own caption, and how much larger it is with another's;
    "named": share of `count` samples that the judge names as asked."""
    device = next(model.parameters()).device
    x_0, own, other = fresh_scenes(count)
    noise, errors = nb.Noise(1, count)(x_0.shape[1:]), {}
    for t in LEVELS:
        x_t = model.schedule.q_sample(x_0, t, noise)
        errors[t] = [(model(x_t.to(device), t, nb.Condition(prompt=words)).cpu() - x_0).square().mean().item()
                     for words in (own, other)]
    told = [scenes.Scene((int(t),)) for t in np.random.default_rng(3).choice(scenes.drawings().train, count)]
    words = [scenes.noun(scenes.drawings().names[scene.things[0]]) for scene in told]
    pictures = nb.text_to_image(words, guidance=2, steps=10, model=model)
    named = [skills.shown(*pair)["things"] for pair in zip(told, detector.detect(judge, pictures), strict=True)]
    return {"error": {t: a for t, (a, _) in errors.items()}, "margin": {t: b / a - 1 for t, (a, b) in errors.items()},
            "named": float(np.mean(named))}


def run(name, minutes, seed=0):
    """Train one of RUNS for so many minutes, and measure it."""
    training = nb.Run(RUNS[name], seed=seed)
    begun = time.time()
    for _ in nb.training_steps(training):
        if time.time() - begun > 60 * minutes:
            break
    seen = training.step * RUNS[name].batch_size
    print(f"{name}: {seen:,} pictures", flush=True)
    return {"pictures": seen, "minutes": minutes, "weights": nb.count_parameters(training.model.net),
            **measure(training.averaged(), detector.load_judge("scene_judge"))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--run", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--out", default=RESULTS)
    options = parser.parse_args()
    for name in options.run:
        found = run(name, options.minutes)
        print(found, flush=True)
        rows = read_results(options.out).get("scenes", {}).get("pilots", {}).get("runs", {})
        write_results("scenes", "pilots", {"runs": {**rows, name: {**found, "machine": machine()}}}, options.out)


if __name__ == "__main__":
    main()
