"""A regression U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from iqt.config.networks import UNetNetwork
from iqt.config.section import Name
from iqt.methods.base import Learned, Method, check_size_like, require_divisible

if TYPE_CHECKING:
    from torch import nn


class UNetMethod(Learned):
    """A regression U-Net."""

    kind: Literal["unet"] = "unet"
    """Kind of method."""
    network: UNetNetwork = UNetNetwork()
    """Size of the network."""
    size_like: Name | None = None
    """A method whose number of parameters the network is brought to, by widening or narrowing all of its levels."""

    @model_validator(mode="after")
    def _divisible(self) -> UNetMethod:
        require_divisible(self.patches.region, self.factor, "network.channels")
        return self

    @property
    def factor(self) -> int:
        """What the edges of a volume must be multiples of."""
        return 2 ** (len(self.network.channels) - 1)

    def check_among(self, name: str, methods: Mapping[str, Method]) -> None:
        check_size_like(name, self.size_like, methods)

    def build(self) -> nn.Module:
        from iqt.networks.unet import build_unet

        return build_unet(self.network)


METHODS = (UNetMethod,)
