"""Animals: the loader on a folder of pictures, the loss, samples from noise, the command line as a user types it."""

import errno
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import PIL.Image
import pytest
import torch
from conftest import ROOT, nb, stirred
from test_painter import seeded

sys.path.insert(0, str(ROOT / "report"))

import train_animals  # noqa: E402


@pytest.fixture
def folder(tmp_path):
    """Two classes of four pictures of various modes and sizes; broken, hidden and foreign files and folders."""
    for i, name in enumerate(("cats", "dogs", ".hidden", "__MACOSX")):
        place = tmp_path / "animals" / name
        place.mkdir(parents=True)
        for j, mode in enumerate(("RGB", "L", "RGBA", "P")):
            colour = (40 * j, 90, 200 * (i % 2)) if mode.startswith("RGB") else 60 * j + 20 * i
            PIL.Image.new(mode, (40 + 30 * j, 90 - 10 * j), colour).save(place / f"{j}.png")
        (place / "5 broken.jpg").write_bytes(b"\xff\xd8\xff and no more")
        (place / ".hidden").write_text("x")
    (tmp_path / "animals" / "notes.txt").write_text("not a class")
    return tmp_path / "animals"


@pytest.fixture(scope="module")
def tiny():
    """A small network without a weight that is zero, so that its conditions can be told apart."""
    torch.manual_seed(0)
    return stirred(nb.build_model({"net": "UNet", "schedule": ["cosine", 100], "target": "x_0", "config": {
        "size": 32, "widths": [8, 16, 32], "classes": 2, "embedding": 32}}))


# ----------------------------------------------------------------------------- the loader
def test_without_a_folder_there_are_five_drawn_classes():
    data = nb.AnimalPictures()
    counts = data.labels.bincount()
    assert data.names == ["cats", "dogs", "birds", "fish", "monkeys"]
    assert counts.tolist() == [20, 20, 20, 16, 20]
    assert data.images.shape == (len(data), 3, 64, 64)
    assert -1 <= data.images.min() < data.images.max() <= 1
    flat = data.images.flatten(1)
    alike = (torch.cdist(flat, flat) < 1).triu(1).nonzero().tolist()
    assert alike == [[17, 18]]  # no drawing is missing; Fluent's cat face and smiling cat are the same
    assert torch.equal(data[30][0], data.images[30])
    assert data[30][1] == data.labels[30]


def test_any_mode_and_size_is_read_broken_files_are_named_and_a_seed_chooses(folder):
    data = nb.AnimalPictures(folder, classes=2, size=32)
    assert data.names == ["cats", "dogs"]
    assert data.images.shape == (8, 3, 32, 32)
    assert data.labels.tolist() == [0] * 4 + [1] * 4
    assert sorted(data.skipped) == [str(folder / name / "5 broken.jpg") for name in ("cats", "dogs")]
    assert all("damaged" in why for why in data.skipped.values())
    some = [nb.AnimalPictures(folder, classes=2, per_class=2, size=32, seed=seed) for seed in (1, 1, *range(8))]
    assert some[0].labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(some[0].images, some[1].images)
    assert len({tuple(chosen.images.flatten().tolist()) for chosen in some}) > 1


def test_an_orientation_flag_is_obeyed_and_nothing_is_cut_off(tmp_path):
    picture, exif = PIL.Image.new("RGB", (200, 100), "green"), PIL.Image.Exif()
    picture.paste((255, 0, 0), (0, 0, 40, 100))  # red at the left, outside the middle square
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    (tmp_path / "cats").mkdir()
    picture.save(tmp_path / "cats" / "turned.png", exif=exif)
    x = nb.to_image_range(nb.AnimalPictures(tmp_path, classes=1, size=48).images)[0]
    assert x[:, 4, 24].tolist() == [1, 0, 0]  # what was at the left is now above
    assert x[1, 40, 24] == pytest.approx(128 / 255)
    assert x[:, 24, 4].tolist() == [1, 1, 1]  # beside it, white


def test_classes_are_chosen_by_name_or_number_and_what_is_left_out_is_said(folder):
    (folder / "empty").mkdir()
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text("no picture")
    data = nb.AnimalPictures(folder, per_class=3, size=32)
    assert data.names == ["cats", "dogs"]
    assert data.labels.tolist() == [0] * 3 + [1] * 3
    notes = "\n".join(data.notes)
    assert re.search("empty: an empty folder, left out", notes)
    assert re.search("texts: no readable picture, left out", notes)
    assert re.search(r"cats: 3 of 5 pictures.*per_class", notes)
    assert str(folder / "texts" / "a.txt") in data.skipped
    assert nb.AnimalPictures(folder, classes=["dogs"], size=32).names == ["dogs"]
    assert nb.AnimalPictures(folder, classes=("dogs", "cats"), size=32).names == ["dogs", "cats"]
    more = nb.AnimalPictures(folder, classes=5, size=32)
    assert more.names == ["cats", "dogs"]
    assert any("5 classes were asked for" in note for note in more.notes)
    assert nb.AnimalPictures(folder, classes=1, size=32).names == ["cats"]
    assert nb.AnimalPictures(classes=["birds"]).names == ["birds"]
    for wrong in (["cats", "lions"], ("lions",)):
        with pytest.raises(ValueError, match="unknown classes 'lions'; there are: cats, dogs"):
            nb.AnimalPictures(folder, classes=wrong)


@pytest.mark.parametrize("content", [b"", b"DDS |\0\0\0" + bytes(range(200)), b"II*\0\x08\0\0\0" + b"\xff" * 300,
                                     b"\x89PNG\r\n\x1a\n" + bytes(50), b"BM" + bytes(100), b"GIF89a" + b"\xff" * 40,
                                     b"qoif" + b"\0" * 30, b"P6 9999999999 1 255 "])
def test_no_unreadable_picture_stops_a_folder(folder, content):
    for ending in ("tif", "dds", "png", "bmp", "gif", "jpg", "ppm", "webp"):
        (folder / "cats" / f"bad.{ending}").write_bytes(content)
    data = nb.AnimalPictures(folder, size=32)
    assert data.labels.tolist() == [0] * 4 + [1] * 4
    assert len(data.skipped) == 10


@pytest.mark.parametrize(("make", "options", "advice"), [
    ([], {}, "no folder at"), (["."], {}, "holds no class folders"), (["cats"], {"size": 40}, "multiple of 16"),
    (["cats"], {"classes": 1}, "no class folders with readable pictures"), (["cats"], {"size": 0}, "size"),
    (["cats"], {"size": 32.5}, "size")])
def test_a_folder_that_cannot_be_trained_on_is_refused(tmp_path, make, options, advice):
    for name in make:
        (tmp_path / "animals" / name).mkdir(parents=True)
    with pytest.raises((FileNotFoundError, ValueError), match=advice):
        nb.AnimalPictures(tmp_path / "animals", **options)


# ----------------------------------------------------------------------------- loss and samples
def test_half_of_the_pictures_are_mirrored_and_each_keeps_its_class():
    told, index = {}, torch.arange(200) % 8
    images, labels = torch.rand(8, 3, 16, 16, generator=seeded()), torch.arange(8) % 3
    data = torch.utils.data.TensorDataset(images, labels)
    stub = SimpleNamespace(loss=lambda x_0, condition, **options: told.update(x_0=x_0, c=condition, **options))
    nb.animal_loss(data, "l1")(stub, index, seeded(1))
    same, mirrored = ((told["x_0"] == z[index]).flatten(1).all(1) for z in (images, images.flip(3)))
    assert (same ^ mirrored).all()
    assert 60 < mirrored.sum() < 140
    assert torch.equal(told["c"].label, labels[index])
    assert told["distance"] == "l1"


def test_noise_becomes_pictures_of_the_class_and_the_same_ones_again(tiny):
    noise = torch.stack([torch.randn(3, 32, 32, generator=seeded(7 + i)) for i in range(3)])

    def draw(labels, **options):
        return nb.generate_animals(labels, steps=4, model=tiny, **options)

    x = draw([0, 1, 1], x_T=noise)
    assert x.shape == noise.shape
    assert 0 <= x.min() < x.max() <= 1
    assert torch.equal(x, draw(torch.tensor([0, 1, 1]), x_T=noise))
    assert torch.allclose(x, draw([0, 1, 1], seed=7), atol=1e-6)  # picture i has the noise of seed + i
    same = [draw([0, 1, 1], seed=7, method="ddpm", **o) for o in ({}, {"x_T": noise})]
    assert torch.allclose(*same, atol=1e-6)  # and what the steps add is other noise, also where x_T is given
    for other in (draw([1, 0, 0], x_T=noise), draw([0, 1, 1], x_T=-noise), draw([0, 1, 1], x_T=noise, guidance=0)):
        assert ((x - other).abs().amax((1, 2, 3)) > 1e-3).all()


@pytest.mark.parametrize(("labels", "x_T", "advice"), [
    *((labels, None, "from 0 to 1") for labels in ([0, 2], [0, -1], [0.0, 1.0], [], "cat", None)),
    *(([0], torch.zeros(shape), "x_T must be noise") for shape in ((1, 3, 64, 64), (3, 32, 32), (2, 3, 32, 32))),
    ([0], "noise", "x_T must be noise")])
def test_wrong_classes_and_wrong_noise_are_refused(tiny, labels, x_T, advice):
    with pytest.raises(ValueError, match=advice):
        nb.generate_animals(labels, x_T=x_T, model=tiny)


def test_a_run_called_from_a_notebook_goes_on_only_with_its_own_pictures_and_loss(folder, tmp_path):
    small = {"steps": 2, "batch_size": 2}
    data = nb.AnimalPictures(folder, size=32)  # the sides of the pictures decide those of the network
    assert nb.train(nb.animal_recipe(data, **small), tmp_path / "run", max_seconds=0, device="cpu").info["step"] == 1
    drawn = nb.AnimalPictures(size=32)
    for other in (nb.animal_recipe(data, **small, distance="l1"), nb.animal_recipe(drawn, **small)):
        with pytest.raises(ValueError, match="other settings"):
            nb.train(other, tmp_path / "run", device="cpu")


# ----------------------------------------------------------------------------- the command line
def test_the_command_line_trains_goes_on_where_it_was_stopped_and_keeps_runs_apart(folder, monkeypatch, capsys):
    def words(output, *more):
        return ["--data", str(folder), "--size", "16", "--steps", "4", "--batch", "4", "--device", "cpu",
                "--output", str(output), *more]

    straight, out = train_animals.main(words(folder.parent / "straight")), folder.parent / "out"
    printed = capsys.readouterr().out
    assert "8 pictures in the classes cats, dogs" in printed
    assert "5 broken.jpg" in printed
    with monkeypatch.context() as patch:
        patch.setattr(nb, "train", lambda *a, train=nb.train, **o: train(*a, max_seconds=0, **o))
        assert train_animals.main(words(out)).info["step"] == 1
    assert not (out / "animals.safetensors").exists()
    done = subprocess.run([sys.executable, str(ROOT / "report" / "train_animals.py"), *words("out")], text=True,
                          cwd=folder.parent, env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
                          capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    info = nb.load_model(out / "animals.safetensors", "cpu").info
    assert (info["step"], info["names"]) == (4, ["cats", "dogs"])
    assert torch.allclose(info["losses"], torch.tensor(straight.info["losses"]), rtol=2e-3)
    with PIL.Image.open(out / "samples.png") as picture:
        assert picture.width > 4 * 34 + 30
        assert picture.height >= 2 * 34
    with PIL.Image.open(out / "forward.png") as picture:
        assert picture.width > 7 * 34 + 30
    with PIL.Image.open(out / "loss.png") as picture:
        assert picture.width > 400
    with monkeypatch.context() as patch:  # a full disk
        patch.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(SystemExit, match="No space left.*goes on") as stopped:
            train_animals.main(words(out, "--steps", "8"))
        assert "anew" not in str(stopped.value)
    longer = train_animals.main(words(out, "--steps", "8")).info
    assert longer["step"] == 8
    assert longer["losses"][:4] == straight.info["losses"] or torch.allclose(
        torch.tensor(longer["losses"][:4]), torch.tensor(straight.info["losses"]), rtol=2e-3)
    with pytest.raises(SystemExit, match="more steps.*--fresh"):
        train_animals.main(words(out))
    for change in (["--loss", "l1"], ["--lr", "0.002"], ["--per-class", "3"], ["--classes", "cats"]):
        with pytest.raises(SystemExit, match="other settings.*--fresh"):
            train_animals.main(words(out, "--steps", "8", *change))
    PIL.Image.new("RGB", (40, 40), "red").save(folder / "cats" / "0.png")  # as many pictures, but others
    with pytest.raises(SystemExit, match="other settings.*--fresh"):
        train_animals.main(words(out, "--steps", "8"))
    assert train_animals.main(words(out, "--loss", "l1", "--fresh")).info["distance"] == "l1"


@pytest.mark.parametrize(("words", "advice"), [
    *((words.split(), "usage:") for words in ("--steps 0", "--steps many", "--lr fast", "--lr 0",
                                              "--lr nan", "--loss l3", "--colour red", "extra")),
    (["--data", "nowhere"], "error: no folder at nowhere"), ([], "say what to train on"),
    (["--data", "here", "--drawn"], "say what to train on"), (["--drawn", "--size", "40"], "error: .*multiple of 16"),
    (["--drawn", "--device", "abacus"], "error: .*abacus"), (["--drawn", "--classes", "0"], "error: classes must be"),
    (["--drawn", "--classes", "birds", "lions"], "error: unknown classes 'lions'; there are: cats, dogs, birds")])
def test_wrong_arguments_are_told_and_nothing_is_written(words, advice, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        train_animals.main(words)
    told = capsys.readouterr().err + str(stopped.value)
    assert re.search(advice, told), told
    assert not list(tmp_path.iterdir())
    if "l3" in words:  # every loss that is offered instead can be computed
        offered = told.split("choose from ")[1].split(")")[0].replace("'", "").split(", ")
        assert [nb.custom_loss(torch.ones(2), torch.zeros(2), name).shape for name in offered] == [(2,)] * len(offered)
