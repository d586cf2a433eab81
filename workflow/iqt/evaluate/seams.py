"""Whether a result shows where the tiles, or the patches of a network, that it was made of meet.

A thick slice leaves a pattern in every result's error that repeats with the slices' distance, and tiles and patches may
begin at one and the same place in it. What a border is compared with is therefore the same place in the pattern.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

ISOTROPIC = (1.0, 1.0, 1.0)
"""No pattern."""


def seam_energy(
    reference: np.ndarray,
    volume: np.ndarray,
    mask: np.ndarray,
    borders: Sequence[Sequence[int]],
    periods: Sequence[float] = ISOTROPIC,
) -> tuple[float, float] | None:
    """Gradient energy of the error at the borders against what it is elsewhere along the same axis, at the same place
    between two low-field slices; and how far that ratio varies by itself.

    The error (volume minus reference) is taken, because anatomy has edges of its own wherever a border happens to lie.
    A ratio of 1 means no seams. The second number is the ratio's standard deviation over borders moved by all other
    distances, where there is nothing to see. None where no border, or nothing but borders, lies in the brain.

    Args:
        reference, volume: (X, Y, Z) on one grid.
        mask: (X, Y, Z), true in the brain; a difference counts where both its voxels are in it.
        borders: for each axis the planes i, which lie between voxels i - 1 and i.
        periods: for each axis the distance of low-field voxels, in voxels.
    """
    error = volume.astype(np.float64) - reference
    planes, places, energy, size = [], [], [], []
    for axis, period in enumerate(periods):
        inside = np.moveaxis(mask, axis, 0)
        both = inside[1:] & inside[:-1]
        steps = np.square(np.diff(np.moveaxis(error, axis, 0), axis=0)) * both
        planes.append(np.arange(1, len(inside)))
        places.append([(axis, place) for place in _places(len(inside), period)[1:]])
        energy.append(steps.sum(axis=(1, 2)))
        size.append(both.sum(axis=(1, 2)))
    _, kinds = np.unique(np.concatenate(places), axis=0, return_inverse=True)
    energies, sizes = np.concatenate(energy), np.concatenate(size)

    def ratio(shift: int) -> float:
        pairs = zip(planes, borders, strict=True)
        at = np.concatenate([np.isin(own, np.add(wanted, shift)) for own, wanted in pairs])
        return _against_elsewhere(energies, sizes, at, kinds.ravel())

    found = ratio(0)
    if np.isnan(found):
        return None
    gaps = [int(gap) for wanted in borders for gap in np.diff(wanted)]
    others = [ratio(sign * shift) for shift in range(1, min([8, *gaps])) for sign in (1, -1)]
    others = [value for value in others if not np.isnan(value)]
    return found, float(np.std(others)) if len(others) > 1 else math.nan


def border_error(
    reference: np.ndarray,
    volume: np.ndarray,
    mask: np.ndarray,
    borders: Sequence[Sequence[int]],
    periods: Sequence[float] = ISOTROPIC,
) -> tuple[float, float] | None:
    """Root mean square error of the voxels on either side of a border, and its ratio to that of all others at the same
    places between low-field slices.

    A ratio of 1 means that a network is as good at the edge of what it sees as inside; NaN where no other voxel lies at
    such a place, or all others are exact. None where no voxel of the brain lies at a border.

    Args:
        reference, volume: (X, Y, Z) on one grid.
        mask: (X, Y, Z), true in the brain.
        borders: for each axis the planes i, which lie between voxels i - 1 and i.
        periods: for each axis the distance of low-field voxels, in voxels.
    """
    at, kinds = np.zeros(mask.shape, bool), np.zeros(mask.shape, int)
    for axis, (planes, period) in enumerate(zip(borders, periods, strict=True)):
        size = mask.shape[axis]
        beside = np.unique([plane - side for plane in planes for side in (0, 1)]).astype(int)
        np.moveaxis(at, axis, 0)[beside[(beside >= 0) & (beside < size)]] = True
        places = _places(size, period)
        kinds = kinds * (places.max() + 1) + np.expand_dims(places, [other for other in range(3) if other != axis])
    squares = np.square(volume.astype(np.float64) - reference)[mask]
    beside_border = squares[at[mask]]
    if not beside_border.size:
        return None
    ratio = _against_elsewhere(squares, np.ones_like(squares), at[mask], kinds[mask])
    return float(np.sqrt(beside_border.mean())), math.sqrt(ratio)


def _places(size: int, period: float) -> np.ndarray:
    """The place of each voxel along an axis within a repeating pattern: (size,), whole numbers from 0."""
    # Rounded, since an affine gives 4 as 4.0000001.
    return np.mod(np.arange(size), max(1.0, round(period, 3))).astype(int)


def _against_elsewhere(sums: np.ndarray, counts: np.ndarray, at: np.ndarray, kinds: np.ndarray) -> float:
    """The sum over the places `at` against what the means of the others of the same kind make one expect; NaN where
    there is nothing to compare."""
    n_kinds = kinds.max(initial=0) + 1

    def total(values: np.ndarray, where: np.ndarray) -> np.ndarray:
        return np.bincount(kinds[where], values[where], n_kinds)

    elsewhere = total(counts, ~at)
    known = elsewhere > 0
    means = np.divide(total(sums, ~at), elsewhere, out=np.zeros(n_kinds), where=known)
    expected = (total(counts, at) * means)[known].sum()
    return float(total(sums, at)[known].sum() / expected) if expected else math.nan
