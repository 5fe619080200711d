"""Small measurements that only the report needs; writes `report` into report/results.json.

python tests/benchmarks/evaluate_report.py [--part forward denoiser learning_rates losses averaging]

forward         how many bits x_T still tells of its digit, for two schedules and two T
denoiser        the one-step denoiser on noise that it was not trained on
learning_rates  short runs of the digit model from the same weights, batches and noise, at five learning rates
losses          longer runs with L2 and with L1, each judged with its last and with its averaged weights
averaging       the shipped digit run, the same two ways; needs models/training/digits.pt, which training leaves behind

Samples are the first seeds, 20 steps of 2M. One seed of training each: small differences are chance. About ten minutes
on two cores. Each part is written as it ends, so a run can be cut off and the rest asked for with --part.
"""

import argparse
import json
import time

import torch
from common import RESULTS, digit_run, digits, labels_like_the_data, machine, nb, write_results


def quality(model, judge, real, asked):
    """Read as asked at guidance 2; Fréchet distance at guidance 1 to the features `real`."""
    guided, plain = (digits(model, asked, guidance=g, steps=20) for g in (2, 1))
    features = nb.in_batches(judge.features, plain.to(next(judge.parameters()).device))
    return {"accuracy_guidance_2": nb.accuracy(judge, guided, asked),
            "distance": nb.frechet_distance(features, real)}


def forward(options):
    """KL divergence of x_T from standard normal noise, in bits a picture: mean over 500 test digits."""
    x, _ = nb.load_mnist(train=False)
    rows = [{"schedule": name, "T": T, "end": 784 * nb.kl_to_standard_normal(schedule, x[:500], T),
             "half": 784 * nb.kl_to_standard_normal(schedule, x[:500], T // 2)}
            for name in ("linear", "cosine") for T in (300, 1000) for schedule in (nb.Schedule(name, T),)]
    return {"rows": rows, "pictures": 500}


def denoiser(options):
    """Mean squared error of the shipped one-step denoiser over sigma, on a thousand test digits."""
    model, (x, _) = nb.shipped("digits_denoiser"), nb.load_mnist(train=False)
    x, generator, rows = x[:1000], torch.Generator().manual_seed(0), []
    for sigma in (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0):
        noisy = x + sigma * nb.noise_like(x, generator)
        said = nb.in_batches(model, noisy.to(next(model.parameters()).device)).cpu()
        before, after = (nb.custom_loss(y, x).item() for y in (noisy, said))
        rows.append({"sigma": sigma, "before": before, "after": after})
    return {"rows": rows, "pictures": len(x), "trained": nb.describe(model)}


def learning_rates(options, steps=60):
    """Losses of the first steps at each learning rate, constant, without warm-up."""
    rows = []
    for lr in (1e-5, 2e-4, 2e-3, 2e-2, 1e-1):
        losses = digit_run(steps, lr=lr, warmup=0)[2]
        rows.append({"lr": lr, "losses": losses, "last": sum(losses[-10:]) / 10})
        print(f"learning rate {lr:g}: {rows[-1]['last']:.3f}", flush=True)
    return {"steps": steps, "rows": rows, "batch": nb.recipe("digits")["settings"]["batch_size"]}


def losses(options, steps=150, samples=200):
    """L2 and L1 from the same first weights, same batches, same noise; last and averaged weights."""
    judge, asked, rows = nb.shipped("digit_classifier"), labels_like_the_data(samples), {}
    real = nb.in_batches(judge.features, nb.load_mnist()[0].to(next(judge.parameters()).device))
    for name in ("l2", "l1"):
        last, average, _ = digit_run(steps, name, warmup=50)
        rows[name] = {"last": quality(last, judge, real, asked), "averaged": quality(average, judge, real, asked)}
        print(name, rows[name], flush=True)
    return {"steps": steps, "samples": samples, "rows": rows}


def averaging(options, samples=500):
    """The shipped digit run's last weights and their average."""
    path = nb.MODELS / "training" / "digits.pt"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: it is left behind by training (DIFFUSION_TRAIN=1)")
    judge, asked, average = nb.shipped("digit_classifier"), labels_like_the_data(samples), nb.load_model("digits")
    real = nb.in_batches(judge.features, nb.load_mnist()[0].to(next(judge.parameters()).device))
    state = nb.load_checkpoint(path)
    if not all(torch.equal(state["ema"][k], v.cpu()) for k, v in average.state_dict().items()):
        raise ValueError(f"{path} is not the state that models/digits.pt was averaged from")
    last = nb.build_model(average.info).to(next(average.parameters()).device, memory_format=torch.channels_last)
    last.load_state_dict(state["model"])
    return {"samples": samples, "last": quality(last.eval(), judge, real, asked),
            "averaged": quality(average, judge, real, asked)}


PARTS = {part.__name__: part for part in (forward, denoiser, learning_rates, losses, averaging)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    for part in options.part:
        begun = time.perf_counter()
        figures = PARTS[part](options)
        done = {**figures, "seconds": time.perf_counter() - begun, "machine": machine()}
        write_results("report", {**json.loads(RESULTS.read_text()).get("report", {}), part: done})
        print(part, f"{done['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
