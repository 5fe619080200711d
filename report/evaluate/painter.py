"""The painter's figures; writes `emoji` into report/results.json. python report/evaluate/painter.py [--part ...]

prompts   what a judge sees of what was asked: seen captions, held-out pairs, synonyms, digits by words
inpaint   fills of held-out glyphs beside classical ones, replacement and RePaint, by bins of hole ratio
copies    nearest over second-nearest distance to the training glyphs

All at 20 steps and guidance 3 where nothing else is said; sample number i has the noise of seed i. inpaint needs
`pip install -r tests/benchmarks/requirements.txt`. Each part takes minutes on two cores.
"""

import argparse
import time

import judges
import torch
import torch.nn.functional as F
from common import RESULTS, in_parts, machine, nb, weights_of, write_results
from detector import load_judge
from judges import copy_ratio, hole_psnr, in_batches, perceptual_distance

BINS = ((0.01, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.6))
SYNONYMS = {
    "kitten": "cat, cat face", "puppy": "dog, dog face", "bunny": "rabbit, rabbit face", "piglet": "pig, pig face",
    "pony": "horse, horse face", "serpent": "snake", "primate": "monkey, monkey face, gorilla, orangutan",
    "sedan": "automobile", "jet plane": "airplane, small airplane, airplane departure", "yacht": "sailboat",
    "moped": "motor scooter, racing motorcycle", "cab": "taxi", "bike": "bicycle", "phantom": "ghost",
    "martian": "extraterrestrial alien, alien monster", "wizard": "mage", "android": "robot face",
    "monarch": "prince, person with crown, crown", "infant": "baby",
    "spectacles": "eyeglasses, dark sunglasses, goggles",
    "sneaker": "athletic shoe", "gown": "dress, kimono", "rucksack": "school satchel", "pumpkin": "jack-o-lantern",
    "burger": "hamburger", "donut": "doughnut", "biscuit": "cookie", "pasta": "spaghetti", "eggplant": "aubergine",
    "mandarin fruit": "tangerine", "espresso": "hot beverage", "loaf": "bread, baguette bread", "lightbulb":
    "electric light bulb", "flashlight": "electric torch", "padlock": "lock, closed lock with key, lock with ink pen",
    "tv": "television", "laptop": "personal computer", "sword": "crossed swords, dagger knife", "dice": "game die",
    "saturn": "ringed planet", "hurricane": "cyclone, cloud with tornado", "flames": "fire", "furious":
    "pouting face, face with look of triumph", "garbage": "wastebasket", "sofa": "couch and lamp", "doctor's needle":
    "syringe", "timber": "wood", "stone": "rock", "jumbo with a trunk": "elephant", "dinosaur": "sauropod, t-rex"}


def prompt_sets(data, count, seed=0):
    """Prompts to be judged: {set: list of (prompt, right glyph indices or a digit, colour or None)}.

    "seen": glyph and colour pairs of training; "held-out pairs"; "synonyms" of SYNONYMS; "digits" in words, where the
    right answer is len(data.names) + digit. `count` of each, drawn with a seed (of the synonyms all, in turn).
    """
    generator, colours = torch.Generator().manual_seed(seed), list(nb.COLOURS)
    trained = torch.isin(torch.arange(len(data.names)), data.train)[:, None]
    sets = {}
    for name, pairs in (("seen", (~data.held_pairs & trained).nonzero()),
                        ("held-out pairs", (data.held_pairs & trained).nonzero())):
        drawn = pairs[torch.randperm(len(pairs), generator=generator)[:count]].tolist()
        sets[name] = [(nb.caption(data.names[g], colours[c]), [g], c) for g, c in drawn]
    right = {word: [data.names.index(name) for name in names.split(", ")] for word, names in SYNONYMS.items()}
    words = [word for word, glyphs in right.items() if any(g in data.train for g in glyphs)]
    sets["synonyms"] = [(nb.caption(words[i % len(words)]), right[words[i % len(words)]], None) for i in range(count)]
    digits = torch.randint(10, (count,), generator=generator).tolist()
    shade = torch.randint(len(colours), (count,), generator=generator).tolist()
    sets["digits"] = [(nb.caption(f"handwritten {nb.NUMBERS[d]}", colours[c]), [len(data.names) + d], c)
                      for d, c in zip(digits, shade, strict=True)]
    return sets


def painted(asked, model, **options):
    """First samples of each prompt: [N, 3, 64, 64] in [0, 1]."""
    prompts = [prompt for prompt, *_ in asked]
    return in_parts(len(prompts), 100, lambda a, b: nb.text_to_image(prompts[a:b], seed=a, model=model, **options))


def read_digits(pictures):
    """Digits read from pictures of handwriting [B, 3, 64, 64] in [0, 1] by the digit judge: int64 [B].

    The colour of the corners is taken for the paper; what is darker becomes the ink, at 28 x 28.
    """
    paper = torch.stack([pictures[..., y, x] for y in (1, -2) for x in (1, -2)]).median(0)[0][..., None, None]
    ink = (1 - (pictures / paper.clamp(min=0.1)).mean(1, keepdim=True)).clamp(0, 1) / 0.9
    small = F.avg_pool2d(ink[..., 4:60, 4:60], 2).clamp(0, 1)
    return in_batches(judges.load_judge("digit_classifier"), nb.to_model_range(small)).argmax(1)


def judged(pictures, asked):
    """How many pictures [B, 3, 64, 64] in [0, 1] show what was asked, `asked` as of `prompt_sets`.

    Returns shares: top1 and top5 (a right subject is first, or among the first five, of all names; a digit must be
    taken for handwriting by the emoji judge, and be read correctly by the digit judge, which has no top5: None),
    colour, both (top1 and colour); colour and both are None where no colour was asked.
    """
    judge, x = load_judge("emoji_judge"), nb.to_model_range(pictures)
    subject, colour = (in_batches(lambda part, k=k: judge(part)[k], x, 250) for k in (0, 1))
    best, digit = subject.topk(5, 1).indices, subject.shape[1] - 10
    handwriting = asked[0][1][0] >= digit
    if handwriting:
        best = torch.where(best[:, :1] >= digit, digit + read_digits(pictures)[:, None], -1)  # -1: no handwriting
    right = [torch.isin(row, torch.tensor(answers)) for row, (_, answers, _) in zip(best, asked, strict=True)]
    first = torch.stack([row[0] for row in right])
    fifth = None if handwriting else torch.stack([r.any() for r in right]).float().mean().item()
    result = {"top1": first.float().mean().item(), "top5": fifth, "colour": None, "both": None, "samples": len(asked)}
    if asked[0][2] is not None:
        ground = colour.argmax(1) == torch.tensor([c for *_, c in asked])
        result |= {"colour": ground.float().mean().item(), "both": (first & ground).float().mean().item()}
    return result


def evaluate_prompts(data, model, count):
    begun, asked = time.time(), prompt_sets(data, count)
    sets = {name: judged(painted(prompts, model), prompts) for name, prompts in asked.items()}
    seconds = (time.time() - begun) / sum(r["samples"] for r in sets.values())
    model.reader.nearest = False  # the draft reads the words as they are
    sets["synonyms, drafted as they are"] = judged(painted(asked["synonyms"], model), asked["synonyms"])
    model.reader.nearest = True
    glyphs, colours = zip(*((g, c) for _, (g,), c in asked["seen"]), strict=True)
    real = data.picture(torch.tensor(glyphs), torch.tensor(colours), torch.Generator().manual_seed(1))
    images, labels = nb.load_mnist(train=False)
    paper = data.palette[torch.arange(1000) % len(nb.COLOURS)]
    read = read_digits(nb.digit_pictures(images[:1000], paper))
    return {"sets": sets, "real": judged(real, asked["seen"]), "seconds_a_sample": seconds,
            "real_digits": (read == labels[:1000]).float().mean().item(), "guidance": 3.0, "steps": 20,
            "chance": {"subject": 1 / len(data.names), "colour": 1 / len(nb.COLOURS)},
            "synonyms": len({prompt for prompt, *_ in asked["synonyms"]})}


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
    judge, bins = load_judge("emoji_judge"), {}
    generator = torch.Generator().manual_seed(0)
    for low, high in BINS:
        glyph = data.held_out[torch.arange(count) % len(data.held_out)]
        images = data.picture(glyph, torch.randint(len(nb.COLOURS), (count,), generator=generator), generator)
        irregular, regular = "strokes" if high <= 0.1 else "blobs", "rectangles" if 0.1 < high <= 0.3 else "rectangle"
        half = [nb.make_masks(kind, -(-count // 2), generator=generator, ratio=(low, high))
                for kind in (irregular, regular)]
        masks = torch.stack(half, 1).flatten(0, 1)[:count]
        samples = [nb.inpaint(images, masks, seed=1000 * k, model=model) for k in range(8)]
        fills = {"ours, one sample": samples[0], "ours, mean of eight": torch.stack(samples).mean(0),
                 "replacement": nb.inpaint_untold(images, masks, model=model),
                 "ours, one sample, 96 steps of DDPM": nb.inpaint(images, masks, steps=96, method="ddpm", model=model),
                 "RePaint": nb.inpaint_untold(images, masks, resample=5, model=model), **classical_fills(images, masks)}
        bins[f"{low:.0%} to {high:.0%}"] = {name: {
            "psnr": hole_psnr(fill, images, masks),
            "ssim": box_ssim(fill, images, masks).mean().item(),
            "perceptual": perceptual_distance(judge, fill, images).mean().item()} for name, fill in fills.items()}
        print(f"{low:.0%} to {high:.0%}", flush=True)
    return {"bins": bins, "pictures_a_bin": count, "steps": 20, "repaint_times": 5}


def glyph_distances(data, pictures):
    """RMS distance of pictures on white [B, 3, 64, 64] in [0, 1] from every training glyph on white: [B, n].

    Taken at half size, the smallest over the three sizes of a glyph.
    """
    small, white, distances = F.avg_pool2d(pictures, 2).flatten(1), torch.ones(len(data.train), 3), []
    for size in range(3):
        glyphs = F.avg_pool2d(nb.over(data.glyphs[data.train, size], white), 2).flatten(1)
        distances.append(torch.cdist(small, glyphs) / small.shape[1] ** 0.5)
    return torch.stack(distances).amin(0)


def evaluate_copies(data, model, count):
    glyphs = data.train[torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:count]]
    groups = {"samples": painted([(nb.caption(data.names[i], "white"),) for i in glyphs], model),
              "held-out real glyphs": data.picture(data.held_out, torch.zeros_like(data.held_out))}
    result = {}
    for name, pictures in groups.items():
        ratio, _ = copy_ratio(glyph_distances(data, pictures))
        result[name] = {"count": len(pictures), "median_ratio": ratio.median().item(),
                        "copies": (ratio < 1 / 3).float().mean().item()}
    return result


PARTS = {"prompts": (evaluate_prompts, 1000), "inpaint": (evaluate_inpainting, 24), "copies": (evaluate_copies, 200)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--samples", type=int, help="prompts of each set, pictures of each bin")
    parser.add_argument("--results", default=RESULTS, help="the file to write")
    options = parser.parse_args()
    data, model = nb.emoji_data(), nb.load_model("emoji")
    for part in options.part:
        evaluate, count = PARTS[part]
        figures = evaluate(data, model, options.samples or count)
        print(part, figures, flush=True)
        write_results("emoji", part, {**figures, "weights": weights_of(model), **machine()}, options.results)
