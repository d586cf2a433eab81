"""What a set's results say of themselves: calibrated spreads, and seams."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from iqt.batch import OK, require_ok
from iqt.errors import UserError
from iqt.evaluate.calibration import LEVELS, calibration
from iqt.evaluate.run import DECIMALS, read_truth
from iqt.evaluate.seams import border_error, seam_energy
from iqt.files import write_table
from iqt.naming import Result, anat, flat
from iqt.volumes import Volume, read_on_grid

IDENTITY = ("scan", "set", "method")
CALIBRATION_COLUMNS = (
    *IDENTITY, "status", "samples", "correlation", "ratio", *(f"coverage_{round(100 * level)}" for level in LEVELS),
    "seed",
)  # fmt: skip
RELIABILITY_COLUMNS = (*IDENTITY, "bin", "n_voxels", "expected", "error", "seed")
SEAM_COLUMNS = (
    *IDENTITY, "status", "tiles", "tile_seam", "tile_seam_sd", "patch_seam", "patch_seam_sd", "patch_error",
    "patch_error_ratio", "seed",
)  # fmt: skip


def assess_scans(
    scans: Iterable[str],
    set_name: str,
    results: Iterable[str],
    suffix: str,
    cohort: Path,
    enhanced: Path,
    calibration_out: Path,
    reliability_out: Path,
    seams_out: Path,
) -> None:
    """Write `calibration_out` (a row a scan and method with several samples), `reliability_out` (ten rows for each of
    them) and `seams_out` (a row a scan and trained method); a result that cannot be read has its reason as status.

    Args:
        results: as `naming.Result` writes them, `unet=1` or `unet/seed-2=2`.
        enhanced: folder of this set, with a folder for each result.
    """
    parsed = [Result.parse(text) for text in results]
    spreads, curves, seams = [], [], []
    for scan in scans:
        for made in parsed:
            seed = "" if made.seed is None else made.seed
            identity = {"scan": scan, "set": set_name, "method": made.method, "seed": seed}
            try:
                result = _read(scan, suffix, cohort, enhanced / made.folder)
            except UserError as error:
                for rows in (spreads, seams):
                    rows.append(identity | {"status": _reason(identity, error)})
                continue
            if result is None:
                continue
            seams.append(identity | {"status": OK} | _tidy(_seams(result)))
            samples = result.record.get("samples", 1)
            if samples < 2:
                continue
            try:
                sd = read_on_grid(flat(enhanced / made.folder, scan, f"desc-sd_{suffix}.nii.gz"), result.reference)
                figures, curve = calibration(result.reference.data, result.data, sd, result.mask, samples)
            except UserError as error:
                spreads.append(identity | {"status": _reason(identity, error)})
                continue
            spreads.append(identity | {"status": OK, "samples": samples} | _tidy(figures))
            curves += [identity | _tidy(row) for row in curve]
    write_table(calibration_out, spreads, CALIBRATION_COLUMNS)
    write_table(reliability_out, curves, RELIABILITY_COLUMNS)
    write_table(seams_out, seams, SEAM_COLUMNS)


class _Result(NamedTuple):
    reference: Volume
    data: np.ndarray
    mask: np.ndarray
    record: dict


def _read(scan: str, suffix: str, cohort: Path, folder: Path) -> _Result | None:
    """A method's result beside the reference; None for an interpolation, which has neither samples nor seams."""
    require_ok(anat(cohort, scan, f"{suffix}.json"), "cohort")
    record = require_ok(flat(folder, scan, f"{suffix}.json"), "enhanced")
    if not record.get("n_parameters"):
        return None
    reference, mask = read_truth(cohort, scan, suffix)
    return _Result(reference, read_on_grid(flat(folder, scan, f"{suffix}.nii.gz"), reference), mask, record)


def _seams(result: _Result) -> dict:
    found: dict = {"tiles": result.record.get("tiles")}
    for kind in ("tile", "patch"):
        borders = result.record.get(f"{kind}_borders", ([], [], []))
        energy = seam_energy(result.reference.data, result.data, result.mask, borders)
        found |= dict(zip((f"{kind}_seam", f"{kind}_seam_sd"), energy or ("", ""), strict=True))
    borders = result.record.get("patch_borders", ([], [], []))
    error = border_error(result.reference.data, result.data, result.mask, borders)
    return found | dict(zip(("patch_error", "patch_error_ratio"), error or ("", ""), strict=True))


def _reason(identity: dict, error: UserError) -> str:
    reason = " ".join(str(error).split())
    print(f"{identity['scan']} {identity['method']}: {reason}", file=sys.stderr, flush=True)
    return reason


def _tidy(row: dict) -> dict:
    return {
        key: ("" if math.isnan(value) else round(value, DECIMALS)) if isinstance(value, float) else value
        for key, value in row.items()
    }
