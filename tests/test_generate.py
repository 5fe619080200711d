"""Digits on request: `generate_digits` with the shipped weights, and with bad input."""

import math

import pytest
import torch
from conftest import TINY, nb


@pytest.fixture(scope="module")
def hundred():
    """Ten of each digit as the companion notebook makes them: guided, 20 steps. Fails where weights are missing."""
    assert (nb.MODELS / "digits.pt").is_file(), f"{nb.MODELS / 'digits.pt'} is missing: the project ships it"
    labels = torch.arange(100) % 10
    return labels, nb.generate_digits(labels, guidance=2.0, steps=20, seed=0)


@pytest.fixture
def model(tiny):
    """An untrained network that knows its target: enough for everything but quality."""
    tiny.info = {**TINY}
    return tiny


def test_the_judge_reads_the_digits_that_were_asked_for(hundred):
    labels, images = hundred
    judge = nb.shipped("digit_classifier")
    assert nb.accuracy(judge, nb.to_model_range(images), labels) >= 0.95


def test_the_judge_reads_real_digits(digits):
    judge = nb.shipped("digit_classifier")
    assert nb.accuracy(judge, digits[0][:2000], digits[1][:2000]) >= 0.98


def test_digits_look_like_pictures_of_digits(hundred, digits):
    """Black background, bright strokes, about as much ink as real ones, and no two alike."""
    _, images = hundred
    real = nb.to_image_range(digits[0])
    assert images.flatten(1).amax(1).min() > 0.8
    assert images[:, :, 0].mean() < 0.02
    assert abs(images.mean() - real.mean()) < 0.04
    assert torch.cdist(images.flatten(1), images.flatten(1)).fill_diagonal_(9).min() > 1


def test_guidance_zero_does_not_know_the_label(hundred):
    """Without guidance the same seed gives the same picture, whatever digit is asked for."""
    a = nb.generate_digits([0, 1, 2, 3], guidance=0, steps=10)
    b = nb.generate_digits([9, 8, 7, 6], guidance=0, steps=10)
    assert torch.allclose(a, b, atol=1e-5)
    assert not torch.allclose(nb.generate_digits([9, 8, 7, 6], guidance=1, steps=10), b, atol=0.1)


@pytest.mark.parametrize("labels", [[7], [0, 9, 9], range(10), torch.tensor([3, 1]), (5,), 4])
def test_shape_range_and_type(model, labels):
    images = nb.generate_digits(labels, steps=3, model=model)
    count = 1 if isinstance(labels, int) else len(labels)
    assert images.shape == (count, 1, 28, 28)
    assert images.dtype == torch.float32
    assert images.device.type == "cpu"
    assert 0 <= images.min() <= images.max() <= 1
    assert not images.requires_grad


@pytest.mark.parametrize(("method", "eta"), [("ddpm", 0.0), ("ddim", 0.0), ("ddim", 1.0), ("2m", 0.0)])
@pytest.mark.parametrize("steps", [1, 5, 50])
def test_a_seed_decides_the_picture(model, method, eta, steps):
    def make(seed):
        return nb.generate_digits([1, 2], steps=steps, seed=seed, method=method, eta=eta, model=model)

    assert torch.equal(make(3), make(3))
    torch.rand(1)  # the global generator plays no part
    assert torch.equal(make(3), make(3))
    assert not torch.equal(make(3), make(4))


def test_the_way_there_ends_at_the_picture(model):
    path = list(nb.digit_steps([1, 2], steps=6, seed=1, model=model))
    assert len(path) == 6
    assert path[-1][0] == 0
    end = nb.generate_digits([1, 2], steps=6, seed=1, model=model)
    assert torch.equal(nb.to_image_range(path[-1][1]).cpu(), end)


@pytest.mark.parametrize("labels", [[10], [-1], [3, 11], [], [1.0], [1.5], 2.0, [True], True, torch.zeros(0),
                                    torch.tensor([0.0, 1.0]), [math.nan], "three", ["3"], None])
def test_bad_labels_are_refused(model, labels):
    with pytest.raises(ValueError, match="whole numbers from 0 to 9"):
        nb.generate_digits(labels, steps=2, model=model)


@pytest.mark.parametrize("guidance", [math.nan, math.inf, -math.inf, 1e39, 10**400, "2", None])
def test_guidance_that_is_not_finite_is_refused(model, guidance):
    with pytest.raises(ValueError, match="guidance must be a finite number"):
        nb.generate_digits([1], guidance=guidance, steps=2, model=model)


@pytest.mark.parametrize("steps", [0, -1, 51, 1000, True, 2.0, 2.5, math.nan, "5", None])
def test_bad_step_counts_are_refused(model, steps):
    """Here T is 50."""
    with pytest.raises(ValueError, match="steps must be a whole number from 1 to 50"):
        nb.generate_digits([1], steps=steps, model=model)


def test_a_network_without_classes_or_schedule_is_refused():
    without = [nb.build_model({**TINY, "config": {"D": 4, "time": True}}), nb.UNet(D=4), nb.DigitClassifier(4)]
    for other in without:
        with pytest.raises(ValueError, match="draws no digits by name"):
            nb.generate_digits([7], steps=2, model=other)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan, math.inf])
def test_an_eta_outside_0_to_1_is_refused(model, eta):
    with pytest.raises(ValueError, match="eta must be from 0"):
        nb.generate_digits([1], steps=2, method="ddim", eta=eta, model=model)


@pytest.mark.parametrize("method", ["euler", "", None, "DDPM"])
def test_an_unknown_method_is_refused(model, method):
    with pytest.raises(ValueError, match="unknown method"):
        nb.generate_digits([1], steps=2, method=method, model=model)


def test_kept_frames_show_the_way_from_noise_to_samples():
    torch.manual_seed(0)
    model = nb.build_model({**TINY, "schedule": ["cosine", 100]}).eval()  # they are 100 steps apart
    kept = nb.kept_frames(model)
    assert kept.dtype == torch.uint8
    assert kept.shape == (11, 40, 1, 28, 14)
    assert torch.equal(kept, nb.kept_frames(model))
    assert torch.equal(kept[[0, 10]], nb.kept_frames(model, frames=2))
    frames = nb.unpacked(kept)
    assert frames.shape == (11, 40, 1, 28, 28)
    assert not torch.equal(frames[-1], frames[-2])
    start = torch.randn(40, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert (frames[0] - nb.to_image_range(start)).abs().max() <= 0.5 / 15 + 1e-6
    noise = frames[0] * 2 - 1  # standard normal noise, cut off at -1 and 1: variance 0.516
    assert noise.var().item() == pytest.approx(0.516, abs=0.01)
