"""Two mistakes of training, made on purpose: python tests/benchmarks/training_mistakes.py [--steps 1500]

The digit recipe, shortened, from the same first weights with the same batches and noise: once as it should be, once
with a class that is never dropped. Samples of the first also from its last weights instead of the averaged ones. Writes
the first ten samples of each to report/mistakes.png and figures to report/results.json under "mistakes"; a quarter of
an hour on two cores.
"""

import argparse
import time

import torch
from common import ROOT, digit_run, digits, labels_like_the_data, machine, nb, write_results

from helpers import to_picture


def quality(model, judge, real, asked):
    """Read as asked at guidance 1 and 5; Fréchet distance at guidance 0 (of any digit) and 1."""
    samples = {g: digits(model, asked, guidance=g, steps=20) for g in (0, 1, 5)}
    device = next(judge.parameters()).device
    near = {g: nb.frechet_distance(nb.in_batches(judge.features, samples[g].to(device)), real) for g in (0, 1)}
    return {"read": {str(g): nb.accuracy(judge, samples[g], asked) for g in (1, 5)},
            "distance": {str(g): d for g, d in near.items()}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--samples", type=int, default=200)
    options = parser.parse_args()
    begun, judge, asked = time.perf_counter(), nb.shipped("digit_classifier"), labels_like_the_data(options.samples)
    real = nb.in_batches(judge.features, nb.load_mnist()[0].to(next(judge.parameters()).device))
    last, averaged, _ = digit_run(options.steps)
    networks = {"as it should be": averaged, "last weights, not averaged": last,
                "class never dropped": digit_run(options.steps, drop=0.0)[1]}
    rows, pictures = {}, []
    for name, model in networks.items():
        rows[name] = quality(model, judge, real, asked)
        pictures += [nb.generate_digits(range(10), guidance=g, steps=20, seed=0, model=model) for g in (0, 1, 5)]
        print(name, rows[name], flush=True)
    to_picture(torch.cat(pictures), 10, zoom=1).save(ROOT / "report" / "mistakes.png", optimize=True)
    write_results("mistakes", {"rows": rows, "steps": options.steps, "samples": options.samples, "guidance": [0, 1, 5],
                               "seconds": time.perf_counter() - begun, "machine": machine()})


if __name__ == "__main__":
    main()
