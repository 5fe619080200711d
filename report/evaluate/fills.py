"""Fills of holes in things never trained on, beside classical fills, replacement and RePaint, by bins of hole ratio;
writes `fills` into report/results.json. python report/evaluate/fills.py [--samples 24]

20 steps where nothing else is said; sample number i has the noise of seed i. Needs `pip install -r
tests/benchmarks/requirements.txt`; half an hour on two cores.
"""

import argparse

import numpy as np
import torch
from common import RESULTS, machine, nb, weights_of, write_results
from detector import load_judge
from judges import hole_psnr, perceptual_distance, seam

from models import scenes

BINS = ((0.01, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.6))


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


def evaluate(model, count):
    """{"bins": {range: {fill: {"psnr", "ssim", "seam", "perceptual"}}}, ...}."""
    data, judge, bins = scenes.drawings(), load_judge(), {}
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    for low, high in BINS:
        images = torch.cat([scenes.alone(data.held_out[i % len(data.held_out)], rng.integers(4), rng.integers(11),
                                         int(rng.choice((32, 48)))) for i in range(count)])
        irregular, regular = "strokes" if high <= 0.1 else "blobs", "rectangles" if 0.1 < high <= 0.3 else "rectangle"
        half = [nb.make_masks(kind, -(-count // 2), generator=generator, ratio=(low, high))
                for kind in (irregular, regular)]
        masks = torch.stack(half, 1).flatten(0, 1)[:count]
        samples = [nb.inpaint(images, masks, seed=1000 * k, model=model) for k in range(8)]
        fills = {"ours, one sample": samples[0], "ours, mean of eight": torch.stack(samples).mean(0),
                 "replacement": nb.inpaint_training_free(images, masks, model=model),
                 "ours, one sample, 96 steps": nb.inpaint(images, masks, steps=96, model=model),
                 "RePaint": nb.inpaint_training_free(images, masks, resample=5, model=model),
                 **classical_fills(images, masks)}
        bins[f"{low:.0%} to {high:.0%}"] = {name: {
            "psnr": hole_psnr(fill, images, masks),
            "ssim": box_ssim(fill, images, masks).mean().item(),
            "seam": seam(fill, images, masks),
            "perceptual": perceptual_distance(judge, fill, images).mean().item()} for name, fill in fills.items()}
        print(f"{low:.0%} to {high:.0%}", flush=True)
    return {"bins": bins, "pictures_a_bin": count, "steps": 20, "repaint_times": 5}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=24, help="pictures of each bin")
    parser.add_argument("--results", default=RESULTS, help="the file to write")
    options = parser.parse_args()
    model = nb.load_model("painter")
    figures = evaluate(model, options.samples)
    write_results("scenes", "fills", {**figures, "weights": weights_of(model), **machine()}, options.results)
