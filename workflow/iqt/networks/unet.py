"""The regression baseline: MONAI's residual U-Net."""

from __future__ import annotations

from monai.networks.nets import UNet
from torch import nn

from iqt.config import UNetNetwork


def build_unet(settings: UNetNetwork) -> nn.Module:
    """(B, 1, X, Y, Z) low-field to (B, 1, X, Y, Z) target; edges are multiples of 2 ** (levels - 1)."""
    return UNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        channels=settings.channels,
        strides=(2,) * (len(settings.channels) - 1),
        num_res_units=settings.residual_units,
        # Instance statistics (MONAI's default) would change with the tile, so results would depend on the tiling.
        norm="batch",
    )
