"""Animals: the loader, the changes at random, the network, samples from noise, copies, the command line."""

import PIL.Image
import pytest
import torch
from conftest import nb

CLASSES = ("cats", "dogs")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def folder(tmp_path):
    """Two classes of four pictures of various modes and sizes, a broken file, a hidden one and a note."""
    for i, name in enumerate(CLASSES):
        place = tmp_path / "animals" / name
        place.mkdir(parents=True)
        for j, mode in enumerate(("RGB", "L", "RGBA", "P")):
            colour = (40 * j, 90, 200 * i) if mode.startswith("RGB") else 60 * j
            PIL.Image.new(mode, (40 + 30 * j, 90 - 10 * j), colour).save(place / f"{j}.png")
        (place / "5 broken.jpg").write_bytes(b"\xff\xd8\xff and no more")
        (place / ".hidden").write_text("x")
    (tmp_path / "animals" / "notes.txt").write_text("not a class")
    return tmp_path / "animals"


@pytest.fixture(scope="module")
def drawn():
    return nb.AnimalPictures()


@pytest.fixture(scope="module")
def tiny():
    """A small network whose last layer is not all zeros, so that its conditions can be told apart."""
    torch.manual_seed(0)
    model = nb.build_model({"kind": "AnimalUNet", "config": {"classes": 2, "size": 32, "widths": [8, 16, 32]},
                            "schedule": ["cosine", 1000], "target": "x_0"})
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape))
    return model.eval()


# ----------------------------------------------------------------------------- the loader
def test_without_a_folder_there_are_five_drawn_classes(drawn):
    counts = drawn.labels.bincount()
    assert len(drawn.names) == len(counts) == 5
    assert ((counts >= 15) & (counts <= 20)).all()
    assert drawn.images.shape == (len(drawn), 3, 64, 64)
    assert -1 <= drawn.images.min() < drawn.images.max() <= 1
    picture, label = drawn[30]
    assert torch.equal(picture, drawn.images[30])
    assert label == drawn.labels[30]
    flat = drawn.images.flatten(1)
    assert torch.cdist(flat, flat).add(torch.eye(len(flat)) * 99).min() > 1  # no glyph is missing or there twice


def test_any_mode_and_size_is_read_and_broken_files_are_named(folder):
    data = nb.AnimalPictures(folder, classes=2, size=32)
    assert data.names == list(CLASSES)
    assert data.images.shape == (8, 3, 32, 32)
    assert data.labels.tolist() == [0] * 4 + [1] * 4
    assert {name.split("/")[-1].split("\\")[-1] for name in data.skipped} == {"5 broken.jpg"}
    assert len(data.skipped) == 2


def test_the_pictures_of_a_class_are_chosen_by_the_seed(folder):
    a, b = (nb.AnimalPictures(folder, classes=2, per_class=2, size=32, seed=1) for _ in range(2))
    assert torch.equal(a.images, b.images)
    assert a.labels.tolist() == [0, 0, 1, 1]
    choices = {tuple(nb.AnimalPictures(folder, classes=1, per_class=2, size=32, seed=s).images.flatten().tolist())
               for s in range(8)}
    assert len(choices) > 1


def test_an_orientation_flag_is_obeyed_and_the_middle_is_cut_out(tmp_path):
    picture = PIL.Image.new("RGB", (200, 100), "white")
    picture.paste((255, 0, 0), (0, 0, 40, 100))  # red at the left, outside the middle square
    picture.paste((0, 0, 255), (60, 0, 100, 100))  # blue in its left part
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    picture.save(tmp_path / "turned.png", exif=exif)
    x = nb.load_picture(tmp_path / "turned.png", 50, crop=True)[0]
    assert x.shape == (3, 50, 50)
    assert torch.allclose(x[:, 10, 25], torch.tensor([0.0, 0.0, 1.0]))  # what was at the left is now above
    assert torch.allclose(x[:, 40, 25], torch.ones(3))
    assert not ((x[0] > 0.9) & (x[1] < 0.1)).any()


@pytest.mark.parametrize(("make", "options", "advice"), [
    (lambda p: None, {}, "no folder at"), (lambda p: p.mkdir(), {}, "holds no class folders"),
    (lambda p: (p / "cats").mkdir(parents=True), {"classes": 1}, "no readable picture of the class cats"),
    (lambda p: (p / "cats").mkdir(parents=True), {"size": 40}, "multiple of 16"),
    (lambda p: (p / "cats").mkdir(parents=True), {"size": 0}, "multiple of 16")])
def test_a_folder_that_cannot_be_trained_on_is_refused(tmp_path, make, options, advice):
    make(tmp_path / "animals")
    with pytest.raises((FileNotFoundError, ValueError), match=advice):
        nb.AnimalPictures(tmp_path / "animals", **options)


def test_more_classes_than_there_are_is_refused(folder):
    with pytest.raises(ValueError, match="3 classes were asked for, and there are 2"):
        nb.AnimalPictures(folder, classes=3)


def test_half_of_the_pictures_are_mirrored_and_nothing_else_is_changed():
    x = torch.rand(200, 3, 8, 8, generator=seeded())
    y = nb.augmented(x, seeded(1))
    same, mirrored = ((y == z).flatten(1).all(1) for z in (x, x.flip(3)))
    assert (same ^ mirrored).all()
    assert 60 < mirrored.sum() < 140
    assert torch.equal(y, nb.augmented(x, seeded(1)))


# ----------------------------------------------------------------------------- the network
def test_the_network_keeps_the_shape_and_hears_time_and_class(tiny):
    x, t, c = torch.randn(2, 3, 32, 32, generator=seeded()), torch.full((2,), 0.5), torch.eye(2)
    with torch.no_grad():
        said = tiny(x, t, c)
        assert said.shape == x.shape
        assert torch.equal(tiny(x, t), tiny(x, t, torch.zeros(2, 2)))
        assert not torch.allclose(said, tiny(x, t, c.flip(0)), atol=1e-4)
        assert not torch.allclose(said, tiny(x, t / 2, c), atol=1e-4)


@pytest.mark.parametrize(("x", "t", "c"), [
    ((2, 3, 64, 64), 2, (2, 2)), ((2, 1, 32, 32), 2, (2, 2)), ((3, 32, 32), 2, (2, 2)), ((2, 3, 32, 32), 1, (2, 2)),
    ((2, 3, 32, 32), 2, (2, 5)), ((2, 3, 32, 32), 2, (1, 2))])
def test_other_shapes_are_refused(tiny, x, t, c):
    with pytest.raises(ValueError, match="expected x"):
        tiny(torch.zeros(x), torch.zeros(t), torch.zeros(c))


def test_a_size_that_does_not_fold_is_refused():
    with pytest.raises(ValueError, match="multiple of 16"):
        nb.AnimalUNet(size=40)


# ----------------------------------------------------------------------------- from noise
def test_noise_becomes_pictures_and_the_same_ones_again(tiny):
    x_T = torch.randn(3, 3, 32, 32, generator=seeded())
    x = nb.animals_from_noise(x_T, [0, 1, 1], steps=4, model=tiny)
    assert x.shape == x_T.shape
    assert 0 <= x.min() < x.max() <= 1
    assert torch.equal(x, nb.animals_from_noise(x_T, torch.tensor([0, 1, 1]), steps=4, model=tiny))
    assert not torch.allclose(x, nb.animals_from_noise(x_T, [1, 0, 0], steps=4, model=tiny), atol=1e-3)
    some = nb.animals_from_noise(x_T, steps=4, model=tiny)
    assert torch.equal(some, nb.animals_from_noise(x_T, [0, 1, 1], guidance=0, steps=4, model=tiny))


def test_guidance_acts_at_every_step(tiny):
    x_T, calls = torch.randn(1, 3, 32, 32, generator=seeded()), []
    hook = tiny.register_forward_hook(lambda module, inputs, output: calls.append(inputs[2].sum().item()))
    steps = list(nb.animal_walk(x_T, [1], guidance=2.0, steps=5, model=tiny))
    hook.remove()
    assert [s for s, *_ in steps][-1] == 0
    assert sorted(calls) == [0.0] * 5 + [1.0] * 5


@pytest.mark.parametrize("labels", [[0], [0, 2], [0, -1], [0.0, 1.0], [[0, 1]]])
def test_wrong_classes_are_refused(tiny, labels):
    with pytest.raises(ValueError, match="2 whole numbers from 0 to 1"):
        nb.animals_from_noise(torch.zeros(2, 3, 32, 32), labels, model=tiny)


@pytest.mark.parametrize("x_T", [torch.zeros(1, 3, 64, 64), torch.zeros(3, 32, 32), torch.zeros(1, 1, 32, 32), "noise"])
def test_wrong_noise_is_refused(tiny, x_T):
    with pytest.raises(ValueError, match="x_T must be noise"):
        nb.animals_from_noise(x_T, [0], model=tiny)


# ----------------------------------------------------------------------------- copies
def test_a_mirrored_training_picture_is_its_own_copy(drawn):
    pictures = nb.to_image_range(drawn.images[[3, 50]])
    changed = torch.stack([pictures[0].flip(2), pictures[1] * 0.98])
    distances = nb.animal_distances(drawn, changed)
    assert distances.shape == (2, len(drawn))
    assert distances.argmin(1).tolist() == [3, 50]
    assert distances[0, 3] < 0.01
    assert torch.isclose(distances[1, 50], (0.02 * pictures[1]).square().mean().sqrt(), atol=1e-3)
    ratio, _ = nb.copy_ratio(distances)
    assert (ratio < 1 / 3).all()


def test_real_animals_are_no_copies_of_each_other(drawn):
    distances = nb.animal_distances(drawn, nb.to_image_range(drawn.images[::9]))
    distances[torch.arange(len(distances)), torch.arange(0, len(drawn), 9)] = float("inf")  # not of itself
    ratio, _ = nb.copy_ratio(distances)
    assert (ratio < 1 / 3).float().mean() < 0.2


# ----------------------------------------------------------------------------- the command line
@pytest.fixture
def small(monkeypatch):
    """The command line with a small network."""
    recipe = nb.RECIPES["animals"]
    monkeypatch.setattr(nb, "AnimalUNet", SmallUNet)
    monkeypatch.setitem(nb.RECIPES, "animals", {**recipe, "info": {**recipe["info"], "kind": "SmallUNet"}})


class SmallUNet(nb.AnimalUNet):
    """The network of the command line, narrow; under its own name, as build_model looks networks up by name."""

    def __init__(self, classes=5, size=64):
        super().__init__(classes, size, widths=(8, 8, 32), embedding=16)


def test_the_command_line_trains_on_a_folder_and_goes_on(folder, tmp_path, small, capsys):
    words = ["--data", str(folder), "--classes", "2", "--size", "32", "--steps", "3", "--batch", "4", "--device", "cpu",
             "--output", str(tmp_path / "out")]
    model = nb.train_animals(words)
    printed = capsys.readouterr().out
    assert "skipped" in printed
    assert "8 pictures in the classes cats, dogs" in printed
    assert model.info["step"] == 3
    assert model.info["names"] == list(CLASSES)
    with PIL.Image.open(tmp_path / "out" / "samples.png") as picture:
        assert picture.width == 2 * (4 * 33 + 1)
    again = nb.train_animals(words)  # finished already: nothing is trained
    assert again.info["losses"].tolist() == model.info["losses"].tolist()
    with pytest.raises(SystemExit, match="other settings.*--fresh"):
        nb.train_animals([*words, "--loss", "l1"])
    assert nb.train_animals([*words, "--loss", "l1", "--fresh"]).info["loss"] == "l1"


@pytest.mark.parametrize("words", [["--steps", "0"], ["--steps", "many"], ["--classes", "-1"], ["--lr", "fast"],
                                   ["--lr", "0"], ["--lr", "nan"], ["--loss", "l3"], ["--colour", "red"], ["extra"]])
def test_wrong_arguments_are_told_and_nothing_is_written(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        nb.train_animals(words)
    assert stopped.value.code == 2
    assert "usage:" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("words", "advice"), [
    (["--data", "nowhere"], "no folder at nowhere"), (["--size", "40"], "multiple of 16"),
    (["--device", "abacus"], "abacus"), (["--classes", "9"], "9 classes were asked for")])
def test_what_cannot_be_trained_is_told_in_one_line(words, advice, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f"error: .*{advice}"):
        nb.train_animals(words)
    assert not list(tmp_path.iterdir())


def test_help_names_every_argument(capsys):
    with pytest.raises(SystemExit) as stopped:
        nb.animal_arguments(["--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    for name in ("--data", "--classes", "--size", "--steps", "--lr", "--batch", "--output", "--fresh", "--device"):
        assert name in printed
