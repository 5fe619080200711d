"""Train a class-conditioned DDPM on a folder of animal pictures, from the command line, and draw samples.

python report/train_animals.py --data my_animals --output my_run

Stopped by Ctrl-C or a power cut, the same command goes on where it was.
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers import load_notebook, plot_losses, show_images  # noqa: E402

nb = load_notebook()


def whole(least):
    """A reader of whole numbers from `least`, for argparse."""
    def read(text):
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"a whole number from {least}, not {text!r}")
        return int(text)
    return read


def classes_asked(words):
    """What --classes means: None for all, a number, or names."""
    return int(words[0]) if len(words) == 1 and words[0].isdigit() else words or None


def rate(text):
    if not 0 < float(text) < 1:  # float raises ValueError for what is no number, and argparse tells
        raise argparse.ArgumentTypeError(f"a number between 0 and 1, not {text!r}")
    return float(text)


def arguments(words=None):
    """The command line, as a namespace; exits with advice for wrong arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with a folder of pictures for each class")
    parser.add_argument("--drawn", action="store_true", help="train on the drawn animals that come with this")
    parser.add_argument("--classes", nargs="+", default=[], help="how many class folders, or their names (default all)")
    parser.add_argument("--per-class", type=whole(1), default=20, help="pictures of each class (default 20)")
    parser.add_argument("--size", type=whole(16), default=64, help="sides in pixels, a multiple of 16 (default 64)")
    parser.add_argument("--steps", type=whole(1), default=6000, help="training steps (default 6000)")
    parser.add_argument("--lr", type=rate, default=1e-3, help="learning rate (default 0.001)")
    parser.add_argument("--batch", type=whole(1), default=16, help="batch size (default 16)")
    parser.add_argument("--loss", choices=("l1", "l2"), default="l2", help="of the error: l1 or l2 (default l2)")
    parser.add_argument("--output", default="my_run", help="folder for weights and samples (default my_run)")
    parser.add_argument("--fresh", action="store_true", help="start again instead of resuming")
    parser.add_argument("--device", help="cpu, cuda or mps (default: the fastest there is)")
    options = parser.parse_args(words)
    if bool(options.data) == options.drawn:
        parser.error("say what to train on: --data FOLDER, or --drawn for the drawn animals")
    return options


def report_pictures(folder, data, model):
    """Write samples.png (four of each class), forward.png (a picture of each, noised more and more) and loss.png."""
    samples = nb.generate_animals(torch.arange(4 * len(data.names)) // 4, model=model)
    show_images(samples, 4, row_labels=data.names, path=folder / "samples.png")
    first = data.images[[data.labels.tolist().index(i) for i in range(len(data.names))]]
    noise = nb.Noise(0, len(first))(first.shape[1:])
    ts = (0, 100, 200, 400, 600, 800, 1000)
    noised = torch.stack([model.schedule.q_sample(first, t, noise) for t in ts], 1).flatten(0, 1)
    show_images(nb.to_image_range(noised), len(ts), row_labels=data.names, column_labels=[f"t = {t}" for t in ts],
                path=folder / "forward.png")
    plot_losses({"loss": model.info["losses"]}, "Animals", path=folder / "loss.png")


def main(words=None):
    """Train: writes weights and pictures into the output folder. Returns the model; exits with advice."""
    a = arguments(words)
    sys.stdout.reconfigure(errors="backslashreplace")  # a console may not know the letters of a class
    folder = Path(a.output).expanduser()
    try:
        device = torch.empty(0, device=a.device or nb.default_device()).device
        data = nb.AnimalPictures(a.data, classes_asked(a.classes), a.per_class, a.size)
    except (AssertionError, OSError, RuntimeError, ValueError) as error:  # torch asserts that it was built with CUDA
        raise SystemExit(f"error: {error}") from None
    for file, reason in data.skipped.items():
        print(f"skipped {file}: {reason}")
    for note in data.notes:
        print(note)
    print(f"{len(data)} pictures in the classes {', '.join(data.names)}; on {device}")
    recipe = nb.animal_recipe(data, a.steps, a.batch, a.lr, a.loss)
    if a.fresh:
        (folder / "training" / "animals.pt").unlink(missing_ok=True)
    try:
        model = nb.train(recipe, folder, save_every=20, device=device)
        report_pictures(folder, data, model)
    except KeyboardInterrupt:
        raise SystemExit("stopped: without --fresh the same command goes on from the last checkpoint, if any") from None
    except OSError as error:  # a full disk, a folder without permission: nothing is lost
        raise SystemExit(f"error: {error}. Mend that; without --fresh the same command goes on from the last checkpoint"
                         ) from None
    except (RuntimeError, ValueError) as error:
        raise SystemExit(f"error: {error} (--fresh starts again)") from None
    weights = str(folder / "animals.safetensors")
    print(f"in {folder}: animals.safetensors, samples.png (four of each class), loss.png, forward.png (noised)\n"
          f"to draw more, in Python: generate_animals([0], model=load_model({weights!r})), where 0 is {data.names[0]}")
    return model


if __name__ == "__main__":
    main()
