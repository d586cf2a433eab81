"""Calibrating the spread of a method's samples on the validation people."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from iqt.diffusion.spread import NEIGHBOURHOOD_MM, WEIGHTS, Seen, fit_spread, in_neighbourhood
from iqt.enhance.run import Result, enhance_scan, load_method
from iqt.errors import MemoryShortError, StopError, UserError
from iqt.io.batch import OK
from iqt.io.files import read_json, write_json
from iqt.io.naming import anat, seed_of
from iqt.io.volumes import Volume, intensity_scale, read_on_grid, read_volume
from iqt.terminal import warn

VOXELS = 200_000
"""Voxels of a scan that are looked at, drawn evenly: as many of each, so that a large brain weighs no more."""


def calibrate_spread(
    scans: Iterable[str],
    cohort: Path,
    lowfield: Path,
    model: Path,
    out: Path,
    suffix: str,
    usage: dict[str, Any],
    seed: int,
    precision: str,
    memory_mb: int | None = None,
) -> None:
    """Enhance scans whose truth is known, and write to `out` what their samples' spread says of the error
    (`diffusion.spread.Spread`), or as `status` why nothing can be said. A scan that fails is left out and named.
    """
    enhance = load_method(model, usage, precision, memory_mb)
    rng = np.random.default_rng(seed_of(seed, "calibrate"))
    found = []
    for scan in scans:
        try:
            result, low, mask, _ = enhance_scan(enhance, scan, cohort, lowfield, suffix, usage["kind"], seed)
            truth = read_on_grid(anat(cohort, scan, f"{suffix}.nii.gz"), low)
            slices = read_volume(anat(lowfield, scan, f"{suffix}.nii.gz"))
        except (StopError, MemoryShortError):
            raise
        except UserError as error:
            warn(f"{scan} is left out: {error}")
            continue
        scaled = low._replace(data=truth / np.float32(intensity_scale(truth, mask)))
        found.append(look(result, scaled, mask, slices.slice_mm, rng))
        print(f"{scan}: ok", file=sys.stderr, flush=True)
    try:
        weights = {WEIGHTS: read_json(model / "model.json")[WEIGHTS]}
        record = {"status": OK, **weights, **fit_spread(found, usage, lowfield.name).written()}
    except UserError as error:
        warn(str(error))
        record = {"status": str(error)}
    write_json(out, record)


def look(result: Result, truth: Volume, mask: np.ndarray, slice_mm: float, rng: np.random.Generator) -> Seen:
    """Voxels drawn evenly from a result's brain, beside the truth on its intensity scale; the low-field scan's slices
    are `slice_mm` apart."""
    chosen = rng.integers(np.count_nonzero(mask), size=VOXELS)
    sd = in_neighbourhood(result.sd, mask, NEIGHBOURHOOD_MM / truth.voxel_size)
    return Seen(sd[mask][chosen], (truth.data - result.mean)[mask][chosen], slice_mm)
