"""Small helpers of the two notebooks: importing the notebook's definitions, pictures, GIFs, progress.

Nothing in here knows about diffusion; every definition that does stands in ``diffusion_assignment.ipynb``.
Images are float tensors in [0, 1] of shape [B, C, H, W] with C = 1 or 3.
"""

import builtins
import hashlib
import io
import json
import linecache
import math
import sys
import textwrap
import types
from pathlib import Path

import matplotlib.pyplot as plt
import PIL.Image
import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent


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


# ----------------------------------------------------------------------------- pictures
def to_grid(images, columns=None, pad=1, background=0.5):
    """Lay images [B, C, H, W] in [0, 1] out as one picture [C, H', W'], row by row; nothing is rescaled.

    Values outside [0, 1] are cut off, never stretched: a stretch per image would hide a model that is wrong.
    """
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"expected images [B, C, H, W] with B >= 1, got a tensor of shape {list(images.shape)}")
    images = images.detach().float().cpu().clamp(0, 1)
    count, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = torch.full((channels, rows * (height + pad) + pad, columns * (width + pad) + pad), background)
    for i, image in enumerate(images):
        top, left = pad + i // columns * (height + pad), pad + i % columns * (width + pad)
        grid[:, top : top + height, left : left + width] = image
    return grid


def show_images(images, columns=None, title=None, *, column_labels=None, row_labels=None, ax=None, scale=0.62):
    """Show images [B, C, H, W] in [0, 1] as one grid, with an optional label above each column, left of each row.

    scale: inches a picture; ax: draw into these axes instead of a new figure. Returns the axes.
    """
    columns = columns or math.ceil(math.sqrt(len(images)))
    grid = to_grid(images, columns)
    rows = math.ceil(len(images) / columns)
    if ax is None:
        _, ax = plt.subplots(figsize=(max(columns * scale, 2.5) + 0.6, rows * scale + 0.5))
    ax.imshow(grid.permute(1, 2, 0).numpy() if len(grid) == 3 else grid[0].numpy(), cmap="gray", vmin=0, vmax=1)
    step_y, step_x = grid.shape[1] / rows, grid.shape[2] / columns
    ax.set_xticks([(j + 0.5) * step_x for j in range(columns)] if column_labels else [], column_labels or [])
    ax.set_yticks([(i + 0.5) * step_y for i in range(rows)] if row_labels else [], row_labels or [])
    ax.xaxis.tick_top()
    ax.tick_params(length=0, labelsize=8)
    ax.set_frame_on(False)
    if title:
        ax.set_title(title, fontsize=10)
    return ax


def show_captioned(images, captions, columns=8, title=None, scale=1.15, width=17):
    """Show images [B, C, H, W] in [0, 1] in a grid, each with its caption above it, wrapped after `width` letters."""
    rows = math.ceil(len(images) / columns)
    fig, axes = plt.subplots(rows, columns, figsize=(columns * scale, rows * (scale + 0.42)), squeeze=False,
                             layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, caption in zip(axes.flat, images.detach().float().cpu().clamp(0, 1), captions, strict=False):
        ax.imshow(image.expand(3, -1, -1).permute(1, 2, 0).numpy(), vmin=0, vmax=1)
        ax.set_title("\n".join(textwrap.wrap(caption, width)) or " ", fontsize=6.5)
    if title:
        fig.suptitle(title, fontsize=10)
    return axes


def to_picture(images, columns=None, zoom=1):
    """Images [B, C, H, W] in [0, 1] as one grid, as a PIL image; zoom: pixels a pixel."""
    grid = (to_grid(images, columns) * 255).round().byte()
    picture = PIL.Image.fromarray(grid.permute(1, 2, 0).numpy() if len(grid) == 3 else grid[0].numpy())
    return picture.resize((picture.width * zoom, picture.height * zoom), PIL.Image.Resampling.NEAREST)


def save_gif(frames, path, columns=None, seconds=3.0, hold=1.2, zoom=2, colours=16):
    """Write frames (a list of images [B, C, H, W] in [0, 1], each a grid) as a looping GIF; return its path.

    seconds: how long the whole motion takes; hold: how long the last frame stays; zoom: pixels a pixel;
    colours: of each frame, at most 256; noise in few colours makes small files.
    """
    if not frames:
        raise ValueError("a GIF needs at least one frame")
    pictures = [to_picture(frame, columns, zoom).quantize(colours, dither=PIL.Image.Dither.NONE)
                for frame in frames]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    durations = [int(1000 * seconds / len(pictures))] * (len(pictures) - 1) + [int(1000 * hold)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    return path


def png(images, columns=None, zoom=1):
    """Images [B, C, H, W] in [0, 1] as one grid, as the bytes of a PNG file; zoom: pixels a pixel."""
    buffer = io.BytesIO()
    to_picture(images, columns, zoom).save(buffer, "PNG")
    return buffer.getvalue()


def plot_losses(histories, title="Training loss", window=50, ax=None, log=True):
    """Draw loss curves: histories maps a label to a sequence with one loss a step. Bold: mean over `window` steps, or
    over a tenth of a shorter curve, drawn at the middle of them."""
    if ax is None:
        _, ax = plt.subplots(figsize=(6.5, 2.6))
    for label, losses in histories.items():
        losses = torch.as_tensor(losses, dtype=torch.float32)
        width = max(1, min(window, len(losses) // 10))
        smooth = losses.unfold(0, width, 1).mean(1)
        line = ax.plot(torch.arange(len(smooth)) + (width + 1) / 2, smooth, label=label, lw=1.6)[0]
        if len(histories) == 1:
            ax.plot(range(1, len(losses) + 1), losses, lw=0.4, alpha=0.4, color=line.get_color())
    if log:
        ax.set_yscale("log")
    ax.set(xlabel="step", ylabel="loss", title=title)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    return ax


# ----------------------------------------------------------------------------- progress
class _CellLine:
    """A text stream for tqdm that rewrites one line below the cell, so that only its last state is stored."""

    def __init__(self):
        from IPython.display import display

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


# ----------------------------------------------------------------------------- the drawing of the U-Net
def draw_unet(shapes, conditioned=(), title=""):
    """Draw a U-Net from its stage shapes {stage: (channels, height, width)}; mark the `conditioned` stages."""
    places = {"init": (0, 3), "down1": (1, 2), "down2": (2, 1), "flatten": (3, 0), "unflatten": (4, 1), "up1": (5, 2),
              "up2": (6, 3), "out": (7.2, 3)}
    labels = {"init": "ConvBlock", "down1": "DownBlock", "down2": "DownBlock", "flatten": "Flatten",
              "unflatten": "Unflatten", "up1": "UpBlock", "up2": "UpBlock", "out": "ConvBlock\nConv2d"}
    colours = {"init": "#cfe2f3", "out": "#cfe2f3", "down1": "#f4cccc", "down2": "#f4cccc", "flatten": "#fff2cc",
               "unflatten": "#fff2cc", "up1": "#d9ead3", "up2": "#d9ead3"}
    fig, ax = plt.subplots(figsize=(9.5, 3.6))
    for name, (x, y) in places.items():
        box = {"boxstyle": "round,pad=0.35", "fc": colours[name], "ec": "black"}
        text = f"{labels[name]}\n{'x'.join(map(str, shapes[name]))}"
        ax.text(x, y, text, ha="center", va="center", fontsize=8, bbox=box, zorder=3)
        if name in conditioned:
            ax.annotate("t, c", (x, y - 0.28), (x, y - 0.85), ha="center", color="tab:purple",
                        arrowprops={"arrowstyle": "->", "color": "tab:purple"})
    order = list(places.values())
    for (x1, y1), (x2, y2) in zip(order, order[1:], strict=False):
        ax.annotate("", (x2 - 0.12, y2), (x1 + 0.12, y1), arrowprops={"arrowstyle": "->", "shrinkA": 22, "shrinkB": 22})
    for down, up in (("init", "out"), ("down1", "up2"), ("down2", "up1")):
        (x1, y1), (x2, y2) = places[down], places[up]
        bend = {"arrowstyle": "->", "ls": "--", "color": "grey", "shrinkA": 24, "shrinkB": 24,
                "connectionstyle": "arc3,rad=-0.18"}
        ax.annotate("", (x2, y2), (x1, y1), arrowprops=bend)
        ax.text((x1 + x2) / 2, (y1 + y2) / 2 + 0.12 * (x2 - x1) + 0.28, "concat", ha="center", fontsize=7, color="grey")
    ax.set(xlim=(-0.7, 7.9), ylim=(-0.6, 4.2))
    ax.set_title(title, fontsize=10)
    ax.axis("off")
    return ax


def draw_text_unet(widths, first=16):
    """Draw the second U-Net: levels of the given widths at first x first places and halves of it, and what enters."""
    _, ax = plt.subplots(figsize=(10, 3.9))
    n = len(widths)
    box = {"boxstyle": "round,pad=0.35", "ec": "black"}

    def stage(x, y, text, colour):
        ax.text(x, y, text, ha="center", va="center", fontsize=7, bbox={**box, "fc": colour}, zorder=3)

    def arrow(a, b, **style):
        ax.annotate("", b, a, arrowprops={"arrowstyle": "->", "shrinkA": 26, "shrinkB": 26, **style})

    places = [(i + 1, n - i) for i in range(n)]
    back = [(2 * n + 1 - i, n - i) for i in range(n)]
    for i, width in enumerate(widths):
        side, colour = first >> i, "#f4cccc"
        look = "" if i == 0 else "\nself-attention"
        stage(*places[i], f"ResBlock{look}\ncross-attention\n{width}x{side}x{side}", colour)
        stage(*back[i], f"ResBlock{look}\ncross-attention\n{width}x{side}x{side}", "#d9ead3")
        arrow(places[i], back[i], ls="--", color="grey", shrinkA=36, shrinkB=36)
        ax.text(n + 1, n - i + 0.06, "concat", ha="center", fontsize=7, color="grey")
    stage(n + 1, 0, f"ResBlock, self-attention, cross-attention\n{widths[-1]}x{first >> (n - 1)}x{first >> (n - 1)}",
          "#fff2cc")
    stage(-1.0, n, "noisy picture (3),\nmask (1), visible (3)\nfold 4 x 4\n+ draft (3), fold 2 x 2\n"
                   "+ guess of the glance (3)\nconv + place", "#cfe2f3")
    stage(2 * n + 2.6, n, "conv, unfold:\n$\\hat x_0$, 3x64x64", "#cfe2f3")
    chain = [(-1.0, n), *places, (n + 1, 0), *back[::-1], (2 * n + 2.6, n)]
    for a, b in zip(chain, chain[1:], strict=False):
        arrow(a, b)
    ax.text(0, 0.3, "prompt -> MiniLM (frozen)\ntokens: keys and values of\nevery cross-attention\n"
                    "mean of tokens + time + glance:\nscale and shift of every ResBlock\n"
                    "mean of tokens, two layers:\nthe draft, 3x32x32", ha="center", va="center", fontsize=8,
            color="tab:purple", bbox={**box, "fc": "white", "ec": "tab:purple"})
    ax.set(xlim=(-1.9, 2 * n + 3.3), ylim=(-0.4, n + 0.5))
    ax.set_title("The second U-Net", fontsize=10)
    ax.axis("off")
    return ax


# ----------------------------------------------------------------------------- sliders
def _control(name, setting):
    """One widget of `slider_view`."""
    import ipywidgets

    common = {"description": name, "continuous_update": False}
    if isinstance(setting, str):
        return ipywidgets.Text(value=setting, **common)
    value, *limits = setting
    if len(limits) == 1:
        return ipywidgets.Dropdown(value=value, options=limits[0], description=name)
    whole, (smallest, largest) = isinstance(value, int), limits
    kind, step = (ipywidgets.IntSlider, 1) if whole else (ipywidgets.FloatSlider, (largest - smallest) / 20)
    return kind(value=value, min=smallest, max=largest, step=step, **common)


def _show(frames, canvas, note, zoom):
    """Put one frame after another into a widget; a wrong setting is told where the user looks, not in a log."""
    try:
        for frame in frames:
            canvas.value = png(frame, zoom=zoom)
        note.value = ""
    except (TypeError, ValueError) as error:
        note.value = str(error)


def slider_view(draw, controls, first, zoom=8):
    """Controls beside a picture that is drawn anew whenever one of them changes, every frame shown as it comes.

    draw: a function (**values) -> iterable of images [B, C, H, W] in [0, 1], the frames of one drawing.
    controls: name -> (value, smallest, largest) for a slider, whole numbers for whole numbers; a string for a line of
    text; (value, [choices]) for a menu. first: the image shown at first; zoom: pixels a pixel.
    Returns an ipywidgets box, to be displayed with a static picture beside it for viewers that run no code.
    """
    import ipywidgets

    panel = {name: _control(name, setting) for name, setting in controls.items()}
    canvas = ipywidgets.Image(value=png(first, zoom=zoom), format="png", width=256)
    note = ipywidgets.Label()

    def frames():  # a generator, so that what draw raises at once is caught by _show too
        yield from draw(**{name: c.value for name, c in panel.items()})

    for c in panel.values():
        c.observe(lambda change: _show(frames(), canvas, note, zoom), names="value")
    return ipywidgets.HBox([ipywidgets.VBox([*panel.values(), note]), canvas])


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
    panel = {name: _control(name, setting) for name, setting in controls.items()}
    canvas = ipywidgets.Image(value=png(fields_to_picture(fields, colours), zoom=zoom), format="png", width=256)
    note, go, buttons = ipywidgets.Label(), ipywidgets.Button(description="paint"), []

    def put(button, y, x, name):
        fields[y][x] = name
        button.style.button_color = "#{:02x}{:02x}{:02x}".format(*colours[name])

    def frames():
        yield from draw(fields_to_picture(fields, colours), **{name: c.value for name, c in panel.items()})

    for y, row in enumerate(fields):
        for x, name in enumerate(row):
            button = ipywidgets.Button(layout=ipywidgets.Layout(width="16px", height="16px", padding="0", margin="0"))
            put(button, y, x, name)
            button.on_click(lambda button, y=y, x=x: put(button, y, x, pen.value))
            buttons.append(button)
    go.on_click(lambda _: _show(frames(), canvas, note, zoom))
    columns = ipywidgets.Layout(grid_template_columns=f"repeat({len(fields[0])}, 16px)")
    grid = ipywidgets.GridBox(buttons, layout=columns)
    return ipywidgets.HBox([grid, ipywidgets.VBox([pen, *panel.values(), go, note]), canvas])
