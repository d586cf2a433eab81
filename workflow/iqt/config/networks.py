"""Sizes and parts of the networks that enhance."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from iqt.config.section import Few, Section, Width


class CrossBatch(Section):
    """What patches of a region see of each other (both on in the paper)."""

    padding: bool = True
    """Convolutions see the neighbouring patches' values at a patch's border."""
    attention: bool = True
    """Attention takes keys and values from every patch of the region."""


class DiffusionIQTNetwork(Section):
    """Size and parts of the DiffusionIQT U-Net; the paper's is 64 channels, (1, 2, 4), 2 blocks, 8 heads of 64."""

    channels: Width = 24
    """Width of the first level."""
    multipliers: Annotated[tuple[Few, ...], Field(min_length=1, max_length=8)] = (1, 2)
    """Widths of what lies below each level, in units of `channels`: the levels after the first, then the bottleneck."""
    blocks: Few = 2
    """Residual blocks a level."""
    stem: Literal[1, 2, 4] = 2
    """Pixel-unshuffle before the first convolution: 2 runs the network on half the resolution, eight channels each."""
    groups: Width = 8
    """Groups of GroupNorm."""
    heads: Few = 4
    """Attention heads."""
    head_dim: Width = 16
    """Width of a head."""
    tokens: Annotated[tuple[Few, ...], Field(max_length=8)] = (4, 2)
    """Edge of an attention token at each level, in that level's voxels (the paper's: 8, 4, 2)."""
    attention: bool = True
    """Linear attention at each level of the encoder."""
    attention_skip: bool = True
    """Skip connection around the attention block."""
    shuffle: bool = True
    """Pixel-unshuffle and -shuffle between levels; false: strided convolution and trilinear upsampling."""
    squeeze_excitation: bool = True
    """Channel gates at the end of every residual block."""
    cross_batch: CrossBatch = CrossBatch()
    """What patches of a region see of each other."""

    @model_validator(mode="after")
    def _levels(self) -> DiffusionIQTNetwork:
        if len(self.tokens) != len(self.multipliers):
            raise ValueError(
                f"tokens {self.tokens} and multipliers {self.multipliers} must have one entry a level each"
            )
        if self.channels % self.groups:
            raise ValueError(f"channels {self.channels} must be a multiple of groups {self.groups}")
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level and, at the last level's resolution, of the bottleneck."""
        return self.channels, *(self.channels * multiplier for multiplier in self.multipliers)


class UNetNetwork(Section):
    """A residual U-Net, trained as a regression."""

    channels: Annotated[tuple[Width, ...], Field(min_length=2, max_length=8)] = (24, 48, 96)
    """Width of each level; each level halves the resolution."""
    residual_units: Few = 2
    """Convolutions of a residual unit."""

    def widened(self, width: int) -> UNetNetwork:
        """The network with `width` channels at its first level and the others in proportion."""
        channels = tuple(max(1, round(each * width / self.channels[0])) for each in self.channels)
        return self.model_copy(update={"channels": channels})


class ESRGANNetwork(Section):
    """ESRGAN's generator in 3D; the original (2D) has 64 channels, growth 32 and 23 blocks."""

    channels: Width = 16
    """Width between blocks."""
    growth: Width = 8
    """Channels that each convolution of a dense block adds."""
    blocks: Few = 2
    """Residual-in-residual dense blocks, three dense blocks of five convolutions each."""
    stem: Literal[1, 2, 4] = 2
    """Pixel-unshuffle before the first convolution: 2 runs the network on half the resolution, eight channels each."""

    def widened(self, width: int) -> ESRGANNetwork:
        """The network with `width` channels and its growth in proportion."""
        return self.model_copy(update={"channels": width, "growth": max(1, round(self.growth * width / self.channels))})


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
