"""FastSurfer's labels on the grid of the volume that it read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np

from iqt.errors import MachineError, UserError
from iqt.imaging.resample import labels_on
from iqt.io.batch import OK, is_the_machines, run_scans, status_in
from iqt.io.files import read_json
from iqt.io.labels import LabelTable
from iqt.io.naming import flat
from iqt.io.volumes import Volume, bounding_box, read_volume, save_volume
from iqt.parcellate.fastsurfer.jobs import LABELS
from iqt.parcellate.images import Images

ENGINE = "fastsurfer"


def read_results(
    scans: Iterable[str],
    images: Path,
    layout: Literal["anat", "flat"],
    suffix: str,
    cohort: Path,
    plan: Path,
    runs: Path,
    table: LabelTable,
    out: Path,
) -> None:
    """Write `<scan>_dseg.nii.gz` and its sidecar (status, seconds, engine, version) from what FastSurfer left.

    A volume on which it failed, or whose files do not fit the volume, leaves the reason as its status and no labels.

    Args:
        plan, runs: JSON of `plan_jobs` and of `run_jobs`.
        table: the look-up table of FastSurfer's labels.
    """
    jobs, records = read_json(plan)["jobs"], read_json(runs)
    source = Images(images, layout, suffix, cohort)

    def work(scan: str) -> dict:
        if scan not in jobs:
            known = read_json(flat(plan.parent / "inputs", scan, "input.json"))
            if status_in(known) == OK:
                raise MachineError(f"{plan}: holds no job for this scan; delete it")
            kind = MachineError if is_the_machines(known) else UserError
            raise kind(status_in(known))
        job, record = jobs[scan], records[scan]
        if record["exit_code"]:
            raise UserError(record["reason"])
        volume, mask = source.read(scan)
        labels = labels_on_grid(Path(job["folder"]), volume, mask, table)
        save_volume(flat(out, scan, "dseg.nii.gz"), labels, volume.affine)
        facts = {"seconds": record["seconds"], "engine": ENGINE, "version": job["version"]}
        return {**facts, "warnings": list(volume.doubts)}

    run_scans(scans, lambda scan: flat(out, scan, "dseg.json"), lambda scan: [flat(out, scan, "dseg.nii.gz")], work)


def labels_on_grid(folder: Path, volume: Volume, mask: np.ndarray, table: LabelTable) -> np.ndarray:
    """Labels (X, Y, Z) int16 of a subject's folder on the grid of `volume` by nearest neighbour, 0 outside `mask`.

    Raises:
        UserError: a file is missing, labels and conformed image lie on different grids, the conformed space does not
            cover the brain, or no structure was found.
    """
    path = folder / LABELS
    if not path.is_file():
        raise UserError(f"{path}: FastSurfer ended without an error but wrote no labels; see its log")
    found = read_volume(path, np.int32)
    conformed = read_volume(path.with_name("orig.mgz"))
    same = found.data.shape == conformed.data.shape and np.allclose(found.affine, conformed.affine, atol=1e-3)
    if not same:
        raise UserError(f"{path}: its grid is not that of orig.mgz beside it, so it belongs to another volume")
    _require_cover(path, found, volume, mask)
    inside = np.where(mask, labels_on(found.data, found.affine, volume), 0)
    labels = table.to_labels(table.to_classes(inside, path))
    if not labels.any():
        raise UserError(f"{path}: FastSurfer found no structure in the brain mask; look at the image")
    return labels


def _require_cover(path: Path, found: Volume, volume: Volume, mask: np.ndarray) -> None:
    """UserError where a corner of the brain's box lies outside the conformed space, as with a wrong affine."""
    ends = [(side.start, side.stop - 1) for side in bounding_box(mask)]
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
    to_conformed = np.linalg.inv(found.affine) @ volume.affine
    at = nib.affines.apply_affine(to_conformed, corners)
    if (at < -0.5).any() or (at > np.array(found.data.shape) - 0.5).any():
        raise UserError(f"{path}: its space does not hold the whole brain of the volume; their affines do not agree")
