"""Write the README's table of results from report/results.json; with --check, only say whether it is up to date.

python tests/benchmarks/update_readme.py [--check]
"""

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- results: written by tests/benchmarks/update_readme.py -->", "<!-- end of results -->"


def table(results):
    """The README's table of results, as Markdown, from the content of results.json."""
    d, run = results["digits"], results["run_all"]
    slow = run["without bf16 units"]["diffusion_assignment"]["seconds"]
    told = [r for r in d["frechet"]["rows"] if (r["method"], r["steps"]) in (("ddpm", 20), ("2m", 20), ("2m", 50))]
    floor, machine = d["judge"]["floor"][str(d["frechet"]["samples"])], run["machine"]
    rows = [
        ("Guided digits read as asked by the judge "
         f"({d['guided']['samples']:,} samples, guidance {d['guided']['guidance']:g}, {d['guided']['steps']} steps)",
         f"{d['guided']['accuracy']:.2%}"),
        (f"Digits by words, read as asked ({d['words']['samples']:,} samples each): phrases of training / held out",
         f"{d['words']['trained']:.2%} / {d['words']['kept back']:.2%}"),
        ("The judge on the real test digits", f"{d['judge']['test_accuracy']:.2%}"),
        (f"Fréchet distance, guidance 1, {d['frechet']['samples']:,} samples (real test digits: {floor:.2f}): "
         + " / ".join(f"{r['steps']} steps of {r['method'].upper()}" for r in told),
         " / ".join(f"{r['distance']:.2f}, {r['distance'] / floor:.2f} times the floor" for r in told)),
        ("The whole notebook, weights loaded",
         f"{run['diffusion_assignment']['seconds'] / 60:.1f} minutes, {run['peak_memory_mib'] / 1024:.1f} GiB at peak; "
         f"{slow / 60:.1f} minutes on a processor without bf16 units"),
        ("The companion notebook", f"{run['test_single_sample']['seconds']:.0f} seconds"),
    ]
    speed = results["throughput"]
    rows[:0] = [*painter_rows(results["scenes"]),
                ("Training steps of the painter beside diffusers' `UNet2DConditionModel` at 64 px "
                 f"({speed['weights']['ours'] / 1e6:.1f}, {speed['weights']['diffusers'] / 1e6:.1f} million weights); "
                 "share of the bf16 peak that they reach",
                 f"{speed['ratio']:.0f} times as many pictures a second; {speed['share_of_peak']:.0%}"),
                upscale_row(results["editing"]["upscale"]), *animal_rows(results["animals"])]
    text = "| What | Measured |\n|---|---|\n" + "\n".join(f"| {a} | {b} |" for a, b in rows)
    devices = {part["machine"]["device"] for part in (run, d["guided"], d["steps"])}
    devices |= {results["scenes"]["skills"]["device"], results["throughput"]["device"]}
    if len(devices) > 1:
        sys.exit(f"results.json mixes timings of several devices ({', '.join(sorted(devices))}): measure on one")
    where = f"Device {machine['device']}, {machine['cores']} cores, torch {machine['torch']}, {machine['date']}."
    scenes = results["scenes"]
    return "\n\n".join([skills_table(scenes["skills"]), text, fills_table(scenes["fills"]), where])


def animal_rows(animals):
    """The rows of the animals: pairs (what, measured)."""
    shipped, rows = animals["shipped"], []
    rows.append((f"Animals of {shipped['pictures']} pictures in five classes: class as asked ({shipped['samples']} "
                 f"samples; the pictures themselves {shipped['judge_on_real']:.0%}) / copies of a training picture",
                 f"{shipped['top1']:.0%} / {shipped['copies']:.0%}"))
    if "photographs" in animals:
        p = animals["photographs"]
        rows.append((f"Animals of {p['pictures']} real photographs, {p['steps']:,} steps: the nearest "
                     "photograph is of the class / copies", f"{p['nearest_of_class']:.0%} / {p['copies']:.0%}"))
    return rows


def skills_table(skills):
    """What the painter's pictures show of what was asked, as Markdown."""
    lines = ["| The painter shows what was asked | combinations trained | never trained | real pictures |",
             "|---|---|---|---|"]
    for skill, r in skills["rows"].items():
        never = f"{r['never']:.1%}" if "never" in r else ""
        lines.append(f"| {skill} | {r['trained']:.1%} | {never} | {r['real']:.1%} |")
    return "\n".join(lines)


def painter_rows(scenes):
    """The painter's rows of the table: pairs (what, measured)."""
    words, variety = scenes["words"], scenes["variety"]
    return [(f"Synonyms never trained on: the thing among the judge's first five ({words['words']} words)",
             f"{words['five']:.1%}"),
            (f"Of {variety['samples']} samples of a name without a style, how many of the four styles",
             f"{variety['styles']:.2f}")]


def upscale_row(upscale):
    """The row of the second stage: (what, measured)."""
    ours, lanczos = upscale["ways"]["second stage, 8 steps"], upscale["ways"]["Lanczos"]
    return (f"From 64 to 256 pixels, {upscale['samples']} drawings never trained on: PSNR / perceptual distance "
            "(Lanczos)",
            " (".join(f"{w['psnr']:.1f} dB / {w['perceptual']:.4f}" for w in (ours, lanczos)) + ")")


def fills_table(inpaint):
    """Fills of held-out things by bins of hole ratio, as Markdown."""
    bins = inpaint["bins"]
    lines = ["| Fill | " + " | ".join(bins) + " |", "|---" * (len(bins) + 1) + "|"]
    for name in next(iter(bins.values())):
        cells = [f"{b[name]['psnr']:.1f} / {b[name]['perceptual']:.3f}" for b in bins.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return (f"Fills of holes in things never trained on, no prompt, {inpaint['pictures_a_bin']} pictures in each "
            "bin of hole ratio: hole PSNR in dB / perceptual distance in the judge's features (less is better):\n\n"
            + "\n".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the README is out of date")
    options = parser.parse_args()
    readme, results = ROOT / "README.md", json.loads((ROOT / "report" / "results.json").read_text())
    old = readme.read_text(encoding="utf-8")
    if old.count(BEGIN) != 1 or old.count(END) != 1:
        sys.exit(f"README.md lacks the two lines between which its results stand: {BEGIN} and {END}")
    block = f"{BEGIN}\n{table(results)}\n{END}"
    new = re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: block, old, flags=re.S)
    if options.check:
        sys.exit(0 if new == old else "README.md is out of date: run python tests/benchmarks/update_readme.py")
    readme.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
