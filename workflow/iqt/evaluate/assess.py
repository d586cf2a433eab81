"""What a set's results say of themselves: calibrated spreads, and seams."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from pathlib import Path

from iqt.batch import OK, require_ok
from iqt.errors import UserError
from iqt.evaluate.calibration import LEVELS, calibration
from iqt.evaluate.run import DECIMALS, read_truth
from iqt.evaluate.seams import border_error, seam_energy
from iqt.files import write_table
from iqt.naming import Result, anat, flat
from iqt.volumes import read_on_grid

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
        for result in parsed:
            seed = "" if result.seed is None else result.seed
            identity = {"scan": scan, "set": set_name, "method": result.method, "seed": seed}
            try:
                found = _assess(scan, suffix, cohort, enhanced / result.folder)
            except UserError as error:
                reason = " ".join(str(error).split())
                print(f"{scan} {result.folder}: {reason}", file=sys.stderr, flush=True)
                for rows in (spreads, seams):
                    rows.append(identity | {"status": reason})
                continue
            spread, curve, seam = found
            spreads += [identity | {"status": OK} | _tidy(spread)] if spread else []
            curves += [identity | _tidy(row) for row in curve]
            seams += [identity | {"status": OK} | _tidy(seam)] if seam else []
    write_table(calibration_out, spreads, CALIBRATION_COLUMNS)
    write_table(reliability_out, curves, RELIABILITY_COLUMNS)
    write_table(seams_out, seams, SEAM_COLUMNS)


def _assess(scan: str, suffix: str, cohort: Path, folder: Path) -> tuple[dict, list[dict], dict]:
    """The calibration of one result, its reliability curve and its seams; each empty where the method has none."""
    require_ok(anat(cohort, scan, f"{suffix}.json"), "cohort")
    record = require_ok(flat(folder, scan, f"{suffix}.json"), "enhanced")
    if not record.get("n_parameters"):
        return {}, [], {}
    reference, mask = read_truth(cohort, scan, suffix)
    truth = reference.data
    result = read_on_grid(flat(folder, scan, f"{suffix}.nii.gz"), reference)
    seams: dict = {"tiles": record.get("tiles")}
    for kind in ("tile", "patch"):
        energy = seam_energy(truth, result, mask, record.get(f"{kind}_borders", ([], [], [])))
        seams |= dict(zip((f"{kind}_seam", f"{kind}_seam_sd"), energy or ("", ""), strict=True))
    border = border_error(truth, result, mask, record.get("patch_borders", ([], [], [])))
    seams |= dict(zip(("patch_error", "patch_error_ratio"), border or ("", ""), strict=True))
    samples = record.get("samples", 1)
    if samples < 2:
        return {}, [], seams
    sd = read_on_grid(flat(folder, scan, f"desc-sd_{suffix}.nii.gz"), reference)
    figures, curve = calibration(truth, result, sd, mask, samples)
    return {"samples": samples, **figures}, curve, seams


def _tidy(row: dict) -> dict:
    return {
        key: ("" if math.isnan(value) else round(value, DECIMALS)) if isinstance(value, float) else value
        for key, value in row.items()
    }
