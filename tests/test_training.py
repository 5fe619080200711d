"""Training: the loop, EMA, learning rates, and that a run stopped anywhere, even killed, resumes bit for bit.

Run as a script (`python tests/test_training.py FOLDER THREADS WAY`), this file is the process that the kill test kills.
"""

import math
import os
import random
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY, nb, same_content

PICTURES, BATCH, EPOCHS = 48, 12, 3  # 4 steps an epoch, 12 in all
SETTINGS = {"epochs": EPOCHS, "batch_size": BATCH, "lr": 5e-3, "decay": "cosine", "warmup": 3}
STEPS = PICTURES // BATCH * EPOCHS


def shapes():
    """A small synthetic data set: light bars on black, ten kinds, in [-1, 1], with labels."""
    images, labels = torch.full((PICTURES, 1, 28, 28), -1.0), torch.arange(PICTURES) % 10
    for i, label in enumerate(labels.tolist()):
        images[i, 0, 4 + 2 * label : 7 + 2 * label, 3 + i % 5 : 20 + i % 5] = 1
    return images, labels


def tiny_loss(images=None):
    synthetic, labels = shapes()
    return nb.diffusion_loss(synthetic if images is None else images, labels, nb.Schedule(*TINY["schedule"]), "v")


def keep(model):
    """What the network says to a fixed input: kept at the ends of epochs, so it shows if those were the same too."""
    with torch.no_grad():
        return model(torch.ones(2, 1, 28, 28), torch.tensor([0.2, 0.9]), torch.eye(10)[:2])


def train(folder, settings=SETTINGS, **options):
    """One call of train_model on the tiny network: folder/tiny.pt, state in folder/training/tiny.pt."""
    return nb.train_model(TINY, tiny_loss(), PICTURES, Path(folder) / "tiny.pt", settings=settings, keep=keep,
                          keep_at=(1, 3), device="cpu", **options)


def train_in_bits(folder):
    """Train with a stop after each step, telling each step, until the run is at its end."""
    step = 0
    while step < STEPS:
        step = train(folder, max_seconds=0).info["step"]
        print(step, flush=True)


def train_at_once(folder):
    """One undisturbed call that saves whenever its clock says so, telling each step as it begins."""
    loss, begun = tiny_loss(), count(1)

    def telling(*arguments):
        print(next(begun), flush=True)
        return loss(*arguments)

    nb.train_model(TINY, telling, PICTURES, Path(folder) / "tiny.pt", settings=SETTINGS, keep=keep, keep_at=(1, 3),
                   device="cpu", save_every=0)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    {"in bits": train_in_bits, "at once": train_at_once}[sys.argv[3]](sys.argv[1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The checkpoint of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder)
    return nb.load_checkpoint(folder / "tiny.pt")


def fresh(ema=0.999, seed=0):
    torch.manual_seed(seed)
    model = nb.build_model(TINY)
    return model, nb.Run(model, ema)


# ----------------------------------------------------------------------------- the loop
def test_loss_falls():
    model, run = fresh()
    for _ in nb.training_steps(model, tiny_loss(), PICTURES, run, epochs=30, batch_size=BATCH, lr=1e-2):
        pass
    losses = torch.tensor(run.losses)
    assert len(losses) == run.step == 120
    assert losses.isfinite().all()
    assert losses[-20:].mean() < 0.6 * losses[:5].mean()


def test_trained_weights_come_back_in_eval_mode_and_described(tmp_path, whole):
    model = train(tmp_path)
    assert not model.training
    loaded = nb.load_model(tmp_path / "tiny.pt", device="cpu")
    assert same_content(dict(model.state_dict()), dict(loaded.state_dict()))
    info = loaded.info
    assert info["step"] == STEPS == len(info["losses"])
    assert info["config"] == TINY["config"]
    assert info["settings"] == SETTINGS
    assert sorted(info["samples"]) == [1, 3]
    assert torch.allclose(info["samples"][3], keep(loaded), atol=1e-5)  # of the last epoch: by these very weights
    assert not torch.equal(info["samples"][1], info["samples"][3])
    assert same_content(nb.load_checkpoint(tmp_path / "tiny.pt"), whole)  # the same call, the same weights


def test_seed_matters(tmp_path, whole):
    train(tmp_path, {**SETTINGS, "seed": 1})
    other = nb.load_checkpoint(tmp_path / "tiny.pt")
    assert not torch.equal(other["losses"], whole["losses"])


@pytest.mark.parametrize("where", ["loss", "picture"])
def test_a_loss_that_is_not_finite_stops_before_the_weights_change(where):
    model, run = fresh()
    good, poisoned = tiny_loss(), tiny_loss(torch.full((PICTURES, 1, 28, 28), math.nan))

    def batch_loss(model, index, generator):
        if run.step < 3:
            return good(model, index, generator)
        return good(model, index, generator) * math.inf if where == "loss" else poisoned(model, index, generator)

    steps = nb.training_steps(model, batch_loss, PICTURES, run, epochs=EPOCHS, batch_size=BATCH, lr=1e-3)
    for _ in range(3):
        next(steps)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    average = {name: value.clone() for name, value in run.ema.state.items()}
    with pytest.raises(RuntimeError, match="step 3.*lower the learning rate"):
        next(steps)
    assert same_content(before, {name: p.detach() for name, p in model.named_parameters()})
    assert same_content(average, run.ema.state)
    assert run.step == len(run.losses) == 3


def test_a_failed_run_leaves_its_last_state_and_no_result(tmp_path):
    train(tmp_path, max_seconds=0)
    state = (tmp_path / "training" / "tiny.pt").read_bytes()
    with pytest.raises(RuntimeError, match="loss is nan"):
        nb.train_model(TINY, tiny_loss(torch.full((PICTURES, 1, 28, 28), math.nan)), PICTURES, tmp_path / "tiny.pt",
                       settings=SETTINGS, device="cpu")
    assert (tmp_path / "training" / "tiny.pt").read_bytes() == state
    assert sorted(p.name for p in tmp_path.iterdir()) == ["training"]


def test_every_recipe_trains_a_step_on_real_digits(tmp_path, monkeypatch, digits):
    images, labels = digits[0][:2000], digits[1][:2000]
    monkeypatch.setattr(nb, "load_mnist", lambda *_, **__: (images, labels))
    monkeypatch.setattr(nb, "RECIPES", {
        name: {**r, "settings": {**r["settings"], "batch_size": 4}} for name, r in nb.RECIPES.items()})
    for name in nb.RECIPES:
        model = nb.train_recipe(name, folder=tmp_path, max_seconds=0, device="cpu")
        assert model.info["step"] == 1
        assert math.isfinite(model.info["losses"][0])
        assert not (tmp_path / f"{name}.pt").exists()
        assert (tmp_path / "training" / f"{name}.pt").is_file()


def test_an_unfinished_run_leaves_the_weights_that_were_there(tmp_path):
    (tmp_path / "tiny.pt").write_bytes(b"the weights of last year")
    train(tmp_path, max_seconds=0)
    assert (tmp_path / "tiny.pt").read_bytes() == b"the weights of last year"
    assert train(tmp_path).info["step"] == STEPS
    assert nb.load_model(tmp_path / "tiny.pt", device="cpu").info["step"] == STEPS


def test_the_courses_own_sizes_have_files_of_their_own(tmp_path, monkeypatch, digits):
    monkeypatch.setattr(nb, "load_mnist", lambda *_, **__: (digits[0][:500], digits[1][:500]))
    monkeypatch.setattr(nb, "COURSE_SIZE", {"digits_time": 4})
    for name in ("digits_time", "digits"):
        nb.train_recipe(name, course=True, folder=tmp_path, max_seconds=0, device="cpu")
    assert sorted(p.name for p in (tmp_path / "training").iterdir()) == ["digits.pt", "digits_time_course.pt"]


def test_the_courses_own_sizes_are_not_shipped_and_the_message_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(nb, "MODELS", tmp_path)
    with pytest.raises(FileNotFoundError, match="digits_time_course.pt.*TRAIN"):
        nb.get_model("digits_time", course=True)


def test_recipes_describe_networks_that_exist():
    for name in nb.RECIPES:
        for course in (False, True):
            nb.build_model(nb.recipe(name, course)["info"])
    with pytest.raises(ValueError, match="digitz"):
        nb.recipe("digitz")


# ----------------------------------------------------------------------------- batches, rates, averages
@pytest.mark.parametrize(("n", "batch_size"), [(48, 12), (50, 12), (7, 7), (10, 3)])
def test_every_picture_is_seen_once_an_epoch(n, batch_size):
    per_epoch, orders = n // batch_size, []
    for epoch in range(3):
        order = torch.cat([nb.batch_index(epoch * per_epoch + i, n, batch_size, seed=0) for i in range(per_epoch)])
        assert len(order) == per_epoch * batch_size
        assert len(order.unique()) == len(order)  # none twice; where the batch size divides n, that is all of them
        assert 0 <= order.min() <= order.max() < n
        orders.append(order)
    assert not torch.equal(orders[0], orders[1])
    assert torch.equal(nb.batch_index(2, n, batch_size, 0), nb.batch_index(2, n, batch_size, 0))
    assert not torch.equal(orders[0][:batch_size], nb.batch_index(0, n, batch_size, seed=1))


def rates(name, warmup=0, epochs=5, per_epoch=20):
    return [nb.learning_rate(step, peak=2e-3, name=name, warmup=warmup, steps_per_epoch=per_epoch, epochs=epochs)
            for step in range(epochs * per_epoch)]


def test_constant_rate():
    assert set(rates("constant")) == {2e-3}


def test_exponential_rate_falls_tenfold_over_the_run_once_an_epoch():
    r = rates("exponential")
    for epoch in range(5):
        for value in r[20 * epoch : 20 * epoch + 20]:
            assert value == pytest.approx(2e-3 * 0.1 ** (epoch / 5))


@pytest.mark.parametrize("warmup", [0, 10])
def test_cosine_rate_warms_up_and_falls_to_nothing(warmup):
    r = rates("cosine", warmup)
    assert all(value > 0 for value in r)
    assert max(r) == pytest.approx(2e-3, rel=0.02)
    top = r.index(max(r))
    assert abs(top - warmup) <= 1
    assert r[: top + 1] == sorted(r[: top + 1])
    assert r[top:] == sorted(r[top:], reverse=True)
    assert r[-1] < 2e-3 / 1000
    assert r[warmup + (100 - warmup) // 2] == pytest.approx(1e-3, rel=0.02)  # half way down at half time
    if warmup:
        assert r[0] == pytest.approx(2e-3 / warmup)


def test_the_loop_uses_the_rate_of_each_step():
    model, run = fresh()
    used = [run.optimizer.param_groups[0]["lr"] for _ in nb.training_steps(
        model, tiny_loss(), PICTURES, run, epochs=EPOCHS, batch_size=BATCH, lr=2e-3, decay="exponential")]
    assert used == pytest.approx([2e-3 * 0.1 ** (step // 4 / EPOCHS) for step in range(STEPS)])


def test_several_peaks_each_from_its_epoch_on():
    model, run = fresh()
    used = [run.optimizer.param_groups[0]["lr"] for _ in nb.training_steps(
        model, tiny_loss(), PICTURES, run, epochs=EPOCHS, batch_size=BATCH, lr={0: 2e-3, 2: 5e-4})]
    assert used == [2e-3 if step < 2 * 4 else 5e-4 for step in range(STEPS)]


def test_ema_is_the_formula_once_warm():
    torch.manual_seed(0)
    model, late = torch.nn.Linear(3, 2), 10**9
    ema = nb.EMA(model, 0.9)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for i in range(5):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        ema.update(model, late + i)
        for name, value in model.state_dict().items():
            expected[name] = 0.9 * expected[name] + 0.1 * value
    for name, value in expected.items():
        assert torch.allclose(ema.state[name], value, atol=1e-6)
        assert not torch.allclose(model.state_dict()[name], value, atol=1e-2)


def test_ema_warms_up_to_its_decay():
    """Early on the average forgets faster, or the random first weights would stay in it for long."""
    decays = []
    for step in (0, 1, 10, 100, 1000, 10**6):
        model = torch.nn.Linear(1, 1, bias=False)
        model.weight.data.fill_(1.0)
        ema = nb.EMA(model, 0.99)
        model.weight.data.fill_(0.0)
        ema.update(model, step)
        decays.append(ema.state["weight"].item())  # what is left of the first weight
    assert decays == sorted(decays)
    assert decays[0] < 0.5
    assert decays[-1] == pytest.approx(0.99)


def test_ema_averages_running_statistics_and_copies_counters():
    model = torch.nn.BatchNorm1d(2)
    ema = nb.EMA(model, 0.5)
    model.running_mean.fill_(4.0)
    model.num_batches_tracked.fill_(7)
    ema.update(model, 10**9)
    assert ema.state["running_mean"].tolist() == [2.0, 2.0]
    assert ema.state["num_batches_tracked"] == 7


def test_ema_does_not_share_memory_with_the_model():
    model = torch.nn.Linear(2, 2)
    ema = nb.EMA(model, 0.9)
    before = ema.state["weight"].clone()
    model.weight.data.fill_(9.0)
    assert torch.equal(ema.state["weight"], before)


# ----------------------------------------------------------------------------- stopping and resuming
def test_a_run_stopped_after_every_step_is_the_undisturbed_run(tmp_path, whole):
    train_in_bits(tmp_path)
    assert same_content(nb.load_checkpoint(tmp_path / "tiny.pt"), whole)


@pytest.mark.parametrize("at", [1, 4, 5, 11])
def test_a_loop_left_anywhere_goes_on_from_its_saved_state(tmp_path, at):
    """With the pieces of the loop: leave it with `break`, save the Run, load it into other objects, go on."""
    options = {**SETTINGS, "epochs": EPOCHS}
    model, run = fresh()
    for _ in nb.training_steps(model, tiny_loss(), PICTURES, run, **options):
        pass
    first, first_run = fresh()
    for step in nb.training_steps(first, tiny_loss(), PICTURES, first_run, **options):
        if step == at:
            break
    nb.save_checkpoint(first_run.state_dict(first), tmp_path / "state.pt")
    second, second_run = fresh(seed=99)  # other first weights: all must come from the file
    second_run.load_state_dict(nb.load_checkpoint(tmp_path / "state.pt"), second)
    assert second_run.step == at
    torch.manual_seed(1234)  # the global generator plays no part
    for _ in nb.training_steps(second, tiny_loss(), PICTURES, second_run, **options):
        pass
    assert same_content(run.losses, second_run.losses)
    assert same_content(run.state_dict(model), second_run.state_dict(second))


def test_a_finished_run_is_left_as_it_is(tmp_path, whole):
    train(tmp_path)
    (tmp_path / "tiny.pt").unlink()
    model = train(tmp_path)  # the weights are written again, and no step is done
    assert model.info["step"] == STEPS
    assert same_content(nb.load_checkpoint(tmp_path / "tiny.pt"), whole)


@pytest.mark.parametrize("change", [{"lr": 1e-3}, {"seed": 5}, {"epochs": 4}, {"batch_size": 6}])
def test_other_settings_are_not_resumed(tmp_path, change):
    train(tmp_path, max_seconds=0)
    before = nb.load_checkpoint(tmp_path / "training" / "tiny.pt")
    with pytest.raises(ValueError, match="other settings"):
        train(tmp_path, {**SETTINGS, **change})
    with pytest.raises(ValueError, match="other settings"):
        train(tmp_path, ema=0.5)
    assert same_content(nb.load_checkpoint(tmp_path / "training" / "tiny.pt"), before)


def test_a_damaged_state_is_refused_not_trained_on(tmp_path):
    train(tmp_path, max_seconds=0)
    state = tmp_path / "training" / "tiny.pt"
    state.write_bytes(state.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="cannot be used"):
        train(tmp_path)


@pytest.mark.parametrize("way", ["in bits", "at once"])
def test_a_run_killed_at_random_moments_is_the_undisturbed_run(tmp_path, whole, way):
    seed = random.SystemRandom().randrange(10**6)
    print(f"kill test: seed {seed}")  # pytest shows it if the test fails
    chance = random.Random(seed)
    command = [sys.executable, str(Path(__file__).resolve()), str(tmp_path), str(torch.get_num_threads()), way]
    reached, kills, begun = 0, 0, int(way == "at once")  # "at once" tells steps as they begin, not as they end
    while kills < 2 and reached < STEPS // 2:
        target, last, step_time = begun + chance.randint(reached + 1, STEPS // 2), None, 0.05
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ.copy())
        for line in process.stdout:
            step_time = time.perf_counter() - last if last else step_time
            if int(line) + begun * reached >= target:  # within the next step: at work, or while its state is written
                time.sleep(chance.uniform(0, step_time))
                process.kill()  # SIGKILL: no handler, no finally clause
                break
            last = time.perf_counter()
        process.stdout.close()
        process.wait()
        assert process.returncode != 0, "the process ended before it could be killed"
        kills += 1
        left = list(tmp_path.rglob("*.pt"))  # a half-written file has another name, and is in nobody's way
        assert left, f"nothing was saved before step {target}"
        for path in left:
            nb.load_checkpoint(path)
        reached = nb.load_checkpoint(tmp_path / "training" / "tiny.pt")["step"]
        assert reached >= target - begun
    train(tmp_path)
    assert same_content(nb.load_checkpoint(tmp_path / "tiny.pt"), whole)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["tiny.pt", "tiny.pt"]  # and no .part


def test_two_pixels_of_a_byte_are_unpacked_in_their_order():
    kept = torch.tensor([[[0x0F, 0x5A]]], dtype=torch.uint8)
    assert torch.allclose(nb.unpacked(kept), torch.tensor([[[0, 15, 5, 10]]]) / 15)
