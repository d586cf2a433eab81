"""Enhancing the scans of a list with one method."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from iqt.batch import require_ok, run_scans
from iqt.errors import UserError
from iqt.naming import anat, flat, seed_of
from iqt.volumes import bounding_box, intensity_scale, read_on_grid, read_volume, resample_linear, save_volume

MARGIN = 4
"""Voxels around the brain that the network sees too."""

Method = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray | None, int]]
"""(low-field volume on its scale, seed) to (estimate, standard deviation or None, network calls)."""


def enhance_scans(
    scans: Iterable[str],
    cohort: Path,
    lowfield: Path,
    model: Path | None,
    out: Path,
    suffix: str,
    usage: dict[str, Any],
    seed: int,
    precision: str,
) -> None:
    """Write `<scan>_<suffix>.nii.gz` on the high-quality intensity scale, with a sidecar (seconds, nfe, samples,
    n_parameters), and `_desc-sd` where there are several samples. Outside the brain mask a result is 0."""
    enhance, n_parameters, samples = _load(model, usage, precision)

    def work(scan: str) -> dict:
        require_ok(anat(lowfield, scan, f"{suffix}.json"), "lowfield")
        low = read_volume(anat(lowfield, scan, f"space-HQ_{suffix}.nii.gz"))
        if usage["kind"] == "linear":
            low = resample_linear(read_volume(anat(lowfield, scan, f"{suffix}.nii.gz")), low)
        mask = read_on_grid(anat(cohort, scan, "desc-brain_mask.nii.gz"), low, np.uint8) > 0
        data = low.data * mask / intensity_scale(low.data, mask)
        box = bounding_box(mask, MARGIN)
        start = time.monotonic()
        mean, sd, nfe = enhance(data[box], seed_of(seed, "enhance", scan))
        seconds = time.monotonic() - start
        for values, ending in ((mean, suffix), (sd, f"desc-sd_{suffix}")):
            if values is not None:
                whole = np.zeros(mask.shape, np.float32)
                whole[box] = values * mask[box]
                if not np.isfinite(whole).all():
                    raise UserError("the result holds NaN or infinite voxels")
                save_volume(flat(out, scan, f"{ending}.nii.gz"), whole, low.affine)
        return {"seconds": round(seconds, 2), "nfe": nfe, "samples": samples, "n_parameters": n_parameters}

    def outputs(scan: str) -> list[Path]:
        return [flat(out, scan, f"{suffix}.nii.gz"), flat(out, scan, f"desc-sd_{suffix}.nii.gz")]

    run_scans(scans, lambda scan: flat(out, scan, f"{suffix}.json"), outputs, work)


def _load(model: Path | None, usage: dict[str, Any], precision: str) -> tuple[Method, int, int]:
    """The method as a function, its parameters and its number of samples."""
    if usage["kind"] in ("cubic", "linear"):
        # The low-field stage ends with the cubic interpolation to the high-quality grid; the linear one is done here.
        return (lambda data, _seed: (data, None, 0)), 0, 1
    import torch

    from iqt.enhance.models import Enhancer

    if model is None:
        raise UserError(f"a method of kind {usage['kind']} needs --model, the folder of its trained model")
    enhancer = Enhancer(model, usage, precision)

    def enhance(data: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray | None, int]:
        result = enhancer(torch.from_numpy(np.ascontiguousarray(data)), seed)
        return result.mean.numpy(), None if result.sd is None else result.sd.numpy(), result.nfe

    return enhance, enhancer.n_parameters, usage.get("sampling", {}).get("samples", 1)
