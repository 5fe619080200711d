"""Training: the loop, learning rates, averages; a run stopped anywhere goes on bit for bit; warm starts; `live`."""

import errno
import math
import os
from dataclasses import replace

import pytest
import torch
from conftest import TINY, Payload, nb, same_content, torch_file

PICTURES = torch.full((50, 1, 28, 28), -1.0)  # light bars on black, ten kinds
for i in range(50):
    PICTURES[i, 0, 4 + 2 * (i % 10) : 7 + 2 * (i % 10), 3 + i % 7 : 20 + i % 7] = 1


def tiny_loss(model, index, generator):
    return model.loss(PICTURES[index], nb.Condition(label=index % 10), generator=generator)


def keep(model):
    """What the network says to a fixed input: kept after an epoch, so it shows if that was the same too."""
    with torch.no_grad():
        return (model(torch.ones(2, 1, 28, 28), 30) * 100).byte()


RECIPE = nb.Recipe("tiny", TINY, tiny_loss, pictures=50, epochs=3, batch_size=12, lr=5e-3, decay="trapezoid", warmup=3,
                   ema=0.9, muon=True, keep=keep, keep_at=(1, 3))  # 4 steps an epoch, 12 in all


def train(folder, recipe=RECIPE, **options):
    return nb.train(recipe, folder, device="cpu", **options)


def content(path):
    """All that a file of weights holds, but for how long it took."""
    model = nb.load_model(path, "cpu")
    return {k: v for k, v in model.info.items() if k != "seconds"}, dict(model.state_dict())


def steps(run, count=10**9):
    for _, _ in zip(range(count), nb.training_steps(run), strict=False):
        pass
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The file of a run that nobody disturbed, and the model that `train` returned."""
    folder = tmp_path_factory.mktemp("whole")
    return folder / "tiny.safetensors", train(folder)


# ----------------------------------------------------------------------------- the loop
def test_the_loss_falls_and_the_file_tells_how(whole):
    path, model = whole
    info, weights = content(path)
    assert not model.training
    assert all(torch.allclose(w, model.state_dict()[name], rtol=1e-3, atol=1e-6) for name, w in weights.items())
    assert {k: info[k] for k in TINY} == TINY
    assert info["settings"] == {"pictures": 50, "epochs": 3, "batch_size": 12, "lr": 5e-3, "decay": "trapezoid",
                                "warmup": 3, "ema": 0.9, "muon": True}
    assert info["step"] == len(info["losses"]) == len(model.info["losses"]) == 12
    assert (sorted(info["samples"]), info["fresh optimiser at"]) == ([1, 3], [])
    assert torch.equal(info["samples"][3], keep(model))  # of the last epoch: by these very weights
    assert not torch.equal(info["samples"][1], info["samples"][3])
    losses = torch.tensor(steps(nb.Run(replace(RECIPE, epochs=25), "cpu")).losses)
    assert losses[-20:].mean() < 0.7 * losses[:5].mean()


def test_each_epoch_is_one_shuffle_and_each_step_has_its_learning_rate():
    seen, rates = [], []

    def loss(model, index, generator):
        seen.append((index, torch.rand(1, generator=generator).item()))
        rates.append(run.optimizers[1].param_groups[0]["lr"])
        return tiny_loss(model, index, generator)

    recipe = replace(RECIPE, loss=loss)
    run = nb.Run(recipe, "cpu")
    steps(run)
    epochs = [torch.cat([index for index, _ in seen[i : i + 4]]) for i in (0, 4, 8)]
    assert all(len(order.unique()) == 48 for order in epochs)  # none twice, without the last partial batch
    assert all(0 <= order.min() <= order.max() < 50 for order in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert len({noise for _, noise in seen}) == 12
    assert rates == [recipe.learning_rate(step) for step in range(12)]
    steps(nb.Run(recipe, "cpu", seed=1), 1)
    assert not torch.equal(seen[12][0], seen[0][0])


@pytest.mark.parametrize(("decay", "warmup", "expected"), [
    ("constant", 0, lambda step: 1), ("constant", 10, lambda step: min(1, (step + 1) / 10)),
    ("exponential", 0, lambda step: 0.1 ** (step // 20 / 5)),
    ("trapezoid", 10, lambda step: min(1, (step + 1) / 10, (100 - step) / 10))])
def test_the_learning_rate_is_the_formula(decay, warmup, expected):
    recipe = replace(RECIPE, pictures=100, batch_size=5, epochs=5, lr=2e-3, decay=decay, warmup=warmup)
    assert [recipe.learning_rate(i) / 2e-3 for i in range(100)] == pytest.approx([expected(i) for i in range(100)])


@pytest.mark.parametrize(("decay", "before", "after"), [(0.9, 10**9, 0.9), (0.99, 0, 0.1), (0.99, 10, 11 / 20)])
def test_the_average_is_the_formula_and_warms_up(decay, before, after):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    ema, old = nb.EMA(model, decay), {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model[0].weight.add_(1)
    model[1].running_mean.fill_(4.0)
    model[1].num_batches_tracked.fill_(7)
    assert same_content(ema.state, old)  # it shares no memory with the model
    ema.update(model, before)
    assert torch.allclose(ema.state["0.weight"], after * old["0.weight"] + (1 - after) * model[0].weight)
    assert torch.allclose(ema.state["1.running_mean"], torch.full((2,), 4 * (1 - after)))
    assert ema.state["1.num_batches_tracked"] == 7


@pytest.mark.parametrize("fault", [lambda x: x * math.inf, lambda x: x * math.nan,
                                   lambda x: (x - x.detach()).sqrt() + x.detach()], ids=["inf", "nan", "gradient"])
def test_a_loss_that_is_not_finite_stops_before_the_weights_change(fault):
    def loss(model, index, generator):
        value = tiny_loss(model, index, generator)
        return fault(value) if run.step == 3 else value

    run = nb.Run(replace(RECIPE, loss=loss), "cpu")
    steps(run, 3)
    before = {name: value.clone() for name, value in [*run.model.named_parameters(), *run.ema.state.items()]}
    with pytest.raises(RuntimeError, match="step 3: lower the learning rate|non-finite"):
        steps(run)
    assert same_content(before, {**dict(run.model.named_parameters()), **run.ema.state})
    assert run.step == len(run.losses) == 3


def test_a_failed_run_leaves_its_last_state_and_the_weights_that_were_there(tmp_path):
    (tmp_path / "tiny.safetensors").write_bytes(b"of last year")
    train(tmp_path, max_seconds=0)
    state = (tmp_path / "training" / "tiny.pt").read_bytes()
    with pytest.raises(RuntimeError, match="loss is nan at step 1"):
        train(tmp_path, replace(RECIPE, loss=lambda model, *_: model.net.position.sum() * math.nan))
    assert (tmp_path / "training" / "tiny.pt").read_bytes() == state
    assert (tmp_path / "tiny.safetensors").read_bytes() == b"of last year"
    assert train(tmp_path).info["step"] == 12
    assert nb.load_model(tmp_path / "tiny.safetensors").info["step"] == 12


def test_a_recipe_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(ValueError, match="more than the 50 pictures"):
        train(tmp_path, replace(RECIPE, batch_size=51))
    with pytest.raises(ValueError, match="unknown decay"):
        train(tmp_path, replace(RECIPE, decay="linear"))


# ----------------------------------------------------------------------------- stopping and going on
def test_a_run_stopped_after_every_step_is_the_undisturbed_run(tmp_path, whole):
    for step in range(1, 13):
        torch.manual_seed(step)  # the global generator plays no part
        assert train(tmp_path, max_seconds=0).info["step"] == step
        assert (tmp_path / "tiny.safetensors").exists() is (step == 12)
    assert same_content(content(tmp_path / "tiny.safetensors"), content(whole[0]))
    (tmp_path / "tiny.safetensors").unlink()
    train(tmp_path)  # a finished run: the weights are written again, and no step is done
    assert same_content(content(tmp_path / "tiny.safetensors"), content(whole[0]))


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=repr)
def test_a_run_stopped_while_its_state_is_written_goes_on_from_the_last_whole_one(
        tmp_path, whole, monkeypatch, function, error):
    train(tmp_path, max_seconds=0)

    def stop(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, function, stop)
        with pytest.raises(type(error)):
            train(tmp_path, save_every=0)
    train(tmp_path)
    assert same_content(content(tmp_path / "tiny.safetensors"), content(whole[0]))
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["tiny.pt", "tiny.safetensors"]


@pytest.mark.parametrize("change", [{"lr": 1e-3}, {"batch_size": 6}, {"ema": 0.5}, {"decay": "constant"},
                                    {"info": {**TINY, "target": "eps"}}], ids=str)
def test_a_state_of_other_settings_is_refused_and_kept(tmp_path, change):
    train(tmp_path, max_seconds=0)
    state = (tmp_path / "training" / "tiny.pt").read_bytes()
    with pytest.raises(ValueError, match="other settings.*delete it to start again"):
        train(tmp_path, replace(RECIPE, **change))
    assert (tmp_path / "training" / "tiny.pt").read_bytes() == state


def test_a_finished_run_can_be_prolonged_but_not_shortened(tmp_path):
    losses = train(tmp_path).info["losses"]
    longer = train(tmp_path, replace(RECIPE, epochs=5)).info
    assert (longer["step"], longer["losses"][:12]) == (20, losses)
    assert nb.load_model(tmp_path / "tiny.safetensors", "cpu").info["step"] == 20
    with pytest.raises(ValueError, match="more steps.*delete it to start again"):
        train(tmp_path)


@pytest.mark.parametrize("damage", [lambda b: b[:-1000], lambda b: b"no state", lambda b: torch_file({"step": 3}),
                                    lambda b: torch_file(Payload())], ids=["cut", "text", "foreign", "code"])
def test_a_damaged_state_is_refused_with_advice(tmp_path, damage):
    train(tmp_path, max_seconds=0)
    path = tmp_path / "training" / "tiny.pt"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="tiny.pt cannot be resumed.*delete it"):
        train(tmp_path)


@pytest.mark.parametrize("shape", [(48, 20), (20, 48), (24, 8, 3, 3), (64, 8, 1, 1)])
def test_muons_step_has_the_directions_of_the_gradient_all_about_equally_long(shape):
    weight = torch.nn.Parameter(torch.zeros(shape))
    muon = nb.Muon([weight])
    muon.param_groups[0]["lr"] = 0.01
    weight.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    weight.grad *= torch.logspace(0, -1, shape[0]).view(-1, *[1] * (len(shape) - 1))  # some directions far stronger
    u, s, v = torch.linalg.svd(weight.grad.flatten(1), full_matrices=False)
    muon.step()
    step = -weight.detach().flatten(1)
    assert step.square().mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.15)
    along = torch.diag(u.T @ step @ v.T) / step.norm() * math.sqrt(len(s))
    assert s[0] > 1.5 * s[-1]
    assert along.min() > 0.6
    assert along.max() < 1.3


def test_muon_takes_the_inner_matrices_and_adam_the_rest_each_once():
    run = nb.Run(nb.PAINTER, "cpu")
    model = run.model
    adam, muon = ([p for group in o.param_groups for p in group["params"]] for o in run.optimizers)
    assert sorted(map(id, adam + muon)) == sorted(map(id, model.parameters()))
    assert all(p.ndim in (2, 4) for p in muon)
    assert sum(p.numel() for p in muon) > 0.9 * nb.count_parameters(model)
    assert any(p is model.net.init.weight for p in adam)
    assert [type(o) for o in nb.Run(nb.DIGITS, "cpu").optimizers] == [torch.optim.Adam]


# ----------------------------------------------------------------------------- warm starts and live runs
@pytest.fixture
def models(tmp_path, monkeypatch):
    """An empty folder in the place of models/."""
    monkeypatch.setattr(nb, "MODELS", tmp_path)
    monkeypatch.setattr(nb, "default_device", lambda: torch.device("cpu"))
    return tmp_path


def test_a_warm_run_begins_with_the_shipped_weights_and_goes_on_where_they_were_unfinished(models):
    nb.save_model(train(models / "elsewhere"), models / "tiny.safetensors")
    shipped = nb.load_model("tiny")
    run = nb.Run(RECIPE, "cpu", warm=True)
    assert same_content(dict(run.model.state_dict()), dict(shipped.state_dict()))
    assert same_content(run.ema.state, dict(shipped.state_dict()))
    assert (run.step, run.losses, run.samples, run.fresh) == (0, [], {}, [])  # a finished run: a new one begins
    longer = replace(RECIPE, epochs=5)
    run = nb.Run(longer, "cpu", warm=True)  # twelve of twenty steps: unfinished
    assert (run.step, len(run.losses), sorted(run.samples), run.fresh) == (12, 12, [1, 3], [12])
    assert all(optimizer.state_dict()["state"] == {} for optimizer in run.optimizers)
    steps(run, 3)
    assert (run.step, len(run.losses), run.optimizers[1].param_groups[0]["lr"]) == (15, 15, longer.learning_rate(14))
    nb.save_model(run.averaged(), models / "tiny.safetensors")
    run = nb.Run(longer, "cpu", warm=True)
    assert (run.step, run.fresh) == (15, [12, 15])
    assert nb.train(longer, models / "elsewhere again", warm=True).info["fresh optimiser at"] == [12, 15]
    assert nb.Run(replace(longer, batch_size=10), "cpu", warm=True).step == 0  # other settings: a new run
    other = {**TINY, "config": {**TINY["config"], "widths": [8, 64]}}
    with pytest.raises(ValueError, match="config|net"):
        nb.Run(replace(RECIPE, info=other), "cpu", warm=True)


def test_live_makes_the_first_steps_again_and_leaves_nothing(models):
    losses = steps(nb.Run(RECIPE)).losses
    assert nb.live(RECIPE, 5) == losses[:5]
    assert nb.live(RECIPE, 50) == losses
    assert nb.live(RECIPE, 5, lr=0.0) != losses[:5]
    assert list(models.iterdir()) == []
    nb.save_model(train(models / "elsewhere"), models / "tiny.safetensors")
    assert nb.live(RECIPE, 1, warm=True)[0] < losses[0]
    assert len(nb.live(replace(RECIPE, epochs=5), 2, warm=True)) == 2  # the steps made now, not those of the file
    assert sorted(p.name for p in models.iterdir()) == ["elsewhere", "tiny.safetensors"]


def test_the_shipped_digit_model_begins_as_its_recipe_says():
    assert nb.live(nb.DIGITS, 2) == pytest.approx(nb.load_model("digits").info["losses"][:2].tolist(), rel=0.03)


@pytest.mark.parametrize("wanted", [True, False])
def test_get_model_trains_only_when_told_to(models, monkeypatch, wanted):
    nb.save_model(train(models / "elsewhere", max_seconds=0), models / "tiny.safetensors")
    monkeypatch.setattr(nb, "TRAIN", wanted)
    assert nb.get_model(RECIPE).info["step"] == (12 if wanted else 1)
    assert nb.load_model("tiny").info["step"] == (12 if wanted else 1)


@pytest.mark.parametrize("units", [True, False])
def test_bf16_only_where_there_are_units_for_it(monkeypatch, units):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: units, raising=False)
    with nb.autocast_for("cpu"):
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype is (torch.bfloat16 if units else torch.float32)
