"""What a network that enhances is trained for: the score that all kinds share, and regression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from iqt.training.fit import Task

if TYPE_CHECKING:
    from iqt.methods.base import Learned


class EnhancementTask(Task):
    """Scales in and out; `score` says how close an estimate of the high-quality volume is."""

    monitor = "val_psnr"

    def __init__(self, method: Learned, network: nn.Module, standard: dict[str, float]) -> None:
        super().__init__()
        self.method, self.network, self.standard = method, network, standard

    def scaled(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The network's input and its target, both with mean 0 and standard deviation 1 in the brain."""
        lowfield, high = batch["lowfield"], batch["hq"]
        wanted = high - lowfield if self.method.target == "residual" else high
        standard = self.standard
        inputs = (lowfield - standard["input_mean"]) / standard["input_sd"]
        return inputs, (wanted - standard["target_mean"]) / standard["target_sd"]

    def score(self, loss: Tensor, estimate: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        # On the intensity scale a volume's range is about 1, so this is a PSNR in dB up to a fraction; the mean of the
        # regions' own, so that it does not depend on which of them make a batch.
        errors = (estimate.float() - wanted).square().flatten(1).mean(1) * self.standard["target_sd"] ** 2
        return {"val_loss": loss, "val_psnr": (-10 * torch.log10(errors.clamp_min(1e-10))).mean()}


class RegressionTask(EnhancementTask):
    """Mean squared error of a single forward pass."""

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        inputs, wanted = self.scaled(batch)
        return functional.mse_loss(self.network(inputs).float(), wanted)

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        inputs, wanted = self.scaled(batch)
        estimate = self.network(inputs)
        return self.score(functional.mse_loss(estimate.float(), wanted), estimate, wanted)
