"""One result of a list of scans against the high-quality ones: similarity, structures, calibration and seams."""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iqt.config import Evaluate
from iqt.config.experiments import CALIBRATED, COVERAGES
from iqt.diffusion.spread import Spread, read_spread
from iqt.errors import MemoryShortError, StopError, UserError
from iqt.evaluate.calibration import calibration
from iqt.evaluate.seams import border_error, seam_energy
from iqt.evaluate.similarity import similarity
from iqt.imaging.overlap import Structure, mean_overlap, missed, n_present, overlap
from iqt.io.batch import OK, is_the_machines, require_ok, status_in
from iqt.io.files import read_json, read_table, write_table
from iqt.io.naming import PARTS, Result, anat, flat
from iqt.io.volumes import Volume, intensity_scale, read_on_grid, read_volume

SUBJECT_COLUMNS = (
    *("scan", "set", "method", "status", "psnr", "msssim", "msssim_scales", "ssim", "hfcorr", "nmse", "mae", "hfen"),
    *("psnr_minmax", "msssim_minmax", "msssim_minmax_scales", "ulfenc", "lpips", "miou", "dice"),
    *("n_structures", "parcellator", "seconds", "nfe", "samples", "n_parameters", "seed"),
)
STRUCTURE_COLUMNS = ("scan", "set", "method", *Structure._fields, "seed")
CALIBRATION_COLUMNS = (
    *("scan", "set", "method", "status", "samples", "correlation", "ratio", *COVERAGES),
    *("calibrated_correlation", "calibrated_ratio", *CALIBRATED, "seed"),
)
RELIABILITY_COLUMNS = ("scan", "set", "method", "bin", "n_voxels", "expected", "error", "seed")
SEAM_COLUMNS = (
    *("scan", "set", "method", "status", "tiles", "tile_seam", "tile_seam_sd", "patch_seam", "patch_seam_sd"),
    *("patch_error", "patch_error_ratio", "seed"),
)
TABLES = dict(
    zip(
        PARTS,
        (SUBJECT_COLUMNS, STRUCTURE_COLUMNS, CALIBRATION_COLUMNS, RELIABILITY_COLUMNS, SEAM_COLUMNS),
        strict=True,
    )
)
"""What is written of a result, each a CSV with these columns: one row per scan, but in `structures` one per structure
and in `reliability` one per part of the curve; the last three are empty for what has no samples, tiles or patches."""
UNREAD = "none"
"""What the column `parcellator` says where nothing was parcellated."""
COSTS = ("seconds", "nfe", "samples", "n_parameters")
ALONG = 0.9998
"""Cosine from which on an axis counts as running along another: 1.1 degrees."""
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


class Prediction(NamedTuple):
    """A result (X, Y, Z) on the reference's grid and scale, and its sidecar."""

    data: np.ndarray
    record: dict


def evaluate_result(
    scans: Iterable[str],
    set_name: str,
    result: Result,
    suffix: str,
    root: Path,
    lut: Path | None,
    settings: Evaluate,
    out: Path,
    spread: Path | None = None,
) -> None:
    """Score one result on every scan and write `TABLES` into the folder `out`; no scan is ever left out.

    A row's status is `ok`, or where it failed and why. Whatever could be measured is kept: without a result nothing;
    without a parcellation of the result mIoU and Dice are 0, because the result is what made the parcellator fail;
    without one of the reference, or where the machine failed, they are empty.

    Args:
        root: folder of the run, with cohort/, lowfield/, enhanced/ and parcellation/.
        lut: look-up table with columns index and name; None where nothing was parcellated, so that there is neither
            mIoU nor Dice.
        spread: what validation people told of the samples' spread, for a result that has one.

    Raises:
        UserError: the look-up table, or the weights that `settings.lpips` names, cannot be read.
    """
    rows = [] if lut is None else read_table(lut, required=("index", "name"))
    names = {int(row["index"]): row["name"] for row in rows}
    enhanced = root / "enhanced" / set_name / result.folder
    parcellation = root / "parcellation" / set_name / result.folder
    lpips = _lpips(settings)
    calibrated = None if spread is None else read_spread(spread)
    tables: dict[str, list[dict]] = {name: [] for name in TABLES}
    for scan in scans:
        identity = {"scan": scan, "set": set_name, "method": result.method}
        identity["seed"] = "" if result.seed is None else str(result.seed)
        prediction = None
        reference, status = attempt(_read_reference, root, scan, suffix, lut is not None)
        if reference is not None:
            prediction, status = attempt(_read_result, enhanced, scan, suffix, reference)
        if prediction is None:
            # Whether there were several samples is not known either; an interpolation has none.
            names_of = ("subjects", "calibration", "seams") if result.seed is not None else ("subjects",)
            found: dict[str, list[dict]] = {name: [{"status": status}] for name in names_of}
        else:
            row, structures = _score(reference, prediction, parcellation, scan, names, settings, lpips)
            status = row["status"]
            found = {"subjects": [row], "structures": [structure._asdict() for structure in structures]}
            low = root / "lowfield" / set_name
            found |= _assess(reference, prediction, low, enhanced, scan, suffix, calibrated)
        for name, rows in found.items():
            tables[name] += [_tidy(identity | row) for row in rows]
        print(f"{scan}: {status}", file=sys.stderr, flush=True)
    for name, rows in tables.items():
        write_table(out / f"{name}.csv", rows, TABLES[name])


def _lpips(settings: Evaluate) -> Callable | None:
    if settings.lpips is None:
        return None
    from iqt.evaluate.perceptual import LPIPS  # imports torch, which scoring does not need otherwise

    return LPIPS(Path(settings.lpips))


def _score(
    reference: Reference,
    prediction: Prediction,
    parcellation: Path,
    scan: str,
    names: Mapping[int, str],
    settings: Evaluate,
    lpips: Callable | None,
) -> tuple[dict, list[Structure]]:
    """Its row of subjects.csv, less what identifies it, and its structures."""
    row: dict = {name: prediction.record[name] for name in COSTS if prediction.record.get(name) is not None}
    scores, row["status"] = attempt(
        similarity, reference.volume.data, prediction.data, reference.mask, settings.highpass_sigma
    )
    if scores is None:
        return row, []
    row.update(scores)
    row["parcellator"] = reference.parcellator
    structures: list[Structure] = []
    row["status"] = reference.labels_status
    if reference.labels is not None:
        compared, row["status"] = attempt(_compare, reference, parcellation, scan, names)
        if compared is not None:
            structures, row["status"] = compared
            row["miou"], row["dice"] = mean_overlap(structures)
            row["n_structures"] = n_present(structures)
    if lpips is not None:
        row["lpips"], status = attempt(lpips, reference.volume.data, prediction.data, reference.mask)
        if row["lpips"] is None:
            reasons = [] if row["status"] == OK else [row["status"]]
            row["status"] = "; ".join([*reasons, f"LPIPS: {status}"])
    return row, structures


def _assess(
    reference: Reference,
    prediction: Prediction,
    lowfield: Path,
    enhanced: Path,
    scan: str,
    suffix: str,
    calibrated: Spread | None,
) -> dict[str, list[dict]]:
    """What a network's result says of itself: calibration and reliability of several samples' spread, and seams. An
    interpolation has neither."""
    if not prediction.record.get("n_parameters"):
        return {}
    low = anat(lowfield, scan, f"{suffix}.nii.gz")
    seams, status = attempt(_seams, reference, prediction, low)
    found: dict[str, list[dict]] = {"seams": [{"status": status} | (seams or {})]}
    samples = prediction.record.get("samples", 1)
    if samples > 1:
        sd = flat(enhanced, scan, f"desc-sd_{suffix}.nii.gz")
        spread, status = attempt(_spread, reference, prediction, sd, low, calibrated)
        figures, found["reliability"] = spread or ({}, [])
        found["calibration"] = [{"status": status, "samples": samples} | figures]
    return found


def _seams(reference: Reference, prediction: Prediction, lowfield: Path) -> dict:
    truth, data, mask = reference.volume.data, prediction.data, reference.mask
    periods = _slice_periods(read_volume(lowfield).affine, reference.volume.affine)
    found: dict = {"tiles": prediction.record.get("tiles")}
    for kind in ("tile", "patch"):
        borders = prediction.record.get(f"{kind}_borders", ([], [], []))
        energy = seam_energy(truth, data, mask, borders, periods)
        found |= dict(zip((f"{kind}_seam", f"{kind}_seam_sd"), energy or ("", ""), strict=True))
    borders = prediction.record.get("patch_borders", ([], [], []))
    error = border_error(truth, data, mask, borders, periods)
    return found | dict(zip(("patch_error", "patch_error_ratio"), error or ("", ""), strict=True))


def _slice_periods(lowfield: np.ndarray, reference: np.ndarray) -> list[float]:
    """Distance of low-field voxels along each axis of the reference's grid, in its voxels, from both affines (4, 4).

    1, so no pattern, for an axis that no low-field axis runs along: tilted slices are not planes of the grid.
    """
    sizes = [np.linalg.norm(affine[:3, :3], axis=0) for affine in (lowfield, reference)]
    cosines = np.abs((lowfield[:3, :3] / sizes[0]).T @ (reference[:3, :3] / sizes[1]))
    nearest = cosines.argmax(axis=0)
    along = cosines.max(axis=0) > ALONG
    return [float(sizes[0][near] / sizes[1][axis]) if along[axis] else 1.0 for axis, near in enumerate(nearest)]


def _spread(
    reference: Reference, prediction: Prediction, sd: Path, lowfield: Path, calibrated: Spread | None
) -> tuple[dict, list[dict]]:
    truth, mask, samples = reference.volume, reference.mask, prediction.record["samples"]
    drawn, intervals = read_on_grid(sd, truth), None
    if calibrated is not None:
        slice_mm = read_volume(lowfield).slice_mm
        intervals = calibrated.intervals(drawn, mask, truth.voxel_size, slice_mm)
    return calibration(truth.data, prediction.data, drawn, mask, samples, intervals)


def _read_reference(root: Path, scan: str, suffix: str, parcellated: bool) -> Reference:
    require_ok(anat(root / "cohort", scan, f"{suffix}.json"), "cohort")
    volume = read_volume(anat(root / "cohort", scan, f"{suffix}.nii.gz"))
    mask = read_on_grid(anat(root / "cohort", scan, "desc-brain_mask.nii.gz"), volume, np.uint8) > 0
    scaled = volume._replace(data=volume.data / np.float32(intensity_scale(volume.data, mask)))
    if not parcellated:
        return Reference(scaled, mask, None, OK, UNREAD)
    found, status = attempt(_read_labels, root / "parcellation" / "hq", scan, scaled)
    labels, parcellator = found or (None, "")
    return Reference(scaled, mask, labels, status, parcellator)


def _read_result(folder: Path, scan: str, suffix: str, reference: Reference) -> Prediction:
    record = require_ok(flat(folder, scan, f"{suffix}.json"), "enhanced")
    return Prediction(read_on_grid(flat(folder, scan, f"{suffix}.nii.gz"), reference.volume), record)


def _read_labels(folder: Path, scan: str, volume: Volume) -> tuple[np.ndarray, str]:
    """The label map (X, Y, Z), and the engine and version that made it."""
    record = require_ok(flat(folder, scan, "dseg.json"), "parcellation")
    parcellator = " ".join(str(record[key]) for key in ("engine", "version") if record.get(key))
    return read_on_grid(flat(folder, scan, "dseg.nii.gz"), volume, np.int32), parcellator


def _compare(reference: Reference, folder: Path, scan: str, names: Mapping[int, str]) -> tuple[list[Structure], str]:
    """Overlap a structure, and the status: where the parcellator gave up on the result it scores 0; an absent record,
    or a machine that failed, nothing."""
    affine = reference.volume.affine
    record = read_json(flat(folder, scan, "dseg.json"))
    failure = status_in(record)
    if is_the_machines(record):
        raise UserError(f"parcellation: {failure}")
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
    """What `work` returns and `ok`, or None and the reason; what concerns every scan (StopError) or is the machine's
    fault (memory, disk) does stop."""
    try:
        return work(*arguments), OK
    except (StopError, MemoryShortError):
        raise
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
