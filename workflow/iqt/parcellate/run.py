"""Parcellating the scans of a list with a built-in network."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from iqt.errors import UserError
from iqt.io.batch import run_scans
from iqt.io.naming import flat
from iqt.io.volumes import save_volume
from iqt.parcellate.images import Images
from iqt.parcellate.reader import ENGINE, load_reader


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

    `layout: anat` reads the cohort's high-quality scans, `flat` enhanced results. Masks are the cohort's.
    """
    reader = load_reader(model, precision)
    source = Images(images, layout, suffix, cohort)

    def work(scan: str) -> dict:
        volume, mask = source.read(scan)
        start = time.monotonic()
        labels = reader.read(volume, mask)
        seconds = time.monotonic() - start
        if not labels.any():
            raise UserError("the parcellator found no structure in the brain mask; look at the image")
        save_volume(flat(out, scan, "dseg.nii.gz"), labels, volume.affine)
        return {
            "seconds": round(seconds, 2),
            "engine": ENGINE,
            "version": reader.version,
            "warnings": list(volume.doubts),
        }

    run_scans(scans, lambda scan: flat(out, scan, "dseg.json"), lambda scan: [flat(out, scan, "dseg.nii.gz")], work)
