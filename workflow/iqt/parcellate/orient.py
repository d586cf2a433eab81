"""Turning volumes so that their axes run right, anterior, superior, and back."""

from __future__ import annotations

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform


def to_ras(data: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The volume (X, Y, Z) with its axes permuted and flipped to the nearest RAS+ order."""
    return apply_orientation(data, io_orientation(affine))


def from_ras(data: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Undo `to_ras`: a RAS+ volume in the axis order of the volume that `affine` belongs to."""
    return apply_orientation(data, ornt_transform([[0, 1], [1, 1], [2, 1]], io_orientation(affine)))


def ras_affine(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The affine of `to_ras` of a volume with this affine and shape."""
    return affine @ inv_ornt_aff(io_orientation(affine), shape)
