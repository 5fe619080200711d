"""Editing: SDEdit, anagrams, hybrids: exact properties and bad input."""

import pytest
import torch
from conftest import nb

import helpers


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


VIEWS = list(nb.VIEWS)
TINY = {"kind": "TextUNet", "config": {"widths": [32, 64]}, "schedule": ["cosine", 50, 2.0], "target": "x_0"}


@pytest.fixture(scope="module")
def painter():
    torch.manual_seed(0)
    model = nb.build_model(TINY).eval()
    for p in model.parameters():  # what begins as zeros would make it deaf to every prompt
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return model


@pytest.fixture(scope="module")
def pictures():
    return torch.rand(2, 3, 64, 64, generator=seeded())


def test_start_zero_returns_the_picture(painter, pictures):
    assert torch.equal(nb.edit(pictures, "a cat", start=0, model=painter), pictures)


def test_from_start_one_nothing_of_the_picture_is_left(painter, pictures):
    """At t = T the signal's share is next to nothing: two pictures, the same noise, the same sample."""
    a, b = (nb.edit(x[None], "a cat", start=1.0, steps=3, model=painter) for x in pictures)
    assert torch.allclose(a, b, atol=0.02)
    low = [nb.edit(x[None], "a cat", start=0.3, steps=3, model=painter) for x in pictures]
    assert not torch.allclose(*low, atol=0.1)


def test_an_edit_takes_its_share_of_the_steps(painter, pictures):
    calls = []
    hook = painter.register_forward_pre_hook(lambda module, args: calls.append(round(args[1][0].item(), 3)))
    nb.edit(pictures, "", start=0.5, guidance=1.0, steps=10, model=painter)
    hook.remove()
    assert len(calls) == 5
    assert calls[0] == 0.5


@pytest.mark.parametrize("start", [-0.1, 1.1, float("nan"), "0.5", None, True])
def test_a_start_outside_zero_to_one_is_refused(painter, pictures, start):
    with pytest.raises(ValueError, match="start"):
        nb.edit(pictures, "a cat", start=start, model=painter)


@pytest.mark.parametrize("view", VIEWS)
def test_back_undoes_the_view(view):
    there, back = nb.VIEWS[view]
    x = torch.randn(2, 3, 64, 64, generator=seeded())
    assert torch.allclose(back(there(x)), x)
    assert not torch.allclose(there(x), x)


@pytest.mark.parametrize("view", [v for v in VIEWS if v != "half contrast"])
def test_a_view_keeps_noise_standard_normal(view):
    """Every pixel goes to one place, with its size: the sorted absolute values stay."""
    x = torch.randn(1, 3, 64, 64, generator=seeded())
    assert torch.equal(nb.VIEWS[view][0](x).abs().flatten().sort().values, x.abs().flatten().sort().values)


def test_same_prompts_and_a_view_of_nothing_are_plain_guidance(painter):
    same = nb.anagram("a cat", "a cat", view=(lambda x: x, lambda x: x), steps=3, model=painter)
    assert torch.allclose(same, nb.text_to_image("a cat", steps=3, model=painter), atol=1e-5)


def test_both_prompts_have_a_say(painter):
    """Without this the tests of equal prompts would pass on a network that hears none."""
    for function in (nb.anagram, nb.hybrid):
        same, first, second = (function(*p, steps=3, model=painter) for p in
                               (("a cat", "a cat"), ("a red dog", "a cat"), ("a cat", "a red dog")))
        assert (first - same).abs().max() > 0.01
        assert (second - same).abs().max() > 0.01
        assert (first - second).abs().max() > 0.01


def test_picture_number_i_has_the_noise_of_seed_i(painter):
    both = nb.anagram(["a cat", "a dog"], ["a fox", "a cow"], steps=3, seed=4, model=painter)
    assert torch.allclose(both[1:], nb.anagram("a dog", "a cow", steps=3, seed=5, model=painter), atol=1e-4)


def test_a_view_without_an_inverse_is_refused(painter):
    with pytest.raises(ValueError, match="inverse"):
        nb.anagram("a cat", "a dog", view=(lambda x: x.clamp(min=0), lambda x: x), steps=2, model=painter)
    with pytest.raises(ValueError, match="unknown view"):
        nb.anagram("a cat", "a dog", view="sideways", steps=2, model=painter)


def test_prompts_must_come_in_pairs(painter):
    for function in (nb.anagram, nb.hybrid):
        with pytest.raises(ValueError, match="needs two"):
            function(["a cat", "a dog"], ["a bird"], steps=2, model=painter)


@pytest.mark.parametrize("sigma", [0.5, 2.0, 5.0])
def test_low_and_high_frequencies_add_up(sigma):
    a = torch.randn(1, 3, 64, 64, generator=seeded())
    eps = nb.hybrid_eps(lambda x, t: a, lambda x, t: a, sigma)
    assert torch.allclose(eps(None, 1), a, atol=1e-6)
    flat = nb.low_pass(torch.full((1, 3, 64, 64), 0.7), sigma)
    assert torch.allclose(flat, torch.full_like(flat, 0.7), atol=1e-5)


def test_same_prompts_make_a_plain_picture_of_a_hybrid(painter):
    same = nb.hybrid("a cat", "a cat", steps=3, model=painter)
    assert torch.allclose(same, nb.text_to_image("a cat", steps=3, model=painter), atol=1e-4)


# ------------------------------------------------------------------------------------------------ the second stage
@pytest.fixture(scope="module")
def upscaler():
    torch.manual_seed(0)
    info = {"kind": "Upscaler", "config": {"widths": [16, 24]}, "schedule": ["cosine", 50, 2.0], "target": "x_0"}
    return nb.build_model(info).eval()


def test_an_untrained_second_stage_is_the_bicubic_enlargement(upscaler, pictures):
    x = nb.upscale(pictures, level=0, steps=3, model=upscaler)
    assert x.shape == (2, 3, 256, 256)
    bicubic = torch.nn.functional.interpolate(pictures, scale_factor=4, mode="bicubic", align_corners=False)
    assert torch.allclose(x, bicubic.clamp(0, 1), atol=1e-5)


def test_the_second_stage_knows_no_places(upscaler):
    """What is moved is answered alike, away from the edges (which the norms' statistics feel a little)."""
    torch.nn.init.normal_(upscaler.net.out[2].weight, std=0.05, generator=seeded())
    x, small = torch.randn(1, 3, 128, 128, generator=seeded(1)), torch.randn(1, 3, 32, 32, generator=seeded(2))
    t, level = torch.tensor([0.5]), torch.tensor([0.1])
    shifted = upscaler(x.roll((32, 32), (2, 3)), t, small.roll((8, 8), (2, 3)), level).roll((-32, -32), (2, 3))
    there, moved = (y[..., 32:64, 32:64] for y in (upscaler(x, t, small, level), shifted))
    assert (there - moved).std() < 0.02 * there.std()
    torch.nn.init.zeros_(upscaler.net.out[2].weight)


WRONG = [torch.rand(1, 3, 32, 32), torch.rand(1, 1, 64, 64), 2 * torch.ones(1, 3, 64, 64), None]


@pytest.mark.parametrize("bad", WRONG)
def test_wrong_pictures_are_refused_by_the_second_stage(upscaler, bad):
    with pytest.raises(ValueError, match="images must"):
        nb.upscale(bad, model=upscaler)


@pytest.mark.parametrize("level", [-0.1, 0.5, float("nan"), "0.1", True])
def test_a_level_beyond_training_is_refused(upscaler, pictures, level):
    with pytest.raises(ValueError, match="level"):
        nb.upscale(pictures, level=level, model=upscaler)


def test_wrong_sizes_are_refused_by_the_network(upscaler):
    with pytest.raises(ValueError, match="four times"):
        upscaler(torch.rand(1, 3, 64, 64), torch.rand(1), torch.rand(1, 3, 64, 64), torch.rand(1))


def test_crops_are_cut_at_fours_out_of_training_glyphs():
    data = nb.EmojiData.__new__(nb.EmojiData)  # two glyphs are enough, and fast
    data.characters, data.train = ["☀", "🐧"], torch.tensor([1])
    data.palette = torch.tensor(list(nb.COLOURS.values())) / 255
    large = nb.LargeEmoji(data)
    crops = large.crops(torch.zeros(8, dtype=torch.long), seeded())
    assert crops.shape == (8, 3, 128, 128)
    assert crops.abs().max() <= 1
    every = nb.to_model_range(large.pictures(torch.ones(11, dtype=torch.long), torch.arange(11)))
    parts = every.unfold(2, 128, 4).unfold(3, 128, 4).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    for crop in crops:
        assert (parts - crop).abs().flatten(1).amax(1).min() == 0


# ------------------------------------------------------------------------------------------------ drawings
def test_a_stroke_is_drawn_where_its_points_are():
    x = nb.draw_strokes([(((0.25, 0.5), (0.75, 0.5)), "black", 6)])
    assert x.shape == (1, 3, 64, 64)
    assert x[0, :, 32, 32].max() == 0
    assert x[0, :, 10].min() == 1
    assert x[0, :, 32, 5].min() == 1
    with pytest.raises(ValueError, match="two points"):
        nb.draw_strokes([(((0.5, 0.5),), "black", 2)])


def test_the_sketch_pad_paints_and_tells_errors():
    colours, seen = {"white": (255, 255, 255), "red": (255, 0, 0)}, []

    def draw(picture, prompt):
        seen.append((picture, prompt))
        if prompt == "bad":
            raise ValueError("no such prompt")
        yield picture

    fields = [["white"] * 4 for _ in range(4)]
    pad = helpers.sketch_pad(draw, fields, colours, {"prompt": "a cat"})
    grid, panel, canvas = pad.children
    pen, prompt, go, note = panel.children
    before = canvas.value
    pen.value = "red"
    grid.children[5].click()  # row 1, column 1
    go.click()
    assert torch.equal(seen[0][0][0, :, 24, 24], torch.tensor([1.0, 0, 0]))
    assert seen[0][0][0, :, 5, 5].min() == 1
    assert seen[0][1] == "a cat"
    assert canvas.value != before
    assert fields[1][1] == "white"
    prompt.value = "bad"
    go.click()
    assert "no such prompt" in note.value
