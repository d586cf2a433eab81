"""Where high-quality scans come from, and their split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from iqt.config.section import Positive, Section


class Split(Section):
    """How many people are trained on, validated on and tested on."""

    train: Positive = 12
    """People that networks learn from."""
    val: Positive = 2
    """People that training is watched on."""
    test: Positive = 6
    """People that the benchmark is about; no other stage sees them."""


class Template(Section):
    """People drawn from the MNI152 template that nilearn ships: a stand-in for real anatomy."""

    voxel_size: Annotated[float, Field(ge=1.0, le=4.0)] = 2.0
    """Isotropic voxel size in mm."""
    deformation: Annotated[float, Field(ge=0, le=12)] = 3.0
    """Standard deviation of the smooth displacement, in mm."""
    smoothness: Annotated[float, Field(ge=8, le=60)] = 22.0
    """Length over which the displacement varies, in mm (standard deviation of the Gaussian that smooths it)."""
    texture: Annotated[float, Field(ge=0, le=0.2)] = 0.02
    """Standard deviation of the fine intensity texture within tissue, relative to white matter."""
    bias_field: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Standard deviation of the log of the smooth intensity bias left in a high-quality scan."""


class Cohort(Section):
    """Where the high-quality scans come from."""

    source: Literal["template"] = "template"
    """Kind of source."""
    split: Split = Split()
    """People a split."""
    template: Template = Template()
    """Settings of the source `template`."""
