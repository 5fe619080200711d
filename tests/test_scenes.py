"""Drawings, scenes and captions: what a caption says is in the picture, and what is kept back never is."""

import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT

sys.path[:0] = [str(ROOT / "models"), str(ROOT / "report" / "evaluate")]

import collect_drawings  # noqa: E402
import detector  # noqa: E402
import skills  # noqa: E402

from models import scenes  # noqa: E402

DATA = scenes.drawings()


@pytest.fixture(scope="module")
def many():
    """Two thousand training captions: [(what is said, words, the complete scene)]."""
    rng = np.random.default_rng(1)
    return [(*told, scenes.complete(told[0], rng)) for told in map(scenes.captioned, range(2000))]


# ----------------------------------------------------------------------------- drawings
def test_the_file_is_what_the_script_collects():
    listed = {name: (words, never) for _, name, words, never in collect_drawings.things()}
    assert len(listed) == len(collect_drawings.things()) == 300
    assert listed == {name: (DATA.words[name], DATA.synonyms[name]) for name in DATA.names}
    assert tuple(collect_drawings.PACKAGES) == scenes.STYLES
    words = [w for name in DATA.names for w in (name, *DATA.words[name], *DATA.synonyms[name])]
    assert len(words) == len(set(words)), "one word names two things"
    assert sum(map(len, DATA.synonyms.values())) > 100


def test_every_drawing_is_there_and_no_two_are_the_same():
    small = torch.stack([DATA.sprite(t, s, 24) for t in range(300) for s in range(4)])
    assert small.shape == (1200, 4, 24, 24)
    assert 0 <= small.min() <= small.max() <= 1
    assert small[:, 3].mean((1, 2)).min() > 0.04
    distance = torch.cdist(small.flatten(1), small.flatten(1)).fill_diagonal_(99)
    assert distance.min() > 1
    large = DATA.sprite(0, 0, 96)
    reduced = torch.nn.functional.avg_pool2d(large, 4)
    assert (reduced - small[0]).abs().mean() < 0.05


def test_one_thing_in_twenty_is_held_out_and_each_thing_keeps_something_to_train_on():
    assert (len(DATA.train), len(DATA.held_out)) == (100, 15)
    assert not set(DATA.held_out) & set(DATA.train)
    assert not {"dog", "cat", "house", "apple", "car"} & {DATA.names[i] for i in DATA.held_out}
    for kept, most in ((DATA.kept_style, 1), (DATA.kept_colour, 2), (DATA.kept_number, 1)):
        assert kept.sum(1).max() <= most
        assert kept.any()
    assert not DATA.kept_colour[:, 0].any(), "white is never kept back"
    assert not DATA.kept_number[:, :2].any()
    assert (DATA.kept_pair == DATA.kept_pair.T).all()
    assert 0.1 < DATA.kept_pair.mean() < 0.3


# ----------------------------------------------------------------------------- scenes
def test_what_is_said_is_in_the_picture(many):
    for told, words, scene in many:
        boxes = [box[2:] for box in scene.boxes]
        assert [box[0] for box in scene.boxes] == list(told.things * told.count), words
        assert all(0 <= x <= 64 - side and 0 <= y <= 64 - side for x, y, side in boxes)
        assert not any(x % scenes.GRID or y % scenes.GRID or side % scenes.GRID for x, y, side in boxes)
        assert all(scenes.overlap(a, b) <= 0.05 for i, a in enumerate(boxes) for b in boxes[:i])
        assert told.colour in (None, scene.colour)
        assert all(a in (None, b) for a, b in zip(told.styles, scene.styles, strict=False))
        assert {box[1] for box in scene.boxes} == set(scene.styles)
        for size, (_, _, side) in zip(told.sizes, boxes, strict=False):
            assert size is None or side in scenes.SIZES[size], words
        if told.place:
            assert scenes.place_of(boxes[0]) == told.place, words
        if told.relation:
            (x, y, side), (x_2, y_2, side_2) = boxes
            right, down = x + side / 2 - x_2 - side_2 / 2, y + side / 2 - y_2 - side_2 / 2
            assert {"left": -right, "right": right, "above": -down, "below": down}[told.relation] > 5, words


def test_nothing_that_is_kept_back_is_ever_drawn(many):
    drawn = set()
    for told, words, scene in many:
        assert not set(scene.things) & set(DATA.held_out)
        for thing, style, *_ in scene.boxes:
            drawn.add((thing, style))
            assert not DATA.kept_style[thing, style], words
        assert not DATA.kept_colour[list(scene.things), scene.colour].any(), words
        assert not DATA.kept_number[scene.things[0], told.count], words
        if len(scene.things) == 2:
            assert not DATA.kept_pair[scene.things], words
    assert len(drawn) > 0.8 * (~DATA.kept_style[DATA.train]).sum(), "everything else is drawn"


def test_two_things_are_as_large_as_fits_side_by_side_and_what_does_not_fit_is_told():
    def sides(*sizes):
        scene = scenes.complete(scenes.Scene((0, 1), sizes=sizes, relation="left"), np.random.default_rng(0))
        return [box[4] for box in scene.boxes]

    assert (sides(None, None), sides("small", None), sides(None, "large")) == ([32, 32], [24, 32], [24, 40])
    for sizes in (("large", "large"), ("medium", "large")):
        with pytest.raises(ValueError, match=f"{sizes[0]} and large, do not fit"):
            sides(*sizes)


def test_the_noise_decides_what_the_words_leave_open():
    first, words, _ = scenes.scene_batch(range(20), np.random.default_rng(0))
    again, same_words, _ = scenes.scene_batch(range(20), np.random.default_rng(0))
    other, still, _ = scenes.scene_batch(range(20), np.random.default_rng(1))
    assert torch.equal(first, again)
    assert words == same_words == still
    assert ((first - other).abs().amax((1, 2, 3)) > 0.1).sum() > 15  # of 20: a caption that says all leaves little
    scene = scenes.Scene((DATA.names.index("cat"),))
    drawn = [scenes.complete(scene, np.random.default_rng(i)) for i in range(200)]
    assert len({s.styles for s in drawn}) >= 3
    assert len({s.colour for s in drawn}) >= 9
    assert {s.boxes[0][4] for s in drawn} == {32, 40, 48}


def test_a_picture_is_its_drawings_over_its_background():
    cat, dog = (DATA.names.index(name) for name in ("cat", "dog"))
    scene = scenes.Scene((cat, dog), styles=(1, 2), colour=4, boxes=((cat, 1, 2, 3, 32), (dog, 2, 30, 30, 32)))
    picture = scenes.paint(scene)
    yellow = torch.tensor(scenes.COLOURS["yellow"])[:, None, None] / 255
    assert torch.equal(picture[:, :3], yellow.expand(3, 3, 64))
    for thing, style, x, y, side in scene.boxes:
        solid = DATA.sprite(thing, style, side)[3] == 1
        solid[-6:, -6:] &= thing == dog  # the second lies over the first
        assert solid.sum() > 50
        inside = picture[:, y : y + side, x : x + side]
        assert torch.allclose(inside[:, solid], DATA.sprite(thing, style, side)[:3, solid])


def test_a_thing_alone_fills_its_picture_and_its_caption_says_neither_place_nor_size():
    numbers = range(60)
    pictures, captions = scenes.thing_batch(numbers, np.random.default_rng(0))
    others, again = scenes.thing_batch(numbers, np.random.default_rng(1))
    assert pictures.shape == (60, 3, 64, 64)
    assert captions == again
    assert not torch.equal(pictures, others)
    assert not re.search(r"\b(small|tiny|large|big|left|right|top|bottom|middle|corner|and)\b", " ".join(captions))
    for picture in pictures:  # 48 of 64 pixels
        background = picture.flatten(1).mode(1).values[:, None, None]
        rows, columns = (((picture - background).abs().amax(0) > 0.1).any(side) for side in (0, 1))
        assert max(rows.sum(), columns.sum()) >= 28


# ----------------------------------------------------------------------------- captions
def test_captions_say_every_fact_and_no_other(many):
    assert len({words for _, words, _ in many}) > 1800
    for told, words, _ in many:
        styles = [s for s in scenes.STYLES if s in words]
        assert set(styles) == {scenes.STYLES[s] for s in told.styles if s is not None}, words
        without = words
        for name in (DATA.names[t] for t in told.things):  # an orange may be a mandarin on orange
            used = next(w for w in (*DATA.words[name], scenes.plural(name), name) if w in without)
            without = without.replace(used, "", 1)
        colour = None if told.colour is None else list(scenes.COLOURS)[told.colour]
        known = [c for c in (*scenes.COLOURS, "violet", "gray") if re.search(rf"\b{c}\b", without)]
        assert [{"violet": "purple", "gray": "grey"}.get(c, c) for c in known] == ([colour] if colour else []), words
        number = next((n for n in range(2, 5) if re.search(rf"\b({n}|{scenes.NUMBERS[n]})\b", without)), 1)
        assert number == told.count, words
        if told.place:
            assert scenes.PLACES[told.place] in words
        asked = re.search(r"left of|right of|above|over|below|under", without)
        assert bool(asked) == bool(told.relation), words
        assert bool(re.search(r"\b(small|tiny|little|large|big)\b", without)) == any(told.sizes), words


def test_the_order_of_the_words_follows_the_picture():
    cat, dog = (DATA.names.index(name) for name in ("cat", "dog"))
    for relation, converse in scenes.RELATIONS.items():
        found = {scenes.caption(scenes.Scene((cat, dog), relation=relation), np.random.default_rng(i), plain=True)
                 for i in range(60)}
        found = {re.sub(r"^a (drawing|picture) of ", "", words) for words in found}
        say = {"left": "(to the )?left of", "right": "(to the )?right of", "above": "(above|over)",
               "below": "(below|under)"}
        pattern = rf"a cat {say[relation]} a dog|a dog {say[converse]} a cat"
        assert all(re.fullmatch(pattern, words) for words in found), found
        assert len(found) == 4


def test_words_kept_back_never_occur(many):
    never = [w for words in DATA.synonyms.values() for w in words]
    for told, words, _ in many:
        mine = [w for t in told.things for n in [DATA.names[t]] for w in (n, *DATA.words[n])]
        for word in never:
            known = any(word in name for name in mine)  # "seat" in a name of its own is no leak
            assert known or not re.search(rf"\b{word}s?\b", words), (word, words)


@pytest.mark.parametrize(("name", "one", "several"), [
    ("apple", "an apple", "apples"), ("hourglass", "an hourglass", "hourglasses"), ("unicorn", "a unicorn", "unicorns"),
    ("fox", "a fox", "foxes"), ("wolf", "a wolf", "wolves"), ("fish", "a fish", "fish"), ("bus", "a bus", "buses"),
    ("bunch of grapes", "a bunch of grapes", "bunches of grapes"), ("strawberry", "a strawberry", "strawberries"),
    ("face with heart eyes", "a face with heart eyes", "faces with heart eyes"), ("die", "a die", "dice"),
    ("loaf of bread", "a loaf of bread", "loaves of bread"), ("glasses", "glasses", "glasseses"),
    ("bow and arrow", "a bow and arrow", "bows and arrows"), ("octopus", "an octopus", "octopuses"),
    ("maple leaf", "a maple leaf", "maple leaves"), ("pizza", "pizza", "pizzas"), ("t-shirt", "a t-shirt", "t-shirts"),
    ("fork and knife", "a fork and knife", "forks and knives"), ("key", "a key", "keys")])
def test_english(name, one, several):
    assert scenes.noun(name) == one
    assert scenes.plural(name) == several


# ----------------------------------------------------------------------------- the judge
class Told(torch.nn.Module):
    """A judge that says what it is told, as a perfect SceneJudge would."""

    things = 300

    def __init__(self, drawn):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.drawn = drawn

    def forward(self, x):
        found, colour = torch.zeros(len(x), 308, 16, 16), torch.zeros(len(x), 11)
        found[:, 0] = -9
        for i, scene in enumerate(self.drawn):
            colour[i, scene.colour] = 9
            for thing, style, x_0, y_0, side in scene.boxes:
                middle_x, middle_y = (x_0 + side / 2) / 4, (y_0 + side / 2) / 4
                here = found[i, :, int(middle_y), int(middle_x)]
                here[:4] = torch.tensor([9, middle_x % 1, middle_y % 1, side / 64])
                here[4 + thing] = here[304 + style] = 9
        return found, colour


def test_detect_reads_the_map_of_a_judge():
    rng = np.random.default_rng(4)
    drawn = [detector.any_scene(rng) for _ in range(60)]
    for scene, (things, colour) in zip(drawn, detector.detect(Told(drawn), torch.zeros(60, 3, 64, 64)), strict=True):
        assert colour == scene.colour
        found = sorted((t["thing"], t["style"], *(round(v) for v in t["box"])) for t in things)
        assert found == sorted(scene.boxes)
        assert all(t["names"][0] == t["thing"] and len(t["names"]) == 5 for t in things)


def test_the_judge_learns_from_scenes_of_everything():
    rng = np.random.default_rng(0)
    drawn = [detector.any_scene(rng) for _ in range(1500)]
    assert {t for scene in drawn for t in scene.things} >= set(DATA.held_out)
    assert any(DATA.kept_style[t, s] for scene in drawn for t, s, *_ in scene.boxes)
    judge = detector.SceneJudge(things=300)
    loss = detector.scene_judge_loss(judge, torch.arange(8), torch.Generator().manual_seed(0))
    again = detector.scene_judge_loss(judge, torch.arange(8), torch.Generator().manual_seed(0))
    assert loss == again
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in judge.parameters())


def seen_of(scene, thing=None):
    """What a perfect judge sees in a complete scene; thing: named instead of every thing."""
    found = [{"thing": t if thing is None else thing, "names": [t], "style": s, "box": (x, y, side), "score": 1.0}
             for t, s, x, y, side in scene.boxes]
    return found, scene.colour


@pytest.mark.parametrize("skill", skills.SKILLS)
def test_a_skill_is_shown_by_real_pictures_and_by_no_others(skill):
    rng = np.random.default_rng(0)
    for never in (False, True):
        told = [skills.asked(skill, never, rng) for _ in range(100)]
        drawn = [scenes.complete(scene, rng) for scene in told]
        assert skills.share(told, [seen_of(scene) for scene in drawn]) == 1
        assert skills.share(told, [seen_of(scene, thing=299 - told[i].things[0]) for i, scene in enumerate(drawn)]) == 0
        others = [scenes.complete(replace(scene, count=1, styles=(None, None), sizes=(None, None), colour=None,
                                          place=None, relation=None), rng) for scene in told]
        if skill not in ("one thing", "two things"):  # the same things, but nothing else as asked
            assert skills.share(told, [seen_of(scene) for scene in others]) < 0.75
        facts = {re.sub(r" \d", "", fact) for fact in skills.shown(told[0], seen_of(drawn[0]))}
        wanted = {"background": "colour", "relation": "relation", "place": "place"}.get(
            skill, "style" if "style" in skill else "size" if "size" in skill else "things")
        assert facts == {"things", wanted}


def test_what_was_never_trained_is_asked_for_as_such():
    rng = np.random.default_rng(2)
    for skill, kept in (("background", lambda s: DATA.kept_colour[s.things[0], s.colour]),
                        ("number", lambda s: DATA.kept_number[s.things[0], s.count]),
                        ("style", lambda s: DATA.kept_style[s.things[0], s.styles[0]]),
                        ("relation", lambda s: DATA.kept_pair[s.things]),
                        ("two things", lambda s: DATA.kept_pair[s.things])):
        for never in (False, True):
            told = [skills.asked(skill, never, rng) for _ in range(50)]
            assert all(kept(scene) == never for scene in told), skill
            assert not {t for scene in told for t in scene.things} & set(DATA.held_out)


def test_a_number_is_right_only_if_nothing_else_is_there():
    told = scenes.Scene((5,), count=2)
    scene = scenes.complete(told, np.random.default_rng(0))
    found, colour = seen_of(scene)
    assert skills.shown(told, (found, colour)) == {"things": True}
    assert skills.shown(told, (found[:1], colour)) == {"things": False}
    assert skills.shown(told, ([*found, dict(found[0])], colour)) == {"things": False}
