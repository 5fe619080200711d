"""Short training runs at about equal cost, from the course's network to ours; writes `pilots` into results.json.

python tests/benchmarks/pilots.py --seconds 100

Each pilot trains from the same seed for as many steps as fit into the seconds on this machine (measured just before),
Adam 2e-3 with warm-up and cosine decay to zero, EMA 0.995. Each is then judged at 20 steps of 2M: Fréchet
distance at guidance 1 (with labels in the data's proportions) and accuracy at guidance 1 and 2.
"""

import argparse
import time

import torch
from common import digits, labels_like_the_data, machine, nb, write_results

CLASSES = {"time": True, "classes": 10}
FOLDED = {**CLASSES, "D": 48, "fold": 2}
BLOCKS = {**FOLDED, "everywhere": True, "time_features": 64}
PILOTS = {  # network, schedule, target, batch size; each adds one change to the one before
    "course's net, D 32, linear, eps": ({**CLASSES, "D": 32}, "linear", "eps", 128),
    "+ cosine schedule, v": ({**CLASSES, "D": 32}, "cosine", "v", 128),
    "+ folded, D 48": (FOLDED, "cosine", "v", 128),
    "+ every block conditioned": (BLOCKS, "cosine", "v", 128),
    "+ batches of 64": (BLOCKS, "cosine", "v", 64),
    "+ GroupNorm": ({**BLOCKS, "group_norm": True}, "cosine", "v", 64),
}


def steps_that_fit(model, loss, n, batch_size, seconds):
    """How many training steps fit into so many seconds here: measured on twenty, after two to warm up."""
    loop = nb.training_steps(model, loss, n, nb.Run(model), epochs=1, batch_size=batch_size, lr=1e-3)
    next(loop), next(loop)
    begun = time.perf_counter()
    for _ in range(20):
        next(loop)
    return int(seconds * 20 / (time.perf_counter() - begun))


def pilot(config, schedule, target, batch_size, images, labels, seconds):
    """Train one pilot; returns the network with averaged weights and its figures so far."""
    info = {"kind": "UNet", "config": config, "schedule": [schedule, 1000], "target": target}

    def fresh():
        torch.manual_seed(0)
        return nb.build_model(info).to(nb.default_device(), memory_format=torch.channels_last)

    model = fresh()
    loss = nb.diffusion_loss(images, labels, model.schedule, target)
    steps = steps_that_fit(model, loss, len(images), batch_size, seconds)
    model, begun = fresh(), time.perf_counter()
    run = nb.Run(model, 0.995)
    for _ in nb.training_steps(model, loss, len(images), run, epochs=1, epoch_pictures=batch_size * steps,
                               batch_size=batch_size, lr=2e-3, decay="cosine", warmup=min(100, steps // 10)):
        pass
    taken = time.perf_counter() - begun
    speed = batch_size * steps / taken
    return nb.averaged(model, run), {"steps": steps, "seconds": taken, "pictures_per_second": speed,
                                     "weights": nb.count_parameters(model), "losses": run.losses[::10]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=100)
    parser.add_argument("--samples", type=int, default=500)
    options = parser.parse_args()
    images, labels = nb.load_mnist()
    judge = nb.load_model("digit_classifier")
    device = next(judge.parameters()).device
    real, asked = nb.in_batches(judge.features, images.to(device)), labels_like_the_data(options.samples)
    results = {"machine": machine(), "seconds": options.seconds, "samples": options.samples, "runs": {}}
    for name, (config, schedule, target, batch_size) in PILOTS.items():
        model, figures = pilot(config, schedule, target, batch_size, images, labels, options.seconds)
        for guidance in (1, 2):
            x = digits(model, asked, guidance=guidance, steps=20)
            figures[f"accuracy_guidance_{guidance}"] = nb.accuracy(judge, x, asked)
            if guidance == 1:
                features = nb.in_batches(judge.features, x.to(device))
                figures["frechet_distance"] = nb.frechet_distance(features, real)
        results["runs"][name] = figures
        print(name, {k: round(v, 4) for k, v in figures.items() if k != "losses"}, flush=True)
        write_results("pilots", results)


if __name__ == "__main__":
    main()
