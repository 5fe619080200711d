"""Every public function and recipe on a GPU that is only pretended: no tensor may be left on the processor."""

import math
import sys
from dataclasses import replace

import pytest
import torch
from conftest import ROOT, nb
from pretended_gpu import pretended_gpu

sys.path.insert(0, str(ROOT / "report" / "evaluate"))

import animals  # noqa: E402
import detector  # noqa: E402
import judges  # noqa: E402
import pilots  # noqa: E402

SHRUNK = {"CourseUNet": {"D": 4}, "UNet": {"widths": [32, 32], "embedding": 16}}
PICTURES = torch.linspace(0, 1, 2 * 3 * 64 * 64).view(2, 3, 64, 64)
MASKS = torch.ones(2, 1, 64, 64).tril()
CALLS = {
    "digits": lambda **o: nb.generate_digits([3, 1], method="ddim", eta=0.5, **o),
    "painter": lambda **o: nb.text_to_image(["an owl", ""], method="ddpm", **o),
    "painter, filled": lambda **o: nb.inpaint(PICTURES, MASKS, "an owl", **o),
    "painter, training-free fills": lambda **o: nb.inpaint_training_free(PICTURES, MASKS, resample=2, **o),
    "painter, edited": lambda **o: nb.edit(PICTURES, "an owl", start=0.5, **o),
    "painter, anagram": lambda **o: nb.anagram("an owl", "a cat", view="quarter turn", **o),
    "painter, hybrid": lambda **o: nb.hybrid("an owl", "a cat", **o),
    "painter, watched": lambda **o: nb.attention_maps("an owl", **o)[1],
    "upscaler": lambda **o: nb.upscale(PICTURES, **o),
    "animals": lambda **o: nb.generate_animals([1, 4], **o),
    "animals, x_T": lambda **o: nb.generate_animals([2], x_T=torch.ones(1, 3, 64, 64), method="ddpm", **o)}


@pytest.fixture
def gpu():
    """A machine that says it has a GPU, and models not yet loaded; what was loaded there is forgotten afterwards."""
    nb.shipped.cache_clear()
    judges.load_judge.cache_clear()
    with pretended_gpu():
        yield
    nb.shipped.cache_clear()
    judges.load_judge.cache_clear()


def test_the_pretended_gpu_is_as_strict_as_cuda(gpu):
    here, there = torch.randn(3), torch.randn(3).to("cuda")
    assert (here.device.type, there.device.type, there.cpu().device.type) == ("cpu", "cuda", "cpu")
    assert (2 * there[1:] + torch.tensor(1.0)).device.type == torch.zeros_like(there).device.type == "cuda"
    for wrong, error in ((lambda: here + there, "two devices"), (lambda: torch.nn.Linear(3, 3)(there), "two devices"),
                         (lambda: torch.randn(3, generator=torch.Generator(), device="cuda"), "generator"),
                         (lambda: there.numpy(), r"\.cpu\(\) first")):
        with pytest.raises((RuntimeError, TypeError), match=error):
            wrong()


@pytest.mark.parametrize("name", CALLS)
def test_a_seed_means_the_same_pictures_as_on_the_processor(gpu, name):
    model = name.split(",")[0]
    assert next(nb.shipped(model).parameters()).device.type == "cuda"
    x = CALLS[name](steps=2)
    assert x.device.type == "cpu"
    assert torch.allclose(x, CALLS[name](steps=2, model=nb.load_model(model, "cpu")), atol=1e-5)


def test_judges_take_pictures_of_the_processor(gpu, digits):
    judge = judges.load_judge("digit_classifier")
    assert next(judge.parameters()).device.type == "cuda"
    assert judges.accuracy(judge, digits[0][:500], digits[1][:500]) > 0.97


def test_what_measures_animals_and_pilots_does_so_there(gpu, monkeypatch):
    data = nb.AnimalPictures()
    judge = animals.train_judge(data.images, data.labels, 5, steps=1)
    assert animals.judged(data, nb.shipped("animals"), 2, judge, steps=1)[0].keys() >= {"top1", "copies"}
    monkeypatch.setattr(animals, "train_judge", lambda *a: judge)
    assert 0 <= animals.judge_on_style(data) <= 1
    monkeypatch.setattr(pilots, "LEVELS", (500,))
    assert pilots.measure(nb.shipped("painter"), detector.load_judge(), 2).keys() == {"error", "margin", "named"}


RECIPES = {"denoiser": lambda: nb.DENOISER, "time": lambda: nb.TIME, "class": lambda: nb.CLASS,
           "digits": lambda: nb.DIGITS, "painter": lambda: nb.PAINTER, "upscaler": lambda: nb.UPSCALER,
           "animals": lambda: nb.animal_recipe(nb.AnimalPictures()), "judge": lambda: judges.RECIPE}


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_trains_keeps_samples_and_goes_on(gpu, tmp_path, monkeypatch, digits, name):
    """Its loss and samples as they are; a narrow net, two epochs of one batch each."""
    monkeypatch.setattr(nb, "load_mnist", lambda train=True: digits)
    recipe = RECIPES[name]()
    info = {**recipe.info, "config": {**recipe.info["config"], **SHRUNK.get(recipe.info["net"], {})}}
    recipe = replace(recipe, info=info, pictures=2, batch_size=2, epochs=2, keep_at=(2,))
    for steps in (1, 2):  # the second call goes on where the first was stopped
        model = nb.train(recipe, tmp_path, max_seconds=0)
        assert (model.info["step"], len(model.info["losses"])) == (steps, steps)
    if torch.__version__ >= "2.9" or name not in ("time", "class"):  # torch 2.6 loses the pretence's mark on these two
        assert next(model.parameters()).device.type == "cuda"
    assert (2 in model.info["samples"]) is (recipe.keep is not None)
    assert nb.load_model(tmp_path / f"{recipe.name}.safetensors", classes=recipe.classes).info["step"] == 2


@pytest.mark.parametrize("name", ["digits", "painter, filled", "upscaler", "animals"])
def test_defaults_of_torch_that_the_user_changed_change_no_picture(name):
    before = CALLS[name](steps=1)
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    try:
        after = CALLS[name](steps=1)
        losses = nb.live(replace(nb.animal_recipe(nb.AnimalPictures()), batch_size=2), 2) if name == "animals" else [0]
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_default_dtype(torch.float32)
    assert after.dtype == torch.float32
    assert torch.allclose(before, after, atol=1e-6)
    assert all(map(math.isfinite, losses))
