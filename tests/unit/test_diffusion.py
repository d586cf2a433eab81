"""The diffusion against closed forms: for Gaussian data the best denoiser is known."""

from __future__ import annotations

import math

import pytest
import torch

from iqt.config import Diffusion, Sampling
from iqt.diffusion.objectives import add_noise, x0_loss
from iqt.diffusion.samplers import sample
from iqt.diffusion.schedules import alpha_sigma, build_schedule

MEAN, SD = 0.7, 0.4
SCHEDULE = build_schedule(Diffusion())


def gaussian_denoiser(noisy: torch.Tensor, logsnr: torch.Tensor) -> torch.Tensor:
    """E[x_0 | x_t] for x_0 ~ N(MEAN, SD^2)."""
    alpha, sigma = alpha_sigma(logsnr)
    gain = alpha * SD**2 / (alpha**2 * SD**2 + sigma**2)
    return MEAN + gain * (noisy - alpha * MEAN)


def run(settings: Sampling, seed: int = 0, count: int = 200_000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)

    def noise(_step: int) -> torch.Tensor:
        return torch.randn(count, generator=generator, dtype=torch.float64)

    return sample(gaussian_denoiser, noise(-1), SCHEDULE, settings, noise)


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


def test_noising_has_the_variance_it_should() -> None:
    clean = torch.full((3, 1, 30, 30, 30), 2.0)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    logsnr = torch.tensor([-4.0, 0.0, 4.0])
    noisy = add_noise(clean, noise, logsnr)
    alpha, sigma = alpha_sigma(logsnr)
    torch.testing.assert_close(noisy.mean((1, 2, 3, 4)), 2 * alpha, rtol=0, atol=0.02)
    torch.testing.assert_close(noisy.std((1, 2, 3, 4)), sigma, rtol=0.02, atol=0)
    assert x0_loss(clean, clean) == 0
    assert x0_loss(clean + 1, clean) == 1


@pytest.mark.parametrize(
    "settings",
    [
        Sampling(sampler="ddim", steps=400, eta=0),
        Sampling(sampler="ddim", steps=400, eta=0.5),
        Sampling(sampler="ancestral", steps=400),
    ],
)
def test_samplers_recover_the_mean_and_variance_of_gaussian_data(settings: Sampling) -> None:
    drawn = run(settings)
    assert drawn.mean().item() == pytest.approx(MEAN, abs=0.005)
    assert drawn.std().item() == pytest.approx(SD, rel=0.02)


def test_more_steps_come_closer_to_the_exact_solution() -> None:
    errors = [abs(run(Sampling(steps=steps)).std().item() - SD) for steps in (2, 8, 32, 128)]
    assert errors == sorted(errors, reverse=True)


def test_ddim_without_noise_is_deterministic_and_ancestral_is_not() -> None:
    start = torch.randn(50, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def go(settings: Sampling, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return sample(
            gaussian_denoiser, start, SCHEDULE, settings, lambda _step: torch.randn(50, generator=generator).double()
        )

    assert torch.equal(go(Sampling(steps=5), 1), go(Sampling(steps=5), 2))
    assert not torch.equal(go(Sampling(sampler="ancestral", steps=5), 1), go(Sampling(sampler="ancestral", steps=5), 2))
    full = Sampling(sampler="ddim", steps=5, eta=1)
    torch.testing.assert_close(go(Sampling(sampler="ancestral", steps=5), 1), go(full, 1))


def test_one_step_is_the_denoisers_own_estimate() -> None:
    start = torch.randn(50, dtype=torch.float64)
    result = sample(gaussian_denoiser, start, SCHEDULE, Sampling(steps=1), lambda _step: start)
    torch.testing.assert_close(result, gaussian_denoiser(start, torch.tensor(-10.0, dtype=torch.float64)))


def test_the_number_of_steps_is_the_number_of_calls() -> None:
    calls = []

    def counting(noisy: torch.Tensor, logsnr: torch.Tensor) -> torch.Tensor:
        calls.append(float(logsnr))
        return gaussian_denoiser(noisy, logsnr)

    sample(counting, torch.zeros(3), SCHEDULE, Sampling(steps=7), torch.zeros)
    assert len(calls) == 7
    assert calls == sorted(calls), "from noise to clean"
