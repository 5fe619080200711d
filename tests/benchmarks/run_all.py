"""Execute both notebooks in place, as they are committed; write `run_all` (seconds, peak memory; apart for a
processor without bf16 units) into results.json.

python tests/benchmarks/run_all.py

Peak memory is that of the largest single process (the kernel), as the system counts it. No widget state is stored.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "report" / "evaluate"))

from common import ROOT, machine, nb, write_results  # noqa: E402


def execute(name):
    """Run one notebook of the repository in place; returns the seconds it took."""
    command = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "notebook", "--execute", "--inplace",
               "--ExecutePreprocessor.store_widget_state=False", name]
    begun = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True)
    return time.perf_counter() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    figures = {"test_single_sample": {"seconds": execute("test_single_sample.ipynb")}}
    figures["diffusion_assignment"] = {"seconds": execute("diffusion_assignment.ipynb")}
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # KiB on Linux, bytes on macOS
    figures["peak_memory_mib"] = peak / (2**20 if sys.platform == "darwin" else 2**10)
    figures["machine"] = machine()
    with nb.autocast_for("cpu"):
        fast = torch.is_autocast_enabled("cpu")
    for part, value in (figures if fast else {"without bf16 units": figures}).items():
        write_results("run_all", part, value)
    print(figures)


if __name__ == "__main__":
    main()
