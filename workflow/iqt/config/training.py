"""What networks read, and the budget and optimiser they are trained with."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from iqt.config.section import Few, Positive, Section


class Patches(Section):
    """The regions that training reads, and their patches (cross-batch)."""

    patch: Annotated[int, Field(ge=1, le=512)] = 16
    """Edge of a patch in voxels; normalisation statistics are a patch's own."""
    grid: tuple[Few, Few, Few] = (2, 2, 2)
    """Patches a region holds along each axis: (2, 2, 2) patches of 16 make a region of 32^3."""
    foreground: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Share of regions whose centre lies in the brain; the others lie anywhere."""
    flip: bool = True
    """Mirror half of the training regions between left and right."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Intensities of training regions are raised to the power exp(g), g uniform within this bound; 0 leaves them."""
    gain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Intensities of training regions are multiplied by 1 + g, g uniform within this bound; 0 leaves them."""

    @property
    def region(self) -> tuple[int, int, int]:
        """Edges of a region in voxels."""
        return tuple(self.patch * count for count in self.grid)


class Training(Section):
    """The budget and the optimiser, the same for every network unless an entry changes it."""

    steps: Positive = 800
    """Optimiser steps."""
    batch_size: Positive = 4
    """Regions a step."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-3
    """Highest learning rate of AdamW."""
    warmup: Annotated[int, Field(ge=0)] = 20
    """Steps over which the learning rate rises, at most a quarter of all; then it falls along a cosine to 1/100."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of AdamW."""
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the gradient."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """Decay of the exponential moving average of the weights; the averaged weights are the ones saved."""
    validate_every: Positive = 100
    """Steps between validations on fixed regions, a divisor of `steps`; a checkpoint is written at each."""
    validation_regions: Positive = 16
    """Regions (or slices) of the validation people, the same at every validation."""
    keep: Literal["best", "last"] = "last"
    """The weights that are saved: of the best validation (PSNR, or Dice for a parcellator; of ESRGAN's only those
    after `pretrain`), or of the last step."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Validations without a better figure after which training stops early; 0 never does."""
    compile: bool = False
    """Compile the network with torch.compile: slow to start, then faster on a GPU."""
    deterministic: bool = True
    """On a GPU, take kernels that repeat to the bit where torch has them; a CPU always repeats."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read regions; 0 reads in the training process."""

    @model_validator(mode="after")
    def _whole_stretches(self) -> Training:
        if self.steps % self.validate_every:
            raise ValueError(f"steps {self.steps} must be a multiple of validate_every {self.validate_every}")
        return self
