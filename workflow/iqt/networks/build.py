"""From a method's settings to its network."""

from __future__ import annotations

from torch import nn

from iqt.config import DiffusionIQTMethod, Learned, UNetMethod


def build_network(method: Learned) -> nn.Module:
    """The network of a trained method, with fresh weights."""
    if isinstance(method, DiffusionIQTMethod):
        from iqt.networks.diffusion_iqt import DiffusionIQT

        return DiffusionIQT(method.network, method.patches)
    if isinstance(method, UNetMethod):
        from iqt.networks.unet import build_unet  # imports MONAI, which takes seconds

        return build_unet(method.network)
    raise TypeError(f"{type(method).__name__} has no network")


def count_parameters(network: nn.Module) -> int:
    """Trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
