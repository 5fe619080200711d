"""The figures of the two reports, into report/figures/: python report/figures.py [part ...]

Pictures are written at their own resolution, one pixel a pixel, and the report sets the labels; curves are drawn by
matplotlib. `figures.json` beside them says what stands in each: columns and rows, seed, settings, and what the weights'
files say of themselves. Everything comes from the shipped weights and report/results.json; samples are the first of
seed 0, none left out. Five minutes on two cores.
"""

import io
import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "report" / "evaluate")]

from helpers import fingerprint, load_notebook, results, to_picture, write_whole  # noqa: E402

nb = load_notebook()
FOLDER = ROOT / "report" / "figures"
plt.rcParams.update({"font.family": "serif", "font.size": 8, "axes.titlesize": 8, "axes.grid": True, "grid.alpha": 0.3,
                     "lines.linewidth": 1.4, "lines.markersize": 3.5, "axes.spines.top": False,
                     "legend.frameon": False, "legend.fontsize": 7})
MODELS = {"animals": "animals ($x_0$)", "digits_denoiser": "one-step denoiser ($x$)", "digits_time": "time (ε)",
          "digits_class": "time and class, the baseline (ε)", "digits": "our digit model ($v$)",
          "painter": "painter ($x_0$)"}
ABOUT = {}  # what figures.json is to say


def write(name, picture):
    """Save a PIL image as a small PNG."""
    if picture.width * picture.height > 200_000:
        picture = picture.convert("RGB").quantize(64, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    write_whole(buffer.getvalue(), FOLDER / f"{name}.png")


def grid(name, images, columns, **about):
    """Images [B, C, H, W] in [0, 1] as a grid at their own resolution; about: its labels `top` and `left`, and more."""
    write(name, to_picture(images, columns, background=190))
    ABOUT[name] = {"columns": columns, **about}


def panels(width, height, columns=1, rows=1):
    """A matplotlib figure of so many centimetres, and its axes."""
    fig, axes = plt.subplots(rows, columns, figsize=(width / 2.54, height / 2.54), layout="constrained", squeeze=False)
    return fig, axes.flat


def save(name, fig):
    buffer = io.BytesIO()
    fig.savefig(buffer, dpi=140)
    plt.close(fig)
    write(name, Image.open(buffer))


def draw_loss(ax, losses, label=None, window=50):
    """One loss curve: the mean of `window` steps (or of a tenth of a shorter run) bold, and without label each step."""
    losses = torch.as_tensor(losses, dtype=torch.float32)
    width = max(1, min(window, len(losses) // 10))
    smooth = losses.unfold(0, width, 1).mean(1)
    line = ax.semilogy(torch.arange(len(smooth)) + (width + 1) / 2, smooth, label=label)[0]
    if label is None:
        ax.plot(range(1, len(losses) + 1), losses, lw=0.4, alpha=0.4, color=line.get_color())
    ax.ticklabel_format(axis="x", style="plain")
    ax.yaxis.set_minor_formatter("")


def read_as_asked(images):
    """The share of digits [B, 1, 28, 28] in [0, 1], asked for as 0 to 9 in turn, that the judge reads so."""
    from judges import accuracy, load_judge
    return accuracy(load_judge("digit_classifier"), nb.to_model_range(images), torch.arange(len(images)) % 10)


def models():
    """What the weights' files say, with their fingerprints; and their losses."""
    for name in MODELS:
        model = nb.shipped(name)
        info, s = model.info, model.info["settings"]
        ABOUT[f"model {name}"] = {
            "said": nb.describe(model), "weights": nb.count_parameters(model), "steps": info["step"],
            "planned": s["epochs"] * (s["pictures"] // s["batch_size"]), "batch": s["batch_size"], "lr": s["lr"],
            "epochs": s["epochs"], "epoch_pictures": s["pictures"], "D": info["config"].get("D"),
            "first": info["losses"][:10].mean().item(), "last": info["losses"][-100:].mean().item(),
            "sha": fingerprint({}, model.state_dict())[:12]}
    for name, chosen, size in (("losses", list(MODELS), (17, 7.6, 3, 2)),
                               ("animal_loss", ["animals"], (8.6, 4.2, 1, 1)),
                               ("digit_losses", ["digits_class", "digits"], (8.6, 3.4, 2, 1))):
        fig, axes = panels(*size)
        for ax, model in zip(axes, chosen, strict=True):
            draw_loss(ax, nb.shipped(model).info["losses"])
            ax.set_title(MODELS[model])
        fig.supxlabel("step", fontsize=8)
        fig.supylabel("loss", fontsize=8)
        save(name, fig)


def animals():
    """The animals: forward process, samples kept on the way, the way from noise, samples and their nearest pictures."""
    model, data = nb.shipped("animals"), nb.AnimalPictures()
    ts = (0, 50, 100, 200, 400, 600, 800, 1000)
    generator = torch.Generator().manual_seed(0)
    moments, rows = [], []
    for t in ts:
        x_t = model.schedule.q_sample(data.images, t, torch.randn(data.images.shape, generator=generator))
        alike = torch.corrcoef(torch.stack([x_t.flatten(), data.images.flatten()]))[0, 1]
        moments.append([t, x_t.mean().item(), x_t.std().item(), alike.item()])
        rows.append(x_t[[data.labels.tolist().index(i) for i in range(5)]])
    grid("animal_forward", nb.to_image_range(torch.stack(rows, 1).flatten(0, 1)), len(ts), top=[f"t = {t}" for t in ts],
         left=data.names, moments=moments, pictures=len(data))
    kept, steps = model.info["samples"], model.info["step"] // model.info["settings"]["epochs"]
    grid("animal_epochs", torch.cat([kept[e] / 255 for e in sorted(kept)]), 2 * len(data.names), top=data.names * 2,
         left=[f"{e * steps:,}" for e in sorted(kept)])
    way = [(1000, nb.Noise(0, 5)((3, 64, 64)))]
    way += [(s, x.cpu()) for s, x, _ in nb.walk(model, model.guided(nb.Condition(label=torch.arange(5)), 4), 5,
                                                steps=50) if s % 100 == 0 or s in (60, 20)]
    grid("animal_walk", nb.to_image_range(torch.stack([x for _, x in way], 1).flatten(0, 1)), len(way),
         top=[str(s) for s, _ in way], left=data.names)
    samples, real = nb.generate_animals(torch.arange(20) // 4), nb.to_image_range(data.images)
    distance = torch.minimum(*(torch.cdist(samples.flatten(1), x.flatten(1)) for x in (real, real.flip(3))))
    pairs = torch.stack([samples.unflatten(0, (2, 10)), real[distance.argmin(1)].unflatten(0, (2, 10))], 1)
    grid("animals", pairs.flatten(0, 2), 10, left=["sample", "nearest"] * 2, names=data.names)


def learning_rates():
    """The animals' first steps at several learning rates, from the same first weights, batches and noise."""
    recipe = nb.animal_recipe(nb.AnimalPictures(), 800)
    fig, (ax,) = panels(8.4, 4.6)
    runs = {factor * recipe.lr: nb.live(recipe, 120, lr=factor * recipe.lr, warmup=0) for factor in (0.01, 0.1, 1, 10)}
    for lr, losses in runs.items():
        draw_loss(ax, losses, f"{lr:g}", 20)
    ax.set(xlabel="step", ylabel="loss, mean of twelve")
    ax.set_yticks((0.2, 0.5, 1, 2), ("0.2", "0.5", "1", "2"))
    ax.set_ylim(top=8)
    ax.legend(title="learning rate", title_fontsize=7, ncols=2, loc="upper right")
    save("learning_rate", fig)
    ABOUT["learning_rate"] = {"steps": 120, "lr": recipe.lr, "last": {lr: sum(x[-20:]) / 20 for lr, x in runs.items()}}


@torch.no_grad()
def course():
    """Noise laid on a digit; the one-step denoiser; samples that the course's networks kept."""
    images, labels = nb.load_mnist(train=False)
    ts = (0, 50, 100, 200, 300, 400, 500, 650, 800, 1000)
    eps = torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(0)).expand(10, 1, 28, 28)
    seven, schedules = images[labels == 7][:1].expand(10, 1, 28, 28), [nb.Schedule("linear"), nb.Schedule("cosine")]
    grid("forward", nb.to_image_range(torch.cat([s.q_sample(seven, torch.tensor(ts), eps) for s in schedules])), 10,
         top=[str(t) for t in ts], left=["linear", "cosine"],
         bits=[784 * nb.kl_to_standard_normal(s, images[:500], 1000) for s in schedules])
    model, x = nb.shipped("digits_denoiser"), nb.to_image_range(images[:100])
    kept, device, noise = model.info["samples"], next(model.parameters()).device, nb.Noise(0, 100)((1, 28, 28))
    grid("denoised", torch.cat([x[:10], x[:10] + 0.5 * noise[:10], *(kept[e] / 255 for e in sorted(kept))]), 10,
         left=["clean", "σ = 0.5", *(f"epoch {e}" for e in sorted(kept))])
    sigmas = (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)
    noisy = torch.stack([x + s * noise for s in sigmas])
    said = torch.stack([model(part.to(device)).cpu() for part in noisy])
    five = labels[:100].tolist().index(5)
    grid("other_noise", torch.cat([noisy[:, five], said[:, five]]), len(sigmas), top=[f"σ = {s:g}" for s in sigmas],
         left=["noisy", "denoised"], count=len(x), errors=[[s, nb.custom_loss(part, x).mean().item()]
                                                           for s, part in zip(sigmas, said, strict=True)])
    kept, plain = nb.shipped("digits_class").info["samples"], nb.shipped("digits_time").info["samples"]
    for epoch in kept:
        grid(f"course_{epoch}", kept[epoch][-1] / 255, 10, read=read_as_asked(kept[epoch][-1] / 255))
    grid("course_time", plain[max(plain)][-1][:20] / 255, 10)
    ABOUT["course"] = {"epochs": [e for e in (1, 5, 20) if e in kept] or sorted(kept), "time_epoch": max(plain)}


def digits():
    """Our digit model: with and without a class, under growing guidance, the way back, and curves of results.json."""
    grid("digits_plain", nb.generate_digits([0] * 10, guidance=0), 10)
    some = torch.randint(10, (10,), generator=torch.Generator().manual_seed(0))
    grid("digits_random", nb.generate_digits(some, guidance=1), 10)
    asked = nb.generate_digits(torch.arange(40) % 10, guidance=2)
    grid("digits", asked, 10, top=[str(i) for i in range(10)], read=read_as_asked(asked))
    sweep = (0, 1, 2, 5, 10)
    grid("guidance_digits", torch.cat([nb.generate_digits(range(10), guidance=g) for g in sweep]), 10,
         left=[f"γ = {g}" for g in sweep])
    model = nb.shipped("digits")
    way = list(nb.walk(model, model.guided(nb.digit_condition(model, [3]), 1), 1, method="ddpm"))[1::2]
    rows = torch.cat([x for _, x, _ in way] + [x_0 for _, _, x_0 in way])
    grid("reverse", nb.to_image_range(rows), len(way), top=[str(s) for s, *_ in way])
    d = results("digits")
    fig, (left, right) = panels(17, 4.4, columns=2)
    fig.get_layout_engine().set(wspace=0.08)
    g = [r["guidance"] for r in d["guidance"]["rows"]]
    left.plot(g, [100 * r["accuracy"] for r in d["guidance"]["rows"]], "o-")
    left.set_xlabel("guidance γ")
    left.set_ylabel("read as asked, %", color="tab:blue")
    twin = left.twinx()
    twin.plot(g, [r["distance"] for r in d["guidance"]["rows"]], "s--", color="tab:red")
    twin.set_ylabel("Fréchet distance", color="tab:red")
    twin.set_ylim(0, 1.07 * max(r["distance"] for r in d["guidance"]["rows"]))
    left.set_ylim(0, 107)
    twin.grid(False)
    for method, marker, label in (("ddpm", "o", "DDPM"), ("ddim", "s", "DDIM, η = 0"), ("2m", "^", "DPM-Solver++ 2M")):
        rows = [r for r in d["steps"]["rows"] if r["method"] == method]
        right.semilogx([r["steps"] for r in rows], [r["distance"] for r in rows], marker + "-", label=label)
    right.set_xticks(counts := sorted({r["steps"] for r in d["steps"]["rows"]}), counts)
    right.minorticks_off()
    right.axhline(d["judge"]["floor"][str(d["steps"]["samples"])], color="k", ls=":", lw=1, label="real test digits")
    right.set(xlabel="steps", ylabel="Fréchet distance", ylim=(0, 1.6 * max(r["distance"] for r in d["steps"]["rows"])))
    right.legend(ncols=2, loc="upper right")
    save("guidance_and_steps", fig)


def painter():
    """Prompts, digits by words, prompts that fail, guidance."""
    grid("prompts", nb.text_to_image([p for _ in range(3) for p in nb.PROMPTS]), len(nb.PROMPTS), top=nb.PROMPTS)
    asked = [nb.phrase(nb.KEPT_PHRASES[(3 * row + d) % 10], d) for row in range(2) for d in range(10)]
    grid("digits_by_words", nb.generate_digits(asked), 10, top=asked[:10])
    asked = ["a kitten", "a puppy", "something spooky", "a snack", "a penguin riding a horse",
             "a cat, a dog and a horse", "a blue banana", "not a cat"]
    grid("failing", nb.text_to_image(asked), len(asked), top=asked)
    asked, sweep = [nb.PROMPTS[i] for i in (0, 1, 3, 6, 7, 9, 10, 11)], (0, 1, 3, 8)
    grid("guidance", torch.cat([nb.text_to_image([p], guidance=g) for g in sweep for p in asked]), 8, top=asked,
         left=[f"γ = {g}" for g in sweep])


def fills():
    """Things never trained on with holes, filled without a prompt: two samples, the mean of eight; curves of
    results.json."""
    data, kinds, generator = nb.drawings(), list(nb.MASKS), torch.Generator().manual_seed(1)
    chosen = data.held_out[:8]
    originals = torch.cat([nb.alone(thing, i % 4, i) for i, thing in enumerate(chosen)])
    masks = torch.cat([nb.make_masks(kinds[i % 6], 1, generator=generator) for i in range(8)])
    filled = nb.inpaint(originals.repeat(8, 1, 1, 1), masks.repeat(8, 1, 1, 1))
    known = (masks == 0).expand_as(originals).repeat(8, 1, 1, 1)
    if not torch.equal(filled[known], originals.repeat(8, 1, 1, 1)[known]):
        raise AssertionError("known pixels must come back bit for bit")
    rows = [originals, torch.where(masks > 0, 0.5, originals), *filled.split(8)[:2],
            filled.unflatten(0, (8, 8)).mean(0)]
    grid("inpainting", torch.cat(rows), 8, top=[data.names[i] for i in chosen],
         left=["original", "hole", "sample 1", "sample 2", "mean of 8"])
    bins = results("scenes", "fills")["bins"]
    fig, axes = panels(17, 5.4, columns=2)
    for ax, (key, label) in zip(axes, (("psnr", "PSNR in the hole, dB"), ("perceptual", "perceptual distance")),
                                strict=True):
        for name in (*(f"ours, {n}" for n in ("mean of eight", "one sample")), "RePaint", "replacement", "Telea",
                     "biharmonic", "mean"):
            ax.plot([b[name][key] for b in bins.values()], "o-" if name.startswith("ours") else "o--", ms=3,
                    lw=2.2 if name.startswith("ours") else 1, label="mean colour" if name == "mean" else name)
        ax.set(xlabel="% of the picture that is missing", ylabel=label)
        ax.set_xticks(range(len(bins)), [name.replace("%", "").replace(" to ", "–") for name in bins])
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    save("fills", fig)


PARTS = {part.__name__: part for part in (models, animals, learning_rates, course, digits, painter, fills)}

if __name__ == "__main__":
    if unknown := set(sys.argv[1:]) - set(PARTS):
        sys.exit(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    path = FOLDER / "figures.json"
    ABOUT.update(json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {})
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
        write_whole((json.dumps(ABOUT, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode(), path)
        print(part, flush=True)
