"""How well the parcellation of a result agrees with that of its reference, structure by structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from iqt.errors import UserError


class Structure(NamedTuple):
    """One structure that is present in the reference or in the result; volumes in mm3, NaN where not measured."""

    index: int
    name: str
    iou: float
    dice: float
    volume_reference_mm3: float
    volume_mm3: float


def overlap(reference: np.ndarray, result: np.ndarray, affine: np.ndarray, names: Mapping[int, str]) -> list[Structure]:
    """Intersection over union and Dice of each structure present in either label map, by index.

    Background (0) is excluded, and a structure that neither map holds has no entry: it is neither right nor wrong.

    Args:
        reference, result: label maps (X, Y, Z) on the same grid.
        affine: voxel indices to world mm (4, 4), for the volumes.
        names: names by label, from the look-up table.

    Raises:
        UserError: a label is negative or not in the look-up table.
    """
    voxel = abs(float(np.linalg.det(affine[:3, :3])))
    voxels_reference, voxels_result = _count(reference), _count(result)
    voxels_both = _count(reference[reference == result])
    found = []
    for index in sorted((voxels_reference.keys() | voxels_result.keys()) - {0}):
        if index not in names:
            raise UserError(
                f"label {index}: is in a parcellation but not in the look-up table; use the parcellator's own"
            )
        a, b, both = (voxels.get(index, 0) for voxels in (voxels_reference, voxels_result, voxels_both))
        found.append(Structure(index, names[index], both / (a + b - both), 2 * both / (a + b), voxel * a, voxel * b))
    return found


def missed(reference: np.ndarray, affine: np.ndarray, names: Mapping[int, str]) -> list[Structure]:
    """The entries of a result that could not be parcellated: 0 for every structure of the reference."""
    nothing = overlap(reference, np.zeros_like(reference), affine, names)
    return [structure._replace(volume_mm3=float("nan")) for structure in nothing]


def mean_overlap(structures: Sequence[Structure]) -> tuple[float, float]:
    """(mIoU, mean Dice) over the structures present in either map, of which there must be one."""
    return (
        float(np.mean([structure.iou for structure in structures])),
        float(np.mean([structure.dice for structure in structures])),
    )


def _count(labels: np.ndarray) -> dict[int, int]:
    return {int(label): int(count) for label, count in zip(*np.unique(labels, return_counts=True), strict=True)}
