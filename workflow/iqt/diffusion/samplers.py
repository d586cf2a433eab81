"""Samplers: from noise to a sample, given a function that estimates the clean target.

They know nothing of networks or tiles; what they are given may be a patch or a whole volume.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from iqt.config import Sampling
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

    DDIM (Song et al. 2021, equation 12) on times evenly spaced in t: `eta` 0 is deterministic. Ancestral sampling of
    DDPM (Ho et al. 2020) is the same update with eta = 1. `draw_noise(step)` is called only where noise is added. The
    last call's estimate is the sample, so one step gives the denoiser's own estimate.
    """
    eta = 1.0 if settings.sampler == "ancestral" else settings.eta
    times = torch.linspace(1, 0, settings.steps + 1, dtype=torch.float64)
    logsnrs = schedule.logsnr(times).to(noise)
    current = noise
    for step in range(settings.steps):
        clean = denoise(current, logsnrs[step])
        if step == settings.steps - 1:
            break
        alpha, sigma = alpha_sigma(logsnrs[step])
        next_alpha, next_sigma = alpha_sigma(logsnrs[step + 1])
        fresh = eta * next_sigma * torch.sqrt(-torch.expm1(logsnrs[step] - logsnrs[step + 1]))
        direction = (current - alpha * clean) / sigma
        current = next_alpha * clean + torch.sqrt((next_sigma**2 - fresh**2).clamp_min(0)) * direction
        if eta > 0:
            current = current + fresh * draw_noise(step)
    return clean
