"""The tests with other versions of Python and of the packages, each in a virtual environment of its own.

python tests/versions.py python3.11 lowest python3.13 newest

lowest: the least versions that requirements.txt allows; newest: what pip takes. Ends with status 1 if a test fails.
Downloads gigabytes; five to ten minutes each on two cores. `--keep FOLDER` in front keeps the environments there.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
REQUIREMENTS = ("requirements.txt", "tests/requirements.txt")


def tested(python, which, folder):
    """Whether the tests pass with this Python and the lowest or newest packages; its environment lies in folder."""
    place = folder / f"{Path(python).name}-{which}"
    inside = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not inside.exists():
        subprocess.run([python, "-m", "venv", place], check=True)
    wanted = folder / "wanted.txt"
    text = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in REQUIREMENTS)
    wanted.write_text(text.replace(">=", "==") if which == "lowest" else text, encoding="utf-8")
    subprocess.run([inside, "-m", "pip", "install", "-q", "-r", wanted], check=True)  # a kept one may be out of date
    path = os.pathsep.join([str(inside.parent), os.environ["PATH"]])
    return subprocess.run([inside, "-m", "pytest", "-q"], cwd=ROOT, env={**os.environ, "PATH": path}).returncode == 0


def main(arguments):
    keep = arguments[1] if arguments[:1] == ["--keep"] else None
    pairs = arguments[2 * (keep is not None):]
    if not pairs or len(pairs) % 2 or not {*pairs[1::2]} <= {"lowest", "newest"}:
        sys.exit(__doc__)
    if missing := [python for python in pairs[::2] if not shutil.which(python)]:
        sys.exit(f"no such Python here: {', '.join(missing)}; give names or paths of those that are installed")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(keep or folder).expanduser().resolve()
        folder.mkdir(parents=True, exist_ok=True)
        found = {f"{python}, {which} packages": tested(python, which, folder)
                 for python, which in zip(pairs[::2], pairs[1::2], strict=True)}
    for what, passed in found.items():
        print(f"{what}: {'passed' if passed else 'FAILED'}")
    sys.exit(not all(found.values()))


if __name__ == "__main__":
    main(sys.argv[1:])
