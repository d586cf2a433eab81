"""The regression baseline: a residual U-Net."""

from __future__ import annotations

from torch import nn

from iqt.config import UNetNetwork
from iqt.networks.residual_unet import ResidualUNet


def build_unet(settings: UNetNetwork) -> nn.Module:
    """(B, 1, X, Y, Z) low-field to (B, 1, X, Y, Z) target; edges are multiples of 2 ** (levels - 1).

    Batch statistics: those of an instance would change with the tile, so that results would depend on the tiling.
    """
    return ResidualUNet(1, 1, settings.channels, settings.residual_units, nn.BatchNorm3d, nn.PReLU)
