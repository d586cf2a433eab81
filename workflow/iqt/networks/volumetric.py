"""The parcellator's 3D network: MONAI's residual U-Net, as SynthSeg's is one, on whole brains."""

from __future__ import annotations

import torch
from monai.networks.nets import UNet
from torch import nn

from iqt.config import VolumetricNetwork


def build_volumetric(settings: VolumetricNetwork, n_classes: int) -> nn.Module:
    """(B, 1, X, Y, Z) image to (B, n_classes, X, Y, Z) logits; edges are multiples of 2 ** (levels - 1).

    Instance statistics: the network always sees one whole brain, so they are the brain's.
    """
    body = UNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=settings.features,
        channels=settings.channels,
        strides=(2,) * (len(settings.channels) - 1),
        num_res_units=settings.residual_units,
        norm=("instance", {"affine": True}),
        act=("leakyrelu", {"inplace": True}),  # MONAI's PReLU costs a tenth of a step
    )
    # Few features at full resolution, where a channel a class would be most of the cost.
    network = nn.Sequential(body, nn.Conv3d(settings.features, n_classes, 1))
    return network.to(memory_format=torch.channels_last_3d)
