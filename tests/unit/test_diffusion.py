"""The diffusion against closed forms: for Gaussian data the best denoiser is known."""

from __future__ import annotations

import math

import pytest
import torch

from iqt.config.diffusion import Diffusion, Sampling
from iqt.diffusion.objectives import add_noise, denoising_loss, from_clean, to_clean
from iqt.diffusion.samplers import sample, sampling_logsnrs
from iqt.diffusion.schedules import SCHEDULES, Schedule, alpha_sigma, build_schedule

MEAN, SD = 0.7, 0.4
SCHEDULE = build_schedule(Diffusion())


def gaussian_denoiser(noisy: torch.Tensor, logsnr: torch.Tensor) -> torch.Tensor:
    """E[x_0 | x_t] for x_0 ~ N(MEAN, SD^2)."""
    alpha, sigma = alpha_sigma(logsnr)
    gain = alpha * SD**2 / (alpha**2 * SD**2 + sigma**2)
    return MEAN + gain * (noisy - alpha * MEAN)


def run(settings: Sampling, seed: int = 0, count: int = 100_000, schedule: Schedule = SCHEDULE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)

    def noise(_step: int) -> torch.Tensor:
        return torch.randn(count, generator=generator, dtype=torch.float64)

    return sample(gaussian_denoiser, noise(-1), schedule, settings, noise)


def test_the_cosine_schedule_is_its_closed_form() -> None:
    times = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    logsnr = build_schedule(Diffusion(logsnr_max=20)).logsnr(times)
    alpha, sigma = alpha_sigma(logsnr)
    # alpha = cos(pi t / 2) up to the cut at both ends.
    torch.testing.assert_close(alpha, torch.cos(math.pi * times / 2), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(9, dtype=torch.float64))
    ends = SCHEDULE.logsnr(torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([10.0, -10.0], dtype=torch.float64))
    assert (SCHEDULE.logsnr(times).diff() < 0).all()


def test_the_linear_schedule_is_ddpms() -> None:
    """DDPM's product of 1 - beta_i over a thousand steps, beta from 1e-4 to 0.02, is alpha^2 of the continuous one."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    discrete = (1 - betas).log().cumsum(0).exp()
    schedule = SCHEDULES["linear"](10.0)
    times = torch.arange(1, 1001, dtype=torch.float64) / 1000
    continuous = alpha_sigma(schedule.uncut_logsnr(times))[0] ** 2
    torch.testing.assert_close(continuous, discrete, rtol=0, atol=5e-3)


def test_the_sigmoid_schedule_is_its_closed_form() -> None:
    times = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    alpha, _ = alpha_sigma(SCHEDULES["sigmoid"](10.0).uncut_logsnr(times))
    torch.testing.assert_close(alpha**2, torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("bound", [5.0, 10.0, 20.0])
def test_every_schedule_falls_from_bound_to_bound_and_has_its_inverse(name: str, bound: float) -> None:
    schedule = SCHEDULES[name](bound)
    times = torch.linspace(0, 1, 101)
    logsnr = schedule.logsnr(times)
    torch.testing.assert_close(logsnr[[0, -1]], torch.tensor([bound, -bound]), rtol=1e-5, atol=1e-5)
    assert (logsnr.diff() < 0).all()
    for value in (-0.9 * bound, -1.0, 0.0, 2.0, 0.9 * bound):
        time = torch.tensor(schedule.uncut_time(value), dtype=torch.float64)
        assert schedule.uncut_logsnr(time).item() == pytest.approx(value, abs=1e-6)


def noisy_volumes() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 5, 1, 6, 6, 6, generator=generator, dtype=torch.float64)
    logsnr = torch.tensor([-8.0, -3.0, 0.0, 3.0, 8.0], dtype=torch.float64)
    return clean, noise, logsnr, add_noise(clean, noise, logsnr)


def test_noising_has_the_variance_it_should() -> None:
    clean = torch.full((3, 1, 30, 30, 30), 2.0)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    logsnr = torch.tensor([-4.0, 0.0, 4.0])
    noisy = add_noise(clean, noise, logsnr)
    alpha, sigma = alpha_sigma(logsnr)
    torch.testing.assert_close(noisy.mean((1, 2, 3, 4)), 2 * alpha, rtol=0, atol=0.02)
    torch.testing.assert_close(noisy.std((1, 2, 3, 4)), sigma, rtol=0.02, atol=0)


def test_objectives_are_what_they_are_called_and_turn_into_one_another() -> None:
    clean, noise, logsnr, noisy = noisy_volumes()
    alpha, sigma = (value.view(-1, 1, 1, 1, 1) for value in alpha_sigma(logsnr))
    meant = {"x0": clean, "epsilon": noise, "v": alpha * noise - sigma * clean}
    for objective, value in meant.items():
        torch.testing.assert_close(from_clean(objective, clean, noisy, logsnr), value)
        torch.testing.assert_close(to_clean(objective, value, noisy, logsnr), clean)
        guess = value + 0.1 * torch.randn_like(value)
        back = from_clean(objective, to_clean(objective, guess, noisy, logsnr), noisy, logsnr)
        torch.testing.assert_close(back, guess)
    with pytest.raises(ValueError, match="'score' is not x0, epsilon or v"):
        to_clean("score", clean, noisy, logsnr)


@pytest.mark.parametrize("weight", ["snr", "min_snr"])
def test_a_weighted_loss_is_the_same_for_every_objective(weight: str) -> None:
    clean, _noise, logsnr, noisy = noisy_volumes()
    estimate = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)).double()
    losses = [
        denoising_loss(name, from_clean(name, estimate, noisy, logsnr), clean, noisy, logsnr, weight, 5.0).item()
        for name in ("x0", "epsilon", "v")
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)
    # Closed form: the weight times the squared error of each volume's x_0.
    errors = (estimate - clean).square().mean((1, 2, 3, 4))
    weights = logsnr.exp() if weight == "snr" else logsnr.exp().clamp_max(5.0)
    assert losses[0] == pytest.approx((weights * errors).mean().item(), rel=1e-4)


def test_the_unweighted_loss_is_the_mean_squared_error_of_the_objective() -> None:
    clean, noise, logsnr, noisy = noisy_volumes()
    assert denoising_loss("epsilon", noise + 2, clean, noisy, logsnr, "none", 5.0).item() == pytest.approx(4)
    assert denoising_loss("x0", clean, clean, noisy, logsnr, "none", 5.0).item() < 1e-12  # float32 inside


@pytest.mark.parametrize("objective", ["x0", "epsilon", "v"])
def test_the_best_denoiser_has_the_loss_that_theory_gives_it(objective: str) -> None:
    """For x_0 ~ N(m, s^2) the error of E[x_0 | x_t] is s^2 sigma^2 / (alpha^2 s^2 + sigma^2), and others are worse."""
    generator = torch.Generator().manual_seed(0)
    count, value = 200_000, torch.tensor(0.5, dtype=torch.float64)
    clean = MEAN + SD * torch.randn(1, count, generator=generator, dtype=torch.float64)
    noisy = add_noise(clean, torch.randn(1, count, generator=generator, dtype=torch.float64), value)
    alpha, sigma = alpha_sigma(value)
    theory = (SD**2 * sigma**2 / (alpha**2 * SD**2 + sigma**2)).item()
    units = {"x0": 1.0, "epsilon": value.exp().item(), "v": value.exp().item() + 1}[objective]

    def loss(estimate: torch.Tensor) -> float:
        prediction = from_clean(objective, estimate, noisy, value)
        return denoising_loss(objective, prediction, clean, noisy, value.view(1), "none", 5.0).item()

    best = gaussian_denoiser(noisy, value)
    assert loss(best) == pytest.approx(theory * units, rel=0.01)
    assert loss(best + 0.05) > loss(best)
    assert loss(1.05 * best) > loss(best)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_sampler_recovers_gaussian_data_under_every_schedule(name: str) -> None:
    drawn = run(Sampling(sampler="ancestral", steps=500), count=20_000, schedule=SCHEDULES[name](10.0))
    assert drawn.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert drawn.std().item() == pytest.approx(SD, rel=0.03)


def exact(start: torch.Tensor) -> torch.Tensor:
    """The probability-flow ODE's solution for Gaussian data: (x_t - alpha MEAN) / sd(x_t) stays what it is."""
    alpha, sigma = alpha_sigma(SCHEDULE.logsnr(torch.tensor(1.0, dtype=torch.float64)))
    return MEAN + SD * (start - alpha * MEAN) / torch.sqrt(alpha**2 * SD**2 + sigma**2)


def error_of(settings: Sampling) -> float:
    """Largest distance of a deterministic sampler from the exact solution, over a range of starting points."""
    start = torch.linspace(-3, 3, 61, dtype=torch.float64)
    return (sample(gaussian_denoiser, start, SCHEDULE, settings, torch.zeros) - exact(start)).abs().max().item()


@pytest.mark.parametrize("times", ["t", "logsnr"])
@pytest.mark.parametrize("name", ["ancestral", "ddim", "ddim, eta 0.5", "dpmpp_2m"])
def test_samplers_recover_the_mean_and_variance_of_gaussian_data(name: str, times: str) -> None:
    sampler, _, eta = name.partition(", eta ")
    drawn = run(Sampling(sampler=sampler, steps=300, eta=float(eta or 0), times=times), count=30_000)
    assert drawn.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert drawn.std().item() == pytest.approx(SD, rel=0.025)


@pytest.mark.parametrize("times", ["t", "logsnr"])
@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m"])
def test_more_steps_come_closer_to_the_exact_solution(sampler: str, times: str) -> None:
    errors = [error_of(Sampling(sampler=sampler, times=times, steps=steps)) for steps in (1, 4, 16, 64)]
    assert errors == sorted(errors, reverse=True)
    assert error_of(Sampling(sampler=sampler, times=times, steps=1000)) < 0.005


def test_a_solver_of_second_order_is_ahead_at_equal_steps() -> None:
    for times in ("t", "logsnr"):
        for steps in (16, 64, 200):
            first = error_of(Sampling(sampler="ddim", times=times, steps=steps))
            assert error_of(Sampling(sampler="dpmpp_2m", times=times, steps=steps)) < 0.6 * first


@pytest.mark.parametrize("times", ["t", "logsnr"])
def test_times_run_from_noise_to_clean_in_even_steps(times: str) -> None:
    for steps in (1, 2, 7, 1000):
        logsnrs = sampling_logsnrs(SCHEDULE, Sampling(times=times, steps=steps))
        assert len(logsnrs) == steps
        assert logsnrs[0].item() == pytest.approx(-10)
        widths = (logsnrs if times == "logsnr" else torch.sigmoid(logsnrs).sqrt().acos()).diff()
        torch.testing.assert_close(widths, widths[:1].expand(steps - 1), rtol=1e-4, atol=1e-9)
    with pytest.raises(ValueError, match="1000"):
        Sampling(steps=1001)


def test_noise_that_a_sampler_cannot_add_is_refused() -> None:
    with pytest.raises(ValueError, match=r"eta 0.5 has no effect with sampler dpmpp_2m"):
        Sampling(sampler="dpmpp_2m", eta=0.5)


def test_ddim_without_noise_is_deterministic_and_ancestral_is_not() -> None:
    start = torch.randn(50, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def go(settings: Sampling, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return sample(
            gaussian_denoiser, start, SCHEDULE, settings, lambda _step: torch.randn(50, generator=generator).double()
        )

    assert torch.equal(go(Sampling(steps=5), 1), go(Sampling(steps=5), 2))
    assert torch.equal(go(Sampling(sampler="dpmpp_2m", steps=5), 1), go(Sampling(sampler="dpmpp_2m", steps=5), 2))
    assert not torch.equal(go(Sampling(sampler="ancestral", steps=5), 1), go(Sampling(sampler="ancestral", steps=5), 2))
    full = Sampling(sampler="ddim", steps=5, eta=1)
    torch.testing.assert_close(go(Sampling(sampler="ancestral", steps=5), 1), go(full, 1))


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpmpp_2m"])
@pytest.mark.parametrize("times", ["t", "logsnr"])
def test_one_step_is_the_denoisers_own_estimate(sampler: str, times: str) -> None:
    start = torch.randn(50, dtype=torch.float64)
    settings = Sampling(sampler=sampler, steps=1, times=times)
    result = sample(gaussian_denoiser, start, SCHEDULE, settings, lambda _step: start)
    torch.testing.assert_close(result, gaussian_denoiser(start, torch.tensor(-10.0, dtype=torch.float64)))


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpmpp_2m"])
def test_the_number_of_steps_is_the_number_of_calls(sampler: str) -> None:
    calls = []

    def counting(noisy: torch.Tensor, logsnr: torch.Tensor) -> torch.Tensor:
        calls.append(float(logsnr))
        return gaussian_denoiser(noisy, logsnr)

    sample(counting, torch.zeros(3), SCHEDULE, Sampling(sampler=sampler, steps=7), lambda _step: torch.zeros(3))
    assert len(calls) == 7
    assert calls == sorted(calls), "from noise to clean"
