"""Samplers: from noise to a sample, given a function that estimates the clean target.

They know nothing of networks or tiles; what they are given may be a patch or a whole volume. All of them take the same
trained denoiser, at any number of times.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from iqt.config.diffusion import Sampling
from iqt.diffusion.schedules import Schedule, alpha_sigma

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(x_t, log-SNR as a scalar tensor) to the estimate of x_0, of x_t's shape."""


def sample(
    denoise: Denoiser,
    noise: Tensor,
    schedule: Schedule,
    settings: Sampling,
    draw_noise: Callable[[int], Tensor],
) -> Tensor:
    """One sample, starting from `noise` at t = 1, with `settings.steps` calls of `denoise`.

    The last call's estimate is the sample, so one step gives the denoiser's own estimate. `draw_noise(step)` is called
    only where noise is added.
    """
    logsnrs = sampling_logsnrs(schedule, settings).to(noise)
    if settings.sampler == "dpmpp_2m":
        return _dpm_solver(denoise, noise, logsnrs)
    return _ddim(denoise, noise, logsnrs, 1.0 if settings.sampler == "ancestral" else settings.eta, draw_noise)


def sampling_logsnrs(schedule: Schedule, settings: Sampling) -> Tensor:
    """(steps,) rising log-SNRs at which the denoiser is called, from t = 1 on: evenly spaced in t, or in log-SNR."""
    shares = torch.linspace(1, 0, settings.steps + 1, dtype=torch.float64)[:-1]
    if settings.times == "t":
        return schedule.logsnr(shares)
    low, high = schedule.logsnr(torch.tensor([1.0, 0.0], dtype=torch.float64))
    return high + shares * (low - high)


def _ddim(denoise: Denoiser, noise: Tensor, logsnrs: Tensor, eta: float, draw_noise: Callable[[int], Tensor]) -> Tensor:
    """DDIM (Song et al. 2021, equation 12): `eta` 0 is deterministic, 1 is DDPM's ancestral sampling (Ho et al. 2020)
    with its smaller variance."""
    current = noise
    for step, logsnr in enumerate(logsnrs[:-1]):
        after = logsnrs[step + 1]
        clean = denoise(current, logsnr)
        alpha, sigma = alpha_sigma(logsnr)
        next_alpha, next_sigma = alpha_sigma(after)
        fresh = eta * next_sigma * torch.sqrt(-torch.expm1(logsnr - after))
        direction = (current - alpha * clean) / sigma
        current = next_alpha * clean + torch.sqrt((next_sigma**2 - fresh**2).clamp_min(0)) * direction
        if eta > 0:
            current = current + fresh * draw_noise(step)
    return denoise(current, logsnrs[-1])


def _dpm_solver(denoise: Denoiser, noise: Tensor, logsnrs: Tensor) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): the exact solution of the linear part, and the estimate of x_0
    extrapolated from the last two calls. Deterministic; the first step and the last are of first order."""
    current, previous, last_width = noise, None, None
    for step, logsnr in enumerate(logsnrs[:-1]):
        after = logsnrs[step + 1]
        clean = denoise(current, logsnr)
        width = (after - logsnr) / 2  # of a step in lambda, the log of alpha / sigma
        target = clean
        if previous is not None:
            target = clean + width / (2 * last_width) * (clean - previous)
        next_alpha, next_sigma = alpha_sigma(after)
        current = next_sigma / alpha_sigma(logsnr)[1] * current - next_alpha * torch.expm1(-width) * target
        previous, last_width = clean, width
    return denoise(current, logsnrs[-1])
