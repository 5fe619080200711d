"""The digit models' figures, by the project's own judge; writes `digits` into report/results.json.

python report/evaluate/digits.py [--samples 10000] [--sweep 500] [--part guided frechet ...]

Sample number i has the noise of seed i, none is left out. Fréchet distances are between the 64 features of the judge
for the samples and for all 60,000 training digits; the floor is that of the 10,000 test digits. Small samples raise a
Fréchet distance, so figures are compared only at equal numbers of samples.
"""

import argparse
import time

import torch
from common import RESULTS, in_parts, machine, nb, weights_of, write_results
from judges import accuracy, frechet_distance, in_batches, load_judge


def samples(model, labels, **options):
    """generate_digits for labels or prompts [N] in batches: float32 [N, 1, 28, 28] in [-1, 1]."""
    def draw(a, b):
        return nb.generate_digits(labels[a:b], seed=a, model=model, **options)

    return nb.to_model_range(in_parts(len(labels), 250, draw))


def labels_like_the_data(count):
    """`count` labels in the proportions of the training set: a draw without replacement, int64 [count]."""
    labels = nb.load_mnist()[1]
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:count]]


def quality(judge, x, labels, real):
    """Accuracy against the labels asked for, and Fréchet distance to the features `real`."""
    return {"accuracy": accuracy(judge, x, labels), "distance": frechet_distance(in_batches(judge.features, x), real)}


def evaluate_judge(judge, model, real, options):
    """How good the judge is, and the floor of the Fréchet distance at several numbers of real pictures."""
    x, labels = nb.load_mnist(train=False)
    features = in_batches(judge.features, x)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return {"test_accuracy": accuracy(judge, x, labels),
            "floor": {str(n): frechet_distance(features[order[:n]], real)
                      for n in sorted({options.sweep, options.samples, 10_000})}}


def evaluate_guided(judge, model, real, options):
    """Accuracy of guided samples, per digit, at guidance 2 and the default, 20 steps of DDPM."""
    labels, begun = torch.arange(options.samples) % 10, time.perf_counter()
    x = samples(model, labels, guidance=2.0, steps=20)
    seconds = (time.perf_counter() - begun) / len(x)
    return {"samples": len(x), "guidance": 2.0, "steps": 20, "accuracy": accuracy(judge, x, labels),
            "per_digit": [accuracy(judge, x[labels == d], labels[labels == d]) for d in range(10)],
            "seconds_per_sample": seconds}


def evaluate_words(judge, model, real, options):
    """Accuracy of guided samples in phrases of training, and in phrases kept back; all phrases alike often."""
    digits, found = torch.arange(options.samples) % 10, {}
    for name, forms in (("trained", nb.PHRASES), ("kept back", nb.KEPT_PHRASES)):
        prompts = [nb.phrase(forms[i // 10 % len(forms)], d) for i, d in enumerate(digits.tolist())]
        x = samples(model, prompts, guidance=2.0, steps=20)
        found[name] = accuracy(judge, x, digits)
        right = in_batches(judge, x).argmax(1) == digits
        which = torch.arange(len(x)) // 10 % len(forms)
        found[f"{name}, by phrase"] = {form: right[which == i].float().mean().item() for i, form in enumerate(forms)}
    return {"samples": options.samples, "guidance": 2.0, "steps": 20, **found}


def evaluate_frechet(judge, model, real, options):
    """Fréchet distance at guidance 1, labels in the data's proportions: 20 steps of DDPM, the default, and others."""
    labels, rows = labels_like_the_data(options.samples), []
    for method, steps in (("ddpm", 20), ("ddim", 20), ("2m", 20), ("2m", 50), ("ddpm", 50)):
        x = samples(model, labels, guidance=1, steps=steps, method=method)
        rows.append({"method": method, "steps": steps, **quality(judge, x, labels, real)})
    return {"samples": options.samples, **rows[0], "rows": rows}


def evaluate_guidance(judge, model, real, options):
    """Accuracy and Fréchet distance over guidance, 20 steps of DDPM; accuracy means "read as asked", also at 0."""
    labels = labels_like_the_data(options.sweep)
    return {"samples": options.sweep, "rows": [
        {"guidance": g, **quality(judge, samples(model, labels, guidance=g, steps=20), labels, real)}
        for g in (0, 0.5, 1, 1.5, 2, 3, 5, 10)]}


def evaluate_steps(judge, model, real, options):
    """Fréchet distance and seconds a sample over methods and steps, guidance 1, same labels and first noise for all."""
    labels, rows = labels_like_the_data(options.sweep), []
    for method, steps in [(method, steps) for steps in (5, 10, 20, 50) for method in ("ddpm", "ddim", "2m")]:
        begun = time.perf_counter()
        x = samples(model, labels, guidance=1, steps=steps, method=method)
        rows.append({"method": method, "steps": steps, "seconds_per_sample": (time.perf_counter() - begun) / len(x),
                     **quality(judge, x, labels, real)})
    return {"samples": options.sweep, "rows": rows}


def evaluate_course(judge, model, real, options):
    """The course's network beside ours: accuracy at guidance 1, 2 and 5, and Fréchet distance at guidance 1."""
    labels, rows = labels_like_the_data(options.sweep), {}
    nets = {"digits_class": nb.load_model("digits_class"), "digits": model}
    for name, steps, method in (("digits_class", 50, "ddpm"), ("digits_class", 20, "ddpm"), ("digits", 20, "ddpm")):
        row = {"trained": nb.describe(nets[name])}
        for guidance in (1, 2, 5):
            x = samples(nets[name], labels, guidance=guidance, steps=steps, method=method)
            row[f"accuracy_guidance_{guidance}"] = accuracy(judge, x, labels)
            if guidance == 1:
                row["distance"] = frechet_distance(in_batches(judge.features, x), real)
        rows[f"{name}, {method}, {steps} steps"] = row
    return {"samples": options.sweep, "rows": rows}


def evaluate_flow(judge, model, real, options):
    """The course's networks on eps and as a flow: Fréchet distance without guidance, and accuracy at guidance 5 with
    classes."""
    labels, rows = labels_like_the_data(options.sweep), {}
    for name, method in (("digits_time", "ddpm"), ("digits_time", "ddim"), ("flow_time", "ddim"),
                         ("digits_class", "ddpm"), ("digits_class", "ddim"), ("flow_class", "ddim")):
        net = nb.load_model(name)
        for steps in (10, 50):
            row = {"trained": nb.describe(net)}
            for guidance in (1, 5) if net.net.classes else (0,):
                condition = nb.Condition(label=labels) if net.net.classes else nb.Condition()
                path = nb.walk(net, net.guided(condition, guidance), len(labels), steps=steps, method=method)
                x = nb.to_model_range(nb.finish(path))
                if guidance < 5:
                    row["distance"] = frechet_distance(in_batches(judge.features, x), real)
                else:
                    row["guided"] = accuracy(judge, x, labels)
            rows[f"{name}, {'Euler' if net.target == 'u' else method.upper()}, {steps}"] = row
    return {"samples": options.sweep, "rows": rows}


PARTS = {"judge": evaluate_judge, "guided": evaluate_guided, "words": evaluate_words, "frechet": evaluate_frechet,
         "guidance": evaluate_guidance, "course": evaluate_course, "flow": evaluate_flow, "steps": evaluate_steps}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000, help="for guided accuracy and the Fréchet distance")
    parser.add_argument("--sweep", type=int, default=500, help="for the sweeps over guidance and steps")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--model", default="digits", help="a name in models/, or a path")
    parser.add_argument("--key", default="digits", help="the key in results.json to write")
    parser.add_argument("--results", default=RESULTS, help="the file to write")
    options = parser.parse_args()
    judge, model = load_judge("digit_classifier"), nb.load_model(options.model)
    real = in_batches(judge.features, nb.load_mnist()[0])
    for part in options.part:
        begun = time.perf_counter()
        figures = PARTS[part](judge, model, real, options)
        print(part, figures, flush=True)
        write_results(options.key, part, {**figures, "weights": weights_of(model), "machine": machine(),
                                          "seconds": time.perf_counter() - begun}, options.results)
