"""How well the parcellator reads the high-quality scans, against the label maps that came with them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from iqt.errors import UserError
from iqt.evaluate.run import DECIMALS, attempt
from iqt.imaging.overlap import Structure, n_present, overlap
from iqt.io.batch import OK, is_the_machines, status_in
from iqt.io.files import read_json, read_table, write_table
from iqt.io.labels import LabelTable, read_lut
from iqt.io.naming import anat, flat
from iqt.io.volumes import read_on_grid, read_volume

COLUMNS = ("scan", "status", *Structure._fields)


def score_parcellator(participants: Path, cohort: Path, parcellation: Path, suffix: str, lut: Path, out: Path) -> None:
    """Write one row per test scan and structure: Dice and IoU of the parcellator's labels with the scan's own.

    The scan's labels are read through the look-up table, which may merge them. Structures that its own
    labels do not hold are left out: they may be of a scheme that knows fewer. `status` is `ok`, or what failed and
    why: a scan whose parcellation failed has each of its structures with Dice and IoU 0, one whose label map or volume
    cannot be read has a single row without a structure. A scan that came without a label map has no row, so a cohort
    that brings no labels gives a table without any.

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
        if not anat(cohort, scan, "dseg.nii.gz").is_file():
            print(f"{scan}: the cohort brings no labels for it", file=sys.stderr, flush=True)
            continue
        compared, status = attempt(_compare, scan, cohort, parcellation, suffix, table, names)
        found, reading = compared or ([], status)
        print(f"{scan}: {reading}", file=sys.stderr, flush=True)
        held = [structure for structure in found if structure.volume_reference_mm3 > 0]
        row = {"scan": scan, "status": reading}
        rows += [row | _tidy(structure) for structure in held] or [row]
    write_table(out, rows, COLUMNS)


def _compare(
    scan: str, cohort: Path, parcellation: Path, suffix: str, table: LabelTable, names: dict[int, str]
) -> tuple[list[Structure], str]:
    """Overlap a structure, and `ok` or why the parcellator read nothing."""
    label_map = anat(cohort, scan, "dseg.nii.gz")
    volume = read_volume(anat(cohort, scan, f"{suffix}.nii.gz"))
    mask = read_on_grid(anat(cohort, scan, "desc-brain_mask.nii.gz"), volume, np.uint8) > 0
    own = read_on_grid(label_map, volume, np.int32)
    truth = table.to_labels(table.to_classes(np.where(mask, own, 0), label_map, volume.voxel_size))
    record = read_json(flat(parcellation, scan, "dseg.json"))
    status = status_in(record)
    if is_the_machines(record):
        raise UserError(f"parcellation: {status}")
    if status == OK:
        reading = read_on_grid(flat(parcellation, scan, "dseg.nii.gz"), volume, np.int32)
    else:
        reading = np.zeros_like(truth)
    found = overlap(truth, reading, volume.affine, names)
    if not n_present(found):
        raise UserError("neither its labels nor the parcellation hold a structure")
    return found, OK if status == OK else f"parcellation: {status}"


def _tidy(structure: Structure) -> dict:
    return {
        key: round(value, DECIMALS) if isinstance(value, float) else value for key, value in structure._asdict().items()
    }
