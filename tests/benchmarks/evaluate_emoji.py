"""Full-size figures of the painter: python tests/benchmarks/evaluate_emoji.py [--part ...] [--samples 1000]

prompts   what a judge sees of what was asked: seen captions, held-out pairs, synonyms, digits by words
settings  the same over guidance and over steps, on another draw of captions than `prompts`
inpaint   fills of held-out glyphs beside classical ones, replacement and RePaint, by bins of hole ratio
guidance  fills of glyphs of training with their name as prompt, at several guidances
copies    nearest over second-nearest distance to the training glyphs
curve     `prompts` in small on earlier states of the same training run: --states files, in models/training's format;
          states that were measured before, on as many prompts, are not measured again
All at 20 steps and guidance 3 where nothing else is said, first seeds. Results go to report/results.json under
"emoji"; each part takes minutes on two cores.
"""

import argparse
import json
import time

import torch
from common import RESULTS, machine, nb, write_results

BINS = ((0.01, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.6))


def painted(asked, model, size=100, **options):
    """First samples of each prompt, in batches with the seeds 0, 1, ...: [N, 3, 64, 64] in [0, 1]."""
    prompts = [prompt for prompt, *_ in asked]
    return torch.cat([nb.text_to_image(prompts[i : i + size], seed=i // size, model=model, **options)
                      for i in range(0, len(prompts), size)])


def prompt_figures(data, model, count):
    """{set: figures of `nb.judged`} for `count` prompts of each set."""
    judge, digit_judge = nb.load_model("emoji_judge"), nb.load_model("digit_classifier")
    return {name: nb.judged(painted(asked, model), asked, judge, digit_judge)
            for name, asked in nb.prompt_sets(data, count).items()}


def drafts(asked):
    """The drafts of the prompts, enlarged: [N, 3, 64, 64] in [0, 1]. What a painting without diffusion would be."""
    draft = nb.read_prompts([prompt for prompt, *_ in asked]).draft
    return nb.to_image_range(torch.nn.functional.interpolate(draft, scale_factor=2, mode="bilinear"))


def evaluate_prompts(data, model, count):
    judge, digit_judge = nb.load_model("emoji_judge"), nb.load_model("digit_classifier")
    begun, sets, asked = time.time(), prompt_figures(data, model, count), nb.prompt_sets(data, count)
    seconds = (time.time() - begun) / sum(r["samples"] for r in sets.values())
    nearest, nb.nearest_caption = nb.nearest_caption, str  # the draft reads the words as they are
    for name, pictures in (("synonyms, drafted as they are", painted(asked["synonyms"], model)),
                           ("the draft alone: synonyms, as they are", drafts(asked["synonyms"]))):
        sets[name] = nb.judged(pictures, asked["synonyms"], judge, digit_judge)
    nb.nearest_caption = nearest
    sets |= {f"the draft alone: {name}": nb.judged(drafts(asked[name]), asked[name], judge, digit_judge)
             for name in asked}
    asked = asked["seen"]
    real = data.picture(torch.tensor([g for _, (g,), _ in asked]), torch.tensor([c for *_, c in asked]),
                        torch.Generator().manual_seed(1))
    images, labels = nb.load_mnist(train=False)
    paper = data.palette[torch.arange(1000) % len(nb.COLOURS)]
    read = nb.read_digits(nb.digit_pictures(images[:1000], paper), digit_judge)
    return {"sets": sets, "real": nb.judged(real, asked, judge, digit_judge), "seconds_a_sample": seconds,
            "real_digits": (read == labels[:1000]).float().mean().item(), "guidance": 3.0, "steps": 20,
            "chance": {"subject": 1 / len(data.names), "colour": 1 / len(nb.COLOURS)},
            "synonyms": len({prompt for prompt, *_ in nb.prompt_sets(data, count)["synonyms"]})}


def evaluate_settings(data, model, count):
    """{"guidance", "steps": rows of top1 of seen captions and digits}, the other setting as in `prompts`."""
    judges = nb.load_model("emoji_judge"), nb.load_model("digit_classifier")
    sets, result = nb.prompt_sets(data, count, seed=1), {"samples": count}
    for setting, values in (("guidance", (1.0, 2.0, 3.0, 4.5, 6.0, 8.0)), ("steps", (5, 10, 20, 50, 100))):
        result[setting] = []
        for value in values:
            row = {name: nb.judged(painted(sets[name], model, **{setting: value}), sets[name], *judges)["top1"]
                   for name in ("seen", "digits")}
            result[setting].append({setting: value, **row})
            print(result[setting][-1], flush=True)
    return result


def classical_fills(images, masks):
    """{name: fill of pictures [B, 3, 64, 64] in [0, 1]}: mean of the known pixels, biharmonic, Telea."""
    import cv2
    from skimage.restoration import inpaint_biharmonic

    fills = {"mean": [], "biharmonic": [], "Telea": []}
    for image, mask in zip(images, masks, strict=True):
        hole, picture = mask[0].bool().numpy(), image.permute(1, 2, 0).numpy()
        mean = image[:, ~mask[0].bool()].mean(1)
        fills["mean"].append(torch.where(mask > 0, mean[:, None, None], image))
        smooth = inpaint_biharmonic(picture, hole, channel_axis=2)
        telea = cv2.inpaint((picture * 255).round().astype("uint8"), hole.astype("uint8"), 3, cv2.INPAINT_TELEA) / 255
        for name, fill in (("biharmonic", smooth), ("Telea", telea)):
            fill = torch.as_tensor(fill).permute(2, 0, 1).float().clamp(0, 1)
            fills[name].append(torch.where(mask > 0, fill, image))
    return {name: torch.stack(parts) for name, parts in fills.items()}


def box_ssim(a, b, masks):
    """SSIM of grey pictures in the hole's bounding box (at least 7 px), with scikit-image's 7 x 7 window: [B]."""
    from skimage.metrics import structural_similarity

    scores = []
    for x, y, mask in zip(a.mean(1), b.mean(1), masks, strict=True):
        rows, columns = mask[0].any(1).nonzero()[:, 0], mask[0].any(0).nonzero()[:, 0]
        box = []
        for line in (rows, columns):
            low, high = int(line.min()), int(line.max()) + 1
            low = min(low, 64 - 7)
            box.append(slice(low, max(high, low + 7)))
        scores.append(structural_similarity(x[tuple(box)].numpy(), y[tuple(box)].numpy(), data_range=1.0))
    return torch.tensor(scores)


def evaluate_inpainting(data, model, count):
    judge, bins = nb.load_model("emoji_judge"), {}
    generator = torch.Generator().manual_seed(0)
    for low, high in BINS:
        glyph = data.held_out[torch.arange(count) % len(data.held_out)]
        images = data.picture(glyph, torch.randint(len(nb.COLOURS), (count,), generator=generator), generator)
        irregular, regular = "strokes" if high <= 0.1 else "blobs", "rectangles" if 0.1 < high <= 0.3 else "rectangle"
        half = [nb.make_masks(kind, -(-count // 2), generator=generator, ratio=(low, high))
                for kind in (irregular, regular)]
        masks = torch.stack(half, 1).flatten(0, 1)[:count]
        samples = [nb.inpaint(images, masks, seed=seed, model=model) for seed in range(8)]
        fills = {"ours, one sample": samples[0], "ours, mean of eight": torch.stack(samples).mean(0),
                 "replacement": nb.inpaint_untold(images, masks, model=model),
                 "ours, one sample, 96 steps of DDPM": nb.inpaint(images, masks, steps=96, method="ddpm", model=model),
                 "RePaint": nb.inpaint_untold(images, masks, resample=5, model=model), **classical_fills(images, masks)}
        bins[f"{low:.0%} to {high:.0%}"] = {name: {
            "psnr": nb.hole_psnr(fill, images, masks),
            "ssim": box_ssim(fill, images, masks).mean().item(),
            "perceptual": nb.perceptual_distance(judge, fill, images).mean().item()} for name, fill in fills.items()}
        print(f"{low:.0%} to {high:.0%}", json.dumps(bins[f"{low:.0%} to {high:.0%}"], indent=None), flush=True)
    return {"bins": bins, "pictures_a_bin": count, "steps": 20, "repaint_times": 5}


def evaluate_fill_guidance(data, model, count):
    judge, generator = nb.load_model("emoji_judge"), torch.Generator().manual_seed(0)
    glyph = data.train[torch.randperm(len(data.train), generator=generator)[:count]]
    images = data.picture(glyph, torch.randint(len(nb.COLOURS), (count,), generator=generator), generator)
    masks = torch.cat([nb.make_masks(kind, -(-count // 2), generator=generator, ratio=(0.3, 0.6))
                       for kind in ("blobs", "half")])[:count]
    prompts, rows = [nb.caption(data.names[i]) for i in glyph], []
    for guidance in (1.0, 1.5, 2.0, 3.0, 5.0):
        fill = nb.inpaint(images, masks, prompts, guidance=guidance, model=model)
        rows.append({"guidance": guidance, "psnr": nb.hole_psnr(fill, images, masks),
                     "perceptual": nb.perceptual_distance(judge, fill, images).mean().item()})
        print(rows[-1], flush=True)
    return {"rows": rows, "samples": count, "steps": 20}


def evaluate_copies(data, model, count):
    generator = torch.Generator().manual_seed(0)
    glyphs = data.train[torch.randperm(len(data.train), generator=generator)[:count]]
    asked = [(nb.caption(data.names[i], "white"),) for i in glyphs]
    groups = {"samples": painted(asked, model),
              "held-out real glyphs": data.picture(data.held_out, torch.zeros_like(data.held_out))}
    result = {}
    for name, pictures in groups.items():
        ratio, _ = nb.copy_ratio(nb.glyph_distances(data, pictures))
        result[name] = {"count": len(pictures), "median_ratio": ratio.median().item(),
                        "copies": (ratio < 1 / 3).float().mean().item()}
    return result


def evaluate_curve(data, paths, count):
    points, known = [], json.loads(RESULTS.read_text()).get("emoji", {}).get("curve", {}) if RESULTS.is_file() else {}
    known = {p["weights"]: p for p in known["points"]} if known.get("samples") == count else {}
    for path in paths:
        state = nb.load_checkpoint(path)
        model = nb.build_model(state["described"])
        model.load_state_dict(state["ema"])
        model.eval()
        pictures = state["step"] * state["described"]["settings"]["batch_size"]
        weights = nb.fingerprint(model.state_dict())[:12]
        points.append(known.get(weights) or {"pictures": pictures, "weights": weights,
                                             "sets": prompt_figures(data, model, count)})
        print(pictures, {name: round(r["top1"], 3) for name, r in points[-1]["sets"].items()}, flush=True)
    return {"points": sorted(points, key=lambda point: point["pictures"]), "samples": count}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="*", default=["prompts", "settings", "inpaint", "guidance", "copies"],
                        choices=["prompts", "settings", "inpaint", "guidance", "copies", "curve"])
    parser.add_argument("--samples", type=int, help="prompts of each set, pictures of each bin")
    parser.add_argument("--states", nargs="*", default=[], help="for curve: earlier states of the training run")
    arguments = parser.parse_args()
    data, model = nb.EmojiData(), nb.load_model("emoji")
    weights = nb.fingerprint([model.state_dict(), nb.load_model("draft", "cpu").state_dict()])[:12]
    parts = {"prompts": lambda: evaluate_prompts(data, model, arguments.samples or 1000),
             "settings": lambda: evaluate_settings(data, model, arguments.samples or 300),
             "inpaint": lambda: evaluate_inpainting(data, model, arguments.samples or 50),
             "guidance": lambda: evaluate_fill_guidance(data, model, arguments.samples or 100),
             "copies": lambda: evaluate_copies(data, model, arguments.samples or 200),
             "curve": lambda: evaluate_curve(data, arguments.states, arguments.samples or 100)}
    for part in arguments.part:
        figures = {**parts[part](), "weights": weights, **machine()}
        results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        write_results("emoji", {**results.get("emoji", {}), part: figures})
        print(part, "done", flush=True)
