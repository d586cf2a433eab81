"""A 3D ESRGAN (Wang et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from iqt.config.networks import Adversarial, ESRGANNetwork
from iqt.config.section import Name
from iqt.methods.base import Learned, Method, check_size_like, require_divisible

if TYPE_CHECKING:
    from torch import nn

    from iqt.training.tasks.adversarial import AdversarialTask


class ESRGANMethod(Learned):
    """A 3D ESRGAN (Wang et al. 2018): residual-in-residual dense blocks, trained with L1 alone first, then as a GAN."""

    kind: Literal["esrgan"] = "esrgan"
    """Kind of method."""
    network: ESRGANNetwork = ESRGANNetwork()
    """Size of the generator."""
    adversarial: Adversarial = Adversarial()
    """Losses and discriminator."""
    size_like: Name | None = None
    """A method whose number of parameters the generator is brought to, by widening or narrowing it."""

    @model_validator(mode="after")
    def _fits(self) -> ESRGANMethod:
        require_divisible(self.patches.region, self.network.stem, "network.stem")
        # Each layer's kernel of 4 turns n voxels into n / 2 with a stride, into n - 1 without one.
        edge = min(self.patches.region) // 2**self.adversarial.layers - 1
        if edge < 2:
            raise ValueError(
                f"adversarial.layers {self.adversarial.layers}: the discriminator needs regions of at least "
                f"{3 * 2**self.adversarial.layers} voxels, but patches make them {min(self.patches.region)}"
            )
        return self

    def check_among(self, name: str, methods: Mapping[str, Method]) -> None:
        check_size_like(name, self.size_like, methods)

    def build(self) -> nn.Module:
        from iqt.networks.esrgan import RRDBNet

        return RRDBNet(self.network)

    def task(self, network: nn.Module, standard: dict[str, float]) -> AdversarialTask:
        from iqt.training.tasks.adversarial import AdversarialTask

        return AdversarialTask(self, network, standard)


METHODS = (ESRGANMethod,)
