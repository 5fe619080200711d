"""The mathematics: schedule, posterior, samplers, guidance, denoiser and loss, networks, masks.

Every check compares with something computed another way, in the test: never with recorded numbers.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import exact_denoiser, nb, stirred

SCHEDULES = [("linear", 50, 1.0), ("linear", 1000, 1.0), ("cosine", 20, 1.0), ("cosine", 1000, 2.0)]
METHODS = [("ddpm", 0.0), ("ddim", 0.0), ("ddim", 0.5), ("ddim", 1.0), ("2m", 0.0)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def walked(denoise, x, schedule, steps, method="2m", seed=1, **options):
    """`generate` as a list; its fresh noise comes from one generator of float64."""
    generator = seeded(seed)
    return list(nb.generate(denoise, x, schedule, steps, method, **options, noise=lambda shape: torch.randn(
        len(x), *shape, generator=generator, dtype=torch.float64)))


# ----------------------------------------------------------------------------- schedule and forward process
@pytest.mark.parametrize(("name", "T", "shift"), SCHEDULES)
def test_the_closed_form_has_the_law_of_the_iterated_chain(name, T, shift):
    s, one = nb.Schedule(name, T, shift), torch.ones(1, dtype=torch.float64)
    assert (s.T, len(s.beta), len(s.alpha), len(s.alpha_bar)) == (T, *[T + 1] * 3)
    mean, variance = 1.0, 0.0  # of x_t given x_0 = 1, step by step through q(x_t | x_{t-1})
    for t, beta in enumerate(s.beta.tolist()):
        assert 0 < beta < 1 or t == beta == 0
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        assert s.alpha[t].item() == pytest.approx(1 - beta)
        assert s.q_sample(one, t, 0 * one).item() == pytest.approx(mean, abs=1e-12)
        assert s.q_sample(0 * one, t, one).item() ** 2 == pytest.approx(variance, abs=1e-12)
    assert mean**2 < 1e-3  # x_T is noise
    plain = 1 - {"linear": nb.linear_beta, "cosine": nb.cosine_beta}[name](T)
    snr, shifted = (a / (1 - a) for a in (plain.cumprod(0), s.alpha_bar[1:]))
    assert torch.allclose(snr / shifted, torch.full_like(snr, shift**2), rtol=1e-6)


def test_the_two_schedules_are_those_of_the_papers():
    assert torch.allclose(nb.Schedule("linear").beta[1:], torch.tensor(np.linspace(1e-4, 0.02, 1000)))
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1000)]  # the last beta is clipped
    assert torch.allclose(nb.Schedule("cosine").alpha_bar[:-1], torch.tensor(f).double() / f[0], atol=1e-9)


@pytest.mark.parametrize(("options", "advice"), [
    *((("linear", T), "T ") for T in (0, -1, 20, 5, "1000", 1000.0, True, None, 10**6)), (("lineal", 9), "choose from"),
    *((("cosine", 50, shift), "shift") for shift in (0, -1, math.nan, "2", None))])
def test_a_schedule_that_cannot_be_is_refused(options, advice):
    with pytest.raises(ValueError, match=advice):
        nb.Schedule(*options)


def test_each_picture_may_have_a_step_of_its_own_inside_the_schedule():
    s, x, eps = nb.Schedule("cosine", 100), normal(4, 1, 3, 3), normal(4, 1, 3, 3, seed=1)
    t = torch.tensor([0, 1, 57, 100])
    alone = [s.q_sample(x[i : i + 1], t[i].item(), eps[i : i + 1]) for i in range(4)]
    assert torch.allclose(s.q_sample(x, t, eps), torch.cat(alone))
    assert torch.equal(alone[0], x[:1])  # t = 0 is the clean picture
    assert s.q_sample(x.float(), t, eps.float()).dtype == torch.float32
    q = torch.distributions.Normal(s.alpha_bar[57].sqrt() * x, (1 - s.alpha_bar[57]).sqrt())
    nats = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean().item()
    assert nb.kl_to_standard_normal(s, x, 57) == pytest.approx(nats / math.log(2))
    for wrong in (-1, 101, torch.tensor([0, 101, 5, 5]), torch.tensor([7, -1, 3, 3])):
        with pytest.raises(ValueError, match="from 0 to T = 100"):
            s.q_sample(x, wrong, eps)


# ----------------------------------------------------------------------------- posterior, steps, noise
@pytest.mark.parametrize(("name", "T", "shift"), [s for s in SCHEDULES if s[1] != 20])
@pytest.mark.parametrize(("t", "s"), [(0.04, 0.02), (0.5, 0.48), (0.9, 0.5), (1.0, 0.1)])
def test_the_posterior_is_bayes_rule_and_a_ddpm_step_a_draw_from_it(name, T, shift, t, s):
    """q(x_s | x_t, x_0) is q(x_t | x_s) q(x_s | x_0), normalised: here by adding up both densities on a fine grid."""
    schedule, t, s, x_0, x_t, z = nb.Schedule(name, T, shift), round(t * T), round(s * T), 0.7, -0.4, 1.3
    (mean_s, var_s), (step, var_step) = (1.0, 0.0), (1.0, 0.0)
    for k, beta in enumerate(schedule.beta.tolist()):
        if 0 < k <= s:
            mean_s, var_s = math.sqrt(1 - beta) * mean_s, (1 - beta) * var_s + beta
        elif s < k <= t:
            step, var_step = math.sqrt(1 - beta) * step, (1 - beta) * var_step + beta
    x_s = torch.linspace(-8, 8, 400_001, dtype=torch.float64)
    log_density = -((x_t - step * x_s) ** 2) / (2 * var_step) - (x_s - mean_s * x_0) ** 2 / (2 * var_s)
    weight = torch.softmax(log_density, 0)
    mean = (weight * x_s).sum().item()
    variance = (weight * (x_s - mean) ** 2).sum().item()
    assert nb.posterior(schedule, x_0, x_t, t, s) == pytest.approx((mean, variance), rel=1e-5, abs=1e-7)
    for kind, var in (("posterior", variance), ("beta", var_step)):
        drawn = nb.ddpm_step(schedule, x_t, t, s, x_0, z, kind)
        assert drawn == pytest.approx(mean + math.sqrt(var) * z, abs=1e-5)
        assert nb.ddpm_step(schedule, x_t, t, 0, x_0, z, kind) == pytest.approx(x_0)  # no noise in the last step


@pytest.mark.parametrize(("T", "start"), [(1000, None), (50, None), (50, 33), (7, 1)])
def test_time_steps_fall_evenly_from_start_and_never_repeat(T, start):
    first = start or T
    for n in {min(n, first) for n in (1, 2, 3, first // 2 + 1, first - 1 or 1, first)}:
        steps = nb.time_steps(T, n, start)
        gaps = [a - b for a, b in pairwise([*steps, 0])]
        assert (len(steps), steps[0]) == (n, first)
        assert first // n - 1 <= min(gaps) <= max(gaps) <= first // n + 2
        assert min(gaps) >= 1


@pytest.mark.parametrize(("steps", "start"), [
    *((steps, None) for steps in (0, -3, 101, 2.0, "5", True, None)), (5, 4), (5, 101), (1, 0), (1, "9"), (1, 9.5)])
def test_steps_that_cannot_be_are_refused(steps, start):
    with pytest.raises(ValueError, match="steps|start"):
        nb.time_steps(100, steps, start)


def test_picture_i_has_the_noise_of_seed_plus_i_alone():
    together, alone = nb.Noise(7, 5), [nb.Noise(7 + i, 1) for i in range(5)]
    for _ in range(3):  # and goes on so, step after step
        assert torch.equal(together((2, 4)), torch.cat([noise((2, 4)) for noise in alone]))
    many = nb.Noise(0, 2000)((10,))
    assert abs(many.mean()) < 0.03
    assert torch.allclose(torch.cov(many.T), torch.eye(10), atol=0.12)


# ----------------------------------------------------------------------------- samplers, with an exact denoiser
POINTS = torch.tensor([[1, 1, 1, 1, -1, -1, -1, -1], [-1, 1, -1, 1, -1, 1, -1, 1], [-1, -1, 1, 1, 1, 1, -1, -1],
                       [0.5, 0.5, -0.5, -0.5, 0.5, 0.5, -0.5, 0]], dtype=torch.float64).view(4, 1, 2, 4)


@pytest.mark.parametrize(("method", "eta"), METHODS)
@pytest.mark.parametrize(("name", "steps"), [("linear", 20), ("linear", 100), ("cosine", 12), ("cosine", 100)])
def test_every_sampler_follows_the_exact_denoiser_back_to_the_data(method, eta, name, steps):
    s, x_T = nb.Schedule(name, 200), normal(3000, 1, 2, 4)
    _, x, _ = walked(exact_denoiser(s, POINTS), x_T, s, nb.time_steps(200, steps), method, eta=eta)[-1]
    distance, nearest = torch.cdist(x.flatten(1), POINTS.flatten(1)).min(1)
    assert (distance < 0.05).double().mean() > 0.98  # the rest stand between two points
    if steps == 100:  # and each point is drawn as often as it occurs; the spread of a share is 0.008
        assert (nearest.bincount(minlength=4) / len(x) - 0.25).abs().max() < 0.05


@pytest.mark.parametrize(("name", "T", "steps", "clip"), [("linear", 100, 100, True), ("cosine", 100, 100, False),
                                                          ("cosine", 1000, 17, True), ("linear", 1000, 1, True)])
def test_ddim_with_eta_one_is_ddpm(name, T, steps, clip):
    s, x = nb.Schedule(name, T), normal(64, 1, 2, 4)
    ddpm, ddim = (walked(exact_denoiser(s, POINTS), x, s, nb.time_steps(T, steps), method, eta=1.0, clip=clip)
                  for method in ("ddpm", "ddim"))
    assert len(ddpm) == steps
    assert all(a[0] == b[0] and torch.allclose(a[1], b[1], atol=1e-5) for a, b in zip(ddpm, ddim, strict=True))


def gaussian_error(method, schedule, steps, mean=0.3, spread=0.5, start=900, end=200):
    """Distance from the exact solution of the probability-flow ODE, at step `end`, for data N(mean, spread^2).

    There the exact path keeps (x_t - signal mean) / sd_t unchanged.
    """
    def sd(t):
        return (schedule.signal[t] ** 2 * spread**2 + schedule.noise[t] ** 2).sqrt()

    x_0 = nb.gaussian_denoiser(schedule, mean, spread**2)
    xi = normal(200)
    solution = {t: schedule.signal[t] * mean + sd(t) * xi for t in (start, end)}
    chosen = [round(start - i * (start - end) / steps) for i in range(steps + 1)]
    x = {s: x for s, x, _ in walked(x_0, solution[start], schedule, chosen, method, clip=False)}[end]
    return (x - solution[end]).abs().mean().item()


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_2m_converges_at_second_order_and_ddim_at_first(name):
    ddim, two = ([gaussian_error(m, nb.Schedule(name), n) for n in (35, 70, 140)] for m in ("ddim", "2m"))
    assert all(0.8 < math.log2(coarse / fine) < 1.3 for coarse, fine in pairwise(ddim))
    assert all(1.7 < math.log2(coarse / fine) < 2.4 for coarse, fine in pairwise(two))
    assert two[0] < ddim[0] / 5
    assert two[2] < 1e-3


@pytest.mark.parametrize(("method", "eta"), METHODS)
@pytest.mark.parametrize("steps", [1, 7, 40])
def test_the_loop_asks_and_yields_once_a_step_clips_and_ends_clean(method, eta, steps):
    s, asked, chosen, x = nb.Schedule("cosine", 40), [], nb.time_steps(40, steps), normal(6, 1, 2, 4)

    def wild(x_t, t):
        asked.append(t)
        return 3 * x_t + 1

    seen = walked(wild, x, s, chosen, method, eta=eta)
    assert asked == chosen
    assert [s for s, _, _ in seen] == [*chosen[1:], 0]
    assert all(x_0.abs().max() <= 1 for _, _, x_0 in seen)
    assert torch.allclose(seen[-1][1], seen[-1][2], atol=1e-9)  # no noise is added in the last step
    assert walked(wild, x, s, chosen, method, eta=eta, clip=False)[0][2].abs().max() > 1
    again, other = (torch.cat([x for _, x, _ in walked(wild, x, s, chosen, method, eta=eta, seed=i)]) for i in (1, 2))
    assert torch.equal(again, torch.cat([x for _, x, _ in seen]))
    assert torch.equal(again, other) is (steps == 1 or method == "2m" or method == "ddim" and eta == 0)


def test_flow_matching_is_the_straight_path_and_ddim_on_it_is_eulers_method():
    """Lipman et al. (2023): x_t = (1 - t/T) x_0 + t/T eps; and it ends where a path of another pace ends."""
    flow, x = nb.Schedule("flow", 200), normal(50, 1, 2, 4, seed=2)
    x_0, eps = normal(6, 1, 2, 4), normal(6, 1, 2, 4, seed=1)
    for t in (0, 1, 70, 200):
        assert torch.allclose(flow.q_sample(x_0, t, eps), (1 - t / 200) * x_0 + t / 200 * eps, atol=1e-12)
    exact = exact_denoiser(flow, POINTS)
    ddim = walked(exact, x, flow, nb.time_steps(200, 200), "ddim", clip=False)[-1][1]
    euler = x
    for t in range(200, 0, -1):
        euler = euler - (euler - exact(euler, t)) / (t / 200) / 200
    assert torch.allclose(ddim, euler, atol=1e-9)
    cosine, steps = nb.Schedule("cosine", 1000), nb.time_steps(1000, 500)
    ends = [walked(exact_denoiser(s, POINTS), x, s, ts, "2m")[-1][1]
            for s, ts in ((flow, nb.time_steps(200, 200)), (cosine, steps))]
    assert ((ends[0] - ends[1]).abs().amax((1, 2, 3)) < 0.05).double().mean() > 0.9
    for wrong in ({"method": "ddpm"}, {"method": "ddim", "eta": 0.5}):
        with pytest.raises(ValueError, match="Euler"):
            walked(exact, x, flow, [200, 100], **wrong)
    for schedule, target in (("flow", "eps"), ("cosine", "u")):
        with pytest.raises(ValueError, match="go together"):
            nb.Denoiser(Asked(), nb.Schedule(schedule, 50), target)


def test_ddim_recomputes_epsilon_after_clipping():
    s, x_t, wild = nb.Schedule("linear", 100), normal(50), 3 * normal(50, seed=1)
    ab_t, ab_s, x_0 = s.alpha_bar[60], s.alpha_bar[30], wild.clamp(-1, 1)
    eps = (x_t - ab_t.sqrt() * x_0) / (1 - ab_t).sqrt()
    assert torch.allclose(walked(lambda x, t: wild, x_t, s, [60, 30], "ddim")[0][1],
                          ab_s.sqrt() * x_0 + (1 - ab_s).sqrt() * eps)


@pytest.mark.parametrize(("method", "options", "advice"), [
    *((method, {}, "unknown method") for method in ("euler", "", None, "DDPM")),
    *(("ddim", {"eta": eta}, "eta") for eta in (-0.1, 1.1, math.nan, "1", None)), ("ddpm", {"variance": "b"}, "var")])
def test_a_sampler_that_does_not_exist_is_refused_before_the_first_step(method, options, advice):
    with pytest.raises(ValueError, match=advice):
        walked(lambda x, t: pytest.fail("a step was taken"), normal(2, 3), nb.Schedule(), [10, 5], method, **options)


# ----------------------------------------------------------------------------- guidance and known pixels
class Asked(torch.nn.Module):
    """A net that keeps what it was asked, and answers with a function of (x_t, t / T, condition)."""

    def __init__(self, answer=lambda x, t, condition: torch.zeros_like(x)):
        super().__init__()
        self.shape, self.answer, self.asked = (1, 2, 4), answer, []
        self.anchor = torch.nn.Parameter(torch.zeros(1))  # its device is looked for

    def forward(self, x, t, condition):
        self.asked.append((x, t, condition))
        return self.answer(x, t, condition)


def asked(answer=None, target="eps", T=100):
    """A Denoiser around a net that keeps what it was asked."""
    schedule = nb.Schedule("flow" if target == "u" else "cosine", T)
    return nb.Denoiser(Asked(answer) if answer else Asked(), schedule, target)


def by_label(x, t, condition):
    return x * (0.1 + 0.05 * (condition.label + 1)).view(-1, 1, 1, 1)


LABELS = nb.Condition(label=torch.tensor([3, 0, 7]))


@pytest.mark.parametrize("target", ["eps", "x_0", "v", "u"])
@pytest.mark.parametrize("guidance", [0, 1, 0.5, 3, -1.0])
def test_guidance_is_the_formula_in_eps_as_in_x_0(target, guidance):
    model, x = asked(by_label, target), normal(3, 1, 2, 4)
    signal, noise = model.schedule.signal_and_noise(40, x)
    x_u, x_c, found = model(x, 40, LABELS.null()), model(x, 40, LABELS), model.guided(LABELS, guidance)(x, 40)
    e_u, e_c, e = ((x - signal * x_0) / noise for x_0 in (x_u, x_c, found))
    assert torch.allclose(found, x_u + guidance * (x_c - x_u), atol=1e-5)
    assert torch.allclose(e, e_u + guidance * (e_c - e_u), atol=1e-5)
    assert guidance not in (0, 1) or torch.equal(found, x_c if guidance else x_u)


@pytest.mark.parametrize(("guidance", "seen"), [(2, "uc" * 10), (0, "u" * 10), (1, "c" * 10)])
def test_guidance_acts_at_every_step(guidance, seen):
    model = asked(by_label)
    nb.finish(nb.walk(model, model.guided(LABELS, guidance), 3, steps=10))
    labels = [condition.label.tolist() for _, _, condition in model.net.asked]
    assert labels == [{"u": [-1, -1, -1], "c": [3, 0, 7]}[kind] for kind in seen]


@pytest.mark.parametrize(("method", "eta"), METHODS)
def test_known_pixels_are_the_truth_at_every_step(method, eta):
    known, mask = normal(5, 3, 8, 8, seed=1).clamp(-1, 1), (normal(5, 1, 8, 8, seed=2) > 0).double()
    denoise, outside = nb.with_known(lambda x_t, t: torch.sin(x_t), known, mask), (mask == 0).expand_as(known)
    path = walked(denoise, normal(5, 3, 8, 8), nb.Schedule("cosine", 100), nb.time_steps(100, 9), method, eta=eta)
    assert len(path) == 9
    assert all(torch.equal(x_0[outside], known[outside]) and not torch.equal(x_0, known) for _, _, x_0 in path)
    assert torch.allclose(path[-1][1][outside], known[outside])


def test_a_walk_begins_at_the_noise_of_its_seeds_or_at_a_picture_noised_so_far():
    model, x_0, noise = asked(), normal(3, 1, 2, 4, seed=9).float(), nb.Noise(4, 3)((1, 2, 4))
    for start, given, first in ((1.0, None, noise), (0.6, x_0, model.schedule.q_sample(x_0, 60, noise))):
        model.net.asked.clear()
        pictures = nb.finish(nb.walk(model, model, 3, steps=4, seed=4, start=start, x_0=given))
        assert torch.equal(model.net.asked[0][0], first)
        told = [t.tolist() for _, t, _ in model.net.asked]
        assert told == [pytest.approx([t / 100] * 3) for t in nb.time_steps(100, 4, round(100 * start))]
        assert 0 <= pictures.min() <= pictures.max() <= 1
    for start in (-0.1, 1.5, math.nan, "1", None, True):
        with pytest.raises(ValueError, match="start"):
            next(nb.walk(model, model, 3, steps=1, start=start))


# ----------------------------------------------------------------------------- denoiser, condition, loss
@pytest.mark.parametrize("target", ["eps", "x_0", "v", "u"])
@pytest.mark.parametrize("distance", ["l2", "l1"])
def test_who_knows_the_truth_has_the_right_estimate_and_no_loss(target, distance):
    """A time step off by one, a wrong target or a wrong range would all leave a loss."""
    x_0 = torch.linspace(-1, 1, 8).view(1, 1, 2, 4)

    def truth(x, t, condition):
        signal, noise = model.schedule.signal_and_noise((t * 100).round().long(), x)
        eps = (x - signal * x_0) / noise
        return {"eps": eps, "x_0": x_0.expand_as(x), "v": signal * eps - noise * x_0, "u": eps - x_0}[target]

    model = asked(truth, target)
    x_t = model.schedule.q_sample(x_0, 70, normal(3, 1, 2, 4).float())
    for t in (70, torch.tensor([70, 70, 70])):
        assert torch.allclose(model(x_t, t), x_0.expand_as(x_t), atol=1e-5)
    many = x_0.expand(300, -1, -1, -1)
    assert model.loss(many, distance=distance, max_weight=10, generator=seeded()).item() < 1e-3
    assert model.loss(-many, distance=distance, generator=seeded()).item() > 0.05


@pytest.mark.parametrize(("target", "distance", "most"), [
    ("eps", "l2", 1), ("eps", "l1", 1), ("x_0", "l2", 1), ("x_0", "l1", 1), ("v", "l2", 1), ("u", "l2", 1),
    ("x_0", "l2", 4)])
def test_the_loss_of_a_net_that_says_zero_is_that_of_algorithm_1(target, distance, most):
    """Its expectation over t and eps, for pictures of one grey: in closed form, averaged over t = 1 ... T."""
    model, grey = asked(target=target, T=20), 0.5
    ab = model.schedule.alpha_bar[1:]
    square = {"eps": torch.ones(20), "x_0": torch.full((20,), grey**2), "v": ab + (1 - ab) * grey**2,
              "u": torch.full((20,), 1 + grey**2)}[target]
    value = square if distance == "l2" else {"eps": math.sqrt(2 / math.pi), "x_0": grey}[target]
    expected = ((1 / (1 - ab)).clamp(max=most) * value).mean().item()
    found = model.loss(torch.full((5000, 1, 4, 4), grey), distance=distance, max_weight=most, generator=seeded())
    assert found.item() == pytest.approx(expected, rel=0.02)
    t = (model.net.asked[0][1] * 20).round().long()
    assert (t.bincount(minlength=21)[1:] / 5000 - 0.05).abs().max() < 0.015  # every t, none more often


def test_the_loss_counts_the_hole_only_and_every_hole_alike():
    model, masks, x_0 = asked(target="x_0"), torch.zeros(2, 1, 4, 4), torch.full((2, 3, 4, 4), 0.5)
    masks[0, :, 0, 0] = 1  # one pixel
    masks[1, :, :2] = 1  # eight
    x_0[0, :, 0, 0] = 1
    loss = [model.loss(torch.where(masks > 0, x_0, rest), nb.Condition(mask=masks), generator=seeded()).item()
            for rest in (0.0, 0.5, -1.0)]
    assert loss == [pytest.approx((1 + 0.25) / 2)] * 3  # the net says 0, so it is a mean of x_0^2
    assert model.loss(x_0, nb.Condition(mask=1 - masks), generator=seeded()).item() == pytest.approx(0.25)


def test_nothing_said_is_the_same_condition_without_its_words_which_are_dropped_as_often_as_asked():
    labels, prompts, x = torch.arange(4000) % 10, [f"{i}" for i in range(4000)], torch.ones(2, 1, 4, 4)
    c = nb.Condition(labels, prompts, x, x, x, torch.ones(2))
    assert (set(c.null().label.tolist()), set(c.null().prompt)) == ({-1}, {""})
    dropped = c.drop(0.1, seeded())
    assert all(getattr(part, name) is getattr(c, name) for part in (c.null(), dropped)
               for name in ("mask", "visible", "small", "level"))
    gone = dropped.label == -1
    assert gone.float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert torch.equal(dropped.label[~gone], labels[~gone])
    assert dropped.prompt == ["" if g else p for g, p in zip(gone, prompts, strict=True)]  # both or neither
    assert torch.equal(c.drop(labels % 2, seeded()).label == -1, labels % 2 == 1)  # for each its own
    assert nb.Condition().null() == nb.Condition().drop(1, seeded()) == nb.Condition()
    moved = c.to("meta")
    assert (moved.label.device.type, moved.small.device.type, moved.prompt) == ("meta", "meta", prompts)
    model = asked()
    model.loss(torch.zeros(4000, 1, 2, 4), nb.Condition(label=labels), generator=seeded())
    assert (model.net.asked[0][2].label == -1).float().mean().item() == pytest.approx(0.1, abs=0.02)


def test_an_unknown_target_or_loss_is_refused_and_so_are_shapes_that_would_broadcast():
    a, b = normal(3, 1, 5, 5), normal(3, 1, 5, 5, seed=1)
    assert torch.equal(nb.custom_loss(a, b), F.mse_loss(a, b, reduction="none"))
    assert torch.equal(nb.custom_loss(a, b, "l1"), F.l1_loss(a, b, reduction="none"))
    for wrong, advice in ((lambda: nb.Denoiser(Asked(), nb.Schedule(), "x0"), "choose eps, x_0, v or u"),
                          (lambda: nb.custom_loss(a, b, "huber"), "unknown loss"),
                          (lambda: nb.custom_loss(a, b[:1]), "shape")):
        with pytest.raises(ValueError, match=advice):
            wrong()


# ----------------------------------------------------------------------------- the course's U-Net
def test_the_courses_unet_has_the_shapes_that_the_course_draws():
    D, net, seen = 4, stirred(nb.CourseUNet(D=4, time=True, classes=10)), {}
    for name, part in net.named_children():
        part.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: (inputs[0], output)}))
    x, t = normal(3, 1, 28, 28).float(), torch.tensor([0.1, 0.5, 1.0])
    net(x, t, LABELS)
    entered, out = ({name: pair[i] for name, pair in seen.items()} for i in (0, 1))
    assert {name: out[name].shape[1:3] for name in seen if name[:2] != "fc"} == {
        "init": (D, 28), "down1": (D, 14), "down2": (2 * D, 7), "flatten": (2 * D, 1), "unflatten": (2 * D, 7),
        "up1": (D, 14), "up2": (D, 28), "out": (1, 28)}
    first = out["fc1_c"] * out["unflatten"] + out["fc1_t"]
    second = out["fc2_c"] * out["up1"] + out["fc2_t"]  # the page prints t1 twice
    assert torch.allclose(entered["up1"], torch.cat([first, out["down2"]], 1), atol=1e-5)
    assert torch.allclose(entered["up2"], torch.cat([second, out["down1"]], 1), atol=1e-5)
    assert torch.equal(entered["out"], torch.cat([out["up2"], out["init"]], 1))
    assert torch.equal(entered["fc2_t"], t[:, None])
    assert torch.equal(entered["fc2_c"], torch.eye(10)[LABELS.label])
    assert torch.equal(net(x, t), net(x, t, LABELS.null()))  # nothing said is no class
    assert not torch.equal(net(x, t), net(x, t, LABELS))


# ----------------------------------------------------------------------------- our own U-Net
def unet(**options):
    """A small U-Net with random weights everywhere, two pictures, their times, and all that it may be told of them."""
    options = {"size": 32, "widths": (32, 64), "embedding": 16, **options}
    torch.manual_seed(0)
    side, c = options["size"] or 32, options.get("channels", 3)
    x = normal(2, c, side, side).float()
    text = nb.Text(normal(2, 3, 8, seed=1).float(), torch.tensor([[True] * 3, [True, True, False]]),
                   normal(2, 8, seed=2).float())
    told = nb.Condition(label=torch.tensor([1, 4]), mask=(x[:, :1] > 0).float(), visible=x * (x[:, :1] <= 0),
                        small=F.avg_pool2d(x, 4), level=torch.tensor([0.1, 0.2]), text=text)
    return stirred(nb.UNet(**options)), x, torch.tensor([0.3, 0.8]), told


@pytest.mark.parametrize("argument", [
    {"channels": 1}, {"size": 64}, {"size": None}, {"fold": 2}, {"widths": (32,)}, {"attention": (1,)},
    {"embedding": 8}, {"classes": 5}, {"text_width": 8}, {"sentence": 8}, {"inpaint": True},
    {"small": True}], ids=str)
def test_every_argument_has_an_effect_and_keeps_the_shape(argument):
    net, x, t, told = unet(**argument)
    plain = {name: w.shape for name, w in unet()[0].state_dict().items()}
    new = {name: w for name, w in net.state_dict().items() if w.shape != plain.get(name)}
    assert new or plain.keys() > net.state_dict().keys()
    out = net(x, t, told)
    assert out.shape == x.shape
    for name, w in new.items():  # every weight that it brings, alone, changes the picture
        w.mul_(1.5)
        assert not torch.allclose(net(x, t, told), out, atol=1e-5), name
        w.div_(1.5)


@pytest.mark.parametrize(("argument", "change"), [
    ({}, "t"), ({}, "x"), ({"classes": 5}, "label"), ({"inpaint": True}, "mask"), ({"inpaint": True}, "visible"),
    ({"small": True}, "small"), ({"small": True}, "level"), ({"text_width": 8, "attention": (1,)}, "tokens"),
    ({"text_width": 8}, "pooled"), ({"sentence": 8}, "pooled")], ids=str)
def test_what_is_told_of_a_picture_changes_this_picture_alone(argument, change):
    net, x, t, told = unet(**argument)
    net.train()  # also in training: no picture depends on its batch
    inputs = {"x": x, "t": t, **vars(told), **told.text._asdict()}
    value = inputs[change].clone()
    value[1] = value[1] + 0.3 if change in ("t", "level") else value[1].flip(-1) if value.ndim > 1 else 2
    inputs[change] = value
    text = nb.Text(*(inputs[name] for name in nb.Text._fields))
    told_else = nb.Condition(**{**{name: inputs[name] for name in vars(told)}, "text": text})
    difference = (net(inputs["x"], inputs["t"], told_else) - net(x, t, told)).abs().flatten(1).amax(1)
    assert difference[0] < 1e-6
    assert difference[1] > 1e-4


def test_nothing_said_is_class_minus_one_and_no_mask_is_all_hole():
    net, x, t, _ = unet(classes=5, inpaint=True)
    said = nb.Condition(torch.tensor([-1, -1]), mask=torch.ones_like(x[:, :1]), visible=torch.zeros_like(x))
    assert torch.equal(net(x, t, nb.Condition()), net(x, t, said))


def test_attention_is_that_of_torch_and_never_looks_at_padding():
    net, x, t, told = unet(text_width=8)
    text = told.text
    more = text._replace(tokens=torch.cat([text.tokens, torch.full((2, 4, 8), 1e4)], 1),
                         keep=torch.cat([text.keep, torch.zeros(2, 4, dtype=torch.bool)], 1))
    assert torch.allclose(net(x, t, told), net(x, t, nb.Condition(text=more)), atol=1e-5)
    x = normal(2, 64, 3, 5).float()
    for layer, words in ((nb.Attention(64, 8), text), (nb.Attention(64), None)):
        assert torch.equal(layer(x, words), x)  # before training it passes its input through
        stirred(layer).watch = True
        places = layer.norm(x).flatten(2).transpose(1, 2)
        parts = layer.q(places), *layer.kv(places if words is None else words.tokens).chunk(2, 2)
        q, k, v = (part.unflatten(2, (2, 32)).transpose(1, 2) for part in parts)
        h = F.scaled_dot_product_attention(q, k, v, None if words is None else words.keep[:, None, None])
        expected = x + layer.out(h.transpose(1, 2).flatten(2)).transpose(1, 2).unflatten(2, (3, 5))
        assert torch.allclose(layer(x, words), expected, atol=1e-5)
        assert torch.allclose(layer.seen.sum(3), torch.ones(2, 2, 15), atol=1e-5)
        assert words is None or (layer.seen[1, :, :, 2] == 0).all()


def test_training_begins_with_blocks_that_pass_their_input_through():
    x, vector, small = normal(2, 32, 4, 4).float(), normal(2, 16).float(), normal(1, 3, 8, 8).float()
    assert torch.equal(nb.ResBlock(32, 32, 16)(x, vector), x)
    block = stirred(nb.ResBlock(32, 64, 16))
    assert not torch.allclose(block(x, vector), block(x, -vector), atol=1e-3)  # scaled and shifted by the vector
    net = nb.UNet(size=None, widths=(32,), small=True, embedding=16)
    torch.nn.init.zeros_(net.out[2].bias)
    out = net(normal(1, 3, 32, 32).float(), torch.ones(1), nb.Condition(small=small, level=torch.zeros(1)))
    assert torch.equal(out, F.interpolate(small, scale_factor=4, mode="bicubic"))
    code = nb.sinusoidal(torch.arange(1, 1001) / 1000, 128)
    assert torch.cdist(code, code).fill_diagonal_(1).min() > 0.01  # all steps are told apart


X, DIGITS, T = torch.zeros(2, 3, 32, 32), torch.zeros(2, 1, 28, 28), torch.zeros(2)


@pytest.mark.parametrize(("options", "x", "t", "told"), [
    *(("course", x, T, {}) for x in (DIGITS[0], X[..., :28, :28], X[:, :1], DIGITS.flatten(1))),
    *((net, x, t, {}) for net, x in (("course", DIGITS), ({}, X)) for t in (T[:1], T[:, None], None)),
    *((net, x, T, {"label": torch.tensor(label)}) for net, x in (("course", DIGITS), ({"classes": 10}, X))
      for label in ([1], [1, 10], [1, -2])),
    *(({}, x, T, {}) for x in (X[0], X[:, :1], torch.zeros(2, 3, 64, 64))),
    *(({"size": None}, X[..., :side, :side], T, {}) for side in (30, 28)),
    *(({part: True}, X, T, {}) for part in ("text_width", "small")),
    *(({"inpaint": True}, X, T, told) for told in ({"mask": X}, {"mask": X[:1, :1]}, {"visible": X[:1]})),
    *(({"small": True}, X, T, {"small": small, "level": t}) for small, t in ((X, T), (X[..., ::4, ::4], T[:1])))])
def test_what_does_not_fit_a_network_is_refused(options, x, t, told):
    net = nb.CourseUNet(D=4, time=True, classes=10) if options == "course" else unet(**options)[0]
    with pytest.raises(ValueError, match="expected|label"):
        net(x, t, nb.Condition(**told))


# ----------------------------------------------------------------------------- masks: 1 is the hole
def test_each_kind_of_mask_has_its_shape():
    masks = {kind: nb.make_masks(kind, 300, generator=seeded())[:, 0] for kind in nb.MASKS}
    middle, rim = ({kind: m[:, part][:, :, part].mean() for kind, m in masks.items()} for part in ([31, 32], [0, 63]))
    assert middle["rectangle"] > 0.3 > 0.1 > rim["rectangle"]  # a hole in the picture
    assert rim["border"] > 0.9 > 0.1 > middle["border"]  # a picture in the hole
    assert masks["everything"].all()
    for m in torch.cat([masks["rectangle"], 1 - masks["border"]]):
        assert torch.equal(m, m.amax(1)[:, None] * m.amax(0))  # one rectangle
    assert len({tuple(m[[0, 0, -1, -1], [0, -1, 0, -1]].tolist()) for m in masks["half"]}) == 4  # all four sides
    for share in (0.0, 0.1, 0.25, 1.0):
        assert ((nb.blob_masks(5, 64, seeded(), (share, share)).sum((1, 2, 3)) - share * 4096).abs() <= 1).all()
