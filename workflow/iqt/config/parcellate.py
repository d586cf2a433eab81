"""The parcellator behind mIoU."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from iqt.config.section import Positive, Section
from iqt.config.training import Training


class ParcellatorTraining(Training):
    """Budget and optimiser of the built-in parcellator; `training` at the top level does not touch them."""

    steps: Positive = 500
    """Optimiser steps."""
    batch_size: Positive = 4
    """Slice stacks a step and plane."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 3e-2
    """Highest learning rate of AdamW."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Weight decay of AdamW."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the exponential moving average of the weights; the averaged weights are the ones saved."""
    validate_every: Positive = 100
    """Steps between validations, a divisor of `steps`; a checkpoint is written at each."""


class Parcellator(Section):
    """The built-in FastSurfer-style network: three planes, seven slices in, the middle one's labels out."""

    filters: Positive = 16
    """Channels of every block."""
    levels: Annotated[int, Field(ge=2, le=4)] = 3
    """Encoder blocks; each halves the resolution."""
    slice_size: Positive = 64
    """Edge of the square crops that training reads, in voxels."""
    training: ParcellatorTraining = ParcellatorTraining()
    """Budget and optimiser of this network alone."""


class Parcellate(Section):
    """The judge behind mIoU: it reads the reference and each result, and is trained on high-quality scans alone."""

    engine: Literal["builtin"] = "builtin"
    """Who labels: the built-in network."""
    builtin: Parcellator = Parcellator()
    """Settings of the built-in network."""
