"""The figures of the two reports, into report/figures/: python report/figures.py [name ...]

Pictures are written at their own resolution, one pixel a pixel, and the report sets the labels; curves are drawn by
matplotlib. `figures.json` beside them says of each what stands in its columns and rows, its seed and settings, so that
no caption needs a number typed by hand. Everything comes from the shipped weights and from report/results.json; samples
are the first of seed 0, none left out. Four minutes on one core.
"""

import functools
import io
import json
import os
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

ROOT = next(p for p in Path(__file__).resolve().parents if (p / "helpers.py").is_file())
sys.path.insert(0, str(ROOT))

from helpers import load_notebook, plot_losses, to_grid  # noqa: E402

nb = load_notebook()
FOLDER, SEED = ROOT / "report" / "figures", 0
results = json.loads((ROOT / "report" / "results.json").read_text(encoding="utf-8"))
STYLE = {"font.family": "serif", "font.size": 8, "axes.grid": True, "grid.alpha": 0.3, "lines.linewidth": 1.4,
         "lines.markersize": 3.5, "axes.spines.top": False, "legend.frameon": False, "legend.fontsize": 7}
FIGURES = {}
RARE = Image.Quantize.MAXCOVERAGE  # keeps colours that few pixels have


def figure(function):
    """Enter a function that makes one figure: it returns what `figures.json` is to say of it."""
    FIGURES[function.__name__] = function
    return function


def write(name, picture, colours=None, method=None):
    """Save a PIL image as a small PNG, in a palette of so many colours, chosen by `method`, where a number is given."""
    if colours:
        picture = picture.quantize(colours, method, dither=Image.Dither.NONE)
    FOLDER.mkdir(parents=True, exist_ok=True)
    part = FOLDER / f"{name}.part"
    picture.save(part, "PNG", optimize=True)
    os.replace(part, FOLDER / f"{name}.png")


def pictures(name, images, columns, colours=None, method=None, **about):
    """Images [B, C, H, W] in [0, 1] as a grid at their own resolution; returns what is said of it. See `write`."""
    grid = (to_grid(images, columns, background=0.75) * 255).round().byte()
    picture = Image.fromarray(grid.permute(1, 2, 0).numpy() if len(grid) == 3 else grid[0].numpy())
    write(name, picture, colours if len(grid) == 3 else 32, method)
    return {"columns": columns, "rows": -(-len(images) // columns), **about}


def curves(name, width, height, columns=1, rows=1):
    """A matplotlib figure of so many centimetres, and a function that saves it."""
    plt.rcParams.update(STYLE)
    fig, axes = plt.subplots(rows, columns, figsize=(width / 2.54, height / 2.54), layout="constrained", squeeze=False)

    def save(**about):
        buffer = io.BytesIO()
        fig.savefig(buffer, dpi=190)
        plt.close(fig)
        write(name, Image.open(buffer).convert("RGB"), 48)
        return about

    return fig, axes.flat, save


@functools.cache
def shipped(name):
    """A network of models/."""
    return nb.shipped(name)


@functools.cache
def test_digits():
    """The test digits and labels."""
    return nb.load_mnist(train=False)


def read_as_asked(images, labels, judge="digit_classifier"):
    """The share of digits [B, 1, 28, 28] in [0, 1] that the judge reads as asked."""
    return nb.accuracy(shipped(judge), nb.to_model_range(images), torch.as_tensor(labels))


# ----------------------------------------------------------------------------- digits
@figure
def forward():
    """One test digit, noised to several t, under two schedules."""
    ts = (0, 50, 100, 200, 300, 400, 500, 650, 800, 1000)
    x, labels = test_digits()
    x_0 = x[labels == 7][:1].expand(len(ts), 1, 28, 28)
    eps = torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(SEED)).expand_as(x_0)
    schedules = ("linear", "cosine")
    rows = [nb.Schedule(name, 1000).q_sample(x_0, torch.tensor(ts), eps) for name in schedules]
    return pictures("forward", nb.to_image_range(torch.cat(rows)), len(ts), top=[str(t) for t in ts], left=schedules,
                    seed=SEED)


@figure
def digits():
    """The shipped digit model: first without a class, then four of each digit."""
    plain = nb.generate_digits([0] * 20, guidance=0, steps=20, seed=SEED)
    labels = [i % 10 for i in range(40)]
    asked = nb.generate_digits(labels, guidance=2, steps=20, seed=SEED)
    pictures("digits_plain", plain, 10)
    return pictures("digits", asked, 10, top=[str(i) for i in range(10)], seed=SEED, guidance=2, steps=20,
                    read=read_as_asked(asked, labels), plain=len(plain))


@figure
def course():
    """The course's network: four of each digit after chosen epochs, kept by its checkpoint."""
    info = shipped("digits_class").info
    epochs = [e for e in (1, 5, 20) if e in info["samples"]]
    about = {"epochs": epochs, "pictures": [e * info["settings"]["epoch_pictures"] for e in epochs]}
    for epoch in epochs:
        pictures(f"course_{epoch}", nb.unpacked(info["samples"][epoch][-1]), 10)
    time_info = shipped("digits_time").info
    pictures("course_time", nb.unpacked(time_info["samples"][max(time_info["samples"])][-1][:20]), 10)
    labels = [i % 10 for i in range(40)]
    read = [read_as_asked(nb.unpacked(info["samples"][e][-1]), labels) for e in epochs]
    return {**about, "columns": 10, "rows": 4, "seed": 0, "guidance": 5, "steps": 100, "read": read,
            "time_epoch": max(time_info["samples"]), "trained": nb.describe(shipped("digits_class")),
            "trained_time": nb.describe(shipped("digits_time"))}


@figure
def denoised():
    """The one-step denoiser, after its first and its last epoch."""
    clean, kept = test_digits()[0][:10], shipped("digits_denoiser").info["samples"]
    noisy = clean + 0.5 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    rows = [nb.to_image_range(clean), nb.to_image_range(noisy), *(kept[e] / 255 for e in sorted(kept))]
    return pictures("denoised", torch.cat(rows), 10, left=["clean", "noisy", *(f"epoch {e}" for e in sorted(kept))],
                    seed=0, trained=nb.describe(shipped("digits_denoiser")))


@figure
@torch.no_grad()
def other_noise():
    """The one-step denoiser on noise that it was not trained on."""
    sigmas = (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)
    x, labels = test_digits()
    five = x[labels == 5][:1]
    noise = torch.randn(five.shape, generator=torch.Generator().manual_seed(SEED))
    noisy = torch.cat([five + sigma * noise for sigma in sigmas])
    said = shipped("digits_denoiser")(noisy.to(nb.default_device())).cpu()
    return pictures("other_noise", nb.to_image_range(torch.cat([noisy, said])), len(sigmas), seed=SEED,
                    top=[f"σ = {s:g}" for s in sigmas], left=["noisy", "denoised"])


@figure
def reverse():
    """The way back from noise: x_s above, the estimate of x_0 below."""
    walk = list(nb.digit_steps([3], guidance=1, steps=20, seed=SEED))[1::2]
    rows = torch.cat([x for _, x, _ in walk] + [x_0 for _, _, x_0 in walk])
    return pictures("reverse", nb.to_image_range(rows.cpu()), len(walk), top=[str(s) for s, *_ in walk],
                    seed=SEED, guidance=1, steps=20, label=3)


@figure
def few_steps():
    """The same first noise with few steps and many."""
    runs = (("ddpm", 5), ("2m", 5), ("ddpm", 20), ("2m", 20), ("ddpm", 100), ("2m", 100))
    rows = [nb.generate_digits(range(10), guidance=1, steps=steps, seed=SEED, method=method) for method, steps in runs]
    return pictures("few_steps", torch.cat(rows), 10, top=[str(i) for i in range(10)], seed=SEED, guidance=1,
                    left=[f"{steps} of {method.upper()}" for method, steps in runs])


@figure
def guidance_digits():
    """The same first noise under growing guidance."""
    sweep = (0, 1, 2, 5, 10)
    rows = [nb.generate_digits(range(10), guidance=g, steps=20, seed=SEED) for g in sweep]
    return pictures("guidance_digits", torch.cat(rows), 10, top=[str(i) for i in range(10)], seed=SEED, steps=20,
                    left=[f"γ = {g}" for g in sweep])


@figure
def guidance_and_steps():
    """Two panels from results.json: guidance (accuracy, distance), and steps (distance)."""
    d = results["digits"]
    fig, (left, right), save = curves("guidance_and_steps", 17, 4.6, columns=2)
    rows = d["guidance"]["rows"]
    g = [r["guidance"] for r in rows]
    left.plot(g, [100 * r["accuracy"] for r in rows], "o-", color="tab:blue")
    left.set_xlabel("guidance γ")
    left.set_ylabel("read as asked, %", color="tab:blue")
    twin = left.twinx()
    twin.plot(g, [r["distance"] for r in rows], "s--", color="tab:red")
    twin.set_ylabel("Fréchet distance", color="tab:red")
    twin.set_ylim(0, None)
    twin.grid(False)
    for method, marker, label in (("ddpm", "o", "DDPM"), ("ddim", "s", "DDIM, η = 0"), ("2m", "^", "DPM-Solver++ 2M")):
        rows = [r for r in d["steps"]["rows"] if r["method"] == method]
        right.semilogx([r["steps"] for r in rows], [r["distance"] for r in rows], marker + "-", label=label)
    right.axhline(d["judge"]["floor"][str(d["steps"]["samples"])], color="k", ls=":", lw=1, label="real test digits")
    right.set(xlabel="steps", ylabel="Fréchet distance", ylim=(0, 1.6 * max(r["distance"] for r in d["steps"]["rows"])))
    right.legend(ncols=2, loc="upper right")
    return save(samples=d["guidance"]["samples"])


# ----------------------------------------------------------------------------- training
@figure
def losses():
    """The loss of every run, from its checkpoint."""
    runs = {"digits_denoiser": "one-step denoiser: L2 of $x$", "digits_time": "time-conditioned: L2 of ε",
            "digits_class": "class-conditioned: L2 of ε", "digits": "our digit model: L2 of $v$",
            "draft": "draft: L2, half size", "emoji": "emoji painter: L2 of $x_0$, weighed"}
    fig, axes, save = curves("losses", 17, 9, columns=3, rows=2)
    for ax, (name, title) in zip(axes, runs.items(), strict=True):
        plot_losses({name: shipped(name).info["losses"]}, title, ax=ax)
        ax.get_legend().remove()
        ax.title.set_size(8)
        ax.set_xlabel("")
        ax.set_ylabel("")
        ax.ticklabel_format(axis="x", style="plain")
    fig.supxlabel("step", fontsize=8)
    fig.supylabel("loss", fontsize=8)
    return save(runs={name: {"steps": shipped(name).info["step"], "weights": nb.count_parameters(shipped(name)),
                             "batch": shipped(name).info["settings"]["batch_size"],
                             "first": shipped(name).info["losses"][:10].mean().item(),
                             "last": shipped(name).info["losses"][-100:].mean().item()} for name in runs})


@figure
def learning_rate():
    """Short runs at several learning rates, from results.json."""
    measured = results.get("report", {}).get("learning_rates")
    if not measured:
        return {}
    fig, (ax,), save = curves("learning_rate", 8.4, 5)
    for row in measured["rows"]:
        smooth = torch.tensor(row["losses"]).unfold(0, 5, 1).mean(1)
        ax.semilogy(range(3, len(smooth) + 3), smooth, label=f"{row['lr']:g}")
    ax.set(xlabel="step", ylabel="loss, mean of five")
    ax.legend(title="learning rate", title_fontsize=7, ncols=2)
    return save(steps=measured["steps"])


@figure
def pilots():
    """Losses of the digit pilots that share a target, from results.json."""
    fig, (ax,), save = curves("pilots", 8.4, 5)
    for name, run in results["pilots"]["runs"].items():
        if name.startswith("+"):
            ax.semilogy(range(1, 10 * len(run["losses"]), 10), run["losses"], label=name[2:])
    ax.set(xlabel="step", ylabel="loss of $v$")
    ax.legend(fontsize=6)
    return save()


# ----------------------------------------------------------------------------- emoji
PROMPTS = ("a penguin on a pink background", "a rocket on a blue background", "a red apple",
           "an owl on a yellow background", "a strawberry on a green background",
           "a handwritten seven on an orange background", "a sailboat on a turquoise background",
           "a smiling face with sunglasses on a purple background", "a birthday cake on a grey background",
           "a butterfly on a white background", "a house with garden", "a bicycle on a brown background")
FAILING = ("a kitten", "a yacht", "something spooky", "a snack", "a cat and a dog", "three apples",
           "a blue banana", "not a cat")


@functools.cache
def emoji():
    """The emoji, with their splits."""
    return nb.EmojiData(test_digits())  # the digits are not used here: the test set stands in for them


@figure
def prompts():
    """Twelve prompts, the first three samples of each, down the columns."""
    samples = nb.text_to_image([p for _ in range(3) for p in PROMPTS], seed=SEED)
    return pictures("prompts", samples, len(PROMPTS), 128, top=PROMPTS, seed=SEED, guidance=3, steps=20)


@figure
def digits_by_words():
    """Two of each digit, asked for in words."""
    asked = [nb.caption(f"handwritten {n}") for _ in range(2) for n in nb.NUMBERS]
    samples = nb.text_to_image(asked, seed=SEED)
    return pictures("digits_by_words", samples, 10, 48, top=nb.NUMBERS, seed=SEED, guidance=3, steps=20)


@figure
def failing():
    """Words that no caption held, and prompts that ask for too much: the draft above, the first sample below."""
    drafts = nb.to_image_range(torch.nn.functional.interpolate(nb.read_prompts(list(FAILING)).draft, scale_factor=2))
    rows = torch.cat([drafts, nb.text_to_image(list(FAILING), seed=SEED)])
    return pictures("failing", rows, len(FAILING), 128, top=FAILING, left=["draft", "sample"], seed=SEED, guidance=3,
                    steps=20)


@figure
def guidance_emoji():
    """One start from noise under growing guidance."""
    asked, sweep = [PROMPTS[i] for i in (0, 2, 3, 5, 6, 7, 9, 11)], (0, 1, 3, 8)
    rows = torch.cat([nb.text_to_image(asked, guidance=g, seed=SEED) for g in sweep])
    return pictures("guidance_emoji", rows, len(asked), 128, top=asked, left=[f"γ = {g}" for g in sweep], seed=SEED,
                    steps=20)


@figure
def painter_epochs():
    """Samples kept by the painter's checkpoint: one of each of eight prompts."""
    info = shipped("emoji").info
    kept = sorted(info["samples"])
    steps_an_epoch = info["step"] // info["settings"]["epochs"]
    seen = [e * steps_an_epoch * info["settings"]["batch_size"] for e in kept]
    rows = torch.cat([info["samples"][e][:8] / 255 for e in kept])
    return pictures("painter_epochs", rows, 8, 128, top=nb.KEPT_PROMPTS, left=[f"{n:,}" for n in seen], seed=0)


@figure
def inpainting():
    """Held-out glyphs with holes, filled without a prompt: two samples, and the mean of eight."""
    data = emoji()
    chosen = data.held_out[:8]
    originals = data.picture(chosen, torch.arange(8) % len(nb.COLOURS))
    generator, kinds = torch.Generator().manual_seed(SEED + 1), list(nb.MASKS)
    masks = torch.cat([nb.make_masks(kinds[i % 6], 1, generator=generator) for i in range(8)])
    fills = nb.inpaint(originals.repeat(8, 1, 1, 1), masks.repeat(8, 1, 1, 1), seed=SEED)
    known = (masks == 0).expand_as(originals).repeat(8, 1, 1, 1)
    if not torch.equal(fills[known], originals.repeat(8, 1, 1, 1)[known]):
        raise AssertionError("known pixels must come back bit for bit")
    rows = [originals, torch.where(masks > 0, 0.5, originals), *fills.split(8)[:2], fills.unflatten(0, (8, 8)).mean(0)]
    return pictures("inpainting", torch.cat(rows), 8, 128, top=[data.names[i] for i in chosen], seed=SEED, steps=20,
                    left=["original", "hole", "sample 1", "sample 2", "mean of 8"])


@figure
def with_a_prompt():
    """Half a picture, filled without and with words."""
    data, names = emoji(), ("penguin", "rocket", "strawberry", "owl", "teddy bear", "hamburger")
    index = torch.tensor([data.names.index(name) for name in names])
    originals = data.picture(index, torch.tensor([9, 0, 5, 4, 8, 7]))
    mask = nb.half_masks(1, generator=torch.Generator().manual_seed(3))
    rows = [torch.where(mask > 0, 0.5, originals), nb.inpaint(originals, mask),
            nb.inpaint(originals, mask, [nb.a_or_an(name) for name in names])]
    return pictures("with_a_prompt", torch.cat(rows), 6, 128, top=names, left=["hole", "no prompt", "its name"],
                    seed=SEED, steps=20, guidance=2)


@figure
def fills():
    """PSNR and perceptual distance over bins of hole ratio, from results.json."""
    bins = results["emoji"]["inpaint"]["bins"]
    fig, axes, save = curves("fills", 17, 5.8, columns=2)
    shown = ("ours, mean of eight", "ours, one sample", "RePaint", "replacement", "Telea", "biharmonic", "mean")
    for ax, (key, label) in zip(axes, (("psnr", "PSNR in the hole, dB"), ("perceptual", "perceptual distance")),
                                strict=True):
        for name in shown:
            style = {"lw": 2.2} if name.startswith("ours") else {"lw": 1, "ls": "--"}
            label_of = "mean colour" if name == "mean" else name
            ax.plot(range(len(bins)), [b[name][key] for b in bins.values()], marker="o", ms=3, label=label_of, **style)
        ax.set(xlabel="share of the picture that is missing", ylabel=label)
        ax.set_xticks(range(len(bins)), [name.replace(" to ", "–").replace("%–", "–") for name in bins])
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return save()


# ----------------------------------------------------------------------------- animals
@functools.cache
def drawn_animals():
    """The hundred drawn animals, with their classes."""
    return nb.AnimalPictures()


@figure
def animal_forward():
    """One animal of each of three classes under growing noise."""
    ts, data = (0, 50, 100, 200, 400, 600, 800, 1000), drawn_animals()
    x_0 = data.images[[data.labels.tolist().index(i) for i in (0, 1, 4)]]
    eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(SEED))
    schedule = nb.Schedule(*nb.RECIPES["animals"]["info"]["schedule"])
    rows = torch.stack([schedule.q_sample(x_0, t, eps) for t in ts], 1).flatten(0, 1)
    return pictures("animal_forward", nb.to_image_range(rows), len(ts), 64, RARE, top=[str(t) for t in ts], seed=SEED,
                    left=[data.names[i] for i in (0, 1, 4)])


@figure
def animal_loss():
    """The loss of the animals' run, from its checkpoint."""
    fig, (ax,), save = curves("animal_loss", 8.4, 4.4)
    plot_losses({"animals": shipped("animals").info["losses"]}, "", ax=ax)
    ax.get_legend().remove()
    info = shipped("animals").info
    return save(steps=info["step"], batch=info["settings"]["batch_size"], lr=info["settings"]["lr"],
                weights=nb.count_parameters(shipped("animals")))


@figure
def animal_epochs():
    """Samples kept by the animals' checkpoint on the way."""
    info, names = shipped("animals").info, drawn_animals().names
    kept, steps = sorted(info["samples"]), info["step"] // info["settings"]["epochs"]
    rows = torch.cat([info["samples"][e] / 255 for e in kept])
    return pictures("animal_epochs", rows, 10, 128, RARE, top=names * 2, left=[f"{e * steps:,}" for e in kept], seed=0)


@figure
def animal_walk():
    """The way from noise, one animal of each class: x_s."""
    noise = torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(SEED))
    walk = [(1000, noise), *((s, x.cpu()) for s, x, _ in nb.animal_walk(noise, range(5))
                             if s % 100 == 0 or s in (20, 60))]
    rows = torch.stack([x for _, x in walk], 1).flatten(0, 1)
    return pictures("animal_walk", nb.to_image_range(rows), len(walk), 64, RARE, top=[str(s) for s, _ in walk],
                    left=drawn_animals().names, seed=SEED)


@figure
def animals():
    """Four samples of each class, and the training picture nearest to each."""
    data = drawn_animals()
    noise = torch.randn(20, 3, 64, 64, generator=torch.Generator().manual_seed(SEED))
    labels = torch.arange(20) // 4
    samples = nb.animals_from_noise(noise, labels)
    _, nearest = nb.copy_ratio(nb.animal_distances(data, samples))
    rows = torch.stack([x.unflatten(0, (5, 4)) for x in (samples, nb.to_image_range(data.images[nearest]))], 1)
    return pictures("animals", rows.transpose(0, 1).reshape(2, 20, 3, 64, 64).flatten(0, 1)[
        [half * 20 + i for block in (0, 10) for half in (0, 1) for i in range(block, block + 10)]], 10, 128, RARE,
        top=[], left=["sample", "nearest"] * 2, seed=SEED, names=data.names)


def main(names):
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        sys.exit(f"no figure {', '.join(unknown)}; there are {', '.join(FIGURES)}")
    about_path = FOLDER / "figures.json"
    about = json.loads(about_path.read_text(encoding="utf-8")) if about_path.is_file() else {}
    for name in names or FIGURES:
        said = FIGURES[name]()
        about.pop(name, None)
        if said or name in ("pilots", "fills"):
            about[name] = said
        FOLDER.mkdir(parents=True, exist_ok=True)
        about_path.write_text(json.dumps(about, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
        print(name, flush=True)
    total = sum(p.stat().st_size for p in FOLDER.iterdir())
    print(f"{total / 1e6:.2f} MB in {FOLDER}")


if __name__ == "__main__":
    main(sys.argv[1:])
