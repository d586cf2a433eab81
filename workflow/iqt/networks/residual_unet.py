"""A residual U-Net in 3D (Kerfoot et al. 2018, doi 10.1007/978-3-030-12029-0_40), as MONAI has it.

The same layers, first weights and names of weights as `monai.networks.nets.UNet`, so that either loads the other's (a
test compares them). It is written out here because importing MONAI takes six seconds, which every command that enhances
or parcellates a scan would wait for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

Layer = Callable[[int], nn.Module]
"""Number of channels to a normalisation."""


class ResidualUNet(nn.Module):
    """(B, inputs, X, Y, Z) to (B, outputs, X, Y, Z); edges are multiples of 2 ** (levels - 1).

    Args:
        channels: width of each level; each halves the resolution of the one before, but the last.
        residual_units: convolutions of a residual unit; 0 has none, and single convolutions instead.
        norm: makes a normalisation of so many channels.
        activation: makes an activation.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        channels: Sequence[int],
        residual_units: int,
        norm: Layer,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.block = partial(_convolution, norm=norm, activation=activation)
        self.residual_units = residual_units
        self.model = self._level(inputs, outputs, tuple(channels), top=True)

    def forward(self, volume: Tensor) -> Tensor:
        return self.model(volume)

    def _level(self, inputs: int, outputs: int, channels: tuple[int, ...], top: bool = False) -> nn.Module:
        """A level and all below it; the lowest two are one, whose inner part keeps the resolution."""
        width, *below = channels
        if len(below) > 1:
            inner, inner_width = self._level(width, width, tuple(below)), width
        else:
            inner, inner_width = self._unit(width, below[0]), below[0]
        down = self._unit(inputs, width, stride=2)
        return nn.Sequential(down, _Skip(inner), self._up(width + inner_width, outputs, top))

    def _unit(self, inputs: int, outputs: int, stride: int = 1) -> nn.Module:
        if not self.residual_units:
            return self.block(inputs, outputs, stride)
        return _ResidualUnit(self.block, inputs, outputs, stride, self.residual_units)

    def _up(self, inputs: int, outputs: int, top: bool) -> nn.Module:
        doubled = self.block(inputs, outputs, 2, transposed=True, bare=top and not self.residual_units)
        if not self.residual_units:
            return doubled
        return nn.Sequential(doubled, _ResidualUnit(self.block, outputs, outputs, 1, 1, bare=top))


class _Skip(nn.Module):
    """What goes in beside what the level below makes of it."""

    def __init__(self, submodule: nn.Module) -> None:
        super().__init__()
        self.submodule = submodule

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([features, self.submodule(features)], dim=1)


class _ResidualUnit(nn.Module):
    """Convolutions in a row, and around them the input, brought to their resolution and width by one more."""

    def __init__(
        self,
        block: Callable[..., nn.Module],
        inputs: int,
        outputs: int,
        stride: int,
        count: int,
        bare: bool = False,
    ) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * count
        self.conv = nn.Sequential(
            OrderedDict(
                (f"unit{at}", block(*widths[at : at + 2], 1 if at else stride, bare=bare and at == count - 1))
                for at in range(count)
            )
        )
        self.residual: nn.Module = nn.Identity()
        if stride > 1:
            self.residual = nn.Conv3d(inputs, outputs, 3, stride, 1)
        elif inputs != outputs:
            self.residual = nn.Conv3d(inputs, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        around = self.residual(features)
        return self.conv(features) + around


def _convolution(
    inputs: int,
    outputs: int,
    stride: int = 1,
    *,
    norm: Layer,
    activation: Callable[[], nn.Module],
    transposed: bool = False,
    bare: bool = False,
) -> nn.Module:
    """A convolution, its normalisation and its activation; a `bare` one alone."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if transposed:
        layers["conv"] = nn.ConvTranspose3d(inputs, outputs, 3, stride, 1, output_padding=stride - 1)
    else:
        layers["conv"] = nn.Conv3d(inputs, outputs, 3, stride, 1)
    if not bare:
        layers["adn"] = nn.Sequential(OrderedDict(N=norm(outputs), A=activation()))
    return nn.Sequential(layers)
