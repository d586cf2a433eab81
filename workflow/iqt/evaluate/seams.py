"""Whether a result shows where the tiles, or the patches of a network, that it was made of meet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def seam_energy(
    reference: np.ndarray, volume: np.ndarray, mask: np.ndarray, borders: Sequence[Sequence[int]]
) -> tuple[float, float] | None:
    """Gradient energy of the error at the borders against elsewhere, and how far that ratio varies by itself.

    The error (volume minus reference) is taken, because anatomy has edges of its own wherever a border happens to lie.
    A ratio of 1 means no seams. The second number is the ratio's standard deviation over borders moved by all other
    distances, where there is nothing to see. None where no border, or nothing but borders, lies in the brain.

    Args:
        reference, volume: (X, Y, Z) on one grid.
        mask: (X, Y, Z), true in the brain; a difference counts where both its voxels are in it.
        borders: for each axis the planes i, which lie between voxels i - 1 and i.
    """
    error = volume.astype(np.float64) - reference
    planes, sums, counts = [], [], []
    for axis in range(3):
        inside = np.moveaxis(mask, axis, 0)
        both = inside[1:] & inside[:-1]
        steps = np.square(np.diff(np.moveaxis(error, axis, 0), axis=0)) * both
        planes.append(np.arange(1, len(inside)))
        sums.append(steps.sum(axis=(1, 2)))
        counts.append(both.sum(axis=(1, 2)))
    energy, size = np.concatenate(sums), np.concatenate(counts)

    def ratio(shift: int) -> float:
        pairs = zip(planes, borders, strict=True)
        at = np.concatenate([np.isin(own, np.add(wanted, shift)) for own, wanted in pairs])
        if not size[at].sum() or not energy[~at].sum():
            return np.nan
        return float((energy[at].sum() / size[at].sum()) / (energy[~at].sum() / size[~at].sum()))

    found = ratio(0)
    if np.isnan(found):
        return None
    gaps = [int(gap) for wanted in borders for gap in np.diff(wanted)]
    others = [ratio(sign * shift) for shift in range(1, min([8, *gaps])) for sign in (1, -1)]
    others = [value for value in others if not np.isnan(value)]
    return found, float(np.std(others)) if len(others) > 1 else float("nan")


def border_error(
    reference: np.ndarray, volume: np.ndarray, mask: np.ndarray, borders: Sequence[Sequence[int]]
) -> tuple[float, float] | None:
    """Root mean square error of the voxels on either side of a border, and its ratio to that of all others.

    A ratio of 1 means that a network is as good at the edge of what it sees as inside. None where no voxel of the
    brain, or every one of them, lies at a border, or the result is exact.

    Args:
        reference, volume: (X, Y, Z) on one grid.
        mask: (X, Y, Z), true in the brain.
        borders: for each axis the planes i, which lie between voxels i - 1 and i.
    """
    at = np.zeros(mask.shape, bool)
    for axis, planes in enumerate(borders):
        beside = np.unique([plane - side for plane in planes for side in (0, 1)]).astype(int)
        np.moveaxis(at, axis, 0)[beside[(beside >= 0) & (beside < mask.shape[axis])]] = True
    squares = np.square(volume.astype(np.float64) - reference)
    near, far = squares[mask & at], squares[mask & ~at]
    if not near.size or not far.size or not far.any():
        return None
    error = float(np.sqrt(near.mean()))
    return error, error / float(np.sqrt(far.mean()))
