"""A study: what is done with a user's own low-field scans."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from iqt.config.cohort import Mask
from iqt.config.section import Precision, Section, Seed
from iqt.errors import UserError


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return text


class Study(Section):
    """A dataset of low-field scans, and how they are enhanced."""

    dataset: str
    """A BIDS dataset, a folder of NIfTI or MGZ files, one of DICOM files, or one file."""
    out: str
    """Folder of the results, a BIDS derivative; it may lie in the dataset's `derivatives`."""
    participants: Literal["all"] | Annotated[list[str], Field(min_length=1)] = "all"
    """Ids, with or without `sub-`."""
    suffix: Literal["T1w", "T2w", "FLAIR"] = "T1w"
    """BIDS suffix of the contrast; other scans are left out, and named."""
    series: Annotated[str, AfterValidator(_pattern)] | None = None
    """Regular expression that the description of a series of DICOM files must match, in upper or lower case; null:
    those whose description names the contrast."""
    fuse: bool = False
    """Whether several scans of one session are stacks that are registered and combined before they are enhanced."""
    model: str | None = None
    """Name of a shipped model or folder of one's own; null: the shipped one for the contrast."""
    samples: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Samples of a model that draws some; null: as many as its card says, or four."""
    skull_stripped: bool = False
    """Whether scans are 0 outside the brain. Without `mask`, those that show the brain alone are noticed."""
    mask: Mask | None = None
    """How the brain is found where the dataset has no mask. null: a scan that shows the brain alone is noticed, the
    others go to deepbet; a section sends every scan to its engine."""
    keep_doubtful_masks: bool = False
    """Go on with scans whose brain mask looks wrong."""
    parcellate: bool = True
    """Label the structures of the enhanced scans, and measure them (T1w)."""
    seed: Seed = 1
    """Seed of every random draw."""
    precision: Precision = "auto"
    """Precision of the networks."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads of a scan's job."""

    @property
    def memory_mb(self) -> int:
        """Memory of a scan's job: a whole head is enhanced in 2.1 GB; combining stacks holds an operator of each."""
        return 8000 if self.fuse else 4000


def parse_study(raw: object) -> Study:
    """The section `study` of a configuration; UserError that names every wrong key."""
    try:
        return Study.model_validate(raw if isinstance(raw, Mapping) else {})
    except ValidationError as error:
        lines = [f"  study.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise UserError("the study's configuration is not valid.\n" + "\n".join(lines)) from None
