"""How well the parcellator reads the high-quality scans, against the label maps that came with them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from iqt.batch import OK, status_of
from iqt.errors import UserError
from iqt.evaluate.overlap import Structure, mean_overlap, n_present, overlap
from iqt.evaluate.run import DECIMALS
from iqt.files import read_table, write_table
from iqt.labels import LabelTable, read_lut
from iqt.naming import anat, flat
from iqt.volumes import read_on_grid, read_volume

COLUMNS = ("scan", *Structure._fields)


def score_parcellator(participants: Path, cohort: Path, parcellation: Path, suffix: str, lut: Path, out: Path) -> None:
    """Write a row a test scan and structure: Dice and IoU of the parcellator's labels with the scan's own.

    The scan's labels are read through the look-up table, which may merge them. A scan whose parcellation failed has
    each of its structures with Dice and IoU 0; one without a label map is left out, so a cohort that brings no labels
    gives a table without a row.

    Raises:
        UserError: a table is missing or not valid.
    """
    table = read_lut(lut)
    names = {int(row["index"]): row["name"] for row in read_table(lut, required=("index", "name"))}
    rows: list[dict] = []
    for person in read_table(participants, required=("scan", "split", "status")):
        scan = person["scan"]
        if person["split"] != "test" or person["status"] != OK:
            continue
        try:
            found = _compare(scan, cohort, parcellation, suffix, table, names)
        except UserError as error:
            print(f"{scan}: {error}", file=sys.stderr, flush=True)
            continue
        print(f"{scan}: Dice {mean_overlap(found)[1]:.3f}", file=sys.stderr, flush=True)
        rows += [{"scan": scan, **_tidy(structure)} for structure in found if structure.iou == structure.iou]
    write_table(out, rows, COLUMNS)


def _compare(
    scan: str, cohort: Path, parcellation: Path, suffix: str, table: LabelTable, names: dict[int, str]
) -> list[Structure]:
    label_map = anat(cohort, scan, "dseg.nii.gz")
    if not label_map.is_file():
        raise UserError("the cohort brings no labels for it")
    volume = read_volume(anat(cohort, scan, f"{suffix}.nii.gz"))
    mask = read_on_grid(anat(cohort, scan, "desc-brain_mask.nii.gz"), volume, np.uint8) > 0
    own = read_on_grid(label_map, volume, np.int32)
    truth = table.to_labels(table.to_classes(np.where(mask, own, 0), label_map, volume.voxel_size))
    status = status_of(flat(parcellation, scan, "dseg.json"))
    if status == OK:
        reading = read_on_grid(flat(parcellation, scan, "dseg.nii.gz"), volume, np.int32)
    else:
        print(f"{scan}: parcellation: {status}", file=sys.stderr, flush=True)
        reading = np.zeros_like(truth)
    found = overlap(truth, reading, volume.affine, names)
    if not n_present(found):
        raise UserError("neither its labels nor the parcellation hold a structure")
    return found


def _tidy(structure: Structure) -> dict:
    return {
        key: round(value, DECIMALS) if isinstance(value, float) else value for key, value in structure._asdict().items()
    }
