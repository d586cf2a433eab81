"""Whether a result, acquired again as its input was, is the input: what an enhancement added or took away shows.

The acquisition that is assumed is the input's own voxels: along each axis a Gaussian whose full width at half maximum
is the voxel's edge. A result has another contrast than its input, so the two are compared up to a linear map of
intensities.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from iqt.imaging.orientation import ras_voxel_size
from iqt.imaging.resample import lost_between, on_grid
from iqt.io.volumes import Volume

INSIDE = 0.99
"""Share of an acquired voxel that must lie in the brain mask to be compared: outside it a result is 0."""
FEWEST = 100
"""Voxels that a comparison needs."""


class Consistency(NamedTuple):
    """`unexplained`: the share of the input's standard deviation in the brain that the result, acquired again, does not
    explain, 0 to 1. `difference`: input minus that, in the input's voxels, on the result's intensity scale, 0 where
    nothing is compared."""

    unexplained: float
    difference: Volume


def consistency(result: Volume, mask: np.ndarray, acquired: Volume) -> Consistency | None:
    """How a result (X, Y, Z), in RAS order, with its brain mask agrees with the scan that it was made from; None where
    the brain has too few whole voxels to say."""
    sigma = lost_between(result.voxel_size, ras_voxel_size(acquired.affine, acquired.data.shape))

    def acquire(data: np.ndarray) -> np.ndarray:
        blurred = ndimage.gaussian_filter(data.astype(np.float32), sigma, mode="nearest")
        moved = on_grid(Volume(blurred, result.affine), acquired.data.shape, acquired.affine, order=3, mode="nearest")
        return moved.data

    share = acquire(mask)
    compared = share >= INSIDE
    if np.count_nonzero(compared) < FEWEST:
        return None
    again, measured = acquire(np.where(mask, result.data, 0))[compared], acquired.data[compared].astype(np.float64)
    slope, level = np.polyfit(again.astype(np.float64), measured, 1)
    difference = np.zeros(acquired.data.shape, np.float32)
    rest = measured - (level + slope * again)
    spread = float(measured.std())
    # Where bright and dark have changed places nothing is explained, and the rest is told in standard deviations.
    scale, explained = (slope, True) if slope > 0 and spread else (max(spread, 1e-12), False)
    difference[compared] = rest / scale
    unexplained = min(1.0, float(rest.std()) / spread) if explained else 1.0
    return Consistency(round(unexplained, 4), Volume(difference, acquired.affine))
