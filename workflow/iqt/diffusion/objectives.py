"""What the network is asked to predict, the noising it is trained with, and the loss.

The clean target x_0, the noise epsilon and the velocity v = alpha epsilon - sigma x_0 (Salimans & Ho 2022, appendix D)
say the same about a noisy x_t = alpha x_0 + sigma epsilon: `to_clean` and `from_clean` convert between them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from iqt.diffusion.schedules import alpha_sigma


def add_noise(clean: Tensor, noise: Tensor, logsnr: Tensor) -> Tensor:
    """x_t = alpha x_0 + sigma epsilon (Ho et al. 2020, equation 4); `logsnr` is (B,) or a scalar."""
    alpha, sigma = _scales(logsnr, clean)
    return alpha * clean + sigma * noise


def to_clean(objective: str, prediction: Tensor, noisy: Tensor, logsnr: Tensor) -> Tensor:
    """The estimate of x_0 that a prediction of `objective` (x0, epsilon or v) amounts to."""
    alpha, sigma = _scales(logsnr, noisy)
    if objective == "x0":
        return prediction
    if objective == "epsilon":
        return (noisy - sigma * prediction) / alpha
    if objective == "v":
        return alpha * noisy - sigma * prediction
    raise ValueError(f"objective {objective!r} is not x0, epsilon or v")


def from_clean(objective: str, clean: Tensor, noisy: Tensor, logsnr: Tensor) -> Tensor:
    """The inverse of `to_clean`: what `objective` is where x_0 is `clean` and x_t is `noisy`."""
    alpha, sigma = _scales(logsnr, noisy)
    if objective == "x0":
        return clean
    if objective == "epsilon":
        return (noisy - alpha * clean) / sigma
    if objective == "v":
        return (alpha * noisy - clean) / sigma
    raise ValueError(f"objective {objective!r} is not x0, epsilon or v")


def denoising_loss(
    objective: str, prediction: Tensor, clean: Tensor, noisy: Tensor, logsnr: Tensor, weight: str, gamma: float
) -> Tensor:
    """Mean squared error of the predicted objective, weighted over time.

    `weight` is `none` (the paper's), `snr`, which makes each objective's loss that of epsilon, or `min_snr`, which is
    min(SNR, gamma) on the error of x_0 (Hang et al. 2023, equation 8). Squared errors of epsilon are SNR times those of
    x_0, and those of v SNR + 1 times (Salimans & Ho 2022, section 4), so weights on x_0 are divided by that.
    """
    error = (prediction.float() - from_clean(objective, clean, noisy, logsnr)).square().flatten(1).mean(1)
    if weight == "none":
        return error.mean()
    snr = logsnr.exp()
    on_clean = snr if weight == "snr" else snr.clamp_max(gamma)
    in_units_of_clean = {"x0": torch.ones_like(snr), "epsilon": snr, "v": snr + 1}[objective]
    return (error * on_clean / in_units_of_clean).mean()


def _scales(logsnr: Tensor, volumes: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma, shaped so that they multiply (B, ...) volumes."""
    return tuple(value.view(-1, *(1,) * (volumes.ndim - 1)) if value.ndim else value for value in alpha_sigma(logsnr))
