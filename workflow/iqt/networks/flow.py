"""The network of a flow: a regression that is not trained any more, and the velocity that starts from what it gives."""

from __future__ import annotations

from torch import Tensor, nn


class FlowNetwork(nn.Module):
    """`start` is the regression, (B, 1, X, Y, Z) low-field volume to an estimate; `velocity` a DiffusionIQT network.

    Both are saved together, so that a flow is used without the model that it was trained from. Where it is not
    `conditional` the velocity sees the current volume alone, as in posterior-mean rectified flow.
    """

    def __init__(self, start: nn.Module, velocity: nn.Module, conditional: bool) -> None:
        super().__init__()
        self.conditional = conditional
        self.start, self.velocity = start.requires_grad_(False).eval(), velocity

    def train(self, mode: bool = True) -> FlowNetwork:
        """The regression stays as it is in use: its batch statistics are those it was trained with."""
        super().train(mode)
        self.start.eval()
        return self

    def forward(self, current: Tensor, lowfield: Tensor, time: Tensor) -> Tensor:
        """The velocity at `time` (B,), which runs from 0 (the regression's output) to 1 (the high-quality volume)."""
        # The network knows log-SNRs between -10 and 10; times take their place.
        return self.velocity(current, lowfield if self.conditional else None, 20 * time - 10)
