"""Training throughput and quality per minute beside two peers, on the same data, machine and minutes.

    pip install -r tests/benchmarks/requirements.txt      (in an environment that has requirements.txt already)
    python tests/benchmarks/peers.py                      -> "peers" in report/results.json
    python tests/benchmarks/peers.py --lr 1e-3            -> "peers_same_lr": one learning rate for all three

Run it on a machine that does nothing else. Training takes three times --minutes, sampling some minutes more.

The contestants, all unconditional, on MNIST at 28 x 28 pixels:
- ours: `UNet` as in RECIPES["digits"] without its classes; sampled with DPM-Solver++ 2M.
- denoising-diffusion-pytorch: `Unet` + `GaussianDiffusion` at their defaults (v, sigmoid schedule). The README's
  network (dim=64, dim_mults=(1, 2, 4, 8), for 128 pixels) is cut to dim=32, dim_mults=(1, 2, 4), or it would hardly
  move in these minutes. Learning rate 1e-4, its Trainer's default; Adam's betas (0.9, 0.99), also the Trainer's.
  Sampled with its own DDIM.
- diffusers: `UNet2DModel` + `DDPMScheduler` exactly as in unit 2 of the Hugging Face diffusion course, which trains
  it on MNIST: 32, 64, 64 channels, cosine schedule, noise prediction, learning rate 1e-3, batches of 128. Sampled
  with its DDIM and with its DPM-Solver++; the one with the smaller Fréchet distance counts, both are written down.

Equal: pictures and their order, batch size, seconds of training (slices in turn, so that a machine that drifts hits
all alike), the loop (`training_steps`: Adam, gradients clipped at norm 1), the averaging of weights (the project's
EMA, though only the first peer's trainer has one of its own), the number of samples and of network evaluations a
sample (counted, not believed), the judge of quality. The first steps, in which torch prepares itself, are not counted.

Not equal, because each is taken as it is documented: network, schedule, target, learning rate and its course (ours
rises and falls as a cosine, theirs are constant). With `--lr` all three get that rate as the peak of our cosine.
Ours keeps its weights in channels-last order, as the project trains; each peer gets the order in which a probe of three
steps finds it faster, unless `--peer-format` says which. Our recipe was tuned on this very data and judge; the peers'
were not, and their networks are larger and made for longer training, so a few minutes suit them less than ours.

Quality is the Fréchet distance between features of the samples and of the 60,000 training digits, in the project's
judge. It grows as samples get fewer, for all alike: "floor" is what the same number of real test digits reaches.
Ratios are ours / peer: above 1 is better for pictures and evaluations a second, below 1 for seconds and distance.
"""

import argparse
import copy
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median

os.environ.setdefault("TQDM_DISABLE", "1")  # the peers draw a progress bar for every batch of samples

import torch  # noqa: E402  (tqdm reads the variable when it is imported)

ROOT = Path(__file__).resolve().parents[2]
BATCH, SAMPLE_BATCH, STEPS, T = 128, 100, 20, 1000
SAME_BETAS = (0.9, 0.999)  # torch's default, and ours


@dataclass
class Contestant:
    """One model and what is measured of it.

    make: () -> the trained module, freshly initialised; loss: (model, index [B], generator) -> scalar loss.
    network: module -> the part that is evaluated once a sampling step.
    samplers: name -> function (model, count, seed) -> pictures [count, 1, 28, 28] about in [-1, 1].
    copied: (model, run) -> a copy in eval mode with the averaged weights.
    orders: may its weights be in channels-last order; channels_last: are they; probed: pictures/s in each order tried.
    seconds: training time so far.
    """

    name: str
    make: Callable
    loss: Callable
    network: Callable
    samplers: dict
    copied: Callable
    lr: float
    decay: str = "constant"
    warmup: int = 0
    betas: tuple = SAME_BETAS
    orders: tuple = (False, True)
    channels_last: bool = False
    probed: dict = field(default_factory=dict)
    model: torch.nn.Module = None
    run: object = None
    seconds: float = 0.0


# ----------------------------------------------------------------------------- the three
def noise(count, seed, device):
    """Standard normal noise [count, 1, 28, 28], drawn on the CPU."""
    return torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(seed)).to(device)


def device_of(model):
    return next(model.parameters()).device


def ema_copy(model, run):
    """A copy of a peer's module in eval mode, with the run's averaged weights."""
    model = copy.deepcopy(model)
    model.load_state_dict(run.ema.state)
    return model.eval()


def ours(nb, images):
    """The project's digit network and recipe, without the classes. images [N, 1, 28, 28] in [-1, 1]."""
    r = nb.RECIPES["digits"]
    info = {**r["info"], "config": {**r["info"]["config"], "classes": 0}}

    def sample(model, count, seed):
        steps = nb.time_steps(model.schedule.T, STEPS)
        return nb.sample(nb.network_eps(model), noise(count, seed, device_of(model)), model.schedule, steps)

    loss = nb.diffusion_loss(images, None, nb.Schedule(*info["schedule"]), info["target"])
    chosen = {key: r["settings"][key] for key in ("lr", "decay", "warmup")}
    return Contestant("ours", lambda: nb.build_model(info), loss, lambda model: model, {"2m": sample}, nb.averaged,
                      orders=(True,), **chosen)


def denoising_diffusion_pytorch(nb, images):
    """lucidrains' package: it wants pictures in [0, 1] and returns such."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    def make():
        network = Unet(dim=32, dim_mults=(1, 2, 4), channels=1, flash_attn=False)
        return GaussianDiffusion(network, image_size=28, timesteps=T, sampling_timesteps=STEPS)

    def loss(model, index, generator):
        x = images[index].to(device_of(model))
        t = torch.randint(0, T, (len(index),), generator=generator).to(x.device)
        return model((x + 1) / 2, times=t, noise=nb.noise_like(x, generator))

    def sample(model, count, seed):
        torch.manual_seed(seed)  # it draws from the global generator
        return model.sample(batch_size=count) * 2 - 1

    return Contestant("denoising-diffusion-pytorch", make, loss, lambda model: model.model, {"ddim": sample}, ema_copy,
                      lr=1e-4, betas=(0.9, 0.99))


def diffusers(nb, images):
    """Hugging Face's package, with the network and the schedule of its course's MNIST example."""
    from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel

    schedule = DDPMScheduler(num_train_timesteps=T, beta_schedule="squaredcos_cap_v2")
    solvers = {
        "ddim": DDIMScheduler.from_config(schedule.config),
        # thresholding with maximum 1 is our clipping of x_0; -5.1 is what its documentation gives for this schedule
        "dpm++ 2m": DPMSolverMultistepScheduler.from_config(schedule.config, thresholding=True, sample_max_value=1.0,
                                                            lambda_min_clipped=-5.1)}

    def make():
        return UNet2DModel(sample_size=28, in_channels=1, out_channels=1, layers_per_block=2,
                           block_out_channels=(32, 64, 64),
                           down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
                           up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"))

    def loss(model, index, generator):
        x = images[index].to(device_of(model))
        t = torch.randint(0, T, (len(index),), generator=generator).to(x.device)
        eps = nb.noise_like(x, generator)
        return nb.custom_loss(model(schedule.add_noise(x, eps, t), t).sample.float(), eps)

    def sampler(solver):
        def sample(model, count, seed):
            x = noise(count, seed, device_of(model))
            solver.set_timesteps(STEPS, device=x.device)
            for t in solver.timesteps:
                x = solver.step(model(x, t).sample, t, x).prev_sample
            return x

        return sample

    samplers = {name: sampler(solver) for name, solver in solvers.items()}
    return Contestant("diffusers", make, loss, lambda model: model, samplers, ema_copy, lr=1e-3)


# ----------------------------------------------------------------------------- training
def begin(nb, c, device):
    """Give a contestant a fresh model, the same seed for each, and a fresh run."""
    torch.manual_seed(0)
    order = torch.channels_last if c.channels_last else torch.preserve_format
    c.model = c.make().to(device, memory_format=order)
    c.run, c.seconds = nb.Run(c.model), 0.0
    for group in c.run.optimizer.param_groups:
        group["betas"] = c.betas


def train_for(nb, c, n, seconds, budget, speed):
    """Train a contestant for `seconds` more (the step under way is finished), and count the time.

    The length of a run must be known for the learning rate to reach zero at its end; here it follows from the speed
    so far (or `speed`, steps/s, at first), and is planned anew in each slice.
    """
    until = min(c.seconds + seconds, budget)
    while c.seconds < until:
        so_far = c.run.step / c.seconds if c.run.step >= 10 else speed
        total = c.run.step + max(1, math.ceil((budget - c.seconds) * so_far))
        steps = nb.training_steps(c.model, c.loss, n, c.run, epochs=1, epoch_pictures=total * BATCH, batch_size=BATCH,
                                  lr=c.lr, decay=c.decay, warmup=min(c.warmup, total // 5))
        while c.seconds < until:
            start = time.perf_counter()
            done = next(steps, None) is None
            c.seconds += time.perf_counter() - start
            if done:
                break


def probe_speed(nb, c, n, device, steps=3):
    """Steps a second on a model that is thrown away; it also pays for what torch prepares in the first step."""
    begin(nb, c, device)
    probe = nb.training_steps(c.model, c.loss, n, c.run, epochs=1, epoch_pictures=(steps + 1) * BATCH, batch_size=BATCH,
                              lr=c.lr)
    next(probe)
    start = time.perf_counter()
    for _ in probe:
        pass
    return steps / (time.perf_counter() - start)


def choose_format(nb, c, n, device):
    """Probe a contestant in the orders of weights that are open to it, keep the fastest, return its steps a second."""
    speeds = {}
    for order in c.orders:
        c.channels_last = order
        speeds[order] = probe_speed(nb, c, n, device)
    c.channels_last = max(speeds, key=speeds.get)
    names = {False: "contiguous", True: "channels_last"}
    c.probed = {names[order]: BATCH * speed for order, speed in speeds.items()}
    print(f"{c.name}: pictures/s in a probe {', '.join(f'{k} {v:.1f}' for k, v in c.probed.items())}", flush=True)
    return speeds[c.channels_last]


def train_all(nb, contestants, n, device, budget, slice_seconds):
    """Train all for `budget` seconds each, in slices in turn."""
    speeds = {c.name: choose_format(nb, c, n, device) for c in contestants}
    for c in contestants:
        begin(nb, c, device)
    while any(c.seconds < budget for c in contestants):
        for c in contestants:
            train_for(nb, c, n, slice_seconds, budget, speeds[c.name])
        state = ", ".join(f"{c.name} {c.run.step} steps in {c.seconds:.0f} s" for c in contestants)
        print(f"training: {state}", flush=True)


# ----------------------------------------------------------------------------- sampling and judging
@torch.no_grad()
def timed_samples(sample, model, network, count, seed):
    """Pictures [count, 1, 28, 28] in [-1, 1] on the CPU, the seconds they took, and the evaluations of each."""
    seen = []
    hook = network.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    start = time.perf_counter()
    x = sample(model, count, seed).clamp(-1, 1).cpu()
    seconds = time.perf_counter() - start
    hook.remove()
    return x.float(), seconds, sum(seen) / count


def sample_all(contestants, samples):
    """(contestant name, sampler name) -> list of what `timed_samples` returns, in batches of 100, in turn."""
    models = {c.name: c.copied(c.model, c.run) for c in contestants}
    parts = {(c.name, sampler): [] for c in contestants for sampler in c.samplers}
    for first in range(0, samples, SAMPLE_BATCH):
        count = min(SAMPLE_BATCH, samples - first)
        for c in contestants:
            for sampler, function in c.samplers.items():
                model = models[c.name]
                parts[c.name, sampler].append(timed_samples(function, model, c.network(model), count, 1000 + first))
        print(f"sampling: {first + count} of {samples}", flush=True)
    return parts


def features_of(nb, judge, x):
    """Features [N, 64] of pictures x [N, 1, 28, 28] in [-1, 1]."""
    device = device_of(judge)
    return nb.in_batches(lambda part: judge.features(part.to(device)).cpu(), x)


def judged(nb, judge, real, parts):
    """Fréchet distance, seconds for 100 pictures and evaluations a second of one sampler; real: features [N, 64]."""
    x = torch.cat([pictures for pictures, _, _ in parts])
    per_picture = median(seconds / len(pictures) for pictures, seconds, _ in parts)
    evaluations = parts[0][2]
    if not torch.isfinite(x).all():
        raise RuntimeError("a sampler made pictures that are not finite")
    return {"frechet_distance": nb.frechet_distance(features_of(nb, judge, x), real),
            "seconds_per_100_samples": 100 * per_picture, "evaluations_per_sample": evaluations,
            "evaluations_per_second": evaluations / per_picture}


def measure(nb, c, judge, real, parts):
    """Everything that is reported of one contestant; the sampler with the smallest distance counts."""
    by_sampler = {s: judged(nb, judge, real, parts[c.name, s]) for s in c.samplers}
    best = min(by_sampler, key=lambda s: by_sampler[s]["frechet_distance"])
    last = c.run.losses[-100:]
    return {"parameters": sum(p.numel() for p in c.network(c.model).parameters()), "learning_rate": c.lr,
            "decay": c.decay, "channels_last": c.channels_last, "probed_pictures_per_second": c.probed,
            "steps": c.run.step, "training_seconds": c.seconds,
            "pictures_per_second": c.run.step * BATCH / c.seconds, "loss_last_100_steps": sum(last) / len(last),
            "sampler": best, **by_sampler[best], "by_sampler": by_sampler}


# ----------------------------------------------------------------------------- the report
RATIOS = ("pictures_per_second", "parameters", "seconds_per_100_samples", "evaluations_per_second", "frechet_distance")


def machine(device):
    """What the figures depend on, besides the code."""
    packages = ("torch", "denoising-diffusion-pytorch", "diffusers")
    threads, load = torch.get_num_threads(), os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "python": platform.python_version(),
            "versions": {name: metadata.version(name) for name in packages}, "torch": torch.__version__,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "cores": os.cpu_count(), "threads": threads, "load_before": load}


def read_results(path):
    """The JSON object in a file, empty if there is no file. Raises ValueError for a file that holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): move it away first") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a JSON object: move it away first")
    return content


def write_result(path, key, value):
    """Set one key of a JSON file and keep the others; the file is replaced whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = read_results(path)
    part = path.with_name(f".{path.name}.part")  # same folder, so that the move below is atomic
    try:
        part.write_text(json.dumps({**content, key: value}, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def print_table(report):
    """One line a contestant, then one line of ratios a peer."""
    heads = ("parameters", "pictures/s", "steps", "s/100 samples", "evaluations/s", "Fréchet", "sampler")
    print(f"\n{'':28}" + "".join(f"{head:>15}" for head in heads))
    for name, r in report["contestants"].items():
        print(f"{name:28}{r['parameters']:15,}{r['pictures_per_second']:15.1f}{r['steps']:15,}"
              f"{r['seconds_per_100_samples']:15.2f}{r['evaluations_per_second']:15.0f}{r['frechet_distance']:15.2f}"
              f"{r['sampler']:>15}")
    for name, r in report["ratios_ours_over_peer"].items():
        print(f"{'ours / ' + name:28.28}{r['parameters']:15.2f}{r['pictures_per_second']:15.2f}{'':15}"
              f"{r['seconds_per_100_samples']:15.2f}{r['evaluations_per_second']:15.2f}{r['frechet_distance']:15.3f}")
    print(f"floor, {report['samples']} real test digits: {report['floor']:.2f}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add("--minutes", type=float, default=4.0, help="training time of each contestant (default 4)")
    add("--samples", type=int, default=1000, help="samples of each for the Fréchet distance (default 1000)")
    add("--slice", type=float, default=20.0, help="seconds that one trains before the next has its turn (default 20)")
    add("--lr", type=float, help="one peak learning rate for all, under our cosine; default: each its documented one")
    add("--peer-format", choices=("faster", "contiguous", "channels_last"), default="faster",
        help="order of the peers' weights (default: the faster)")
    add("--judge", default="digit_classifier", help="name in models/, or path, of the judge's weights")
    add("--out", help="the JSON file to write into (default report/results.json)")
    add("--key", help='the key to write (default "peers", with --lr "peers_same_lr")')
    chosen = parser.parse_args()
    for name, smallest in (("minutes", 0), ("samples", 1), ("slice", 0), ("lr", 0)):
        value = getattr(chosen, name)
        if value is not None and not (math.isfinite(value) and value > smallest):
            parser.error(f"--{name} must be finite and above {smallest}, got {value}")
    return chosen


def load_project():
    """The exported definitions of the notebook."""
    sys.path.insert(0, str(ROOT))
    import helpers

    return helpers.load_notebook("diffusion_assignment.ipynb")


def entrants(nb, images, options):
    """The three contestants, set as the options say."""
    try:
        contestants = [make(nb, images) for make in (ours, denoising_diffusion_pytorch, diffusers)]
    except ImportError as error:
        raise SystemExit(f"{error}. Install the peers: pip install -r tests/benchmarks/requirements.txt") from None
    for c in contestants[1:]:
        c.orders = {"faster": (False, True), "contiguous": (False,), "channels_last": (True,)}[options.peer_format]
    if options.lr is not None:
        for c in contestants:
            c.lr, c.decay, c.warmup = options.lr, contestants[0].decay, contestants[0].warmup
    return contestants


def main():
    options, nb = arguments(), load_project()
    device = nb.default_device()
    path = Path(options.out) if options.out else nb.REPORT / "results.json"
    read_results(path)  # a file that cannot be added to is noticed now, before the minutes are spent
    judge = nb.load_model(options.judge, device)
    images, _ = nb.load_mnist()
    contestants = entrants(nb, images, options)
    report = {**machine(device), "minutes": options.minutes, "samples": options.samples, "batch_size": BATCH,
              "sampling_steps": STEPS, "slice_seconds": options.slice, "same_lr": options.lr}
    train_all(nb, contestants, len(images), device, 60 * options.minutes, options.slice)
    parts = sample_all(contestants, options.samples)
    real, (test, _) = features_of(nb, judge, images), nb.load_mnist(train=False)
    some = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[: options.samples]
    report["floor"] = nb.frechet_distance(features_of(nb, judge, test[some]), real)
    results = {c.name: measure(nb, c, judge, real, parts) for c in contestants}
    report["contestants"] = results
    report["ratios_ours_over_peer"] = {c.name: {key: results["ours"][key] / results[c.name][key] for key in RATIOS}
                                       for c in contestants[1:]}
    key = options.key or ("peers" if options.lr is None else "peers_same_lr")
    write_result(path, key, report)
    print_table(report)
    print(f'written under "{key}" into {path}')


if __name__ == "__main__":
    main()
