"""Editing: SDEdit, anagrams, hybrids, the second stage, drawings and the sketch pad: exact properties and bad input."""

import asyncio
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import nb
from test_painter import GOOD, seeded

import helpers

VIEWS = list(nb.VIEWS)


class Recorder(torch.nn.Module):
    """In place of a painter: a function of picture, time and prompt; keeps what it was asked."""

    guided = nb.guided

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.schedule, self.reader = nb.Schedule("cosine", 50, 2.0), "reads"
        self.net, self.asked = SimpleNamespace(shape=(3, 64, 64), small=True), []

    def answer(self, x_t, t, prompt):
        return 0.3 * x_t.tanh() + 0.3 * torch.linspace(0, len(prompt), 64).sin() + 0.1 * t / 50

    def forward(self, x_t, t, condition):
        self.asked.append((x_t, t, condition.prompt))
        return torch.cat([self.answer(x[None], t, prompt) for x, prompt in zip(x_t, condition.prompt, strict=True)])


@pytest.fixture
def recorder():
    return Recorder()


def test_an_edit_starts_from_the_picture_noised_so_far_and_takes_its_share_of_the_steps(recorder):
    assert torch.equal(nb.edit(GOOD, "a cat", start=0, model=recorder), GOOD)
    assert not recorder.asked
    nb.edit(GOOD, ["a cat", "an owl"], start=0.5, guidance=1.0, steps=10, seed=3, model=recorder)
    assert [(t, prompts) for _, t, prompts in recorder.asked] == [(t, ["a cat", "an owl"]) for t in (25, 20, 15, 10, 5)]
    x_t = recorder.schedule.q_sample(2 * GOOD - 1, 25, nb.Noise(3, 2)((3, 64, 64)))
    assert torch.allclose(recorder.asked[0][0], x_t, atol=1e-6)
    for start, alike in ((1.0, True), (0.3, False)):  # from start 1 nothing of the picture is left
        a, b = (nb.edit(x[None], "a cat", start=start, steps=3, model=recorder) for x in GOOD)
        assert torch.allclose(a, b, atol=0.02) is alike


# ----------------------------------------------------------------------------- two prompts in one picture
@pytest.mark.parametrize("name", VIEWS)
def test_a_view_has_an_inverse_and_keeps_the_law_of_noise(name):
    """A linear map that sends every pixel to one place, with its size, keeps N(0, I): all sizes occur as before."""
    forth, back = nb.VIEWS[name]
    x, y = torch.randn(2, 1, 3, 64, 64, generator=seeded())
    assert torch.allclose(back(forth(x)), x, atol=1e-6)
    assert not torch.allclose(forth(x), x, atol=0.1)
    assert torch.allclose(forth(x + y), forth(x) + forth(y), atol=1e-5)
    assert all(torch.equal(forth(z).abs().flatten().sort()[0], z.abs().flatten().sort()[0]) for z in (x, y, x + y))


@pytest.mark.parametrize("view", [*VIEWS, (lambda x: x.roll(5, 3), lambda x: x.roll(-5, 3))])
def test_an_anagram_is_the_mean_of_both_estimates_at_every_step(recorder, view):
    forth, back = nb.VIEWS[view] if isinstance(view, str) else view
    picture = nb.anagram("a cat", "a sad dog", view=view, guidance=1.0, steps=3, model=recorder)
    noise = nb.Noise(0, 1)
    x = noise((3, 64, 64))
    for i, (t, s) in enumerate(((50, 33), (33, 17), (17, 0))):
        (x_a, *a), (x_b, *b) = recorder.asked[2 * i : 2 * i + 2]
        assert (a, b) == ([t, ["a cat"]], [t, ["a sad dog"]])
        assert torch.allclose(x_a, x, atol=1e-5)
        assert torch.allclose(x_b, forth(x), atol=1e-5)
        mean = (recorder.answer(x, t, "a cat") + back(recorder.answer(forth(x), t, "a sad dog"))) / 2
        x_0 = mean.clamp(-1, 1)
        x = nb.ddpm_step(recorder.schedule, x, t, s, x_0, noise((3, 64, 64)))
    assert torch.allclose(picture, (x_0 + 1) / 2, atol=1e-5)
    assert len(recorder.asked) == 6


@pytest.mark.parametrize("sigma", [2.0, 4.0])
def test_a_hybrid_has_the_low_frequencies_of_one_and_the_high_ones_of_the_other(recorder, sigma):
    """A Gaussian of this sigma passes exp(-(2 pi sigma / period)^2 / 2) of a wave; all of a plain picture."""
    middle, plain = slice(28, 36), {"near": 0.1, "far": -0.2}  # away from the rim, where the blur mirrors the picture
    for who in plain:
        for period in (32, 2.5 * sigma):
            wave = (2 * math.pi * torch.arange(64) / period).cos().expand(1, 3, 64, 64) / 4
            recorder.answer = lambda x, t, prompt, who=who, wave=wave: plain[prompt] + (prompt == who) * wave
            x = nb.hybrid("near", "far", sigma=sigma, guidance=1, steps=1, model=recorder) * 2 - 1
            passed = math.exp(-((2 * math.pi * sigma / period) ** 2) / 2)
            expected = plain["far"] + (passed if who == "far" else 1 - passed) * wave
            assert torch.allclose(x[..., middle], expected[..., middle], atol=0.005)


def test_equal_prompts_make_a_plain_picture_and_each_has_the_noise_of_its_own_seed(recorder):
    plain = nb.text_to_image("a cat", steps=3, method="ddpm", model=recorder)
    for function in (lambda *p, **o: nb.anagram(*p, view=(lambda x: x, lambda x: x), **o), nb.hybrid):
        assert torch.allclose(function("a cat", "a cat", steps=3, model=recorder), plain, atol=1e-4)
        both = function(["a cat", "a dog"], ["a fox", "a wild cow"], steps=3, seed=4, model=recorder)
        assert torch.allclose(both[1:], function("a dog", "a wild cow", steps=3, seed=5, model=recorder), atol=1e-5)


# ----------------------------------------------------------------------------- the second stage
@pytest.fixture
def upscaler():
    torch.manual_seed(0)
    model = nb.build_model({"net": "UNet", "schedule": ["cosine", 50, 2.0], "target": "x_0", "config": {
        "size": None, "widths": [16, 24], "small": True, "embedding": 64}}).eval().requires_grad_(False)
    torch.nn.init.zeros_(model.net.out[2].bias)
    return model


def test_an_untrained_second_stage_is_the_bicubic_enlargement_and_a_trained_one_knows_no_places(upscaler):
    x = nb.upscale(GOOD, level=0, steps=3, model=upscaler)
    assert x.shape == (2, 3, 256, 256)
    bicubic = F.interpolate(GOOD, scale_factor=4, mode="bicubic", align_corners=False)
    assert torch.allclose(x, bicubic.clamp(0, 1), atol=1e-5)
    assert not torch.allclose(nb.upscale(GOOD, level=0.2, steps=3, model=upscaler), x, atol=0.02)
    torch.nn.init.normal_(upscaler.net.out[2].weight, std=0.05, generator=seeded())
    x, small = torch.randn(1, 3, 128, 128, generator=seeded(1)), torch.randn(1, 3, 32, 32, generator=seeded(2))
    plain, moved = (upscaler(x.roll((4 * n, 4 * n), (2, 3)), 25, nb.Condition(
        small=small.roll((n, n), (2, 3)), level=torch.tensor([0.1]))) for n in (0, 8))
    there, moved = (y[..., 32:64, 32:64] for y in (plain, moved.roll((-32, -32), (2, 3))))
    assert (there - moved).std() < 0.02 * there.std()  # the norms' statistics feel the edges a little


def test_the_second_stage_learns_from_crops_of_drawings_and_their_noised_means(monkeypatch):
    palette, told = torch.tensor(list(nb.COLOURS.values())) / 255, {}
    drawn = nb.draw_svg([nb.drawings().svg[1][2]], 256)
    stub = SimpleNamespace(loss=lambda x_0, condition, **options: told.update(x_0=x_0, condition=condition))
    nb.upscaler_loss(stub, torch.full((40,), 6), seeded())
    x_0, small, level = told["x_0"], told["condition"].small, told["condition"].level
    every = nb.to_model_range(nb.over(drawn.expand(11, -1, -1, -1), palette))
    middles = every[:, :, 64:193:4].unfold(3, 128, 4)  # the row 64 of every crop whose corner is a multiple of 4
    for crop in x_0[:9]:
        there = (middles == crop[:, 64][:, None, None]).all(4).all(1).nonzero()
        assert any(torch.equal(every[c, :, 4 * y : 4 * y + 128, 4 * x : 4 * x + 128], crop) for c, y, x in there)
    noise = (small - F.avg_pool2d(x_0, 4)) / level[:, None, None, None]
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    assert 0 <= level.min() < 0.05 < 0.2 < level.max() <= 0.25
    asked, data = [], nb.drawings()
    monkeypatch.setattr(nb, "draw_svg", lambda svg, size: asked.extend(svg) or drawn.expand(len(svg), -1, -1, -1))
    for part in torch.arange(nb.UPSCALER.pictures).split(60):
        nb.upscaler_loss(stub, part, seeded())
    assert sorted(asked) == sorted(sum((data.svg[i] for i in set(range(300)) - {*data.held_out}), []))


# ----------------------------------------------------------------------------- what is refused
@pytest.mark.parametrize(("call", "advice"), [
    *((lambda m, o=o: nb.edit(**{"images": GOOD, "prompts": "a cat", "model": m, **o}), next(iter(o))) for o in (
        *({"start": s} for s in (-0.1, 1.1, math.nan, "0.5", None, True)), {"steps": 0}, {"steps": 51},
        {"guidance": math.inf}, *({"images": x} for x in (GOOD[:, :1], 2 * GOOD, None)), {"prompts": ["a"] * 3})),
    *((lambda m, v=v: nb.anagram("a cat", "a dog", view=v, model=m), "upside down, .*inverse") for v in (
        (lambda x: x.clamp(min=0), lambda x: x), "sideways", None, 3, (torch.neg,), (torch.sin, torch.abs))),
    *((lambda m, f=f: f(["a cat", "a dog"], ["a bird"], model=m), "needs two") for f in (nb.anagram, nb.hybrid)),
    *((lambda m, f=f: f("a cat", None, model=m), "prompts") for f in (nb.anagram, nb.hybrid)),
    *((lambda m, s=s: nb.hybrid("a", "b", sigma=s, model=m), "sigma") for s in (0, -1, 16, math.nan, "2", None)),
    *((lambda m, o=o: nb.upscale(**{"images": GOOD, "model": m, **o}), next(iter(o))) for o in (
        *({"level": x} for x in (-0.1, 0.5, math.nan, "0.1", True)), {"steps": 0},
        *({"images": x} for x in (GOOD[..., ::2, ::2], GOOD[:, :1], 2 * GOOD, None)))),
    (lambda m: nb.upscale(GOOD, model=nb.shipped("animals")), "enlarges no pictures"),
    (lambda m: helpers.draw_strokes([(((0.5, 0.5),), "black", 2)]), "two points")])
def test_what_cannot_be_edited_is_refused_before_the_first_step(recorder, call, advice):
    with pytest.raises((TypeError, ValueError), match=advice):
        call(recorder)
    assert not recorder.asked


# ----------------------------------------------------------------------------- drawings
def test_a_stroke_is_drawn_where_its_points_are():
    x = helpers.draw_strokes([(((0.25, 0.5), (0.75, 0.5)), "black", 6)])
    assert x.shape == (1, 3, 64, 64)
    assert x[0, :, 32, 32].max() == 0
    assert x[0, :, 10].min() == x[0, :, 32, 5].min() == 1


def test_the_sketch_pad_paints_and_tells_errors():
    seen, fields = [], [["white"] * 4 for _ in range(4)]

    def draw(picture, prompt):
        seen.append((picture, prompt))
        if prompt == "bad":
            raise ValueError("no such prompt")
        if prompt == "none left":
            raise MemoryError
        yield picture

    colours = {"white": (255, 255, 255), "red": (255, 0, 0)}
    grid, panel, canvas = helpers.sketch_pad(draw, fields, colours, {"prompt": "a cat"}).children
    (pen, width, prompt, go, note), before = panel.children, canvas.value
    pen.value = "red"
    grid.children[5].click()  # row 1, column 1
    go.click()
    assert seen[0][1] == "a cat"
    assert seen[0][0][0, :, 24, 24].tolist() == [1, 0, 0]
    assert seen[0][0][0, :, 5, 5].min() == 1
    assert canvas.value != before
    assert fields[1][1] == "white"
    width.value = 3
    grid.children[0].click()  # at the corner: rows and columns 0 and 1, and no more
    go.click()
    assert seen[-1][0][0, 1].eq(0).sum() == 4 * 16**2
    assert seen[-1][0][0, 1, :32, :32].eq(0).all()
    prompt.value = "bad"
    go.click()
    assert "no such prompt" in note.value
    prompt.value = "none left"
    go.click()
    assert "MemoryError" in note.value


def test_a_control_that_is_moved_while_something_is_drawn_ends_that_drawing_and_starts_anew():
    ended = []

    def draw(number):
        for _frame in range(5):
            yield torch.full((1, 1, 8, 8), number / 10)
        ended.append(number)

    async def move(control, numbers):
        for number in numbers:
            control.value = number
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.3)

    view = helpers.slider_view(draw, {"number": (0, 0, 10)}, torch.zeros(1, 1, 8, 8))
    panel, canvas = view.children
    asyncio.run(move(panel.children[0], [1, 2, 3, 4, 5]))
    assert ended == [5]
    assert canvas.value == helpers.png(torch.full((1, 1, 8, 8), 0.5), zoom=8)
    assert panel.children[-1].value == ""
