"""The mathematics: schedules, forward process, posterior, samplers, guidance, networks, losses, metrics.

Every check compares with something computed another way, in the test: never with recorded numbers.
"""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from conftest import nb
from scipy.linalg import sqrtm

SCHEDULES = [("linear", 50), ("linear", 300), ("linear", 1000), ("cosine", 20), ("cosine", 300), ("cosine", 1000)]
METHODS = [("ddpm", 0.0), ("ddim", 0.0), ("ddim", 0.5), ("ddim", 1.0), ("2m", 0.0)]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ----------------------------------------------------------------------------- schedule and forward process
@pytest.mark.parametrize(("name", "T"), SCHEDULES)
def test_alpha_bar_falls_from_one_to_pure_noise(name, T):
    s = nb.Schedule(name, T)
    assert s.T == T
    assert len(s.beta) == len(s.alpha) == len(s.alpha_bar) == T + 1
    assert s.alpha_bar[0] == 1
    assert (s.alpha_bar.diff() < 0).all()
    assert (s.beta[1:] > 0).all()
    assert (s.beta < 1).all()
    assert torch.allclose(s.beta[1:], {"linear": nb.linear_beta, "cosine": nb.cosine_beta}[name](T))
    # The divergence of q(x_T | x_0) from N(0, 1) for a pixel of full contrast, x_0 = 1, is alpha_bar_T / 2 nats
    # (and a term of second order).
    assert s.alpha_bar[T] < 2e-4


@pytest.mark.parametrize(("name", "T"), SCHEDULES)
def test_x_T_of_real_digits_is_standard_normal(name, T, digits):
    x_0 = digits[0][:200].double()
    x_T = nb.Schedule(name, T).q_sample(x_0, T, normal(*x_0.shape))
    assert abs(x_T.mean()) < 0.02
    assert abs(x_T.std() - 1) < 0.02
    corner = x_T[:, 0, 0, 0]  # a pixel that is -1 in every picture: what signal was left would show here
    assert abs(corner.mean()) < 5 / math.sqrt(len(corner))


def test_linear_schedule_is_that_of_the_paper():
    beta = nb.Schedule("linear", 1000).beta
    assert beta[1].item() == pytest.approx(1e-4)
    assert beta[1000].item() == pytest.approx(0.02)
    assert torch.allclose(beta[1:].diff(), torch.full((999,), (0.02 - 1e-4) / 999, dtype=torch.float64))


def test_cosine_schedule_is_that_of_the_paper():
    T, alpha_bar = 1000, nb.Schedule("cosine", 1000).alpha_bar
    f = [math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(T)]  # but for the clipped last beta
    assert torch.allclose(alpha_bar[:-1], torch.tensor(f, dtype=torch.float64) / f[0], atol=1e-9)


@pytest.mark.parametrize(("name", "T"), [("lineal", 1000), ("", 10), ("linear", 0), ("cosine", -1), ("cosine", 10.0),
                                         ("linear", "1000"), ("linear", 20), ("linear", 5)])
def test_schedule_refuses(name, T):
    with pytest.raises(ValueError, match="schedule|T "):
        nb.Schedule(name, T)


@pytest.mark.parametrize(("name", "T"), SCHEDULES)
def test_closed_form_has_the_law_of_the_iterated_chain(name, T):
    s = nb.Schedule(name, T)
    mean, variance = 1.0, 0.0  # of x_t given x_0 = 1, accumulated step by step through q(x_t | x_{t-1})
    for t in range(T + 1):
        if t:
            mean, variance = math.sqrt(1 - s.beta[t]) * mean, (1 - s.beta[t].item()) * variance + s.beta[t].item()
        one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        assert s.q_sample(one, t, zero).item() == pytest.approx(mean, abs=1e-12)
        assert s.q_sample(zero, t, one).item() ** 2 == pytest.approx(variance, abs=1e-12)


def test_closed_form_takes_one_step_per_picture_as_well():
    s, x, eps = nb.Schedule("cosine", 100), normal(4, 1, 3, 3), normal(4, 1, 3, 3, seed=1)
    t = torch.tensor([0, 1, 57, 100])
    together = s.q_sample(x, t, eps)
    assert together.shape == x.shape
    for i in range(4):
        assert torch.allclose(together[i], s.q_sample(x[i : i + 1], t[i].item(), eps[i : i + 1])[0])
    assert torch.equal(together[0], x[0])  # t = 0 is the clean picture
    assert s.q_sample(x.float(), t, eps.float()).dtype == torch.float32


@pytest.mark.parametrize("t", [-1, 101, torch.tensor([0, 101, 5]), torch.tensor([7, -1, 3])])
def test_a_step_outside_the_schedule_is_refused(t):
    with pytest.raises(ValueError, match="from 0 to T = 100"):
        nb.Schedule("cosine", 100).q_sample(normal(3, 1, 4, 4), t, normal(3, 1, 4, 4))


def test_an_unknown_target_or_decay_is_refused():
    with pytest.raises(ValueError, match="unknown target"):
        nb.target_of("x0", nb.Schedule("cosine", 100), normal(1, 1, 2, 2), normal(1, 1, 2, 2), 5)
    with pytest.raises(ValueError, match="unknown decay"):
        nb.learning_rate(0, peak=1.0, name="linear", warmup=0, steps_per_epoch=4, epochs=2)


@pytest.mark.parametrize(("name", "T"), SCHEDULES)
@pytest.mark.parametrize("kind", ["eps", "x_0", "v"])
def test_the_three_targets_convert_into_one_another(name, T, kind):
    s, x_0, eps = nb.Schedule(name, T), normal(5, 1, 4, 4), normal(5, 1, 4, 4, seed=1)
    for t in (1, T // 2, T - 1, torch.tensor([1, 2, T // 3, T // 2, T])):
        x_t = s.q_sample(x_0, t, eps)
        target = nb.target_of(kind, s, x_0, eps, t)
        found = nb.eps_from(kind, s, target, x_t, t)
        assert torch.allclose(found, eps, atol=1e-8)
        assert torch.allclose(nb.x_0_from_eps(s, x_t, t, found), x_0, atol=1e-6)
        assert torch.allclose(nb.eps_from_x_0(s, x_t, t, x_0), eps, atol=1e-8)


def test_the_targets_are_what_they_are_called():
    s, x_0, eps = nb.Schedule("cosine", 100), normal(2, 3), normal(2, 3, seed=1)
    ab = s.alpha_bar[40]
    assert torch.equal(nb.target_of("eps", s, x_0, eps, 40), eps)
    assert torch.equal(nb.target_of("x_0", s, x_0, eps, 40), x_0)
    assert torch.allclose(nb.target_of("v", s, x_0, eps, 40), ab.sqrt() * eps - (1 - ab).sqrt() * x_0)


@pytest.mark.parametrize("length", [16, 64])
def test_sinusoidal_code_tells_the_steps_apart(length):
    code = nb.sinusoidal(torch.arange(1, 1001, dtype=torch.float64) / 1000, length)
    assert code.shape == (1000, length)
    assert code.abs().max() <= 1
    assert torch.cdist(code, code).fill_diagonal_(1).min() > 0.01


# ----------------------------------------------------------------------------- posterior
@pytest.mark.parametrize(("name", "T"), [("linear", 50), ("linear", 1000), ("cosine", 1000)])
@pytest.mark.parametrize(("t", "s"), [(0.04, 0.02), (0.5, 0.48), (0.9, 0.5), (1.0, 0.1), (0.3, 0.28)])
def test_posterior_is_bayes_rule(name, T, t, s):
    """q(x_s | x_t, x_0) is q(x_t | x_s) q(x_s | x_0), normalised: here by adding up both densities on a fine grid."""
    schedule, t, s = nb.Schedule(name, T), round(t * T), round(s * T)
    x_0, x_t = 0.7, -0.4
    beta = schedule.beta.tolist()
    mean_s, var_s = 1.0, 0.0
    for k in range(1, s + 1):
        mean_s, var_s = math.sqrt(1 - beta[k]) * mean_s, (1 - beta[k]) * var_s + beta[k]
    step, var_step = 1.0, 0.0
    for k in range(s + 1, t + 1):
        step, var_step = math.sqrt(1 - beta[k]) * step, (1 - beta[k]) * var_step + beta[k]
    grid = torch.linspace(-8, 8, 400_001, dtype=torch.float64)
    log_density = -((x_t - step * grid) ** 2) / (2 * var_step) - (grid - mean_s * x_0) ** 2 / (2 * var_s)
    weight = torch.softmax(log_density, 0)
    mean = (weight * grid).sum().item()
    variance = (weight * (grid - mean) ** 2).sum().item()
    one = torch.ones(1, dtype=torch.float64)
    found_mean, found_variance = nb.posterior(schedule, x_0 * one, x_t * one, t, s)
    assert found_mean.item() == pytest.approx(mean, abs=1e-6)
    assert float(found_variance) == pytest.approx(variance, rel=1e-5)


@pytest.mark.parametrize(("name", "T"), SCHEDULES)
def test_posterior_at_zero_is_x_0_itself(name, T):
    x_0, x_t = normal(3), normal(3, seed=1)
    for t in (1, T // 3, T):
        mean, variance = nb.posterior(nb.Schedule(name, T), x_0, x_t, t, 0)
        assert float(variance) == 0
        assert torch.allclose(mean, x_0, atol=1e-12)


def test_posterior_variance_is_between_nothing_and_beta():
    s = nb.Schedule("linear", 200)
    for t in range(2, 201):
        _, variance = nb.posterior(s, torch.zeros(1), torch.zeros(1), t, t - 1)
        assert 0 < float(variance) < s.beta[t]


# ----------------------------------------------------------------------------- steps
@pytest.mark.parametrize(("T", "start"), [(1000, None), (50, None), (50, 33), (1000, 400), (7, 1)])
def test_time_steps_fall_from_start_and_never_repeat(T, start):
    first = start or T
    for n in range(1, first + 1):
        steps = nb.time_steps(T, n, start)
        assert len(steps) == n
        assert steps[0] == first
        assert steps[-1] >= 1
        assert all(a > b for a, b in pairwise(steps))
    assert nb.time_steps(T, first, start) == list(range(first, 0, -1))


@pytest.mark.parametrize(("T", "steps", "start"), [(100, 0, None), (100, -3, None), (100, 101, None), (100, 2.0, None),
                                                   (100, "5", None), (100, 5, 101), (100, 5, 4), (100, None, None)])
def test_time_steps_refuses(T, steps, start):
    with pytest.raises(ValueError, match="steps"):
        nb.time_steps(T, steps, start)


# ----------------------------------------------------------------------------- samplers, with an exact denoiser
POINTS = torch.tensor([[1, 1, 1, 1, -1, -1, -1, -1], [-1, 1, -1, 1, -1, 1, -1, 1], [-1, -1, 1, 1, 1, 1, -1, -1],
                       [0.5, 0.5, -0.5, -0.5, 0.5, 0.5, -0.5, 0]], dtype=torch.float64).view(4, 1, 2, 4)
WEIGHTS = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)


def point_set_eps(schedule):
    """The optimal noise estimate where the data are POINTS with WEIGHTS: E[x_0 | x_t] is a softmax-weighted mean."""

    def eps(x_t, t):
        ab = schedule.alpha_bar[t]
        distance = (x_t[:, None] - ab.sqrt() * POINTS).flatten(2).square().sum(2)
        weight = torch.softmax(WEIGHTS.log() - distance / (2 * (1 - ab)), dim=1)
        x_0 = (weight @ POINTS.flatten(1)).view(x_t.shape)
        return (x_t - ab.sqrt() * x_0) / (1 - ab).sqrt()

    return eps


@pytest.mark.parametrize(("method", "eta"), METHODS)
@pytest.mark.parametrize(("name", "steps"), [("linear", 20), ("linear", 100), ("cosine", 12), ("cosine", 50),
                                             ("cosine", 200)])
def test_every_sampler_follows_the_exact_denoiser_back_to_the_data(method, eta, name, steps):
    schedule = nb.Schedule(name, 200)
    x = nb.sample(point_set_eps(schedule), normal(3000, 1, 2, 4), schedule, nb.time_steps(200, steps), method, eta=eta,
                  generator=torch.Generator().manual_seed(1))
    distance, nearest = torch.cdist(x.flatten(1), POINTS.flatten(1)).min(1)
    assert (distance < 0.05).double().mean() > 0.98  # the rest stand between two points
    if steps >= 50:  # and each point is drawn as often as it occurs; the spread of a share is 0.009
        share = nearest.bincount(minlength=4) / len(x)
        assert (share - WEIGHTS).abs().max() < 0.05


@pytest.mark.parametrize(("name", "T", "steps"), [("linear", 100, 100), ("cosine", 100, 100), ("cosine", 1000, 17),
                                                  ("linear", 1000, 1)])
@pytest.mark.parametrize("clip", [True, False])
def test_ddim_with_eta_one_is_ddpm(name, T, steps, clip):
    schedule = nb.Schedule(name, T)
    runs = [nb.sampling_loop(point_set_eps(schedule), normal(64, 1, 2, 4), schedule, nb.time_steps(T, steps), method,
                             eta=1.0, clip=clip, generator=torch.Generator().manual_seed(3))
            for method in ("ddpm", "ddim")]
    count = 0
    for (s, x, x_0), (s_, x_, x_0_) in zip(*runs, strict=True):
        assert s == s_
        assert torch.allclose(x, x_, atol=1e-6)
        assert torch.allclose(x_0, x_0_, atol=1e-5)
        count += 1
    assert count == steps


def test_ddpm_step_has_the_posteriors_law():
    schedule, x_0, x_t, z = nb.Schedule("linear", 100), normal(4), normal(4, seed=1), normal(4, seed=2)
    mean, variance = nb.posterior(schedule, x_0, x_t, 60, 40)
    found = nb.ddpm_step(schedule, x_t, 60, 40, x_0, z)
    assert torch.allclose(found, mean + math.sqrt(variance) * z)


@pytest.mark.parametrize("method", ["ddim", "2m"])
def test_one_deterministic_step_is_the_x_0_estimate(method):
    schedule, x_T = nb.Schedule("cosine", 100), normal(5, 1, 2, 4)
    eps = point_set_eps(schedule)
    x = nb.sample(eps, x_T, schedule, [100], method)
    ab = schedule.alpha_bar[100]
    assert torch.allclose(x, (x_T - (1 - ab).sqrt() * eps(x_T, 100)) / ab.sqrt(), atol=1e-9)


def gaussian_error(method, schedule, steps, mean=0.3, spread=0.5, start=900, end=200):
    """Distance from the exact solution of the probability-flow ODE, at step `end`, for data N(mean, spread^2).

    There E[x_0 | x_t] is linear in x_t, and the exact path keeps (x_t - sqrt(ab) mean) / sd_t unchanged.
    """
    def sd(t):
        ab = schedule.alpha_bar[t]
        return (ab * spread**2 + 1 - ab).sqrt()

    def eps(x_t, t):
        return (1 - schedule.alpha_bar[t]).sqrt() * (x_t - schedule.alpha_bar[t].sqrt() * mean) / sd(t) ** 2

    xi = normal(200)
    exact = {t: schedule.alpha_bar[t].sqrt() * mean + sd(t) * xi for t in (start, end)}
    chosen = [round(start - i * (start - end) / steps) for i in range(steps + 1)]
    for s, x, _ in nb.sampling_loop(eps, exact[start], schedule, chosen, method, clip=False):
        if s == end:
            return (x - exact[end]).abs().mean().item()
    raise AssertionError("the loop never reached the end step")


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_2m_converges_at_second_order_and_ddim_at_first(name):
    schedule = nb.Schedule(name, 1000)
    counts = (35, 70, 140)  # each divides 700, so the steps are even
    ddim, two = ([gaussian_error(m, schedule, n) for n in counts] for m in ("ddim", "2m"))
    for coarse, fine in pairwise(ddim):
        assert 0.8 < math.log2(coarse / fine) < 1.3
    for coarse, fine in pairwise(two):
        assert 1.7 < math.log2(coarse / fine) < 2.4
    assert two[0] < ddim[0] / 5
    assert two[2] < 1e-3


@pytest.mark.parametrize(("method", "eta"), METHODS)
@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_the_loop_yields_once_a_step_and_ends_clean(method, eta, steps):
    schedule, asked = nb.Schedule("cosine", 40), []

    def eps(x_t, t):
        asked.append(t)
        return point_set_eps(schedule)(x_t, t)

    chosen = nb.time_steps(40, steps)
    seen = list(nb.sampling_loop(eps, normal(6, 1, 2, 4), schedule, chosen, method, eta=eta,
                                 generator=torch.Generator().manual_seed(0)))
    assert asked == chosen
    assert [s for s, _, _ in seen] == [*chosen[1:], 0]
    _, x, x_0 = seen[-1]
    assert torch.allclose(x, x_0, atol=1e-9)  # no noise is added in the last step
    assert all(x.shape == x_0.shape == (6, 1, 2, 4) for _, x, x_0 in seen)


@pytest.mark.parametrize(("method", "eta"), METHODS)
def test_each_x_0_estimate_is_clipped(method, eta):
    schedule = nb.Schedule("linear", 100)
    wild = list(nb.sampling_loop(lambda x, t: 3 * x + 1, normal(8, 3), schedule, nb.time_steps(100, 10), method,
                                 eta=eta, generator=torch.Generator().manual_seed(0)))
    assert all(x_0.abs().max() <= 1 for _, _, x_0 in wild)
    assert all(x.isfinite().all() for _, x, _ in wild)
    unclipped = nb.sampling_loop(lambda x, t: 3 * x + 1, normal(8, 3), schedule, [100], method, eta=eta, clip=False,
                                 generator=torch.Generator().manual_seed(0))
    assert next(unclipped)[2].abs().max() > 1


def test_ddim_recomputes_epsilon_after_clipping():
    schedule, x_t, t, s = nb.Schedule("linear", 100), normal(50), 60, 30
    ab_t, ab_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    eps = 2 * normal(50, seed=1)
    x_0 = ((x_t - (1 - ab_t).sqrt() * eps) / ab_t.sqrt()).clamp(-1, 1)
    recomputed = (x_t - ab_t.sqrt() * x_0) / (1 - ab_t).sqrt()
    assert (recomputed - eps).abs().max() > 0.5  # clipping took place
    _, x_s, _ = next(nb.sampling_loop(lambda x, t: eps, x_t, schedule, [t, s], "ddim"))
    assert torch.allclose(x_s, ab_s.sqrt() * x_0 + (1 - ab_s).sqrt() * recomputed)


@pytest.mark.parametrize(("method", "eta"), METHODS)
def test_a_seed_decides_the_sample(method, eta):
    schedule = nb.Schedule("cosine", 50)

    def run(seed):
        generator = torch.Generator().manual_seed(seed)
        return torch.cat([x for _, x, _ in nb.sampling_loop(point_set_eps(schedule), normal(6, 1, 2, 4), schedule,
                                                            nb.time_steps(50, 10), method, eta=eta,
                                                            generator=generator)])

    assert torch.equal(run(5), run(5))
    noisy = method == "ddpm" or eta > 0
    assert torch.equal(run(5), run(6)) is not noisy


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match="euler"):
        nb.sample(lambda x, t: x, normal(2), nb.Schedule("cosine", 10), [10], "euler")


# ----------------------------------------------------------------------------- guidance
class Counted:
    """A noise estimate that counts its calls."""

    def __init__(self, function):
        self.function, self.calls = function, []

    def __call__(self, x_t, t):
        self.calls.append(t)
        return self.function(x_t, t)


@pytest.mark.parametrize("guidance", [0, 0.0, 1, 1.0])
def test_guidance_zero_is_unconditional_and_one_conditional_exactly(guidance):
    x = normal(4, 3)
    found = nb.guided(lambda x, t: x / 3 + 0.1, lambda x, t: x / 7 - 0.2, guidance)(x, 5)
    assert torch.equal(found, x / 7 - 0.2 if guidance else x / 3 + 0.1)


@pytest.mark.parametrize("guidance", [0.5, 2, 5.0, 10, -1.0])
def test_guidance_is_the_formula_with_both_estimates_at_every_step(guidance):
    schedule, steps = nb.Schedule("cosine", 100), nb.time_steps(100, 13)
    uncond, cond = Counted(lambda x, t: torch.sin(x)), Counted(lambda x, t: torch.cos(x) * t / 100)
    eps, x = nb.guided(uncond, cond, guidance), normal(4, 3)
    expected = torch.sin(x) + guidance * (torch.cos(x) * 0.4 - torch.sin(x))
    assert torch.allclose(eps(x, 40), expected)
    uncond.calls.clear()
    cond.calls.clear()
    for _ in nb.sampling_loop(eps, x, schedule, steps, "2m"):
        pass
    assert uncond.calls == cond.calls == steps


@pytest.mark.parametrize("guidance", [math.nan, math.inf, -math.inf])
def test_guidance_must_be_finite(guidance):
    with pytest.raises(ValueError, match="finite"):
        nb.guided(lambda x, t: x, lambda x, t: x, guidance)


class FakeNetwork(torch.nn.Module):
    """Says what it is told, and keeps what it was asked."""

    def __init__(self, answer, kind, schedule):
        super().__init__()
        self.answer, self.schedule, self.info, self.asked = answer, schedule, {"target": kind}, []

    def forward(self, x, t=None, c=None):
        self.asked.append((x, t, c))
        return self.answer


@pytest.mark.parametrize("kind", ["eps", "x_0", "v"])
def test_a_network_of_any_target_is_a_noise_estimate(kind):
    schedule, x_0, true, c = nb.Schedule("linear", 500), normal(3, 2), normal(3, 2, seed=1), torch.eye(3)
    network = FakeNetwork(nb.target_of(kind, schedule, x_0, true, 120), kind, schedule)
    x_t = schedule.q_sample(x_0, 120, true)
    assert torch.allclose(nb.network_eps(network, c)(x_t, 120), true)
    x, t, condition = network.asked[0]
    assert torch.equal(x, x_t)
    assert torch.allclose(t.double(), torch.full((3,), 120 / 500, dtype=torch.float64))
    assert torch.equal(condition, c)


# ----------------------------------------------------------------------------- networks
CONFIGS = [{"D": 4}, {"D": 5, "time": True}, {"D": 4, "classes": 10}, {"D": 4, "time": True, "classes": 3},
           {"D": 4, "time": True, "classes": 10, "fold": 2},
           {"D": 4, "time": True, "classes": 10, "everywhere": True, "time_features": 16},
           {"D": 6, "time": True, "classes": 10, "fold": 2, "everywhere": True, "time_features": 64},
           {"D": 8, "time": True, "classes": 10, "fold": 2, "everywhere": True, "group_norm": True, "time_features": 8}]


def unet_inputs(config, batch=3):
    g = torch.Generator().manual_seed(1)
    x, t = torch.randn(batch, 1, 28, 28, generator=g), torch.rand(batch, generator=g)
    c = torch.eye(config["classes"])[torch.arange(batch) % config["classes"]] if config.get("classes") else None
    return x, t if config.get("time") else None, c


def perturbed_unet(config):
    """A network whose every weight is random, so that no part is silent because it begins at zero."""
    torch.manual_seed(0)
    model = nb.UNet(**config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("batch", [1, 3])
def test_unet_keeps_the_shape(config, batch):
    out = nb.UNet(**config).eval()(*unet_inputs(config, batch))
    assert out.shape == (batch, 1, 28, 28)
    assert out.isfinite().all()


@pytest.mark.parametrize(("t", "c"), [((1,), (2, 10)), ((2,), (1, 10)), ((2,), (2, 9)), ((2, 1), (2, 10))])
def test_unet_refuses_conditions_that_do_not_fit(t, c):
    model = nb.UNet(D=8, time=True, classes=10)
    with pytest.raises(ValueError, match="expected"):
        model(torch.zeros(2, 1, 28, 28), torch.zeros(t), torch.zeros(c))


@pytest.mark.parametrize("config", [c for c in CONFIGS if c.get("classes")])
def test_a_zero_class_row_means_no_class(config):
    model = perturbed_unet(config)
    x, t, c = unet_inputs(config)
    assert torch.equal(model(x, t, None), model(x, t, torch.zeros_like(c)))


@pytest.mark.parametrize("config", CONFIGS)
def test_conditions_act_on_every_picture_of_their_own(config):
    model = perturbed_unet(config).double()  # so that rounding is far below any effect
    x, t, c = (None if value is None else value.double() for value in unet_inputs(config))
    base = model(x, t, c)
    if t is not None:
        other = t.clone()
        other[1] = 1 - t[1]
        changed = (model(x, other, c) - base).abs().flatten(1).amax(1)
        assert changed[1] > 1e-6
        assert changed[[0, 2]].max() < 1e-12
    if c is not None:
        other = c.clone()
        other[1] = other[1].roll(1)
        changed = (model(x, t, other) - base).abs().flatten(1).amax(1)
        assert changed[1] > 1e-6
        assert changed[[0, 2]].max() < 1e-12


def hooked(model, names):
    """Run-time inputs and outputs of the named submodules."""
    seen = {}
    for name in names:
        model.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, name=name: seen.update({name: (inputs[0], output)}))
    return seen


@pytest.mark.parametrize("D", [4, 6])
def test_unet_has_the_stages_of_the_course(D):
    model = nb.UNet(D=D, time=True, classes=10).eval()
    expected = {"init": (D, 28), "down1": (D, 14), "down2": (2 * D, 7), "flatten": (2 * D, 1), "unflatten": (2 * D, 7),
                "up1": (D, 14), "up2": (D, 28), "out": (1, 28)}
    seen = hooked(model, expected)
    model(*unet_inputs({"classes": 10, "time": True}, 2))
    for name, (channels, size) in expected.items():
        assert seen[name][1].shape == (2, channels, size, size), name
    assert seen["up1"][0].shape == (2, 4 * D, 7, 7)  # the three skips are joined along the channels
    assert seen["up2"][0].shape == (2, 2 * D, 14, 14)
    assert seen["out"][0].shape == (2, 2 * D, 28, 28)


def test_conditions_enter_as_the_course_means_it():
    """After unflatten c1 * h + t1, after up1 c2 * h + t2: the page prints t1 twice."""
    D, model = 4, perturbed_unet({"D": 4, "time": True, "classes": 10})
    seen = hooked(model, ["unflatten", "up1", "up2", "down1", "down2", *(
        f"fc_{kind}.{name}" for kind in "tc" for name in ("unflatten", "up1"))])
    model(*unet_inputs({"classes": 10, "time": True}))
    out = {name: output for name, (_, output) in seen.items()}
    entered = {name: inputs for name, (inputs, _) in seen.items()}
    first = out["fc_c.unflatten"] * out["unflatten"] + out["fc_t.unflatten"]
    second = out["fc_c.up1"] * out["up1"] + out["fc_t.up1"]
    assert torch.allclose(entered["up1"], torch.cat([first, out["down2"]], 1), atol=1e-5)
    assert torch.allclose(entered["up2"], torch.cat([second, out["down1"]], 1), atol=1e-5)
    assert not torch.allclose(second, out["fc_c.up1"] * out["up1"] + out["fc_t.unflatten"][:, :D], atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 28, 28), (2, 3, 28, 28), (2, 1, 32, 32), (2, 1, 28, 27), (2, 784)])
def test_unet_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"\[B, 1, 28, 28\]"):
        nb.UNet(D=4)(torch.zeros(shape))


def test_unet_refuses_a_missing_time_and_an_unknown_fold():
    with pytest.raises(ValueError, match="pass t"):
        nb.UNet(D=4, time=True)(torch.zeros(1, 1, 28, 28))
    with pytest.raises(ValueError, match="fold"):
        nb.UNet(D=4, fold=3)


def test_with_group_norm_no_picture_depends_on_the_others_not_even_in_training():
    x = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for group_norm, depends in ((True, False), (False, True)):
        torch.manual_seed(0)
        model = nb.UNet(D=8, group_norm=group_norm).double().train()
        alone, together = model(x[:2])[0], model(x)[0]
        assert ((alone - together).abs().max() > 1e-6) == depends
    with pytest.raises(ValueError, match="divisible"):
        nb.UNet(D=12, group_norm=True)


def test_classifier_has_logits_and_features():
    model = nb.DigitClassifier(width=4).eval()
    x = torch.zeros(3, 1, 28, 28)
    assert model(x).shape == (3, 10)
    assert model.features(x).shape == (3, 64)
    assert torch.allclose(model.head(model.features(x)), model(x))


# ----------------------------------------------------------------------------- losses
def test_custom_loss_agrees_with_torch():
    a, b = normal(3, 1, 5, 5), normal(3, 1, 5, 5, seed=1)
    assert torch.allclose(nb.custom_loss(a, b), F.mse_loss(a, b))
    assert torch.allclose(nb.custom_loss(a, b, "l2"), F.mse_loss(a, b))
    assert torch.allclose(nb.custom_loss(a, b, "l1"), F.l1_loss(a, b))
    for delta in (0.1, 0.7, 2.0):  # torch's is larger by the factor delta
        assert torch.allclose(delta * nb.custom_loss(a, b, "huber", delta), F.huber_loss(a, b, delta=delta))


@pytest.mark.parametrize("name", ["l2", "l1", "huber"])
def test_custom_loss_has_torchs_gradient_and_is_zero_at_the_target(name):
    a, b = normal(20).requires_grad_(), normal(20, seed=1)
    reference = {"l2": F.mse_loss, "l1": F.l1_loss, "huber": lambda x, y: F.huber_loss(x, y, delta=0.1) / 0.1}[name]
    ours, = torch.autograd.grad(nb.custom_loss(a, b, name), a)
    theirs, = torch.autograd.grad(reference(a, b), a)
    assert torch.allclose(ours, theirs)
    assert nb.custom_loss(b, b, name) == 0


@pytest.mark.parametrize("name", ["l2", "l1", "huber"])
def test_custom_loss_refuses_shapes_that_would_broadcast(name):
    with pytest.raises(ValueError, match="shape"):
        nb.custom_loss(torch.zeros(4, 1), torch.zeros(4), name)


def test_custom_loss_refuses_an_unknown_name():
    with pytest.raises(ValueError, match="l3"):
        nb.custom_loss(torch.zeros(2), torch.zeros(2), "l3")


class Knowing(torch.nn.Module):
    """A network that knows that all data are one picture, so its answer can be exact; it keeps what it was asked."""

    classes = 10

    def __init__(self, picture, schedule=None, kind=None):
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))  # the loss functions look for the device of a parameter
        self.picture, self.schedule, self.kind, self.t, self.c = picture, schedule, kind, [], []

    def forward(self, x, t=None, c=None):
        self.x, self.c = x, [*self.c, c]
        if t is None:
            return self.picture.expand_as(x)
        step = (t * self.schedule.T).round().long()
        self.t.append(step)
        x_0 = self.picture.expand_as(x)
        return nb.target_of(self.kind, self.schedule, x_0, nb.eps_from_x_0(self.schedule, x, step, x_0), step)


@pytest.mark.parametrize("kind", ["eps", "x_0", "v"])
@pytest.mark.parametrize("loss", ["l2", "l1", "huber"])
def test_diffusion_loss_of_an_exact_network_is_zero(kind, loss):
    """A time step off by one, a wrong target or a wrong range would all leave a loss."""
    schedule, picture = nb.Schedule("cosine", 100), torch.linspace(-1, 1, 784).view(1, 1, 28, 28)
    model = Knowing(picture, schedule, kind)
    images, labels = picture.repeat(20, 1, 1, 1), torch.arange(20) % 10
    function = nb.diffusion_loss(images, labels, schedule, kind, loss)
    index = torch.arange(20)
    assert function(model, index, torch.Generator().manual_seed(0)).item() < 1e-4
    wrong = Knowing(-picture, schedule, kind)
    assert function(wrong, index, torch.Generator().manual_seed(0)).item() > 0.05


def test_diffusion_loss_draws_every_step_and_drops_a_tenth_of_the_classes():
    schedule, picture = nb.Schedule("cosine", 10), torch.zeros(1, 1, 28, 28)
    model, labels = Knowing(picture, schedule, "eps"), torch.arange(100) % 10
    function = nb.diffusion_loss(picture.repeat(100, 1, 1, 1), labels, schedule, "eps")
    generator = torch.Generator().manual_seed(0)
    index = torch.arange(99, -1, -1)
    for _ in range(40):
        function(model, index, generator)
    t, c = torch.cat(model.t), torch.cat(model.c)
    assert t.unique().tolist() == list(range(1, 11))
    assert (t.bincount(minlength=11)[1:] / len(t) - 0.1).abs().max() < 0.03
    dropped = c.sum(1) == 0
    assert abs(dropped.double().mean() - 0.1) < 0.02
    assert torch.equal(c[~dropped].argmax(1), labels[index].repeat(40)[~dropped])
    assert (c[~dropped].sum(1) == 1).all()


def test_diffusion_loss_without_labels_passes_no_class():
    schedule, picture = nb.Schedule("cosine", 10), torch.zeros(1, 1, 28, 28)
    model = Knowing(picture, schedule, "eps")
    nb.diffusion_loss(picture.repeat(5, 1, 1, 1), None, schedule)(model, torch.arange(5), torch.Generator())
    assert model.c == [None]


def test_denoising_loss_asks_for_the_clean_picture():
    picture = torch.linspace(-1, 1, 784).view(1, 1, 28, 28)
    model = Knowing(picture)
    loss = nb.denoising_loss(picture.repeat(30, 1, 1, 1), sigma=0.5)(model, torch.arange(30), torch.Generator())
    assert loss == 0
    assert (model.x - picture).std().item() == pytest.approx(0.5, abs=0.02)


# ----------------------------------------------------------------------------- metrics
def test_frechet_distance_of_a_set_to_itself_is_nothing():
    a = normal(500, 12)
    assert abs(nb.frechet_distance(a, a)) < 1e-9
    assert abs(nb.frechet_distance(a, a.flip(0))) < 1e-9


def test_frechet_distance_of_known_gaussians():
    """Features with exactly the wanted mean and covariance: whitened noise, then stretched and moved."""
    z = normal(400, 3)
    z = (z - z.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(z.T))).T
    scale_a, scale_b = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([3.0, 2.0, 0.1]).double()
    shift = torch.tensor([1.0, -2.0, 0.5]).double()
    expected = shift.square().sum() + (scale_a - scale_b).square().sum()
    assert nb.frechet_distance(z * scale_a, z * scale_b + shift) == pytest.approx(expected.item())


@pytest.mark.parametrize("seed", [0, 1])
def test_frechet_distance_against_scipy_and_symmetric(seed):
    a = normal(300, 8, seed=seed) @ normal(8, 8, seed=seed + 10)
    b = normal(200, 8, seed=seed + 20) @ normal(8, 8, seed=seed + 30) + 0.5
    s_a, s_b = torch.cov(a.T).numpy(), torch.cov(b.T).numpy()
    cross = sqrtm(s_a @ s_b).real
    expected = (a.mean(0) - b.mean(0)).square().sum().item() + (s_a + s_b - 2 * cross).trace()
    assert nb.frechet_distance(a, b) == pytest.approx(expected)
    assert nb.frechet_distance(b, a) == pytest.approx(expected)


def test_frechet_distance_survives_features_that_never_vary():
    a, b = normal(100, 4), normal(100, 4, seed=1)
    a[:, 0] = b[:, 0] = 2.0  # a dead unit: its covariance is singular
    rest = nb.frechet_distance(a[:, 1:], b[:, 1:])
    assert nb.frechet_distance(a, b) == pytest.approx(rest, rel=1e-6, abs=1e-9)


def test_accuracy_is_the_share_of_right_answers():
    class Brightness(torch.nn.Module):
        """Reads a picture as the digit that its brightness says."""

        def __init__(self):
            super().__init__()
            self.anchor = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return F.one_hot(x[:, 0, 0, 0].long(), 10).float()

    labels = torch.arange(1200) % 10
    x = labels.float().view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
    wrong = labels.clone()
    wrong[:300] = (wrong[:300] + 1) % 10
    assert nb.accuracy(Brightness(), x, labels) == 1
    assert nb.accuracy(Brightness(), x, wrong) == pytest.approx(0.75)


def test_in_batches_joins_in_order():
    x, sizes = torch.arange(23), []

    def double(part):
        sizes.append(len(part))
        return part * 2

    assert torch.equal(nb.in_batches(double, x, size=5), x * 2)
    assert sizes == [5, 5, 5, 5, 3]
