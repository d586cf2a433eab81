"""Methods: what is compared, each an entry of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from iqt.config.networks import DiffusionIQTNetwork, UNetNetwork
from iqt.config.section import Positive, Section
from iqt.config.training import Patches, Training


class Diffusion(Section):
    """The forward process and what the network predicts."""

    schedule: Literal["cosine"] = "cosine"
    """Log-SNR over continuous time."""
    logsnr_max: Annotated[float, Field(gt=0, le=20)] = 10.0
    """Bound of the log-SNR at both ends."""
    objective: Literal["x0"] = "x0"
    """The clean target itself, with an unweighted mean squared error."""


class Sampling(Section):
    """How a trained diffusion model is run; entries that differ only here share one trained model."""

    sampler: Literal["ancestral", "ddim"] = "ddim"
    """Ancestral sampling (the paper) or DDIM."""
    steps: Positive = 4
    """Network calls a sample."""
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Noise that DDIM adds back each step: 0 none, 1 as much as ancestral sampling."""
    samples: Positive = 1
    """Samples a scan; with more than one the result is their mean, and their standard deviation is kept."""


class Tiling(Section):
    """How a whole volume passes through a network."""

    tile: Positive = 96
    """Largest edge of a tile in voxels; rounded down to whole regions."""
    overlap: Annotated[int, Field(ge=0)] = 16
    """Voxels that neighbouring tiles share and blend at least."""


class Cubic(Section):
    """Cubic interpolation of the thick slices, the method to beat."""

    kind: Literal["cubic"] = "cubic"
    """Kind of method."""


class Learned(Section):
    """What every trained method has."""

    target: Literal["residual", "image"] = "residual"
    """What the network predicts: the high-quality volume (the paper), or its difference from the low-field one."""
    patches: Patches = Patches()
    """Regions that training reads."""
    training: Training = Training()
    """Changes to the top-level `training`, for this method alone."""
    tiling: Tiling = Tiling()
    """How a whole volume passes through the network."""


class UNetMethod(Learned):
    """A regression U-Net."""

    kind: Literal["unet"] = "unet"
    """Kind of method."""
    network: UNetNetwork = UNetNetwork()
    """Size of the network."""

    @model_validator(mode="after")
    def _divisible(self) -> UNetMethod:
        _require_divisible(self.patches.region, 2 ** (len(self.network.channels) - 1), "network.channels")
        return self


class DiffusionIQTMethod(Learned):
    """The 3D conditional diffusion model of DiffusionIQT."""

    kind: Literal["diffusion_iqt"] = "diffusion_iqt"
    """Kind of method."""
    network: DiffusionIQTNetwork = DiffusionIQTNetwork()
    """Size and parts of the network."""
    diffusion: Diffusion = Diffusion()
    """Forward process and objective."""
    sampling: Sampling = Sampling()
    """How the trained network is run."""

    @model_validator(mode="after")
    def _divisible(self) -> DiffusionIQTMethod:
        net, patch = self.network, self.patches.patch
        for level, token in enumerate(net.tokens):
            _require_divisible((patch,) * 3, net.stem * 2**level * (token if net.attention else 1), "network.tokens")
        return self


KINDS = {"cubic": Cubic, "unet": UNetMethod, "diffusion_iqt": DiffusionIQTMethod}
Method = Annotated[Cubic | UNetMethod | DiffusionIQTMethod, Field(discriminator="kind")]

TRAINED_BY = ("kind", "network", "diffusion", "target", "patches", "training")
"""Keys of a method that its weights depend on; the others only say how the weights are used."""


def _require_divisible(edges: tuple[int, ...], factor: int, because: str) -> None:
    if any(edge % factor for edge in edges):
        raise ValueError(f"patches: edges {edges} must be multiples of {factor}, which {because} asks for")
