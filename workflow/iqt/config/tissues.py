"""Where the tissue posteriors that the simulator needs come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from iqt.config.section import Positive, Section


def _hundredths(value: float) -> float:
    """FAST's command has two decimals."""
    if abs(value * 100 - round(value * 100)) > 1e-6:
        raise ValueError("goes by hundredths")
    return value


class LabelTissues(Section):
    """Tissue maps from FreeSurfer's labels."""

    blur: Annotated[float, Field(ge=0, le=5)] = 0.7
    """Width of partial volume: standard deviation, in mm, of the Gaussian that softens the labels' borders."""


class HMRF(Section):
    """dipy's hidden Markov random field classifier."""

    beta: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Smoothness: the higher, the more a voxel follows its neighbours."""
    iterations: Positive = 30
    """Most iterations; it stops before when its energy no longer changes."""
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    """Relative change of the energy at which it stops."""


class FAST(Section):
    """FSL's FAST; the names of its options in brackets."""

    hyper: Annotated[float, Field(ge=0, le=1), AfterValidator(_hundredths)] = 0.1
    """Smoothness of the segmentation, in hundredths (-H)."""
    iterations: Annotated[int, Field(ge=1, le=10)] = 4
    """Iterations of the bias field's removal (-I)."""
    bias_field_fwhm: Annotated[int, Field(ge=4, le=40)] = 20
    """Smoothness of the bias field in mm (-l)."""


class Tissues(Section):
    """Where the posteriors of white matter, grey matter and CSF come from that the simulator needs."""

    engine: Literal["cohort", "labels", "fast", "hmrf"] | None = None
    """`cohort`: the source brings them; `labels`: FreeSurfer's aparc+aseg; `fast`: FSL FAST; `hmrf`: dipy, from the
    scan alone. Default: `cohort` for the sources `template` and `labelmaps`, which always bring them, else `hmrf`."""
    labels: LabelTissues = LabelTissues()
    """Settings of the engine `labels`."""
    fast: FAST = FAST()
    """Settings of the engine `fast`."""
    hmrf: HMRF = HMRF()
    """Settings of the engine `hmrf`."""
