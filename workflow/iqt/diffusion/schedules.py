"""Noise schedules: the log signal-to-noise ratio over continuous time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iqt.config import Diffusion


class CosineSchedule:
    """log SNR(t) = -2 log tan(pi t / 2), cut to +-`bound` (Nichol & Dhariwal 2021; continuous as Kingma et al. 2021).

    t runs from 0 (clean) to 1 (noise). The process is variance preserving: alpha^2 + sigma^2 = 1.
    """

    def __init__(self, bound: float) -> None:
        self.start = math.atan(math.exp(-0.5 * bound))
        self.end = math.atan(math.exp(0.5 * bound))

    def logsnr(self, time: Tensor) -> Tensor:
        """Log-SNR at times in [0, 1]."""
        return -2 * torch.log(torch.tan(self.start + time * (self.end - self.start)))


def build_schedule(settings: Diffusion) -> CosineSchedule:
    """The schedule that the settings name."""
    return CosineSchedule(settings.logsnr_max)


def alpha_sigma(logsnr: Tensor) -> tuple[Tensor, Tensor]:
    """Scales of signal and noise: alpha^2 = sigmoid(log SNR), sigma^2 = sigmoid(-log SNR)."""
    return torch.sigmoid(logsnr).sqrt(), torch.sigmoid(-logsnr).sqrt()
