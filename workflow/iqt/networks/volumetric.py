"""The parcellator's 3D network: a residual U-Net, as SynthSeg's is one, on whole brains."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from iqt.config import VolumetricNetwork
from iqt.networks.residual_unet import ResidualUNet


def build_volumetric(settings: VolumetricNetwork, n_classes: int) -> nn.Module:
    """(B, 1, X, Y, Z) image to (B, n_classes, X, Y, Z) logits; edges are multiples of 2 ** (levels - 1).

    Instance statistics: the network always sees one whole brain, so they are the brain's.
    """
    body = ResidualUNet(
        1,
        settings.features,
        settings.channels,
        settings.residual_units,
        partial(nn.InstanceNorm3d, affine=True),
        partial(nn.LeakyReLU, inplace=True),  # PReLU costs a tenth of a step
    )
    # Few features at full resolution, where a channel a class would be most of the cost.
    network = nn.Sequential(body, nn.Conv3d(settings.features, n_classes, 1))
    return network.to(memory_format=torch.channels_last_3d)
