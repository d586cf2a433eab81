"""Parcellating the scans of a list with the built-in network."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np

from iqt import __version__
from iqt.batch import require_ok, run_scans
from iqt.errors import UserError
from iqt.naming import anat, flat
from iqt.parcellate.predict import load_parcellator, predict_labels
from iqt.volumes import intensity_scale, read_on_grid, read_volume, save_volume

ENGINE = "builtin"


def parcellate_scans(
    scans: Iterable[str],
    images: Path,
    layout: Literal["anat", "flat"],
    suffix: str,
    cohort: Path,
    model: Path,
    out: Path,
    precision: str,
) -> None:
    """Write `<scan>_dseg.nii.gz` and its sidecar (status, seconds, engine, version) for each scan.

    `layout: anat` reads the cohort's high-quality scans, which are divided by their own percentile first; `flat` reads
    enhanced results, which are on that scale already and are never rescaled. Masks are the cohort's.
    """
    parcellator = load_parcellator(model, precision)
    name, stage = (anat, "cohort") if layout == "anat" else (flat, "enhance")

    def work(scan: str) -> dict:
        require_ok(name(images, scan, f"{suffix}.json"), stage)
        volume = read_volume(name(images, scan, f"{suffix}.nii.gz"))
        mask = read_on_grid(anat(cohort, scan, "desc-brain_mask.nii.gz"), volume, np.uint8) > 0
        if layout == "anat":
            volume = volume._replace(data=volume.data / intensity_scale(volume.data, mask))
        start = time.monotonic()
        labels = predict_labels(parcellator, volume, mask)
        seconds = time.monotonic() - start
        if not labels.any():
            raise UserError("the parcellator found no structure in the brain mask; look at the image")
        save_volume(flat(out, scan, "dseg.nii.gz"), labels, volume.affine)
        return {"seconds": round(seconds, 2), "engine": ENGINE, "version": __version__}

    run_scans(scans, lambda scan: flat(out, scan, "dseg.json"), lambda scan: [flat(out, scan, "dseg.nii.gz")], work)
