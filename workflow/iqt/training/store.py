"""The patch store: uncompressed float16 volumes that training reads at random places through memory maps.

A scan has `<scan>_pair.npy`, (2, X, Y, Z) low-field and high-quality volume on the common intensity scale, cut to the
brain's box; `<scan>_mask.npy`, (X, Y, Z) uint8; and a sidecar with the scales and the moments that standardise a
network's inputs and targets. Where a person has several low-field acquisitions there are `<scan>_draw-2_pair.npy` and
so on, too, and training sees each as a scan. Reading a patch from a gzipped NIfTI would mean unpacking the whole volume
every time.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from iqt.errors import UserError
from iqt.io.batch import OK, require_ok, run_scans
from iqt.io.files import read_json, read_table, replacing
from iqt.io.naming import anat, draw_entity, flat
from iqt.io.volumes import bounding_box, intensity_scale, read_on_grid, read_volume

MARGIN = 8
"""Voxels of background kept around the brain."""


def build_store(scans: Iterable[str], cohort: Path, lowfield: Path, out: Path, suffix: str) -> None:
    """Write each scan's arrays and sidecar (`status`, `suffix`, `shape`, `voxel_size`, the array's `left_right_axis`,
    `scale_hq`, `n_brain`, `scale_lowfield`, `moments`, `further_draws` with these two of each further acquisition, and
    the low-field `acquisition` with which the scan was made)."""

    def work(scan: str) -> dict:
        require_ok(anat(cohort, scan, f"{suffix}.json"), "cohort")
        degraded_by = require_ok(anat(lowfield, scan, f"{suffix}.json"), "lowfield")
        drawn = degraded_by.get("further_draws", [])
        reference = read_volume(anat(cohort, scan, f"{suffix}.nii.gz"))
        mask = read_on_grid(anat(cohort, scan, "desc-brain_mask.nii.gz"), reference, np.uint8) > 0
        scale = intensity_scale(reference.data, mask)
        high, box = reference.data / scale, bounding_box(mask, MARGIN)
        draws = []
        for number in range(1, len(drawn) + 2):
            path = anat(lowfield, scan, f"{draw_entity(number)}space-HQ_{suffix}.nii.gz")
            degraded = read_on_grid(path, reference)
            scale_lowfield = intensity_scale(degraded, mask)
            low = degraded * mask / scale_lowfield
            _save(_pair(out, scan, number), np.stack([low[box], high[box]]).astype(np.float16))
            draws.append({"scale_lowfield": scale_lowfield, "moments": _moments(low, high, mask)})
        _save(flat(out, scan, "mask.npy"), mask[box].astype(np.uint8))
        return {
            "suffix": suffix,
            "shape": [int(edge.stop - edge.start) for edge in box],
            "voxel_size": [round(float(size), 4) for size in reference.voxel_size],
            "left_right_axis": int(np.flatnonzero(nib.io_orientation(reference.affine)[:, 0] == 0)[0]),
            "scale_hq": scale,
            "n_brain": int(mask.sum()),
            **draws[0],
            **({"further_draws": draws[1:]} if drawn else {}),
            "acquisition": degraded_by.get("settings"),
        }

    def outputs(scan: str) -> list[Path]:
        # an earlier run may have had more draws
        return [_pair(out, scan, 1), flat(out, scan, "mask.npy"), *Path(out).glob(f"{scan}_draw-*_pair.npy")]

    run_scans(scans, lambda scan: flat(out, scan, "pair.json"), outputs, work)


class StoredScan(NamedTuple):
    """Memory-mapped arrays of one scan, or of one of its acquisitions."""

    scan: str
    pair: np.ndarray
    mask: np.ndarray
    record: dict


def open_store(store: Path, participants: Path, split: str) -> list[StoredScan]:
    """The scans of a split that could be stored.

    Raises:
        UserError: none could, the message lists the reasons; or an array was deleted.
    """
    scans, reasons = [], []
    for row in read_table(participants, required=("scan", "split")):
        if row["split"] != split:
            continue
        record = read_json(flat(store, row["scan"], "pair.json"))
        if record["status"] != OK:
            reasons.append(f"{row['scan']}: {record['status']}")
            continue
        mask = _load(flat(store, row["scan"], "mask.npy"), store, row["scan"])
        for number, drawn in enumerate([{}, *record.get("further_draws", [])], start=1):
            pair = _load(_pair(store, row["scan"], number), store, row["scan"])
            scans.append(StoredScan(row["scan"], pair, mask, {**record, **drawn}))
    if not scans:
        raise UserError(f"{store}: no usable scan in the {split} split. " + "; ".join(reasons))
    return scans


def _load(path: Path, store: Path, scan: str) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except FileNotFoundError:
        # The workflow knows the arrays by the record alone, and would not make them again.
        again = f"run snakemake again with --forcerun {flat(store, scan, 'pair.json')}"
        raise UserError(f"{path}: was deleted; {again}") from None


def standardisation(scans: Iterable[StoredScan], target: str) -> dict[str, float]:
    """Mean and standard deviation, over all brain voxels, of the network's input and of its target."""
    records = [scan.record for scan in scans]
    weights = np.array([record["n_brain"] for record in records], dtype=float)

    def moments(name: str) -> tuple[float, float]:
        mean = np.average([record["moments"][name]["mean"] for record in records], weights=weights)
        square = np.average([record["moments"][name]["mean_square"] for record in records], weights=weights)
        return float(mean), float(np.sqrt(max(square - mean**2, 1e-12)))

    (input_mean, input_sd), (target_mean, target_sd) = (
        moments("lowfield"),
        moments("hq" if target == "image" else target),
    )
    return {"input_mean": input_mean, "input_sd": input_sd, "target_mean": target_mean, "target_sd": target_sd}


def _pair(store: Path, scan: str, number: int) -> Path:
    return flat(store, scan, f"{draw_entity(number)}pair.npy")


def _moments(low: np.ndarray, high: np.ndarray, mask: np.ndarray) -> dict[str, dict[str, float]]:
    inside = {"lowfield": low[mask], "hq": high[mask], "residual": (high - low)[mask]}
    return {
        name: {"mean": float(values.mean(dtype=float)), "mean_square": float(np.square(values, dtype=float).mean())}
        for name, values in inside.items()
    }


def _save(path: Path, array: np.ndarray) -> None:
    with replacing(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, array)
