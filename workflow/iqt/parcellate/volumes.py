"""What lies beside a label map: the names of its labels, and how large its structures are."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from iqt.config.parcellate import TABLES
from iqt.errors import UserError
from iqt.imaging.overlap import mean_overlap, overlap
from iqt.io.files import read_table, write_table
from iqt.io.labels import COLUMNS, read_lut
from iqt.io.naming import beside
from iqt.io.shipped import table_file
from iqt.io.volumes import Volume

TABLE_ENDING, VOLUMES_ENDING, AGREEMENT_ENDING = ".tsv", "_volumes.tsv", "_agreement.tsv"
NAMED = tuple(name for name in COLUMNS if name not in ("mirror", "merges"))


def table_of(ids: Collection[int]) -> Path:
    """The first look-up table of resources/ that has all of these labels; UserError where none has."""
    for name in ("aseg", *TABLES):
        rows = read_table(table_file(name), required=("index",))
        if set(ids) <= {0, *(int(row["index"]) for row in rows)}:
            return table_file(name)
    raise UserError("no look-up table of resources/ has all labels of this parcellator; name one with --lut")


def write_structures(label_map: Path, labels: np.ndarray, affine: np.ndarray, lut: Path) -> None:
    """Write `<label map>.tsv` with the rows of the look-up table, and `<label map>_volumes.tsv` with the volume of each
    structure in mm3 (0 where there is none of it), which is its voxels times a voxel's volume.

    Args:
        labels: (X, Y, Z) whole numbers.
        affine: voxel indices to world mm (4, 4).

    Raises:
        UserError: the map holds a label that the look-up table has not.
    """
    rows = [row for row in read_table(lut, required=("index", "name")) if int(row["index"])]
    counts = dict(zip(*(found.tolist() for found in np.unique(labels[labels != 0], return_counts=True)), strict=True))
    unknown = counts.keys() - {int(row["index"]) for row in rows}
    if unknown:
        raise UserError(
            f"{lut}: has no row for label {', '.join(map(str, sorted(unknown)))}; use the parcellator's own"
        )
    voxel = abs(float(np.linalg.det(affine[:3, :3])))
    write_table(
        beside(label_map, VOLUMES_ENDING),
        [
            {
                "index": row["index"],
                "name": row["name"],
                "volume_mm3": f"{counts.get(int(row['index']), 0) * voxel:.1f}",
            }
            for row in rows
        ],
    )
    write_table(beside(label_map, TABLE_ENDING), [{key: row[key] for key in NAMED if key in row} for row in rows])


def write_agreement(
    label_map: Path, labels: np.ndarray, other: np.ndarray, source: Path, volume: Volume, lut: Path
) -> float:
    """Write `<label map>_agreement.tsv`, Dice, intersection over union and both volumes (mm3) of each structure that
    either map holds, and return the mean Dice.

    Args:
        labels: (X, Y, Z), the rows of the look-up table.
        other: another label map of the same voxels; labels that the table merges are read as it says, and where
            `labels` is 0 since it lies outside the brain mask nothing is left out.
        source: the file of `other`, for messages.

    Raises:
        UserError: neither map holds a structure.
    """
    table = read_lut(lut)
    names = {int(row["index"]): row["name"] for row in read_table(lut, required=("index", "name"))}
    read = table.to_labels(table.to_classes(other, source, volume.voxel_size))
    found = [one for one in overlap(read, labels, volume.affine, names) if not np.isnan(one.dice)]
    if not found:
        raise UserError(f"{source}: neither it nor {label_map} holds a structure of {lut.name}")
    rows = [
        {
            "index": one.index,
            "name": one.name,
            "dice": f"{one.dice:.4f}",
            "iou": f"{one.iou:.4f}",
            "volume_mm3": f"{one.volume_mm3:.1f}",
            "volume_other_mm3": f"{one.volume_reference_mm3:.1f}",
        }
        for one in found
    ]
    write_table(beside(label_map, AGREEMENT_ENDING), rows)
    return mean_overlap(found)[1]
