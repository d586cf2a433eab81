"""What lies beside a label map: its labels' names, how large its structures are, and how far another map agrees."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from iqt.config.parcellate import TABLES
from iqt.errors import UserError
from iqt.imaging.overlap import mean_overlap, overlap
from iqt.io.files import write_table
from iqt.io.labels import COLUMNS, read_lut, read_rows
from iqt.io.naming import beside
from iqt.io.shipped import table_file
from iqt.io.volumes import Volume

TABLE_ENDING, VOLUMES_ENDING, AGREEMENT_ENDING = ".tsv", "_volumes.tsv", "_agreement.tsv"
NAMED = tuple(name for name in COLUMNS if name not in ("mirror", "merges"))
NEEDED = ("index", "mirror", "name")


def table_of(ids: Collection[int]) -> Path:
    """The smallest look-up table of resources/ that has all of these labels; UserError where none has."""
    tables = {table_file(name): {0, *read_rows(table_file(name))} for name in TABLES}
    fitting = [path for path, known in tables.items() if set(ids) <= known]
    if not fitting:
        raise UserError("no look-up table of resources/ has all labels of this parcellator; name one with --lut")
    return min(fitting, key=lambda path: len(tables[path]))


def require_names(lut: Path, ids: Collection[int]) -> None:
    """UserError where a look-up table lacks a name for a label that a parcellator may give."""
    unknown = sorted(set(ids) - {0, *read_rows(lut, NEEDED)})
    if unknown:
        listed = ", ".join(map(str, unknown[:10]))
        raise UserError(f"{lut}: has no row for label {listed} of this parcellator; give the parcellator's own table")


def write_structures(label_map: Path, labels: np.ndarray, affine: np.ndarray, lut: Path, ids: Collection[int]) -> None:
    """Write `<label map>.tsv` with the rows of the look-up table, and `<label map>_volumes.tsv` with the volume of each
    structure in mm3 (0 where there is none of it), which is its number of voxels times the volume of a voxel.

    Args:
        labels: (X, Y, Z) whole numbers.
        affine: voxel indices to world mm (4, 4).
        ids: what the parcellator can label: of other rows of the table it says nothing.
    """
    rows = {index: row for index, row in read_rows(lut, NEEDED).items() if index and index in ids}
    counts = dict(zip(*(found.tolist() for found in np.unique(labels, return_counts=True)), strict=True))
    voxel = abs(float(np.linalg.det(affine[:3, :3])))
    volumes = {index: counts.get(index, 0) * voxel for index in rows}
    found = [
        {"index": index, "name": row["name"], "volume_mm3": f"{volumes[index]:.1f}"} for index, row in rows.items()
    ]
    write_table(beside(label_map, VOLUMES_ENDING), found)
    write_table(
        beside(label_map, TABLE_ENDING), [{key: row[key] for key in NAMED if key in row} for row in rows.values()]
    )


def write_agreement(
    label_map: Path,
    labels: np.ndarray,
    other: np.ndarray,
    source: Path,
    volume: Volume,
    lut: Path,
    ids: Collection[int],
) -> tuple[float, int]:
    """Write `<label map>_agreement.tsv`: Dice, intersection over union and both volumes (mm3) of each structure that
    either map holds. Returns the mean Dice over the structures that the other map holds, and their number: one that it
    lacks may be unknown to whoever drew it.

    Args:
        labels: (X, Y, Z), labels of the look-up table.
        other: another label map of the same voxels, whose labels the table may merge.
        source: the file of `other`, for messages.
        ids: what the parcellator can label: structures that it does not know are not compared.

    Raises:
        UserError: the other map holds no structure of the table.
    """
    table = read_lut(lut)
    names = {index: row["name"] for index, row in read_rows(lut, NEEDED).items()}
    read = table.to_labels(table.to_classes(other, source, volume.voxel_size))
    compared = overlap(read, labels, volume.affine, names)
    found = [one for one in compared if one.index in ids and not np.isnan(one.dice)]
    held = [one for one in found if one.volume_reference_mm3 > 0]
    if not held:
        raise UserError(f"{source}: holds no structure of {lut.name} that the parcellator knows")
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
    return mean_overlap(held)[1], len(held)
