"""Scenes of drawings with exact captions, the data of the painter.

A `Scene` says which things stand where, in which style and size, on which background; None is a fact left open.
`said` draws the facts of a caption, `caption` words them, `complete` draws what they leave open, `paint` makes the
picture. So a caption has many pictures, and everything in a picture is known.
"""

import functools
import gzip
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from helpers import draw_svg

COLOURS = {"white": (255, 255, 255), "grey": (175, 175, 175), "red": (232, 92, 82), "orange": (248, 160, 66),
           "yellow": (252, 222, 90), "green": (118, 196, 108), "turquoise": (84, 206, 196), "blue": (98, 150, 238),
           "purple": (166, 120, 212), "pink": (248, 172, 204), "brown": (160, 116, 84)}  # of the backgrounds
NUMBERS = ("no", "one", "two", "three", "four")
STYLES = ("OpenMoji", "Noto", "Twemoji", "Fluent")
SIZES = {"small": (24,), "medium": (32,), "large": (40, 48)}  # sides in pixels of 64
GRID = 8  # things stand at multiples of it: convolutions down to 8 x 8 places see a thing alike wherever it stands
PLACES = {(row, column): "in the middle" if (row, column) == (1, 1) else
          f"in the {a} {b} corner" if a and b else f"at the {a}" if a else f"on the {b}"
          for row, a in enumerate(("top", "", "bottom")) for column, b in enumerate(("left", "", "right"))}
RELATIONS = {"left": "right", "right": "left", "above": "below", "below": "above"}  # each with its converse

# The things that the painter is trained on: a hundred learned well are worth more than three hundred learned badly.
FIRST = """
dog, cat, horse, cow, pig, sheep, elephant, giraffe, lion, tiger, zebra, monkey, bear, panda, fox, rabbit, chick,
duck, owl, penguin, frog, crocodile, turtle, snake, whale, fish, octopus, crab, snail, butterfly, bee, ladybug,
unicorn, dinosaur, apple, orange, lemon, banana, strawberry, pair of cherries, pineapple, tomato, carrot, corn cob,
hamburger, slice of pizza, fried egg, ice cream cone, donut, cookie, birthday cake, cup of coffee, mushroom, pumpkin,
tree, palm tree, cactus, sunflower, rose, tulip, car, bus, truck, bicycle, locomotive, airplane, rocket, sailboat,
house, castle, hammer, key, book, pencil, bell, candle, chair, alarm clock, laptop, guitar, umbrella, gift, balloon,
teddy bear, robot, crown, heart, t-shirt, top hat, soccer ball, basketball, sun, crescent moon, star, cloud, rainbow,
snowman, flame, smiling face, ghost
"""


class Drawings:
    """Drawings of everyday things in four styles, and what is kept back from training, by a seed; the default holds out
    no thing that is asked for first (a dog, an apple, a house).

    names [N]; words, synonyms: {name: other words}, the synonyms never trained on; train, held_out: numbers of
    things, those of FIRST, and one in twenty of all, never in training; kept_style [N, 4], kept_colour [N, 11],
    kept_number [N, 5], kept_pair [N, N]: True for combinations never trained on; taught: the names of train.
    """

    def __init__(self, seed=3):
        data = json.loads(gzip.decompress(Path(__file__).with_name("drawings.json.gz").read_bytes()))
        self.names = list(data)
        self.words = {name: d["words"] for name, d in data.items()}
        self.synonyms = {name: d["synonyms"] for name, d in data.items()}
        self.svg = [[d[style] for style in STYLES] for d in data.values()]
        n = len(data)
        first = FIRST.replace("\n", " ").strip().split(", ")
        rng = np.random.default_rng(seed)
        order = rng.permutation(n)
        self.held_out = np.sort(order[: n // 20])
        self.train = np.array(sorted(i for i in order[n // 20 :] if self.names[i] in first))
        self.taught = [self.names[i] for i in self.train]
        self.kept_style = np.zeros((n, 4), bool)
        self.kept_style[np.arange(n), rng.integers(4, size=n)] = rng.random(n) < 0.25
        self.kept_colour = np.zeros((n, len(COLOURS)), bool)
        np.put_along_axis(self.kept_colour, 1 + rng.random((n, len(COLOURS) - 1)).argsort(1)[:, :2], True, 1)
        self.kept_number = np.zeros((n, 5), bool)
        self.kept_number[np.arange(n), rng.integers(2, 5, size=n)] = rng.random(n) < 0.33
        pairs = rng.random((n, n)) < 0.1
        self.kept_pair = pairs | pairs.T

    @functools.cache  # noqa: B019 - there is one Drawings, see `drawings`
    def sprite(self, thing, style, side):
        """A drawing, float RGBA [4, side, side] in [0, 1]."""
        return draw_svg([self.svg[thing][style]], side)[0].float() / 255


@functools.cache
def drawings():
    """The one Drawings of this process."""
    return Drawings()


def says_a_thing(prompt):
    """Whether a prompt is empty, or has a word of those by which the painter was taught its things."""
    data = drawings()
    words = re.findall(r"\w+", " ".join([*data.taught, *(word for name in data.taught for word in data.words[name])]))
    asked = {form for word in re.findall(r"\w{3,}", prompt.lower()) for form in (word, word[:-1], word[:-2])}
    return not prompt or not asked.isdisjoint(word for word in words if len(word) > 2)


@dataclass(frozen=True)
class Scene:
    """A scene, or what a caption says of it; None is left open.

    things: one or two numbers of drawings; count: how many of a single thing, 1 to 4; styles, sizes: one for each of
    things, a number of STYLES, a key of SIZES; colour: of the background, a number of COLOURS; place: of a single
    thing, a key of PLACES; relation: how the first of two stands to the second, a key of RELATIONS; boxes: (thing,
    style, x, y, side) of everything in the picture, in pixels.
    """

    things: tuple
    count: int = 1
    styles: tuple = (None, None)
    sizes: tuple = (None, None)
    colour: int | None = None
    place: tuple | None = None
    relation: str | None = None
    boxes: tuple = ()


def pick(rng, *options):
    return options[rng.integers(len(options))]


def one_of(rng, forbidden):
    """An index drawn evenly from where `forbidden` [n] is False."""
    return int(rng.choice(np.flatnonzero(~forbidden)))


def said(rng, kinds=(0.3, 0.5, 0.2)):
    """What a training caption says: a Scene without boxes. kinds: the shares of one thing, two things, a number."""
    data = drawings()
    kind = rng.choice(3, p=kinds)
    things = tuple(rng.choice(data.train, 1 + (kind == 1), replace=False).tolist())
    while kind == 1 and data.kept_pair[things]:
        things = tuple(rng.choice(data.train, 2, replace=False).tolist())
    sizes = tuple(pick(rng, "small", "large", None, None, None, None) for _ in things)
    scene = Scene(things, sizes=(sizes[0], None) if sizes == ("large", "large") else sizes)
    if kind == 2:
        scene = replace(scene, sizes=(None,), count=2 + one_of(rng, data.kept_number[things[0], 2:]))
    if rng.random() < 0.5:
        scene = replace(scene, styles=some_styles(scene, rng))
    if rng.random() < 0.65:
        scene = replace(scene, colour=one_of(rng, data.kept_colour[list(things)].any(0)))
    if kind == 0 and scene.sizes[0] != "large" and rng.random() < 0.3:
        scene = replace(scene, place=pick(rng, *PLACES))
    if kind == 1 and rng.random() < 0.8:
        scene = replace(scene, relation=pick(rng, *RELATIONS))
    return scene


def some_styles(scene, rng):
    """A style for each thing, mostly one for both; none that is kept back."""
    kept = drawings().kept_style[list(scene.things)]
    if rng.random() < 0.6:
        return (one_of(rng, kept.any(0)),) * len(kept)
    return tuple(one_of(rng, row) for row in kept)


def overlap(a, b):
    """The share of the smaller of two boxes (x, y, side) that the other covers."""
    wide, high = (max(0, min(a[i] + a[2], b[i] + b[2]) - max(a[i], b[i])) for i in (0, 1))
    return wide * high / min(a[2], b[2]) ** 2


def relation_of(a, b):
    """How box a (x, y, side) stands to box b, and how plainly: (a key of RELATIONS, ratio of the two distances)."""
    x, y = (a[i] + a[2] / 2 - b[i] - b[2] / 2 for i in (0, 1))
    name = ("left" if x < 0 else "right") if abs(x) > abs(y) else ("above" if y < 0 else "below")
    return name, max(abs(x), abs(y)) / max(min(abs(x), abs(y)), 1e-6)


def place_of(box, size=64):
    """The third of the picture, (row, column), in which the middle of a box (x, y, side) lies, of where it may lie."""
    return tuple(int(min(2, 3 * box[i] / max(1, size - box[2]))) for i in (1, 0))


def sides_of(scene, rng):
    """Sides in pixels for everything in a scene, as its caption says or at random."""
    if scene.count > 1:
        return [32 if scene.count == 2 else 24] * scene.count
    if len(scene.things) == 2:  # as large as fits side by side
        free = 24 if "large" in scene.sizes else 32
        sides = [SIZES[size][0] if size else free for size in scene.sizes]
        if sum(sides) > 64:
            raise ValueError(f"two things, {' and '.join(scene.sizes)}, do not fit side by side")
        return sides
    free = (32,) if scene.place else (32, *SIZES["large"])
    return [int(pick(rng, *(SIZES[size] if size else free))) for size in scene.sizes[:1]]


def boxes_of(scene, rng, size=64):
    """Free places for everything in a scene, or None where a try failed: [(x, y, side)], in pixels."""
    boxes = []
    for side in sides_of(scene, rng):
        if scene.place:
            x, y = ((size - side) * (0.5 * p + rng.uniform(*((0, 0.15), (-0.08, 0.08), (-0.15, 0))[p]))
                    for p in reversed(scene.place))
        elif len(scene.things) == scene.count == 1:
            x, y = (size - side) * rng.normal(0.5, 0.22, 2).clip(0, 1)
        else:
            x, y = (size - side) * rng.random(2)
        boxes.append((GRID * round(x / GRID), GRID * round(y / GRID), side))
    if any(overlap(a, b) > 0.05 for i, a in enumerate(boxes) for b in boxes[:i]):
        return None
    if scene.place and place_of(boxes[0]) != scene.place:
        return None
    if scene.relation:
        actual, plainly = relation_of(*boxes)
        return boxes if actual == scene.relation and plainly > 1.2 else None
    return boxes


def complete(scene, rng):
    """The scene with everything that its caption leaves open drawn at random, within what may be trained on."""
    kept = drawings().kept_colour[list(scene.things)].any(0)
    styles = some_styles(scene, rng)
    styles = tuple(b if a is None else a for a, b in zip(scene.styles, styles, strict=False))
    colour = scene.colour
    if colour is None:
        colour = 0 if rng.random() < 0.25 else one_of(rng, kept)
    boxes = None
    while boxes is None:
        boxes = boxes_of(scene, rng)
    what = zip(scene.things, styles, strict=True) if scene.count == 1 else [(scene.things[0], styles[0])] * scene.count
    return replace(scene, styles=styles, colour=colour,
                   boxes=tuple((*w, *box) for w, box in zip(what, boxes, strict=True)))


def paint(scene, size=64):
    """A complete Scene -> its picture, float [3, size, size] in [0, 1]."""
    palette = torch.tensor(list(COLOURS.values())) / 255
    picture = palette[scene.colour][:, None, None].repeat(1, size, size)
    for thing, style, x, y, side in scene.boxes:
        sprite = drawings().sprite(thing, style, side)
        below = picture[:, y : y + side, x : x + side]
        below.copy_(sprite[3:] * sprite[:3] + (1 - sprite[3:]) * below)
    return picture


def alone(thing, style=0, colour=0, side=48):
    """The picture of one thing, by name or number, in the middle: float [1, 3, 64, 64] in [0, 1]."""
    thing = drawings().names.index(thing) if isinstance(thing, str) else int(thing)
    corner = (64 - side) // 2
    return paint(Scene((thing,), colour=int(colour), boxes=((thing, style, corner, corner, side),)))[None]


# -------------------------------------------------------------------------------------------------------- captions
PLURALS = {"sheep": "sheep", "deer": "deer", "fish": "fish", "shrimp": "shrimp", "broccoli": "broccoli",
           "mouse": "mice", "wolf": "wolves", "loaf": "loaves", "leaf": "leaves", "knife": "knives", "tooth": "teeth",
           "die": "dice", "snowman": "snowmen", "scarf": "scarves", "santa claus": "santa clauses"}
MASS = {"pizza", "cheese", "bacon", "popcorn", "spaghetti", "coffee", "yarn", "ice cream", "pasta", "latte"}


def plural(name):
    """The plural of a thing's name: "bunch of grapes" -> "bunches of grapes"."""
    if " and " in name:
        return " and ".join(plural(part) for part in name.split(" and "))
    head, link, rest = re.fullmatch(r"(.*?)(?:( of | with )(.*))?", name).groups(default="")
    last = head.split()[-1]
    several = PLURALS.get(last) or (last + "es" if re.search("(s|x|ch|sh|ato|cano)$", last) else
                                    last[:-1] + "ies" if re.search("[^aeiou]y$", last) else last + "s")
    return head[: len(head) - len(last)] + several + link + rest


def noun(name, adjective=""):
    """A thing's name with its adjective, and with an article where English wants one."""
    words = f"{adjective} {name}".strip()
    several = re.search("[^su]s$", name) and " of " not in name and " with " not in name and name != "santa claus"
    if several or name in MASS:
        return words
    vowel = words[0] in "aeiou" and not re.match("uni|ufo|eu", words) or re.match("x-|x |hour", words)
    return f"{'an' if vowel else 'a'} {words}"


def subject(scene, i, rng, plain=False):
    """Thing number i of a scene in words, with its number and size; plain: by its own name."""
    data = drawings()
    name = data.names[scene.things[i]]
    adjective = {"small": pick(rng, "small", "small", "tiny", "little"),
                 "large": pick(rng, "large", "large", "big")}.get(scene.sizes[i], "")
    if scene.count > 1:
        number = pick(rng, NUMBERS[scene.count], NUMBERS[scene.count], str(scene.count))
        return " ".join(f"{number} {adjective} {plural(name)}".split())
    return noun(name if plain else pick(rng, name, name, *data.words[name]), adjective)


def styled(style, rng):
    return pick(rng, "in the {} style", "in {} style", "drawn in the {} style").format(STYLES[style])


def ground(colour, rng):
    """A background in words."""
    name = list(COLOURS)[colour]
    name = {"purple": "violet", "grey": "gray"}.get(name, name) if rng.random() < 0.2 else name
    noun = f"{'an' if name == 'orange' else 'a'} {name} background"
    return pick(rng, f"on {noun}", f"on {noun}", f"with {noun}", f"against {noun}", f"on {name}", f"{name} background")


def caption(scene, rng, plain=False):
    """A caption that says every fact of a scene that is not None, in one of many phrasings; plain: no other names."""
    parts = [subject(scene, i, rng, plain) for i in range(len(scene.things))]
    styles = scene.styles[: len(parts)]
    shared = styles[0] is not None and styles[0] == styles[-1]
    if not shared:
        parts = [p if style is None else f"{p} {styled(style, rng)}" for p, style in zip(parts, styles, strict=True)]
    relation = scene.relation
    if len(parts) == 2 and rng.random() < 0.5:
        parts.reverse()
        relation = RELATIONS.get(relation)
    between = {None: pick(rng, "and", "and", "with"), "left": pick(rng, "to the left of", "left of"),
               "right": pick(rng, "to the right of", "right of"), "above": pick(rng, "above", "over"),
               "below": pick(rng, "below", "under")}[relation]
    text = f" {between} ".join(parts) + (f" {PLACES[scene.place]}" if scene.place else "")
    tail = [styled(styles[0], rng)] if shared else []
    tail += [] if scene.colour is None else [ground(scene.colour, rng)]
    for part in rng.permutation(tail):
        comma = "," if rng.random() < 0.25 or part.endswith("background") and " a" not in part else ""
        text += f"{comma} {part}"
    return pick(rng, "", "", "", "a drawing of ", "a picture of ") + text


@functools.cache
def captioned(number, kinds=(0.3, 0.5, 0.2)):
    """Training caption `number`: (what it says, a Scene; its words). The same numbers give the same captions."""
    rng = np.random.default_rng([7, number])
    scene = said(rng, kinds)
    return scene, caption(scene, rng)


def scene_batch(numbers, rng, kinds=(0.3, 0.5, 0.2)):
    """Training captions by number -> (pictures float [B, 3, 64, 64] in [0, 1], captions, complete Scenes)."""
    told = [captioned(int(n), kinds) for n in numbers]
    scenes = [complete(scene, rng) for scene, _ in told]
    return torch.stack([paint(scene) for scene in scenes]), [words for _, words in told], scenes


def thing_batch(numbers, rng):
    """Things alone and large: (pictures float [B, 3, 64, 64] in [0, 1], captions without place and size)."""
    pictures, captions = [], []
    for number in numbers:
        told = replace(captioned(int(number), (1.0, 0.0, 0.0))[0], sizes=(None,), place=None)
        scene = complete(told, rng)
        x, y = (GRID * round(z) for z in 16 / GRID * rng.normal(0.5, 0.25, 2).clip(0, 1))
        pictures.append(paint(replace(scene, boxes=((*scene.boxes[0][:2], x, y, 48),))))
        captions.append(caption(told, np.random.default_rng([8, int(number)])))
    return torch.stack(pictures), captions
