"""Methods: what is compared, each an entry of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, model_validator

from iqt.config.networks import DiffusionIQTNetwork, ESRGANNetwork, UNetNetwork
from iqt.config.section import Name, Positive, Section, Width
from iqt.config.training import Patches, Training


class Diffusion(Section):
    """The forward process and what the network predicts."""

    schedule: Literal["cosine", "linear", "sigmoid"] = "cosine"
    """Log-SNR over continuous time: cosine (the paper), DDPM's linearly growing noise rate, or a sigmoid."""
    logsnr_max: Annotated[float, Field(gt=0, le=20)] = 10.0
    """Bound of the log-SNR at both ends."""
    objective: Literal["x0", "epsilon", "v"] = "x0"
    """What the network's output stands for: the clean target (the paper), the noise, or the velocity."""
    loss_weight: Literal["none", "snr", "min_snr"] = "none"
    """Weight of the squared error over time: none (the paper), as for epsilon, or min(SNR, `min_snr_gamma`) on x0."""
    min_snr_gamma: Annotated[float, Field(gt=0)] = 5.0
    """Bound of the weight `min_snr`."""


class Sampling(Section):
    """How a trained diffusion model is run; entries that differ only here share one trained model."""

    sampler: Literal["ancestral", "ddim", "dpmpp_2m"] = "ddim"
    """Ancestral sampling (the paper), DDIM, or DPM-Solver++(2M), a deterministic solver of second order."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 4
    """Network calls a sample."""
    times: Literal["t", "logsnr"] = "t"
    """What the times of the steps are evenly spaced in: t (the paper), or the log-SNR."""
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Noise that DDIM adds back each step: 0 none, 1 as much as ancestral sampling. The other samplers have no such
    choice."""
    samples: Annotated[int, Field(ge=1, le=1000)] = 1
    """Samples a scan; with more than one the result is their mean, and their standard deviation is kept."""

    @model_validator(mode="after")
    def _eta_is_ddims(self) -> Sampling:
        if self.eta and self.sampler != "ddim":
            raise ValueError(f"eta {self.eta} has no effect with sampler {self.sampler}; leave it out")
        return self


class Tiling(Section):
    """How a whole volume passes through a network."""

    tile: Positive | Literal["auto"] = "auto"
    """Largest edge of a tile in voxels, rounded down to whole regions. `auto`: as large as half of the free memory
    allows (on a CPU within the workflow: half of the 6 GB that its job asks for), up to the whole brain in one
    piece."""
    overlap: Annotated[int, Field(ge=0)] = 16
    """Voxels that neighbouring tiles share and blend at least."""
    batch: Positive = 1
    """Tiles that pass through the network at once; the result does not depend on it."""


class Interpolation(Section):
    """Interpolation of the thick slices, the method to beat: cubic splines, or linear."""

    kind: Literal["cubic", "linear"] = "cubic"
    """Kind of method."""


class Learned(Section):
    """What every trained method has."""

    target: Literal["residual", "image"] = "residual"
    """What the network predicts: the high-quality volume (the paper), or its difference from the low-field one."""
    patches: Patches = Patches()
    """Changes to the top-level `patches`, for this method alone."""
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
    size_like: Name | None = None
    """A method whose number of parameters the network is brought to, by widening or narrowing all of its levels."""

    @model_validator(mode="after")
    def _divisible(self) -> UNetMethod:
        _require_divisible(self.patches.region, 2 ** (len(self.network.channels) - 1), "network.channels")
        return self


class Adversarial(Section):
    """The losses of ESRGAN and its relativistic patch discriminator."""

    pretrain: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the steps, at the beginning, that only see the L1 loss."""
    l1: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the L1 loss."""
    weight: Annotated[float, Field(ge=0)] = 5e-3
    """Weight of the adversarial loss (ESRGAN's)."""
    perceptual: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the perceptual loss: the L1 distance of the discriminator's features, so that no pretrained network is
    needed."""
    channels: Width = 16
    """Width of the discriminator's first convolution; each layer doubles it."""
    layers: Annotated[int, Field(ge=1, le=5)] = 2
    """Layers of the discriminator between its first and its last convolution; all but the last halve the resolution."""


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
        _require_divisible(self.patches.region, self.network.stem, "network.stem")
        # Each layer's kernel of 4 turns n voxels into n / 2 with a stride, into n - 1 without one.
        edge = min(self.patches.region) // 2**self.adversarial.layers - 1
        if edge < 2:
            raise ValueError(
                f"adversarial.layers {self.adversarial.layers}: the discriminator needs regions of at least "
                f"{3 * 2**self.adversarial.layers} voxels, but patches make them {min(self.patches.region)}"
            )
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
        _require_tokens(self.network, self.patches)
        return self


class FlowSampling(Section):
    """How a trained flow is run."""

    solver: Literal["euler", "heun"] = "euler"
    """Euler's method, or Heun's, which is of second order and calls the network twice a step."""
    steps: Annotated[int, Field(ge=1, le=8)] = 2
    """Steps from the regression's output to the sample."""
    samples: Annotated[int, Field(ge=1, le=1000)] = 1
    """Samples a scan; with more than one the result is their mean, and their standard deviation is kept."""

    @property
    def calls(self) -> int:
        """Network calls a sample."""
        return self.steps * (2 if self.solver == "heun" else 1)


class FlowMethod(Learned):
    """A rectified flow from a regression's output to the high-quality volume (arXiv 2410.00418)."""

    kind: Literal["flow"] = "flow"
    """Kind of method."""
    start: Name
    """The method that it starts from, a regression (`unet`) with the same `target`."""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Noise added to the regression's output, in standard deviations of the target."""
    conditional: bool = True
    """Whether the network that gives the velocity also sees the low-field volume. The paper's does not."""
    network: DiffusionIQTNetwork = DiffusionIQTNetwork()
    """Size and parts of the network that gives the velocity."""
    sampling: FlowSampling = FlowSampling()
    """How the trained flow is run."""
    _regression: UNetMethod | None = PrivateAttr(default=None)

    @property
    def regression(self) -> UNetMethod:
        """The method that `start` names; known where settings were resolved (`networks.build.parse_method`)."""
        if self._regression is None:
            raise ValueError(f"the regression {self.start!r} that the flow starts from is not resolved")
        return self._regression

    @model_validator(mode="after")
    def _divisible(self) -> FlowMethod:
        _require_tokens(self.network, self.patches)
        return self


KINDS = {
    "cubic": Interpolation,
    "linear": Interpolation,
    "unet": UNetMethod,
    "esrgan": ESRGANMethod,
    "diffusion_iqt": DiffusionIQTMethod,
    "flow": FlowMethod,
}
Method = Annotated[
    Interpolation | UNetMethod | ESRGANMethod | DiffusionIQTMethod | FlowMethod, Field(discriminator="kind")
]

TRAINED_BY = ("kind", "network", "diffusion", "adversarial", "noise", "conditional", "target", "patches", "training")
"""Keys of a method that its weights depend on (beside the size that `size_like` names and the model that
`start` names); the others only say how the
weights are used."""


def _require_tokens(net: DiffusionIQTNetwork, patches: Patches) -> None:
    for level, token in enumerate(net.tokens):
        edges = (patches.patch,) * 3
        _require_divisible(edges, net.stem * 2**level * (token if net.attention else 1), "network.tokens")


def _require_divisible(edges: tuple[int, ...], factor: int, because: str) -> None:
    if any(edge % factor for edge in edges):
        raise ValueError(f"patches: edges {edges} must be multiples of {factor}, which {because} asks for")
