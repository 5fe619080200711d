"""Build report.pdf, report_detailed.pdf and report_animals.pdf with all their figures: python report/build_report.py

[--author "Name, number"] [--keep-figures] [--pages FOLDER]: whose report it is; take report/figures/ as it is; write
each page as a PNG too. Needs `pip install typst` (in tests/requirements.txt); no system font, no network. The same
inputs give the same PDF, byte for byte. Fails if a sentence in the text no longer agrees with results.json, or
report.pdf is longer than two pages; says which results were measured with other weights than those in models/.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
LONGEST = {"report": 2, "report_detailed": 10, "report_animals": 6}


def build(name, author="", pages=None):
    """Compile one report; returns its number of pages. Raises typst.TypstError or ValueError."""
    import typst

    source, options = FOLDER / f"{name}.typ", {"root": str(FOLDER), "ignore_system_fonts": True,
                                               "sys_inputs": {"author": author}}
    images = typst.compile(str(source), format="png", ppi=110, **options)
    images = images if isinstance(images, list) else [images]
    if len(images) > LONGEST[name]:
        raise ValueError(f"{name}.pdf would have {len(images)} pages, and may have {LONGEST[name]}")
    if pages:
        Path(pages).mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(images, 1):
            (Path(pages) / f"{name}_{i}.png").write_bytes(image)
    part = FOLDER / f"{name}.part"
    part.write_bytes(typst.compile(str(source), format="pdf", timestamp=0, **options))
    os.replace(part, FOLDER / f"{name}.pdf")
    return len(images)


def stale():
    """The parts of results.json that were measured with other weights than those of which figures/ was made."""
    results, about = (json.loads((FOLDER / name).read_text(encoding="utf-8"))
                      for name in ("results.json", "figures/figures.json"))
    for part, name in (("digits", "digits"), ("emoji", "emoji"), ("editing", "emoji"), ("animals", "animals")):
        for key, figures in results[part].items():
            of = figures.get("weights", "") if isinstance(figures, dict) else ""
            if of and of != about[f"model {name}"]["sha"]:
                yield f"{part}/{key} ({of}; models/{name}.safetensors is {about[f'model {name}']['sha']})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--author", default="", help="name and number, below the title")
    parser.add_argument("--keep-figures", action="store_true", help="do not make the figures again")
    parser.add_argument("--pages", help="a folder for the pages as PNG files")
    options = parser.parse_args()
    try:
        import typst  # noqa: F401
    except ImportError:
        sys.exit("the package typst is missing: pip install -r tests/requirements.txt")
    if not options.keep_figures:
        subprocess.run([sys.executable, str(FOLDER / "figures.py")], check=True)
    if other := list(stale()):
        print("measured with other weights:", *other, sep="\n  ")
    for name in LONGEST:
        count = build(name, options.author, options.pages)
        print(f"{name}.pdf: {count} pages, {(FOLDER / f'{name}.pdf').stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
