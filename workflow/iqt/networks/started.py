"""Networks that start from a regression, which is not trained any more: a flow's, and a diffusion model's.

Both parts are saved together, so that such a model is used without the one that it was trained from.
"""

from __future__ import annotations

from torch import Tensor, nn


class Started(nn.Module):
    """`start` is the regression, (B, 1, X, Y, Z) low-field volume to an estimate."""

    def __init__(self, start: nn.Module) -> None:
        super().__init__()
        self.start = start.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Started:
        """The regression stays as it is in use: its batch statistics are those it was trained with."""
        super().train(mode)
        self.start.eval()
        return self


class FlowNetwork(Started):
    """`velocity` is a DiffusionIQT network. Where it is not `conditional` it sees the current volume alone, as in
    posterior-mean rectified flow."""

    def __init__(self, start: nn.Module, velocity: nn.Module, conditional: bool) -> None:
        super().__init__(start)
        self.velocity, self.conditional = velocity, conditional

    def forward(self, current: Tensor, lowfield: Tensor, time: Tensor) -> Tensor:
        """The velocity at `time` (B,), which runs from 0 (the regression's output) to 1 (the high-quality volume)."""
        # The network knows log-SNRs between -10 and 10; times take their place.
        return self.velocity(current, lowfield if self.conditional else None, 20 * time - 10)


class RefiningNetwork(Started):
    """`denoiser` is a DiffusionIQT network for what the regression leaves."""

    def __init__(self, start: nn.Module, denoiser: nn.Module) -> None:
        super().__init__(start)
        self.denoiser = denoiser

    def forward(self, noisy: Tensor, conditions: Tensor, logsnr: Tensor) -> Tensor:
        """As DiffusionIQT's; `conditions` (B, 2, X, Y, Z) are the low-field volume and the regression's output."""
        return self.denoiser(noisy, conditions, logsnr)
