"""Editing, judged: python report/evaluate/editing.py [--part ...] [--pairs 50]

guidance   subject right and distance of two samples, at guidance 1, 3 and 7
anagrams   both prompts of a pair seen by the judge, each in its view: every view on pairs of any names, and upside down
           on pairs of round things
hybrids    one prompt seen in the picture, the other in the picture made small, at several sigmas; three times as many
upscale    drawings never trained on, from 64 to 256 pixels: PSNR and perceptual distance beside bicubic and Lanczos

Pairs of training names are drawn by seed 0; first samples, guidance 3, 50 steps. Results go to report/results.json
under "editing", the pairs that were recognised among them; twenty minutes on two cores.
"""

import argparse
import re
import time

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from common import RESULTS, machine, nb, weights_of, write_results
from detector import evidence, load_judge
from judges import hole_psnr, perceptual_distance

from models import scenes

SIGMAS = (1.0, 2.0, 3.0, 4.0)


def seen(judge, pictures, asked, other=None):
    """What the judge sees, as bool tensors [N]: of all things it sees the one asked for most plainly, among the five it
    sees most plainly, and more plainly than `other`, the other of a pair."""
    found = evidence(judge, pictures)
    top, row, asked = found.topk(5, 1).indices, torch.arange(len(asked)), torch.as_tensor(asked)
    likelier = None if other is None else found[row, asked] > found[row, torch.as_tensor(other)]
    return top[:, 0] == asked, (top == asked[:, None]).any(1), likelier


def share(x):
    return x.float().mean().item()


def captions_of(data, things):
    return [scenes.noun(data.names[i]) for i in things]


def evaluate_guidance(data, judge, model, count):
    things = np.random.default_rng(0).permutation(data.train)[: 2 * count]
    prompts, rows = captions_of(data, things), []
    for guidance in (1.0, 3.0, 7.0):
        a, b = (nb.text_to_image(prompts, guidance=guidance, seed=seed, model=model) for seed in (0, 10_000))
        rows.append({"guidance": guidance, "top1": share(torch.cat([seen(judge, x, things)[0] for x in (a, b)])),
                     "diversity": perceptual_distance(judge, a, b).mean().item()})
        print(rows[-1], flush=True)
    return {"rows": rows, "prompts": len(prompts)}


ROUND = re.compile("apple|orange|lemon|tomato|donut|cookie|ball|sun$|clock|pumpkin|face|heart|balloon")


def pairs_of(data, count, only=None):
    """Two sets of trained things, pairs of different ones, drawn by seed 0; only: those whose name it matches."""
    things = np.array([i for i in data.train if only is None or only.search(data.names[i])])
    rng, found = np.random.default_rng(0), []
    while len(found) < count:
        order = rng.permutation(things)
        found += list(zip(order[::2], order[1::2], strict=False))
    return tuple(np.array(found[:count]).T)


def recognised(data, near, far, both):
    """The pairs that were recognised: [name, other name, seed], as picture i has the noise of seed i."""
    return [[data.names[a], data.names[b], i] for i, (a, b, yes) in enumerate(zip(near, far, both, strict=True)) if yes]


def evaluate_anagrams(data, judge, model, count):
    views = {}
    for name, only in [*((name, None) for name in nb.VIEWS), ("upside down", ROUND)]:
        a, b = pairs_of(data, count, only)
        pictures = nb.anagram(captions_of(data, a), captions_of(data, b), view=name, model=model)
        turned = nb.to_image_range(nb.VIEWS[name][0](nb.to_model_range(pictures))).clamp(0, 1)
        (a1, a5, a2), (b1, b5, b2) = seen(judge, pictures, a, b), seen(judge, turned, b, a)
        key = name if only is None else f"{name}, round things"
        views[key] = {"both": share(a1 & b1), "either": share(a1 | b1), "both5": share(a5 & b5),
                      "apart": share(a2 & b2), "pairs": recognised(data, a, b, a1 & b1)}
        print(key, views[key], flush=True)
    return {"views": views, "pairs": count, "steps": 50, "guidance": 3.0}


def evaluate_hybrids(data, judge, model, count):
    count *= 3  # few are recognised
    near, far = pairs_of(data, count)
    sigmas = {}
    for sigma in SIGMAS:
        pictures = nb.hybrid(captions_of(data, near), captions_of(data, far), sigma=sigma, model=model)
        small = F.interpolate(F.avg_pool2d(pictures, 4), scale_factor=4, mode="bicubic").clamp(0, 1)
        (n1, n5, n2), (f1, f5, f2) = seen(judge, pictures, near, far), seen(judge, small, far, near)
        sigmas[f"{sigma:g}"] = {"near": share(n1), "far": share(f1), "both": share(n1 & f1), "both5": share(n5 & f5),
                                "apart": share(n2 & f2), "pairs": recognised(data, near, far, n1 & f1)}
        print(sigma, sigmas[f"{sigma:g}"], flush=True)
    return {"sigmas": sigmas, "pairs": count, "steps": 50, "guidance": 3.0}


def enlarged_by(images, name):
    """Pictures [B, 3, H, W] in [0, 1] at four times the side, by one of Pillow's filters."""
    filter, size = PIL.Image.Resampling[name], (4 * images.shape[3], 4 * images.shape[2])
    pictures = [PIL.Image.fromarray(x) for x in (images * 255).round().byte().permute(0, 2, 3, 1).numpy()]
    large = np.stack([np.asarray(picture.resize(size, filter)) for picture in pictures])
    return torch.from_numpy(large).permute(0, 3, 1, 2).float() / 255


def evaluate_upscale(data, judge, model, count):
    upscaler, ground = nb.load_model("upscaler"), torch.tensor(list(nb.COLOURS.values())) / 255
    drawn = nb.draw_svg([data.svg[i][style] for i in data.held_out for style in range(4)], 256)
    originals = nb.over(drawn, ground[torch.arange(len(drawn)) % len(ground)])
    small, everywhere, ways = F.avg_pool2d(originals, 4), torch.ones(len(originals), 1, 256, 256), {}
    for name, way in {"bicubic": lambda x: enlarged_by(x, "BICUBIC"), "Lanczos": lambda x: enlarged_by(x, "LANCZOS"),
                      "second stage, 1 step": lambda x: nb.upscale(x, steps=1, model=upscaler),
                      "second stage, 8 steps": lambda x: nb.upscale(x, model=upscaler)}.items():
        begun = time.time()
        large = torch.cat([way(x) for x in small.split(10)])
        seconds = (time.time() - begun) / len(small)
        far = torch.cat([perceptual_distance(judge, a, b) for a, b in
                         zip(large.split(10), originals.split(10), strict=True)])
        ways[name] = {"psnr": hole_psnr(large, originals, everywhere), "perceptual": far.mean().item(),
                      "seconds": seconds}
        print(name, ways[name], flush=True)
    return {"ways": ways, "samples": len(small), "upscaler": weights_of(upscaler)}


PARTS = {"guidance": evaluate_guidance, "anagrams": evaluate_anagrams, "hybrids": evaluate_hybrids,
         "upscale": evaluate_upscale}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--results", default=RESULTS, help="the file to write")
    options = parser.parse_args()
    data, judge, model = scenes.drawings(), load_judge(), nb.load_model("painter")
    for part in options.part:
        figures = PARTS[part](data, judge, model, options.pairs)
        write_results("editing", part, {**figures, "weights": weights_of(model), **machine()}, options.results)
