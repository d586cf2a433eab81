"""What the network is asked to predict, and the noising it is trained with."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from iqt.diffusion.schedules import alpha_sigma


def add_noise(clean: Tensor, noise: Tensor, logsnr: Tensor) -> Tensor:
    """x_t = alpha x_0 + sigma epsilon (Ho et al. 2020, equation 4); `logsnr` is (B,)."""
    alpha, sigma = (value.view(-1, *(1,) * (clean.ndim - 1)) for value in alpha_sigma(logsnr))
    return alpha * clean + sigma * noise


def x0_loss(prediction: Tensor, clean: Tensor) -> Tensor:
    """Mean squared error of the predicted clean target, unweighted over time (the paper's)."""
    return functional.mse_loss(prediction.float(), clean)
