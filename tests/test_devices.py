"""Every public function with its networks on a GPU that is only pretended: no tensor may be left on the processor."""

import pytest
import torch
from conftest import nb
from pretended_gpu import pretended_gpu


@pytest.fixture
def gpu(monkeypatch):
    """A machine that says it has a GPU, and networks not yet loaded."""
    monkeypatch.setattr(nb, "_shipped", {})
    with pretended_gpu():
        yield


@pytest.fixture(scope="module")
def pictures():
    return nb.EmojiData().picture(torch.tensor([0, 1]), torch.tensor([2, 3]))


def test_the_pretended_gpu_is_as_strict_as_cuda(gpu):
    here, there = torch.randn(3), torch.randn(3).to("cuda")
    assert (here.device.type, there.device.type, there.cpu().device.type) == ("cpu", "cuda", "cpu")
    assert (2 * there[1:] + torch.tensor(1.0)).device.type == torch.zeros_like(there).device.type == "cuda"
    with pytest.raises(RuntimeError, match="two devices"):
        here + there
    with pytest.raises(RuntimeError, match="two devices"):
        torch.nn.Linear(3, 3)(there)
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(3, generator=torch.Generator(), device="cuda")
    with pytest.raises(TypeError, match="cpu"):
        there.numpy()


def test_digits(gpu):
    model, here = nb.shipped("digits"), nb.load_model("digits", "cpu")
    assert next(model.parameters()).device.type == "cuda"
    for method in ("2m", "ddpm", "ddim"):
        x = nb.generate_digits([3, 1], steps=2, method=method, eta=0.5)
        assert x.device.type == "cpu"
        assert torch.equal(x, nb.generate_digits([3, 1], steps=2, method=method, eta=0.5, model=here))  # the same noise
    x, labels = nb.load_mnist(train=False)
    assert nb.accuracy(nb.shipped("digit_classifier"), x[:500], labels[:500]) > 0.97
    assert nb.kept_frames(model, steps=2, frames=2).device.type == "cpu"


def test_pictures_from_words_and_fills(gpu, pictures):
    masks = nb.make_masks("blobs", 2)
    for x in (nb.text_to_image(["an owl", ""], steps=2), nb.inpaint(pictures, masks, "an owl", steps=2),
              nb.inpaint_untold(pictures, masks, resample=2, steps=2), nb.edit(pictures, "an owl", start=0.5, steps=2),
              nb.anagram("an owl", "a cat", steps=2), nb.hybrid("an owl", "a cat", steps=2)):
        assert x.device.type == "cpu"
        assert x.shape[1:] == (3, 64, 64)
    assert nb.upscale(pictures, steps=2).device.type == "cpu"
    assert nb.attention_maps("an owl", steps=2)[1].device.type == "cpu"
    asked = [("", [0], 2), ("", [1], 3)]  # what `pictures` show
    found = nb.judged(pictures, asked, nb.shipped("emoji_judge"), nb.shipped("digit_classifier"))
    assert (found["both"], found["samples"]) == (1, 2)


def test_animals(gpu):
    x = nb.animals_from_noise(torch.randn(2, 3, 64, 64), [0, 3], steps=2)
    assert x.device.type == "cpu"


@pytest.mark.parametrize("name", nb.RECIPES)
def test_training_and_resuming(gpu, monkeypatch, tmp_path, digits, name):
    monkeypatch.setattr(nb, "load_mnist", lambda *_, **__: (digits[0][:500], digits[1][:500]))
    for _ in range(2):  # the second goes on where the first was stopped
        model = nb.train_recipe(name, folder=tmp_path, max_seconds=0)
    assert next(model.parameters()).device.type == "cuda"
    assert len(model.info["losses"]) == 2
