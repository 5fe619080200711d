"""What a painter of scenes can do; writes `scenes` into report/results.json. python report/evaluate/skills.py

judge     the judge itself on fresh real scenes: things, styles, number, background
skills    six modelled on those of GenEval (Ghosh et al. 2023) and this project's own, on combinations trained and never
          trained, beside the same captions' real pictures under the same judge
words     synonyms never trained on: the right thing among the judge's first five
variety   sixteen samples of a name: how many styles, how far two samples lie apart
sweeps    one thing, as guidance or the number of steps changes

All at 20 steps and guidance 3 where nothing else is said; sample number i has the noise of seed i.
"""

import argparse
from dataclasses import replace

import detector
import numpy as np
import torch
from common import RESULTS, in_parts, machine, nb, weights_of, write_results

from models import scenes

SKILLS = ("one thing", "two things", "number", "background", "relation", "place", "style", "size",
          "a style for each of two", "a size for each of two")


def two_things(rng, never):
    """Two things whose pair was trained, or never."""
    data = scenes.drawings()
    while True:
        things = tuple(rng.choice(data.train, 2, replace=False).tolist())
        if data.kept_pair[things] == never:
            return things


def one_thing(rng, kept=None, never=False):
    """(thing, column) whose combination in `kept` [N, columns] was trained, or never; white is never kept back."""
    data = scenes.drawings()
    if kept is None:
        return int(rng.choice(data.train)), None
    may = (kept if never else ~kept).copy()
    if kept is data.kept_number:
        may[:, :2] = False
    elif kept is data.kept_colour:
        may[:, 0] = False
    may[np.setdiff1d(np.arange(len(may)), data.train)] = False
    return tuple(int(i) for i in rng.permutation(np.argwhere(may))[0])


def asked(skill, never, rng):
    """What a caption of this skill says: a Scene without boxes. never: of combinations never trained on."""
    data = scenes.drawings()
    if skill in ("background", "number", "style"):
        kept = {"background": data.kept_colour, "number": data.kept_number, "style": data.kept_style}[skill]
        thing, column = one_thing(rng, kept, never)
        scene = scenes.Scene((thing,))
        return {"background": replace(scene, colour=column), "number": replace(scene, count=column),
                "style": replace(scene, styles=(column,))}[skill]
    if skill in ("one thing", "place", "size"):
        scene = scenes.Scene((one_thing(rng)[0],))
        return replace(scene, place=scenes.pick(rng, *scenes.PLACES) if skill == "place" else None,
                       sizes=(scenes.pick(rng, "small", "large"),) if skill == "size" else (None,))
    scene = scenes.Scene(two_things(rng, never))
    if skill == "relation":
        return replace(scene, relation=scenes.pick(rng, *scenes.RELATIONS))
    if skill == "a style for each of two":
        trained = [np.flatnonzero(~data.kept_style[t]) for t in scene.things]
        first = int(rng.choice(trained[0]))
        return replace(scene, styles=(first, int(rng.choice([s for s in trained[1] if s != first]))))
    if skill == "a size for each of two":
        return replace(scene, sizes=scenes.pick(rng, ("small", "large"), ("large", "small")))
    return scene


def shown(told, seen):
    """Which facts of a caption a judge sees: {fact: bool} for the facts told; told: a Scene, seen: of `detect`."""
    found, colour = seen
    left = list(found)
    mine = []
    for thing in told.things * told.count:
        match = next((one for one in left if one["thing"] == thing), None)
        mine.append(match)
        left = [one for one in left if one is not match]
    there = None not in mine
    facts = {"things": there and not left if told.count > 1 else there}
    if told.colour is not None:
        facts["colour"] = colour == told.colour
    if told.relation:
        facts["relation"] = there and scenes.relation_of(*(one["box"] for one in mine))[0] == told.relation
    if told.place:
        facts["place"] = there and scenes.place_of(mine[0]["box"]) == told.place
    for i, (style, size) in enumerate(zip(told.styles, told.sizes, strict=False)):
        one = mine[i] if i < len(mine) else None
        if style is not None:
            facts[f"style {i}"] = one is not None and one["style"] == style
        if size:
            facts[f"size {i}"] = one is not None and (one["box"][2] < 26 if size == "small" else one["box"][2] > 34)
    return facts


def measure(draw, judge, count, skills=SKILLS, seed=0):
    """Share of first samples that show all that their caption says, by skill: {skill: {"trained", "never", "real"}}.

    draw: (captions, first seed) -> pictures [B, 3, 64, 64] in [0, 1]; real: of real pictures of the same captions.
    Skills whose facts are all trained have no "never".
    """
    table = {}
    for number, skill in enumerate(skills):
        rng = np.random.default_rng([seed, number])
        row = {}
        for column, never in (("trained", False), ("never", True)):
            if never and skill in ("one thing", "place", "size"):
                continue
            told = [asked(skill, never, rng) for _ in range(count)]
            words = [scenes.caption(scene, rng, plain=True) for scene in told]
            pictures = in_parts(count, 100, lambda a, b, words=words: draw(words[a:b], a))
            row[column] = share(told, detector.detect(judge, pictures))
            if not never:
                real = torch.stack([scenes.paint(scenes.complete(scene, rng)) for scene in told])
                row["real"] = share(told, detector.detect(judge, real))
        table[skill] = row
    return table


def share(told, seen):
    """Share of scenes of which every fact is shown."""
    return float(np.mean([all(shown(*pair).values()) for pair in zip(told, seen, strict=True)]))


def judge_itself(judge, count, seed=10**6):
    """The judge's own accuracy on fresh real scenes of anything: {what: share}."""
    rng = np.random.default_rng(seed)
    drawn = [detector.any_scene(rng) for _ in range(count)]
    seen = detector.detect(judge, torch.stack([scenes.paint(scene) for scene in drawn]))
    right = {"found": [], "thing": [], "style": []}
    for scene, (found, _) in zip(drawn, seen, strict=True):
        for thing, style, x, y, side in scene.boxes:
            near = [one for one in found if scenes.overlap(one["box"], (x, y, side)) > 0.4]
            right["found"].append(bool(near))
            right["thing"].append(any(one["thing"] == thing for one in near))
            right["style"].append(any(one["style"] == style for one in near))
    right["number"] = [len(found) == len(scene.boxes) for scene, (found, _) in zip(drawn, seen, strict=True)]
    right["background"] = [colour == scene.colour for scene, (_, colour) in zip(drawn, seen, strict=True)]
    return {what: float(np.mean(values)) for what, values in right.items()}


def synonyms(draw, judge, each=4):
    """Words never trained on: {"first", "five"}: share of samples with the right thing first, or among five."""
    data = scenes.drawings()
    words = [(data.names.index(name), word) for name in data.names for word in data.synonyms[name]
             if data.names.index(name) in data.train] * each
    pictures = in_parts(len(words), 100, lambda a, b: draw([scenes.noun(word) for _, word in words[a:b]], a))
    seen = [found[:1] for found, _ in detector.detect(judge, pictures)]
    return {"words": len(words) // each, "samples": len(words),
            "first": float(np.mean([bool(f) and f[0]["thing"] == t for (t, _), f in zip(words, seen, strict=True)])),
            "five": float(np.mean([bool(f) and t in f[0]["names"] for (t, _), f in zip(words, seen, strict=True)]))}


def variety(draw, judge, names=40, samples=16, seed=5):
    """Samples of a bare name: how many of the four styles the judge sees, and the distance of two samples, means."""
    data = scenes.drawings()
    things = np.random.default_rng(seed).choice(data.train, names, replace=False)
    styles, apart = [], []
    for number, thing in enumerate(things):
        pictures = draw([scenes.noun(data.names[thing])] * samples, number * samples)
        styles.append(len({found[0]["style"] for found, _ in detector.detect(judge, pictures) if found}))
        apart.append(torch.pdist(pictures.flatten(1)).mean().item() / pictures[0].numel() ** 0.5)
    return {"names": names, "samples": samples, "styles": float(np.mean(styles)), "distance": float(np.mean(apart))}


def sweeps(judge, model, count):
    """[{"guidance", "steps", "right": share of samples that show the one thing asked for}]."""
    rows = []
    for guidance, steps in (*((g, 20) for g in (1, 2, 3, 5, 8)), *((3, s) for s in (5, 10, 50))):
        def draw(words, first, guidance=guidance, steps=steps):
            return nb.text_to_image(words, guidance=guidance, steps=steps, seed=first, model=model)

        found = measure(draw, judge, count, ("one thing",))["one thing"]
        rows.append({"guidance": guidance, "steps": steps, "right": found["trained"]})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("judge", "skills", "words", "variety", "sweeps")
    parser.add_argument("--part", nargs="+", default=parts, choices=parts)
    parser.add_argument("--model", default="painter", help="a name in models/, or a file")
    parser.add_argument("--samples", type=int, default=500, help="prompts a row")
    parser.add_argument("--out", default=RESULTS)
    options = parser.parse_args()
    judge = detector.load_judge("scene_judge")
    measured = {"judge": weights_of(judge), **machine()}
    if "judge" in options.part:
        write_results("scenes", "judge", {**judge_itself(judge, 2000), "scenes": 2000, **measured}, options.out)
    if set(options.part) == {"judge"}:
        return
    model = nb.load_model(options.model)

    def draw(words, first):
        return nb.text_to_image(words, seed=first, model=model)

    measured |= {"weights": weights_of(model), "step": model.info["step"], "samples": options.samples}
    if "skills" in options.part:
        rows = measure(draw, judge, options.samples)
        write_results("scenes", "skills", {"rows": rows, **measured}, options.out)
    if "words" in options.part:
        write_results("scenes", "words", {**measured, **synonyms(draw, judge)}, options.out)
    if "variety" in options.part:
        write_results("scenes", "variety", {**measured, **variety(draw, judge)}, options.out)
    if "sweeps" in options.part:
        write_results("scenes", "sweeps", {**measured, "rows": sweeps(judge, model, options.samples)}, options.out)


if __name__ == "__main__":
    main()
