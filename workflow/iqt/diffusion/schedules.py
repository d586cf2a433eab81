"""Noise schedules: the log signal-to-noise ratio over continuous time.

t runs from 0 (clean) to 1 (noise). The process is variance preserving: alpha^2 + sigma^2 = 1, alpha^2 = sigmoid(log
SNR). A schedule is a closed form and its inverse, cut to log-SNRs within +-`bound` and stretched so that times 0 and 1
lie at the bounds; so every schedule spans the same noise levels and differs only in how long it stays at each.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from iqt.config.diffusion import Diffusion


class Schedule(ABC):
    """A decreasing log SNR over t in [0, 1]."""

    def __init__(self, bound: float) -> None:
        self.start, self.end = self.uncut_time(bound), self.uncut_time(-bound)

    def logsnr(self, time: Tensor) -> Tensor:
        """Log-SNR at times in [0, 1]."""
        # In double precision, since near the bounds alpha or sigma is 1 up to what float32 cannot tell from it.
        return self.uncut_logsnr(self.start + time.double() * (self.end - self.start)).to(time.dtype)

    @abstractmethod
    def uncut_logsnr(self, time: Tensor) -> Tensor:
        """The closed form, before it is cut."""

    @abstractmethod
    def uncut_time(self, logsnr: float) -> float:
        """The inverse of `uncut_logsnr`."""


class CosineSchedule(Schedule):
    """alpha = cos(pi t / 2), so log SNR = -2 log tan(pi t / 2) (Nichol & Dhariwal 2021, equation 17, no offset)."""

    def uncut_logsnr(self, time: Tensor) -> Tensor:
        return -2 * torch.log(torch.tan(time * (math.pi / 2)))

    def uncut_time(self, logsnr: float) -> float:
        return math.atan(math.exp(-logsnr / 2)) * 2 / math.pi


class LinearSchedule(Schedule):
    """A noise rate that grows linearly from 0.1 to 20, DDPM in continuous time (Song et al. 2021, appendix C): alpha^2
    = exp(-B), B = 0.1 t + 9.95 t^2, so log SNR = -log(exp(B) - 1)."""

    low, slope = 0.1, 19.9

    def uncut_logsnr(self, time: Tensor) -> Tensor:
        return -torch.log(torch.expm1(self.low * time + self.slope / 2 * time**2))

    def uncut_time(self, logsnr: float) -> float:
        integral = math.log1p(math.exp(-logsnr))
        # The stable form of the quadratic's root: near t = 0 the textbook one subtracts equal numbers.
        return 2 * integral / (self.low + math.sqrt(self.low**2 + 2 * self.slope * integral))


class SigmoidSchedule(Schedule):
    """alpha^2 = (s(3) - s(6 t - 3)) / (s(3) - s(-3)) with the logistic function s (Jabri et al. 2023; Chen 2023 with
    start -3, end 3, tau 1)."""

    reach = 3.0

    def uncut_logsnr(self, time: Tensor) -> Tensor:
        top = 1 / (1 + math.exp(-self.reach))
        signal = (top - torch.sigmoid(self.reach * (2 * time - 1))) / (2 * top - 1)
        return torch.logit(signal)

    def uncut_time(self, logsnr: float) -> float:
        top = 1 / (1 + math.exp(-self.reach))
        value = top - (2 * top - 1) / (1 + math.exp(-logsnr))
        return 0.5 + math.log(value / (1 - value)) / (2 * self.reach)


SCHEDULES: dict[str, type[Schedule]] = {
    "cosine": CosineSchedule,
    "linear": LinearSchedule,
    "sigmoid": SigmoidSchedule,
}


def build_schedule(settings: Diffusion) -> Schedule:
    """The schedule that the settings name."""
    return SCHEDULES[settings.schedule](settings.logsnr_max)


def alpha_sigma(logsnr: Tensor) -> tuple[Tensor, Tensor]:
    """Scales of signal and noise: alpha^2 = sigmoid(log SNR), sigma^2 = sigmoid(-log SNR)."""
    return torch.sigmoid(logsnr).sqrt(), torch.sigmoid(-logsnr).sqrt()
