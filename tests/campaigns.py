"""Long searches for faults, one command each: python tests/campaigns.py files | kills | calls

files   900 damaged and hostile files of weights: each is refused with advice, or holds the same weights
kills   a training killed thirty times and gone on with: the same weights, bit for bit, as one never stopped
calls   a thousand calls of the public functions with odd arguments (hypothesis): a picture of the right shape without
        NaN, or a TypeError or ValueError that says what to do. Needs `pip install hypothesis`.
"""

import json
import math
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from helpers import fingerprint, load_notebook  # noqa: E402

nb = load_notebook()
TINY = {"net": "UNet", "schedule": ["cosine", 50, 2.0], "target": "x_0",
        "reader": {"net": "DraftReader", "names": ["cat", "dog"]},
        "config": {"widths": [32, 64], "attention": [1], "text_width": 384, "inpaint": True, "draft": True,
                   "coarse": True, "embedding": 32}}
ODD = (None, True, -1, 0, 1, 7, 10**9, 2**62, 1e300, 0.5, math.nan, math.inf, "", "x" * 10_000, "seven", b"x", [], {},
       [[]], "1", np.int64(3), np.float32(0.5), torch.tensor(2), torch.ones(2), 10**6)


# ----------------------------------------------------------------------------- files
def with_description(data, change):
    """A weights file whose description was changed by someone who can count its checksum anew."""
    size = int.from_bytes(data[:8], "little")
    info = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["info"])
    tensors = load(data)
    change(info, tensors)
    return save(tensors, {"info": json.dumps(info), "sha256": fingerprint(info, tensors)})


def hostile(data, rng):
    """One change of the description: a number out of all proportion, another kind of value, or a tensor."""
    def change(info, tensors):
        kind = rng.randrange(4)
        if kind == 0:
            key = rng.choice(sorted(info["config"]))
            info["config"][key] = rng.choice([10**6, 10**9, -1, [10**6] * 3, [8] * 10**4, "x", None, {}, 1e300, True])
        elif kind == 1:
            info["schedule"] = rng.choice([["cosine", 2 * 10**8], ["linear", 1], ["x", 10], [], ["cosine", 1e300],
                                           ["cosine", 1000, 1e-300], "cosine", [["cosine"]]])
        elif kind == 2:
            info[rng.choice(["net", "target", "reader", "config"])] = rng.choice(["x", 1, [], {}, None, "Path", "UNet"])
        else:
            name = rng.choice(sorted(tensors))
            tensors[name] = rng.choice([tensors[name].view(-1)[:0], torch.zeros(3), tensors[name].double() * math.nan])
    return with_description(data, change)


def files(count=900):
    rng, kept = random.Random(0), {"refused": 0, "the same": 0}
    shipped = [nb.MODELS / f"{name}.safetensors" for name in ("digits", "flow_time")]
    good = {path: nb.load_model(path).state_dict() for path in shipped}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(count):
            path = rng.choice(shipped)
            data = bytearray(path.read_bytes())
            if i % 3 == 0:
                data = data[: rng.randrange(len(data))]
            elif i % 3 == 1:
                for _ in range(rng.choice((1, 1, 8, 64))):
                    data[rng.choice((rng.randrange(len(data)), rng.randrange(2000)))] ^= 1 << rng.randrange(8)
            else:
                data = hostile(bytes(data), rng)
            file = Path(folder) / "w.safetensors"
            file.write_bytes(data)
            begun = time.time()
            try:
                model = nb.load_model(file)
                same = all(torch.equal(w, good[path][name]) for name, w in model.state_dict().items())
                if not same and i % 3 != 2:
                    sys.exit(f"file {i}: other weights, and nothing said")
                kept["the same"] += 1
            except ValueError as error:
                if "train it anew" not in str(error):
                    sys.exit(f"file {i}: no advice in {error}")
                kept["refused"] += 1
            if time.time() - begun > 10:
                sys.exit(f"file {i} took {time.time() - begun:.0f} seconds")
    print(kept, f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


# ----------------------------------------------------------------------------- kills
TRAINING = """
import sys, torch
sys.path.insert(0, {root!r})
from dataclasses import replace
from helpers import load_notebook
nb = load_notebook()
recipe = replace(nb.DIGITS, pictures=320, epochs=12, batch_size=16)
nb.train(recipe, {folder!r}, save_every=0, device="cpu")
"""


def kills(count=30):
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as top:
        for name, left in (("whole", 0), ("killed", count)):
            code = TRAINING.format(root=str(ROOT), folder=str(Path(top) / name))
            while True:
                run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
                state, begun = Path(top) / name / "training" / "digits.pt", time.time()
                before = state.stat().st_mtime if state.is_file() else 0
                while left and run.poll() is None and (not state.is_file() or state.stat().st_mtime == before):
                    time.sleep(0.01)  # until this process has saved once
                if left and run.poll() is None:
                    time.sleep(rng.random())
                    os.kill(run.pid, signal.SIGKILL)
                    left -= 1
                if run.wait() == 0:
                    break
                print(f"{left} to go, {time.time() - begun:.0f} s", flush=True)
            if left:
                sys.exit(f"it ended {left} kills early: make the training longer")
        one, other = (load((Path(top) / name / "digits.safetensors").read_bytes()) for name in ("whole", "killed"))
    if sorted(one) != sorted(other) or not all(torch.equal(one[name], other[name]) for name in one):
        sys.exit("other weights than without kills")
    print(f"{count} kills: the same weights, bit for bit")


# ----------------------------------------------------------------------------- calls
def calls(count=1000):
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    painter, digit = nb.build_model(TINY).eval(), nb.shipped("digits")
    pictures = torch.rand(2, 3, 64, 64)
    masks = (torch.rand(2, 1, 64, 64) > 0.5).float()
    images = st.sampled_from([pictures] * 8 + [pictures[:1], pictures[:0], pictures * math.nan, pictures.double(),
                              pictures[..., ::2, ::2], pictures.flip(3).transpose(2, 3), (255 * pictures).byte(), "x"])
    holes = st.sampled_from([masks] * 5 + [masks[:1], masks * 0, masks * 0.5, masks.bool(), masks[..., :32], None])
    odd = st.sampled_from(ODD)
    text = st.text(max_size=30)
    words = st.one_of(text, text, text, text, st.lists(text, min_size=2, max_size=2), st.lists(text, max_size=3), odd)
    labels = st.one_of(st.lists(st.integers(-3, 12), max_size=4), words)
    few = st.one_of(*[st.integers(1, 3)] * 8, odd.filter(lambda x: not isinstance(x, int) or x < 5))
    options = st.fixed_dictionaries({"steps": few}, optional={
        "guidance": st.one_of(*[st.floats(-9, 9)] * 6, st.floats(), odd),
        "seed": st.one_of(*[st.integers(0, 2**61)] * 6, st.integers(), odd)})
    functions = {
        "generate_digits": ((labels,), digit), "text_to_image": ((words,), painter),
        "inpaint": ((images, holes, words), painter), "edit": ((images, words), painter),
        "anagram": ((words, words), painter), "hybrid": ((words, words), painter)}

    @settings(max_examples=count, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data):
        name = data.draw(st.sampled_from(sorted(functions)))
        parts, model = functions[name]
        arguments = [data.draw(part) for part in parts]
        more = data.draw(options)
        try:
            x = getattr(nb, name)(*arguments, model=model, **more)
        except (TypeError, ValueError) as error:
            found["refused"] += 1
            if len(str(error)) < 20:
                raise AssertionError(f"{name}({arguments!r:.200}, {more}): {error}") from None
            return
        found["drawn"] += 1
        if not (x.isfinite().all() and 0 <= x.min() and x.max() <= 1 and x.shape[1:] == model.net.shape):
            raise AssertionError(f"{name}({arguments!r:.200}, {more}): {x.shape}, {x.min()} to {x.max()}")

    found = {"refused": 0, "drawn": 0}
    check()
    print(found)


if __name__ == "__main__":
    parts = {"files": files, "kills": kills, "calls": calls}
    if sys.argv[1:2] and sys.argv[1] in parts:
        parts[sys.argv[1]](*map(int, sys.argv[2:]))
    else:
        sys.exit(__doc__)
