"""How well the parcellation of a result agrees with that of its reference, structure by structure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from iqt.errors import UserError


class Structure(NamedTuple):
    """One structure of the look-up table; `iou` and `dice` are NaN where neither map holds it.

    Volumes are in mm3, NaN where not measured.
    """

    index: int
    name: str
    iou: float
    dice: float
    volume_reference_mm3: float
    volume_mm3: float


def overlap(reference: np.ndarray, result: np.ndarray, affine: np.ndarray, names: Mapping[int, str]) -> list[Structure]:
    """Intersection over union and Dice of each structure of the look-up table, by index, without the background.

    A structure that only one map holds scores 0; one that neither holds is neither right nor wrong: NaN.

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
    unknown = sorted((voxels_reference.keys() | voxels_result.keys()) - {0} - names.keys())
    if unknown:
        raise UserError(
            f"label {', '.join(map(str, unknown))}: is in a parcellation but not in the look-up table; use the "
            "parcellator's own"
        )
    found = []
    for index in sorted(names.keys() - {0}):
        a, b, both = (voxels.get(index, 0) for voxels in (voxels_reference, voxels_result, voxels_both))
        iou, dice = (both / (a + b - both), 2 * both / (a + b)) if a + b else (math.nan, math.nan)
        found.append(Structure(index, names[index], iou, dice, voxel * a, voxel * b))
    return found


def missed(reference: np.ndarray, affine: np.ndarray, names: Mapping[int, str]) -> list[Structure]:
    """The entries of a result that could not be parcellated: 0 for every structure of the reference, NaN for others."""
    nothing = overlap(reference, np.zeros_like(reference), affine, names)
    return [structure._replace(volume_mm3=float("nan")) for structure in nothing]


def mean_overlap(structures: Sequence[Structure]) -> tuple[float, float]:
    """(mIoU, mean Dice) over the structures present in either map, of which there must be one."""
    return (
        float(np.nanmean([structure.iou for structure in structures])),
        float(np.nanmean([structure.dice for structure in structures])),
    )


def n_present(structures: Sequence[Structure]) -> int:
    """How many structures one of the maps holds at least."""
    return sum(not math.isnan(structure.iou) for structure in structures)


def _count(labels: np.ndarray) -> dict[int, int]:
    return {int(label): int(count) for label, count in zip(*np.unique(labels, return_counts=True), strict=True)}
