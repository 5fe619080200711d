"""The judges, what is measured with them, the sets of prompts, and the figures that were measured and are shown."""

import ast
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, nb
from scipy.linalg import sqrtm
from test_painter import seeded
from torchvision.utils import save_image

sys.path.insert(0, str(ROOT / "report" / "evaluate"))

import animals  # noqa: E402
import detector  # noqa: E402
import judges  # noqa: E402
from common import weights_of  # noqa: E402


# ----------------------------------------------------------------------------- measures
def features(mean, root, seed):
    """4,000 numbers of exactly this mean [F] and the covariance root root^T."""
    x = torch.randn(4000, len(mean), generator=seeded(seed), dtype=torch.float64)
    x = x - x.mean(0)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(x.T)), x.T, upper=False).T @ root.T + mean


def test_the_frechet_distance_is_that_of_the_gaussians():
    ones, spread = torch.ones(6, dtype=torch.float64), torch.linspace(0.5, 3, 6, dtype=torch.float64)
    a, b = features(0 * ones, ones.diag(), 0), features(2 * ones, spread.diag(), 1)
    assert abs(judges.frechet_distance(a, a)) < 1e-9
    diagonal = 4 * 6 + (spread - 1).square().sum().item()  # of the means and of the deviations
    assert judges.frechet_distance(a, b) == pytest.approx(diagonal, rel=1e-9)
    a, b = (features(s * ones, torch.randn(6, 6, generator=seeded(s), dtype=torch.float64), s) for s in (2, 3))
    s_a, s_b = (np.cov(x.T.numpy()) for x in (a, b))
    expected = pytest.approx(6 + np.trace(s_a + s_b - 2 * sqrtm(s_a @ s_b).real), rel=1e-6)
    assert judges.frechet_distance(a, b) == expected
    assert judges.frechet_distance(b, a) == expected


def test_hole_psnr_is_the_formula_over_the_hole_only():
    a = torch.full((2, 3, 8, 8), 0.5)
    b, mask = a.clone(), torch.zeros(2, 1, 8, 8)
    mask[:, :, :2] = 1
    b[:, :, :2] += 0.1
    b[:, :, 5:] = 0  # outside the hole: not looked at
    assert judges.hole_psnr(a, b, mask) == pytest.approx(20.0, abs=1e-3)
    b[1] = a[1]  # one hole filled exactly: half the error
    assert judges.hole_psnr(a, b, mask) == pytest.approx(20 + 10 * math.log10(2), abs=1e-3)


def test_a_seam_is_the_step_across_the_rim_beside_that_of_the_original():
    b, mask = torch.rand(4, 3, 16, 16, generator=seeded()), torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    assert judges.seam(b, b, mask.expand(4, -1, -1, -1)) == 1
    inner = torch.zeros_like(mask)
    inner[..., 5:11, 5:11] = 1  # what lies deeper than the rim does not count
    assert judges.seam(torch.where(inner > 0, 0.5, b), b, mask) == 1
    flat = torch.full_like(b, 0.5)
    flat[..., 4:12, 4:12] = 0.6
    slope = torch.where(mask > 0, 0.55, flat)
    assert judges.seam(flat, slope, mask) == pytest.approx(2, abs=1e-3)
    assert judges.seam(torch.full_like(b, 0.5), slope, mask) == 0


def test_perceptual_distance_is_zero_for_the_same_symmetric_and_grows_with_damage():
    judge, a = detector.load_judge(), torch.cat([nb.alone(i, i % 4, i) for i in range(8)])
    near, far = ((a + s * torch.randn(a.shape, generator=seeded())).clamp(0, 1) for s in (0.02, 0.2))
    assert judges.perceptual_distance(judge, a, a).abs().max() < 1e-9
    assert (judges.perceptual_distance(judge, a, near) < judges.perceptual_distance(judge, a, far)).all()
    assert torch.allclose(judges.perceptual_distance(judge, far, a), judges.perceptual_distance(judge, a, far))


def test_copies_are_found(monkeypatch):
    ratio, nearest = judges.copy_ratio(torch.tensor([[3.0, 1.0, 2.0], [0.0, 9.0, 5.0]]))
    assert (ratio.tolist(), nearest.tolist()) == ([0.5, 0.0], [1, 0])
    drawn = nb.AnimalPictures()
    mirrored = torch.stack([drawn.images[drawn.labels == i][0] for i in range(5)]).flip(3)
    monkeypatch.setattr(nb, "generate_animals", lambda labels, **options: nb.to_image_range(mirrored[labels]) * 0.98)
    found, pictures, nearest = animals.judged(drawn, None, 10)
    assert pictures.shape == (10, 3, 64, 64)
    assert drawn.labels[nearest].tolist() == [0, 1, 2, 3, 4] * 2
    assert (found["copies"], found["nearest_of_class"], found["different_nearest"]) == (1, 1, 5)
    monkeypatch.setattr(nb, "generate_animals", lambda labels, **options: nb.to_image_range(drawn.images[17:19]) * 0.98)
    assert animals.judged(drawn, None, 2)[0]["copies"] == 1  # also of the drawing that two styles share


# ----------------------------------------------------------------------------- judges
def test_the_digit_judge_reads_real_digits():
    images, labels = nb.load_mnist(train=False)
    judge = judges.load_judge("digit_classifier")
    assert judges.accuracy(judge, images, labels) >= 0.995
    assert judges.accuracy(judge, images[:500], (labels[:500] + 1) % 10) < 0.02


def test_a_thing_is_seen_most_plainly_in_its_own_picture():
    things = torch.arange(0, 300, 3)
    found = detector.evidence(detector.load_judge(), torch.cat([nb.alone(i, int(i) % 4, int(i) % 11) for i in things]))
    assert found.shape == (100, 300)
    assert (found.argmax(1) == things).float().mean() > 0.95


def test_the_judge_of_animals_learns_the_classes_and_stamps_are_sorted_into_them(tmp_path):
    drawn = nb.AnimalPictures()
    seen = animals.train_judge(drawn.images, drawn.labels, 5, steps=120)(drawn.images).argmax(1)
    assert (seen == drawn.labels).float().mean() > 0.8
    for place in sum(animals.PHOTOGRAPHS.values(), []):
        path = tmp_path / "stamps" / (place if place.endswith(".png") else f"{place}/{place.replace('/', ' ')}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(torch.rand(3, 20, 30), path)
    animals.photographs(tmp_path / "stamps", tmp_path / "sorted")
    data = nb.AnimalPictures(tmp_path / "sorted")
    assert data.names == sorted(animals.PHOTOGRAPHS)
    assert data.labels.bincount().tolist() == [1, 3, 9, 4, 2]


# ----------------------------------------------------------------------------- what is asked, what was measured
def test_every_figure_that_the_notebook_asks_for_was_measured():
    found, asked = json.loads((ROOT / "report" / "results.json").read_text(encoding="utf-8")), []
    for cell in json.loads((ROOT / "diffusion_assignment.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            asked += [[ast.literal_eval(a) for a in node.args] for node in ast.walk(ast.parse("".join(cell["source"])))
                      if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "results"]
    assert len(asked) > 8
    for keys in asked:
        part = found
        for key in keys:
            assert key in part, f"results{tuple(keys)}: run the script of report/evaluate that writes it"
            part = part[key]


def test_the_measured_weights_are_those_that_are_shipped():
    found = json.loads((ROOT / "report" / "results.json").read_text(encoding="utf-8"))
    measured = {(name, part[key]) for name, key, parts in (
        ("digits", "weights", found["digits"].values()),
        ("painter", "weights", [part for name, part in found["scenes"].items() if name not in ("judge", "pilots")]),
        ("painter", "weights", found["editing"].values()), ("upscaler", "upscaler", [found["editing"]["upscale"]]),
        ("animals", "weights", [found["animals"]["shipped"]])) for part in parts if isinstance(part, dict)}
    shipped = {(name, weights_of(nb.load_model(name, "cpu"))) for name in ("digits", "painter", "upscaler", "animals")}
    assert measured == shipped, "run the scripts of report/evaluate again"


def test_the_readme_shows_what_was_measured():
    check = [sys.executable, str(ROOT / "tests" / "benchmarks" / "update_readme.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_shipped_files_hold_what_their_recipes_build():
    own = (nb.DENOISER, nb.TIME, nb.CLASS, nb.DIGITS, nb.UPSCALER, nb.PAINTER, judges.RECIPE, detector.RECIPE,
           nb.animal_recipe(nb.AnimalPictures()))
    for recipe in own:
        shipped, built = nb.load_model(recipe.name, "cpu", recipe.classes), nb.build_model(recipe.info, recipe.classes)
        shapes = [{name: w.shape for name, w in model.state_dict().items()} for model in (shipped, built)]
        half = recipe.name in ("digits_time", "digits_class") and shipped.info["config"]["D"] == 32  # not yet at scale
        assert half or shapes[0] == shapes[1], recipe.name
        assert {shipped.info.get(k) == recipe.info.get(k) for k in ("schedule", "target")} == {True}, recipe.name
