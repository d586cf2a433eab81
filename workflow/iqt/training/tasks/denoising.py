"""A diffusion model's training: denoising the high-quality volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from iqt.diffusion.objectives import add_noise, denoising_loss, to_clean
from iqt.diffusion.schedules import build_schedule
from iqt.training.tasks.base import EnhancementTask

if TYPE_CHECKING:
    from iqt.methods.diffusion_iqt import DiffusionIQTMethod

VALIDATION_LOGSNR = -4.0
"""Log-SNR at which a diffusion model's estimate is validated: the noise has 55 times the signal's power."""


class DiffusionTask(EnhancementTask):
    """Denoising at times drawn uniformly in (0, 1), one a region and so the same for all its patches."""

    def __init__(self, method: DiffusionIQTMethod, network: nn.Module, standard: dict[str, float]) -> None:
        super().__init__(method, network, standard)
        self.diffusion, self.schedule = method.diffusion, build_schedule(method.diffusion)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        return self._denoise(*self.scaled(batch))

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        inputs, wanted = self.scaled(batch)
        loss = self._denoise(inputs, wanted)
        # From next to pure noise the network can only give its mean over samples: one forward pass shows how far it has
        # learnt. Not from noise alone, where an estimate by way of epsilon would be its rounding errors.
        logsnr = torch.full((len(wanted),), VALIDATION_LOGSNR, device=self.device)
        noisy = add_noise(wanted, self.randn_like(wanted), logsnr)
        prediction = self.network(noisy, inputs, logsnr).float()
        return self.score(loss, to_clean(self.diffusion.objective, prediction, noisy, logsnr), wanted)

    def _denoise(self, inputs: Tensor, wanted: Tensor) -> Tensor:
        settings = self.diffusion
        logsnr = self.schedule.logsnr(self.rand())
        noisy = add_noise(wanted, self.randn_like(wanted), logsnr)
        prediction = self.network(noisy, inputs, logsnr)
        return denoising_loss(
            settings.objective, prediction, wanted, noisy, logsnr, settings.loss_weight, settings.min_snr_gamma
        )
