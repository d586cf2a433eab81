"""A flow's training: the velocity from a regression's output to the high-quality volume."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from iqt.diffusion.flow import interpolate
from iqt.training.tasks.base import EnhancementTask


class FlowTask(EnhancementTask):
    """The velocity from the regression's output with a little noise to the high-quality volume, at times drawn
    uniformly in (0, 1). The regression is not trained."""

    def parts(self) -> list[nn.Module]:
        return [self.network.velocity]

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        inputs, wanted = self.scaled(batch)
        return self._match(inputs, self._start(inputs), wanted)

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        inputs, wanted = self.scaled(batch)
        start = self._start(inputs)
        loss = self._match(inputs, start, wanted)
        # A single step of Euler's method: what the network makes of the regression's output at one call.
        estimate = start + self.network(start, inputs, torch.zeros(len(wanted), device=self.device)).float()
        return self.score(loss, estimate, wanted)

    def _start(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            estimate = self.network.start(inputs).float()
        return estimate + self.method.noise * self.randn_like(estimate)

    def _match(self, inputs: Tensor, start: Tensor, wanted: Tensor) -> Tensor:
        time = self.rand()
        velocity = self.network(interpolate(start, wanted, time), inputs, time)
        return functional.mse_loss(velocity.float(), wanted - start)
