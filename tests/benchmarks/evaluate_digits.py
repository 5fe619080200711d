"""The digit models' figures, by the project's own judge; writes `digits` into report/results.json.

python tests/benchmarks/evaluate_digits.py [--samples 10000] [--part guided frechet ...]

All samples are the first seeds (batch i of 250 has seed i), none is left out. Fréchet distances are between the 64
features of the judge for the samples and for all 60,000 training digits; the floor is that of the 10,000 test digits.
Small samples raise a Fréchet distance, so figures are compared only at equal numbers of samples.
"""

import argparse
import time

import torch
from common import RESULTS, digits, json, labels_like_the_data, machine, nb, write_results


def features(judge, x):
    """The judge's features of x [N, 1, 28, 28] in [-1, 1], on its device: float32 [N, 64]."""
    return nb.in_batches(judge.features, x.to(next(judge.parameters()).device))


def quality(judge, x, labels, real):
    """Accuracy against the labels asked for, and Fréchet distance to the features `real`."""
    distance = nb.frechet_distance(features(judge, x), real)
    return {"accuracy": nb.accuracy(judge, x, labels), "distance": distance}


def evaluate_judge(judge, model, real, options):
    """How good the judge is, and the floor of the Fréchet distance at several numbers of real pictures."""
    x, labels = nb.load_mnist(train=False)
    x_features = features(judge, x)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    counts = sorted({options.sweep, options.samples, 10_000})
    return {"test_accuracy": nb.accuracy(judge, x, labels),
            "floor": {n: nb.frechet_distance(x_features[order[:n]], real) for n in counts}}


def evaluate_guided(judge, model, real, options, guidance=2.0):
    """Accuracy of guided samples, per digit, at 20 steps of 2M."""
    labels = torch.arange(options.samples) % 10
    begun = time.perf_counter()
    x = digits(model, labels, guidance=guidance, steps=20)
    seconds = time.perf_counter() - begun
    per_digit = [nb.accuracy(judge, x[labels == d], labels[labels == d]) for d in range(10)]
    return {"samples": options.samples, "guidance": guidance, "steps": 20, "accuracy": nb.accuracy(judge, x, labels),
            "per_digit": per_digit, "seconds_per_sample": seconds / options.samples}


def evaluate_frechet(judge, model, real, options):
    """Fréchet distance at guidance 1, labels in the data's proportions: 20 steps of 2M, the default, and 50 of DDPM."""
    labels, rows = labels_like_the_data(options.samples), []
    for method, steps in (("2m", 20), ("ddpm", 50)):
        x = digits(model, labels, guidance=1, steps=steps, method=method)
        rows.append({"method": method, "steps": steps, **quality(judge, x, labels, real)})
    return {"samples": options.samples, **rows[0], "rows": rows}


def evaluate_guidance(judge, model, real, options):
    """Accuracy and Fréchet distance over guidance, 20 steps of 2M; accuracy means "read as asked", also at 0."""
    labels, rows = labels_like_the_data(options.sweep), []
    for guidance in (0, 0.5, 1, 1.5, 2, 3, 5, 7.5, 10):
        x = digits(model, labels, guidance=guidance, steps=20)
        rows.append({"guidance": guidance, **quality(judge, x, labels, real)})
    return {"samples": options.sweep, "rows": rows}


def evaluate_steps(judge, model, real, options):
    """Fréchet distance and seconds a sample over methods and steps, guidance 1, same labels and first noise for all.

    A thousand steps for DDPM only: the other two solve an equation, and at a hundred steps they have solved it.
    """
    labels, rows = labels_like_the_data(options.sweep), []
    counts = [(method, steps) for steps in (5, 10, 20, 50, 100) for method in ("ddpm", "ddim", "2m")]
    for method, steps in [*counts, ("ddpm", 1000)]:
        begun = time.perf_counter()
        x = digits(model, labels, guidance=1, steps=steps, method=method)
        rows.append({"method": method, "steps": steps, "seconds_per_sample": (time.perf_counter() - begun) / len(x),
                     **quality(judge, x, labels, real)})
    named = {f"{r['method']}_{r['steps']}": r for r in rows}
    chosen = {name: named[name] for name in ("2m_20", "ddpm_1000")}
    ratio = chosen["2m_20"]["distance"] / chosen["ddpm_1000"]["distance"]
    return {"samples": options.sweep, "rows": rows, **chosen, "ratio": ratio}


def evaluate_course(judge, model, real, options):
    """The course's network beside ours: accuracy at guidance 1, 2 and 5, and Fréchet distance at guidance 1."""
    labels, rows = labels_like_the_data(options.sweep), {}
    nets = {"digits_class": nb.shipped("digits_class"), "digits": model}
    for name, steps, method in (("digits_class", 100, "ddpm"), ("digits_class", 20, "2m"), ("digits", 20, "2m")):
        figures = {}
        for guidance in (1, 2, 5):
            x = digits(nets[name], labels, guidance=guidance, steps=steps, method=method)
            figures[f"accuracy_guidance_{guidance}"] = nb.accuracy(judge, x, labels)
            if guidance == 1:
                figures["distance"] = nb.frechet_distance(features(judge, x), real)
        rows[f"{name}, {method}, {steps} steps"] = {**figures, "trained": nb.describe(nets[name])}
    return {"samples": options.sweep, "rows": rows}


PARTS = {"judge": evaluate_judge, "guided": evaluate_guided, "frechet": evaluate_frechet, "guidance": evaluate_guidance,
         "course": evaluate_course, "steps": evaluate_steps}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000, help="for guided accuracy and the Fréchet distance")
    parser.add_argument("--sweep", type=int, default=500, help="for the sweeps over guidance and steps")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--model", default="digits", help="a name in models/, or a path")
    parser.add_argument("--key", default="digits", help="the key in results.json to write")
    options = parser.parse_args()
    judge, model = nb.shipped("digit_classifier"), nb.load_model(options.model)
    real = features(judge, nb.load_mnist()[0])
    weights = nb.fingerprint(model.state_dict())[:12]
    old = json.loads(RESULTS.read_text()).get(options.key, {}) if RESULTS.is_file() else {}
    results = {k: v for k, v in old.items() if isinstance(v, dict) and v.get("weights") == weights}  # of this network
    for part in options.part:
        begun = time.perf_counter()
        figures = PARTS[part](judge, model, real, options)
        results[part] = {**figures, "weights": weights, "seconds": time.perf_counter() - begun, "machine": machine()}
        print(part, json.dumps(figures), flush=True)
        write_results(options.key, {**results, "trained": nb.describe(model)})


if __name__ == "__main__":
    main()
