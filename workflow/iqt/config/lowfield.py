"""The low-field acquisition to simulate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from iqt.config.section import Section


class LowField(Section):
    """One low-field acquisition to simulate, after the stochastic simulator of Lin et al."""

    thickness: Annotated[float, Field(ge=1, le=12)] = 3
    """Slice thickness (FWHM of the slice profile) in high-quality voxels."""
    gap: Annotated[float, Field(ge=0, le=6)] = 1
    """Gap between slices in high-quality voxels; slices lie thickness + gap apart (3 + 1: 4x, 6 + 2: 8x)."""
    axis: Literal["R", "A", "S"] = "S"
    """World axis that is sliced: right-left, anterior-posterior, superior-inferior."""
    fixed_tissue: Literal["WM", "GM"] = "WM"
    """Tissue whose intensity stays; the other one's is moved to the drawn ratio."""
    noise: Literal["gaussian", "rician"] = "gaussian"
    """Gaussian (the published simulator) or Rician (magnitude images)."""
    snr_mean: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (64.50, 54.14)
    """Mean signal-to-noise ratio in (WM, GM) over people; the default is the published T1w one."""
    snr_covariance: tuple[tuple[float, float], tuple[float, float]] = ((78.47, 71.50), (71.50, 73.91))
    """Covariance of the two, positive semi-definite."""

    @model_validator(mode="after")
    def _covariance(self) -> LowField:
        (a, b), (c, d) = self.snr_covariance
        if b != c or a < 0 or d < 0 or a * d < b * c:
            raise ValueError(f"snr_covariance {self.snr_covariance} is not symmetric and positive semi-definite")
        return self
