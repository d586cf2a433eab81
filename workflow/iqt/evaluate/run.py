"""Scores of a list of scans: a row a scan and method, and a row a structure."""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iqt.batch import OK, require_ok, status_of
from iqt.config import Evaluate
from iqt.errors import UserError
from iqt.evaluate.overlap import Structure, mean_overlap, missed, n_present, overlap
from iqt.evaluate.similarity import similarity
from iqt.files import read_table, write_table
from iqt.naming import Result, anat, flat
from iqt.volumes import Volume, intensity_scale, read_on_grid, read_volume

SUBJECT_COLUMNS = (
    *("scan", "set", "method", "status", "psnr", "msssim", "msssim_scales", "ssim", "hfcorr", "nmse", "mae", "hfen"),
    *("psnr_minmax", "msssim_minmax", "msssim_minmax_scales", "ulfenc", "miou", "dice"),
    *("n_structures", "parcellator", "seconds", "nfe", "samples", "n_parameters", "seed"),
)
STRUCTURE_COLUMNS = ("scan", "set", "method", *Structure._fields, "seed")
COSTS = ("seconds", "nfe", "samples", "n_parameters")
DECIMALS = 6
"""Digits kept after the point: more would only show in which order a machine adds up."""


class Reference(NamedTuple):
    """A test scan on the high-quality intensity scale, its brain mask, and its parcellation or why there is none."""

    volume: Volume
    mask: np.ndarray
    labels: np.ndarray | None
    labels_status: str
    parcellator: str
    """Engine and version that read it."""


def evaluate_scans(
    scans: Iterable[str],
    set_name: str,
    results: Iterable[str],
    suffix: str,
    cohort: Path,
    enhanced: Path,
    parcellation: Path,
    lut: Path,
    settings: Evaluate,
    subjects_out: Path,
    structures_out: Path,
) -> None:
    """Score every result of every scan against the high-quality scan; no scan or result is ever left out.

    A row's status is `ok`, or where it failed and why. Whatever could be measured is kept: without a result nothing;
    without a parcellation of the result mIoU and Dice are 0, because the result is what made the parcellator fail;
    without one of the reference they are empty.

    Args:
        results: as `naming.Result` writes them, `unet=1` or `unet/seed-2=2`.
        enhanced: folder of this set, with a folder for each result.
        parcellation: folder with `hq` and, for each set, a folder for each result.
        lut: look-up table with columns index and name.
    """
    names = {int(row["index"]): row["name"] for row in read_table(lut, required=("index", "name"))}
    parsed = [Result.parse(text) for text in results]
    subjects, structures = [], []
    for scan in scans:
        reference, status = attempt(_read_reference, cohort, parcellation / "hq", scan, suffix)
        for result in parsed:
            seed = "" if result.seed is None else result.seed
            identity = {"scan": scan, "set": set_name, "method": result.method, "seed": seed}
            row, found = {"status": status}, []
            if reference is not None:
                sources = enhanced / result.folder, parcellation / set_name / result.folder
                row, found = _score(reference, *sources, scan, suffix, names, settings)
            subjects.append(_tidy(identity | row))
            structures.extend(_tidy(identity | structure._asdict()) for structure in found)
            print(f"{scan} {result.folder}: {row['status']}", file=sys.stderr, flush=True)
    write_table(subjects_out, subjects, SUBJECT_COLUMNS)
    write_table(structures_out, structures, STRUCTURE_COLUMNS)


def _score(
    reference: Reference,
    enhanced: Path,
    parcellation: Path,
    scan: str,
    suffix: str,
    names: Mapping[int, str],
    settings: Evaluate,
) -> tuple[dict, list[Structure]]:
    """One result's row, less what identifies it, and its structures."""
    row: dict = {}
    read, row["status"] = attempt(_read_result, enhanced, scan, suffix, reference)
    if read is None:
        return row, []
    data, costs = read
    row.update(costs)
    scores, row["status"] = attempt(similarity, reference.volume.data, data, reference.mask, settings.highpass_sigma)
    if scores is None:
        return row, []
    row.update(scores)
    row["parcellator"] = reference.parcellator
    if reference.labels is None:
        row["status"] = reference.labels_status
        return row, []
    compared, row["status"] = attempt(_compare, reference, parcellation, scan, names)
    if compared is None:
        return row, []
    structures, row["status"] = compared
    row["miou"], row["dice"] = mean_overlap(structures)
    row["n_structures"] = n_present(structures)
    return row, structures


def read_truth(cohort: Path, scan: str, suffix: str) -> tuple[Volume, np.ndarray]:
    """A high-quality scan on the intensity scale, and its brain mask (bool)."""
    volume = read_volume(anat(cohort, scan, f"{suffix}.nii.gz"))
    mask = read_on_grid(anat(cohort, scan, "desc-brain_mask.nii.gz"), volume, np.uint8) > 0
    return volume._replace(data=volume.data / np.float32(intensity_scale(volume.data, mask))), mask


def _read_reference(cohort: Path, parcellation: Path, scan: str, suffix: str) -> Reference:
    require_ok(anat(cohort, scan, f"{suffix}.json"), "cohort")
    scaled, mask = read_truth(cohort, scan, suffix)
    found, status = attempt(_read_labels, parcellation, scan, scaled)
    labels, parcellator = found or (None, "")
    return Reference(scaled, mask, labels, status, parcellator)


def _read_result(folder: Path, scan: str, suffix: str, reference: Reference) -> tuple[np.ndarray, dict]:
    """The volume (X, Y, Z) and what it cost."""
    record = require_ok(flat(folder, scan, f"{suffix}.json"), "enhanced")
    data = read_on_grid(flat(folder, scan, f"{suffix}.nii.gz"), reference.volume)
    return data, {name: record[name] for name in COSTS if record.get(name) is not None}


def _read_labels(folder: Path, scan: str, volume: Volume) -> tuple[np.ndarray, str]:
    """The label map (X, Y, Z), and the engine and version that made it."""
    record = require_ok(flat(folder, scan, "dseg.json"), "parcellation")
    parcellator = " ".join(str(record[key]) for key in ("engine", "version") if record.get(key))
    return read_on_grid(flat(folder, scan, "dseg.nii.gz"), volume, np.int32), parcellator


def _compare(reference: Reference, folder: Path, scan: str, names: Mapping[int, str]) -> tuple[list[Structure], str]:
    """Overlap a structure, and the status: the parcellator's recorded failure scores 0, an absent record nothing."""
    affine = reference.volume.affine
    failure = status_of(flat(folder, scan, "dseg.json"))
    if failure != OK:
        structures = missed(reference.labels, affine, names)
        status = f"parcellation: {failure}"
    else:
        labels, parcellator = _read_labels(folder, scan, reference.volume)
        if parcellator != reference.parcellator:
            raise UserError(
                f"parcellation: read by {parcellator or 'an unknown engine'}, but the reference by "
                f"{reference.parcellator or 'an unknown engine'}; parcellate both again with the same"
            )
        structures = overlap(reference.labels, labels, affine, names)
        status = OK
    if not n_present(structures):
        raise UserError("parcellation: the reference holds no structure, and neither does the result")
    return structures, status


def attempt(work: Callable, *arguments: Any) -> tuple[Any, str]:
    """What `work` returns and `ok`, or None and the reason; what is the machine's fault (memory, disk) does stop."""
    try:
        return work(*arguments), OK
    except UserError as error:
        return None, " ".join(str(error).split())
    except (MemoryError, OSError):
        raise
    except Exception as error:
        traceback.print_exc()
        return None, " ".join(f"{type(error).__name__}: {error}".split())


def _tidy(row: Mapping) -> dict:
    """A row as it is written: rounded, and empty where there is no number."""
    return {
        key: "" if isinstance(value, float) and math.isnan(value) else _rounded(value) for key, value in row.items()
    }


def _rounded(value: Any) -> Any:
    return round(value, DECIMALS) if isinstance(value, float) else value
