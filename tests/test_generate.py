"""What a user may pass to any public function, and digits on request with the shipped weights."""

import math

import numpy as np
import pytest
import torch
from conftest import TINY, nb, stirred

from report.evaluate.judges import accuracy, load_judge

PICTURE, MASK = torch.linspace(0, 1, 3 * 64 * 64).view(1, 3, 64, 64), torch.ones(1, 1, 64, 64).tril()
WALK = {"steps": 2, "seed": 3, "guidance": 1.5}
FUNCTIONS = {  # name: (a call, numbers that it takes)
    "digits": (lambda **o: nb.generate_digits([7], method="ddim", **o), {**WALK, "eta": 0.5}),
    "text": (lambda **o: nb.text_to_image("an owl", method="ddim", **o), {**WALK, "eta": 0.5}),
    "inpaint": (lambda **o: nb.inpaint(PICTURE, MASK, "an owl", **o), WALK),
    "training-free": (lambda **o: nb.inpaint_training_free(PICTURE, MASK, **o), {"steps": 2, "seed": 3, "resample": 2}),
    "edit": (lambda **o: nb.edit(PICTURE, "an owl", **o), {**WALK, "start": 0.5}),
    "anagram": (lambda **o: nb.anagram("an owl", "a cat", **o), WALK),
    "hybrid": (lambda **o: nb.hybrid("an owl", "a cat", **o), {**WALK, "sigma": 2.5}),
    "attention": (lambda **o: torch.cat([x.flatten() for x in nb.attention_maps("an owl", **o)[1:]]), WALK),
    "upscale": (lambda **o: nb.upscale(PICTURE, **o), {"steps": 2, "seed": 3, "level": 0.125}),
    "animals": (lambda **o: nb.generate_animals([1], **o), WALK),
    "from x_T": (lambda **o: nb.generate_animals([1], x_T=torch.ones(1, 3, 64, 64), method="ddpm", **o), WALK),
    "masks": (lambda *, low=0.0, high=1.0, **o: nb.make_masks("blobs", generator=torch.Generator().manual_seed(0),
                                                              ratio=(low, high), **{"count": 9, **o}),
              {"count": 2, "low": 0.25, "high": 0.5, "size": 32}),
    "pictures": (lambda **o: nb.AnimalPictures(**{"size": 16, **o}).images, {"size": 32, "classes": 2, "per_class": 3})}
CALLS = [(name, argument) for name, (_, numbers) in FUNCTIONS.items() for argument in numbers]


@pytest.mark.parametrize(("name", "argument"), CALLS)
def test_numbers_of_numpy_and_torch_are_numbers(name, argument):
    call, numbers = FUNCTIONS[name]
    value, given = numbers[argument], {k: v for k, v in numbers.items() if k == "steps"}
    kinds = (np.int64, np.uint8, torch.tensor) if isinstance(value, int) else (np.float32, np.float64, torch.tensor)
    expected = call(**{**given, argument: value})
    assert all(torch.equal(call(**{**given, argument: kind(value)}), expected) for kind in kinds)
    if argument != "steps":
        assert not torch.equal(call(**given), expected)  # and it is not passed over


@pytest.mark.parametrize(("name", "argument"), CALLS)
def test_what_is_no_number_in_range_is_refused_before_the_first_step(name, argument, monkeypatch):
    monkeypatch.setattr(nb.Denoiser, "predict", lambda *_: pytest.fail("a step was taken"))
    call, numbers = FUNCTIONS[name]
    wrong = [True, np.True_, "2", -1e9, 10**400, math.nan, math.inf, [2], torch.ones(2), 1j]
    wrong += [2.0, 1.5, 10**9, -1] * (isinstance(numbers[argument], int) and argument != "seed")
    wrong += [0] * (argument in ("steps", "resample", "sigma", "count", "size", "classes", "per_class"))
    for value in wrong:
        with pytest.raises(ValueError, match="ratio" if argument in ("low", "high") else argument):
            call(**{"steps": 2, **{argument: value}} if "steps" in numbers else {argument: value})


@pytest.mark.parametrize("labels", [[7], (5,), 4, range(10), np.array([3, 1]), np.array([3], np.uint16),
                                    [np.int64(2), torch.tensor(3)], torch.tensor([3, 1], dtype=torch.uint8)], ids=str)
def test_labels_of_any_whole_type_make_pictures(labels, tiny):
    x = nb.generate_digits(labels, steps=3, model=tiny)
    assert x.shape == (len(labels) if np.ndim(labels) else 1, 1, 28, 28)
    assert (x.dtype, x.device.type, x.requires_grad) == (torch.float32, "cpu", False)
    assert 0 <= x.min() <= x.max() <= 1


@pytest.mark.parametrize("labels", [[10], [-1], [3, 11], [], [1.0], 2.0, [True], torch.tensor([0.0]), [math.nan],
                                    "three", ["3"], None, [10**30], [[1], [2, 3]]], ids=str)
def test_bad_labels_are_refused(labels, tiny):
    with pytest.raises(ValueError, match="whole numbers from 0 to 9"):
        nb.generate_digits(labels, steps=2, model=tiny)


@pytest.mark.parametrize("model", ["digits", torch.nn.Linear(2, 2), nb.build_model(TINY).net, nb.build_model(
    {**TINY, "config": {**TINY["config"], "classes": 0}})], ids=lambda model: type(model).__name__)
def test_a_model_of_another_kind_is_refused(model):
    for call in (lambda **o: nb.generate_digits([1], **o), lambda **o: nb.text_to_image("", **o),
                 lambda **o: nb.generate_animals([1], **o), lambda **o: nb.upscale(PICTURE, **o)):
        with pytest.raises(ValueError, match="load_model|expected x"):
            call(steps=1, model=model)


@pytest.mark.parametrize(("method", "eta"), [("ddpm", 0.0), ("ddim", 0.0), ("ddim", 1.0), ("2m", 0.0)])
def test_a_seed_decides_each_picture_alone(method, eta, tiny):
    model = stirred(tiny)

    def make(labels, seed):
        torch.rand(1)  # the global generator plays no part
        return nb.generate_digits(labels, steps=5, seed=seed, method=method, eta=eta, model=model)

    together = make([1, 2, 1], 3)
    assert torch.equal(together, make([1, 2, 1], 3))
    assert torch.allclose(together, torch.cat([make([1], 3), make([2], 4), make([1], 5)]), atol=1e-5)
    assert not torch.allclose(together[0], together[2], atol=1e-2)


def test_the_shipped_model_draws_the_digits_that_are_asked_for(digits):
    judge, labels = load_judge("digit_classifier"), torch.arange(60) % 10
    assert accuracy(judge, digits[0][:2000], digits[1][:2000]) >= 0.98
    x = nb.generate_digits(labels, guidance=2.0, steps=20, seed=0)
    assert accuracy(judge, nb.to_model_range(x), labels) >= 0.95
    assert abs(x.mean() - nb.to_image_range(digits[0]).mean()) < 0.04  # as much ink as real ones
    assert torch.cdist(x.flatten(1), x.flatten(1)).fill_diagonal_(9).min() > 1  # and no two alike


def test_a_compiled_model_draws_as_the_model_does(tiny):
    model = stirred(tiny)
    compiled = torch.compile(model, backend="eager")
    assert torch.equal(*(nb.generate_digits([3, 1], steps=2, model=m) for m in (model, compiled)))


def test_digits_may_be_asked_for_in_words():
    assert torch.equal(nb.generate_digits([7, 1], steps=3), nb.generate_digits(["7", "1"], steps=3))
    for prompt in ("something else", [""]):
        assert nb.generate_digits(prompt, steps=1).shape == (1, 1, 28, 28)
    judge, digits = load_judge("digit_classifier"), torch.arange(100) % 10
    asked = [nb.phrase(nb.KEPT_PHRASES[i // 10], d) for i, d in enumerate(digits.tolist())]
    assert not set(asked) & {nb.phrase(form, d) for form in nb.PHRASES for d in range(10)}
    assert "an eight in handwriting" in asked
    assert accuracy(judge, nb.to_model_range(nb.generate_digits(asked, steps=10)), digits) >= 0.95
    for wrong in (["7", 3], [None, "7"]):
        with pytest.raises(TypeError, match="list of strings"):
            nb.generate_digits(wrong)


def test_training_tells_each_picture_by_a_phrase_of_training():
    told = []

    class Told:
        def loss(self, x_0, condition, generator):
            told.extend(zip(condition.prompt, x_0, strict=True))

    images, labels = nb.load_mnist()
    nb.phrase_loss(Told(), torch.arange(2000), torch.Generator().manual_seed(0))
    assert all(torch.equal(x, image) for (_, x), image in zip(told, images[:2000], strict=True))
    known = [{nb.phrase(form, d) for form in nb.PHRASES} for d in range(10)]
    assert all(prompt in known[d] for (prompt, _), d in zip(told, labels[:2000].tolist(), strict=True))
    assert {prompt for prompt, _ in told} == set().union(*known)


def test_kept_samples_show_the_way_from_noise_to_the_digits(tiny):
    kept = nb.kept_digits(stirred(tiny), steps=20, frames=3)
    assert (kept.dtype, kept.shape) == (torch.uint8, (3, 40, 1, 28, 28))
    assert (kept[0] / 255 - nb.to_image_range(nb.Noise(0, 40)((1, 28, 28)))).abs().max() <= 0.51 / 255
    end = nb.generate_digits(torch.arange(40) % 10, guidance=5, steps=20, method="ddpm", model=tiny)
    assert (kept[2] / 255 - end).abs().max() <= 0.51 / 255
