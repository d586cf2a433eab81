"""ESRGAN in 3D (Wang et al. 2018): the generator of residual-in-residual dense blocks, and its discriminator."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from iqt.config import ESRGANNetwork
from iqt.config.networks import Adversarial
from iqt.networks.shuffle import shuffle, unshuffle

RESIDUAL_SCALE = 0.2
"""What each block adds to its input is multiplied by this, which keeps deep networks stable (section 3.1)."""


class RRDBNet(nn.Module):
    """(B, 1, X, Y, Z) low-field volume to (B, 1, X, Y, Z) target; edges are multiples of `stem`.

    The low-field volume already lies on the high-quality grid, so there is nothing to enlarge: instead of ESRGAN's
    upsampling the blocks may run on a pixel-unshuffled volume (`stem`), as in Real-ESRGAN.
    """

    def __init__(self, settings: ESRGANNetwork) -> None:
        super().__init__()
        width, self.stem = settings.channels, settings.stem
        self.first = nn.Conv3d(self.stem**3, width, 3, padding=1)
        self.blocks = nn.Sequential(*(RRDB(width, settings.growth) for _ in range(settings.blocks)))
        self.trunk = nn.Conv3d(width, width, 3, padding=1)
        self.refine = nn.Conv3d(width, width, 3, padding=1)
        self.last = nn.Conv3d(width, self.stem**3, 3, padding=1)

    def forward(self, lowfield: Tensor) -> Tensor:
        features = self.first(unshuffle(lowfield, self.stem))
        features = features + self.trunk(self.blocks(features))
        return shuffle(self.last(_leaky(self.refine(features))), self.stem)


class RRDB(nn.Module):
    """Residual-in-residual dense block: three dense blocks and a scaled skip around them (figure 4)."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.dense = nn.Sequential(*(DenseBlock(width, growth) for _ in range(3)))

    def forward(self, features: Tensor) -> Tensor:
        return features + RESIDUAL_SCALE * self.dense(features)


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the input and what all before it added; no normalisation."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        outputs = [growth] * 4 + [width]
        self.convolutions = nn.ModuleList(
            nn.Conv3d(width + number * growth, out, 3, padding=1) for number, out in enumerate(outputs)
        )
        for conv in self.convolutions:  # ESRGAN's smaller initialisation
            nn.init.kaiming_normal_(conv.weight)
            conv.weight.data.mul_(0.1)
            nn.init.zeros_(conv.bias)

    def forward(self, features: Tensor) -> Tensor:
        seen = features
        for conv in self.convolutions[:-1]:
            seen = torch.cat([seen, _leaky(conv(seen))], dim=1)
        return features + RESIDUAL_SCALE * self.convolutions[-1](seen)


def build_discriminator(settings: Adversarial) -> nn.Module:
    """MONAI's patch discriminator: (B, 1, X, Y, Z) to a list of features, the last a map of logits.

    Instance statistics, since those of a batch would mix real and generated volumes.
    """
    from monai.networks.nets import PatchDiscriminator  # takes seconds, and is for training alone

    return PatchDiscriminator(
        spatial_dims=3, channels=settings.channels, in_channels=1, num_layers_d=settings.layers, norm="INSTANCE"
    )


def _leaky(features: Tensor) -> Tensor:
    return functional.leaky_relu(features, 0.2)
