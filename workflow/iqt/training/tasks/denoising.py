"""A diffusion model's training: denoising the high-quality volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from iqt.config.diffusion import Sampling
from iqt.diffusion.objectives import add_noise, denoising_loss, to_clean
from iqt.diffusion.samplers import sample
from iqt.diffusion.schedules import build_schedule
from iqt.training.tasks.base import EnhancementTask

if TYPE_CHECKING:
    from iqt.methods.diffusion_iqt import DiffusionIQTMethod

VALIDATED = Sampling()
"""The sampler that validation runs, whatever sampler users run later: weights do not depend on that."""


class DiffusionTask(EnhancementTask):
    """Denoising at noise levels that are drawn, one a region and so the same for all its patches."""

    def __init__(self, method: DiffusionIQTMethod, network: nn.Module, standard: dict[str, float]) -> None:
        super().__init__(method, network, standard)
        self.diffusion, self.schedule = method.diffusion, build_schedule(method.diffusion)

    def parts(self) -> list[nn.Module]:
        return [self.network] if self.method.start is None else [self.network.denoiser]

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        return self._denoise(*self.drawn(batch))

    def drawn(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What the network sees beside the noisy volume, and what it is to draw: where it starts from a regression,
        what that leaves."""
        inputs, wanted = self.scaled(batch)
        if self.method.start is None:
            return inputs, wanted
        with torch.no_grad():
            estimate = self.network.start(inputs).float()
        return torch.cat([inputs, estimate], dim=1), wanted - estimate

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        inputs, wanted = self.drawn(batch)
        loss = self._denoise(inputs, wanted)
        estimates: list[Tensor] = []

        def denoise(current: Tensor, logsnr: Tensor) -> Tensor:
            prediction = self.network(current, inputs, logsnr.expand(len(current))).float()
            estimates.append(to_clean(self.diffusion.objective, prediction, current, logsnr))
            return estimates[-1]

        # From pure noise, as a user starts: a noised target tells the network what no low-field scan does.
        noise = self.randn_like(wanted)
        drawn = sample(denoise, noise, self.schedule, VALIDATED, lambda _step: self.randn_like(wanted))
        first = self.score(loss, estimates[0], wanted)["val_psnr"]
        return {**self.score(loss, drawn, wanted), "val_psnr_first": first}

    def _levels(self) -> Tensor:
        """(B,) log-SNRs, one a region."""
        settings, drawn = self.diffusion, self.rand()
        if settings.levels == "schedule":
            logsnr = self.schedule.logsnr(drawn)
        else:
            mean, sd = settings.levels
            bound = settings.logsnr_max
            logsnr = (mean + sd * torch.special.ndtri(drawn)).clamp(-bound, bound)
        if settings.pure_noise:
            logsnr = torch.where(
                self.rand() < settings.pure_noise, self.schedule.logsnr(torch.ones_like(logsnr)), logsnr
            )
        return logsnr

    def _denoise(self, inputs: Tensor, wanted: Tensor) -> Tensor:
        settings = self.diffusion
        logsnr = self._levels()
        noisy = add_noise(wanted, self.randn_like(wanted), logsnr)
        prediction = self.network(noisy, inputs, logsnr)
        return denoising_loss(
            settings.objective, prediction, wanted, noisy, logsnr, settings.loss_weight, settings.min_snr_gamma
        )
