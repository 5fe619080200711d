"""Animals, judged: python tests/benchmarks/evaluate_animals.py [--part ...] [--photographs FOLDER]

shipped      samples of the shipped weights: class as asked (emoji judge) and copies, at several guidances
runs         short runs from the same first weights on the same batches and noise, one thing changed at a time
photographs  real photographs: trained by the command line, stopped on the way and gone on with; FOLDER is that of the
             package tuxpaint-stamps-default (Debian, GPL-2; 'apt-get download' and 'dpkg -x' suffice), in it stamps/

A copy: the nearest training picture, mirrored or not, is less than a third as far as the second nearest. Samples are
the first of seed 0, 50 steps (of the short runs 20), guidance 4. Results go to report/results.json under "animals";
half an hour on two cores.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import RESULTS, machine, nb, write_results

PHOTOGRAPHS = {  # folders of the package that make one class; photographs are PNG there, drawings SVG or in cartoon/
    "beasts of prey and apes": ("mammals/cats", "mammals/bears", "mammals/dogs", "mammals/apes", "mammals",
                                "marsupials"),
    "birds": ("birds",), "fish and whales": ("fish", "mammals/aquatic", "shellfish"),
    "hoofed animals": ("mammals/bovines", "mammals/equines", "mammals/camel", "mammals/deer"),
    "small animals": ("mammals/rodents", "insects", "amphibians", "lizards")}


def samples_of(model, count, **options):
    """The first `count` samples, the classes in turn: (pictures in [0, 1], classes)."""
    x_T = torch.randn(count, 3, model.size, model.size, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % model.classes
    parts = [nb.animals_from_noise(a, b, model=model, **options) for a, b in zip(x_T.split(100), labels.split(100),
                                                                                 strict=True)]
    return torch.cat(parts), labels


def copying(data, pictures, labels):
    ratio, nearest = nb.copy_ratio(nb.animal_distances(data, pictures))
    return {"copies": (ratio < 1 / 3).float().mean().item(), "median_ratio": ratio.median().item(),
            "nearest_of_class": (data.labels[nearest] == labels).float().mean().item(),
            "different_nearest": len(nearest.unique())}


def judged(data, names, model, count, **options):
    pictures, labels = samples_of(model, count, **options)
    right = nb.as_asked(pictures, labels, names)
    return {"top1": sum(right) / len(right), **copying(data, pictures, labels)}


def evaluate_shipped(options, data, names):
    """The shipped weights at guidance 1, 2, 4 and 8; the judge on the training pictures themselves."""
    model = nb.load_model("animals")
    real = nb.as_asked(nb.to_image_range(data.images), data.labels, names)
    rows = {f"{g:g}": judged(data, names, model, options.samples, guidance=g) for g in (1.0, 2.0, 4.0, 8.0)}
    return {**rows["4"], "guidance": rows, "samples": options.samples, "pictures": len(data),
            "steps": model.info["step"], "judge_on_real": sum(real) / len(real),
            "weights": nb.fingerprint(model.state_dict())[:12]}


def short_run(data, steps, target="x_0", loss="l2", augment=True, lr=1.0):
    """(network with averaged weights, seconds) of the animal recipe shortened to `steps`; lr: factor of its rate."""
    r = nb.RECIPES["animals"]
    info = {**r["info"], "target": target}
    torch.manual_seed(0)
    model = nb.build_model(info).to(nb.default_device(), memory_format=torch.channels_last)
    settings = {**r["settings"], "epochs": steps, "epoch_pictures": r["settings"]["batch_size"]}
    run, settings["lr"] = nb.Run(model), lr * r["settings"]["lr"]
    batch_loss = nb.diffusion_loss(data.images, data.labels, nb.Schedule(*info["schedule"]), target, loss,
                                   augment=nb.augmented if augment else None)
    begun = time.perf_counter()
    for _ in nb.training_steps(model, batch_loss, len(data), run, **settings):
        pass
    return nb.averaged(model, run), time.perf_counter() - begun


RUNS = {"L2 of x_0, as shipped": {}, "L1 of x_0": {"loss": "l1"}, "L2 of v": {"target": "v"},
        "L2 of epsilon": {"target": "eps"}, "never mirrored": {"augment": False},
        "learning rate a tenth": {"lr": 0.1}, "learning rate ten times": {"lr": 10.0}}


def evaluate_runs(options, data, names):
    """Equal steps, one thing changed at a time."""
    rows = {}
    for name, changes in RUNS.items():
        model, seconds = short_run(data, options.steps, **changes)
        rows[name] = {"steps": options.steps, "seconds": seconds, **judged(data, names, model, 100, steps=20)}
        print(name, rows[name], flush=True)
    return {"rows": rows, "samples": 100}


def photographs(stamps, folder):
    """Lay the package's photographs out as a folder of class folders; how many."""
    animals = next((p for p in (stamps, *stamps.rglob("stamps/animals")) if (p / "mammals" / "cats").is_dir()), None)
    if animals is None:
        raise SystemExit(f"no stamps/animals in {stamps}: give the folder that the package was unpacked into")
    for name, places in PHOTOGRAPHS.items():
        (folder / name).mkdir(parents=True)
        for path in (p for place in places for p in sorted((animals / place).glob("*.png"))):
            shutil.copy(path, folder / name)
    return sum(1 for _ in folder.rglob("*.png"))


def evaluate_photographs(options, data, names):
    """The all-in-one file, in an empty folder, from the shell: stopped after twenty seconds, then run to its end."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        there = photographs(options.photographs, scratch / "photographs")
        (scratch / "all_code.py").write_text(nb.all_code(), encoding="utf-8")
        words = [sys.executable, "all_code.py", "--data", "photographs", "--steps", str(options.steps * 5)]
        begun = time.perf_counter()
        first = subprocess.Popen(words, cwd=scratch, start_new_session=True)
        state = scratch / "my_run" / "training" / "animals.pt"
        while not state.is_file():  # killed only after its first checkpoint
            time.sleep(1)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        stopped = nb.load_checkpoint(state)["step"]
        subprocess.run(words, cwd=scratch, check=True)
        seconds = time.perf_counter() - begun
        model, own = nb.load_model(scratch / "my_run" / "animals.pt"), nb.AnimalPictures(scratch / "photographs")
        if options.keep:
            shutil.copy(scratch / "my_run" / "samples.png", options.keep)
    pictures, labels = samples_of(model, 100)
    return {"there": there, "pictures": len(own), "skipped": len(own.skipped), "steps": model.info["step"],
            "stopped_at": stopped, "seconds": seconds, "samples": 100, **copying(own, pictures, labels)}


PARTS = {"shipped": evaluate_shipped, "runs": evaluate_runs, "photographs": evaluate_photographs}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--steps", type=int, default=800, help="of each short run")
    parser.add_argument("--photographs", type=Path, help="where tuxpaint-stamps-default was unpacked")
    parser.add_argument("--keep", type=Path, help="a PNG to keep the samples of the photographs in")
    options = parser.parse_args()
    data, names = nb.AnimalPictures(), nb.EmojiData().names
    for part in options.part:
        if part == "photographs" and not options.photographs:
            print("photographs: left out, as no folder was given")
            continue
        begun = time.perf_counter()
        figures = {**PARTS[part](options, data, names), "machine": machine()}
        print(part, json.dumps(figures), f"{time.perf_counter() - begun:.0f} s", flush=True)
        results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        write_results("animals", {**results.get("animals", {}), part: figures})


if __name__ == "__main__":
    main()
