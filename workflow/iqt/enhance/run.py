"""Enhancing the scans of a list with one method."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iqt.enhance.progress import Progress
from iqt.errors import UserError
from iqt.io.batch import require_ok, run_scans, warnings_of
from iqt.io.naming import anat, flat, seed_of
from iqt.io.volumes import Volume, bounding_box, intensity_scale, read_on_grid, read_volume, save_volume
from iqt.methods import kinds

MARGIN = 4
"""Voxels around the brain that the network sees too."""


class Result(NamedTuple):
    """Volumes (X, Y, Z) on the high-quality intensity scale, 0 outside the brain mask: the mean over samples, their
    standard deviation (None for one sample) and the first of them; and facts for the sidecar."""

    mean: np.ndarray
    sd: np.ndarray | None
    first: np.ndarray
    facts: dict[str, Any]


Method = Callable[[np.ndarray, np.ndarray, int, Progress | None], Result]
"""(low-field volume on its scale, brain mask, seed, progress) to a result, all cut to the brain's box."""


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
    memory_mb: int | None = None,
) -> None:
    """Write `<scan>_<suffix>.nii.gz` on the high-quality intensity scale, with a sidecar (seconds, nfe, samples,
    n_parameters, and where tiles and patches meet), and `_desc-sd` where there are several samples. Outside the brain
    mask a result is 0."""
    if model is not None:
        _require_contrast(model, suffix)
    enhance = load_method(model, usage, precision, memory_mb)

    def work(scan: str) -> dict:
        result, low, _, warnings = enhance_scan(enhance, scan, cohort, lowfield, suffix, usage["kind"], seed)
        for values, ending in ((result.mean, suffix), (result.sd, f"desc-sd_{suffix}")):
            if values is not None:
                save_volume(flat(out, scan, f"{ending}.nii.gz"), values, low.affine)
        return {**result.facts, "warnings": warnings}

    def outputs(scan: str) -> list[Path]:
        return [flat(out, scan, f"{suffix}.nii.gz"), flat(out, scan, f"desc-sd_{suffix}.nii.gz")]

    run_scans(scans, lambda scan: flat(out, scan, f"{suffix}.json"), outputs, work)


def enhance_scan(
    enhance: Method, scan: str, cohort: Path, lowfield: Path, suffix: str, kind: str, seed: int
) -> tuple[Result, Volume, np.ndarray, list[str]]:
    """What a method of a kind makes of a scan of a low-field set; the low-field volume on the high-quality grid that it
    began with, the brain mask (bool) there, and what earlier stages warn of.

    Raises:
        UserError: an earlier stage failed on the scan, or as `enhance_volume`.
    """
    degraded_by = require_ok(anat(lowfield, scan, f"{suffix}.json"), "lowfield")
    source = require_ok(anat(cohort, scan, f"{suffix}.json"), "cohort")
    upsampled = read_volume(anat(lowfield, scan, f"space-HQ_{suffix}.nii.gz"))
    slices = anat(lowfield, scan, f"{suffix}.nii.gz")
    low = kinds()[kind].begin(kind, upsampled, lambda: read_volume(slices))
    mask = read_on_grid(anat(cohort, scan, "desc-brain_mask.nii.gz"), low, np.uint8) > 0
    result = enhance_volume(enhance, low.data, mask, seed_of(seed, "enhance", scan))
    return result, low, mask, warnings_of(source, degraded_by)


def _require_contrast(model: Path, suffix: str) -> None:
    """UserError where a model was trained on another contrast than the scans have."""
    from iqt.training.checkpoints import load_card

    trained = load_card(model).get("suffix")
    if trained not in (None, suffix):
        raise UserError(f"{model}: was trained on {trained} scans, but these are {suffix}; train a model of {suffix}")


def enhance_volume(
    enhance: Method, lowfield: np.ndarray, mask: np.ndarray, seed: int, progress: Progress | None = None
) -> Result:
    """Enhance a low-field volume (X, Y, Z) on the high-quality grid, cut to its brain.

    Raises:
        UserError: the mask is empty, the image not positive in it, or the result not finite.
    """
    data = lowfield * mask / intensity_scale(lowfield, mask)
    box = bounding_box(mask, MARGIN)
    start = time.monotonic()
    result = enhance(data[box], mask[box], seed, progress)
    seconds = round(time.monotonic() - start, 2)

    def whole(values: np.ndarray | None) -> np.ndarray | None:
        if values is None:
            return None
        volume = np.zeros(mask.shape, np.float32)
        volume[box] = values * mask[box]
        if not np.isfinite(volume).all():
            raise UserError("the result holds NaN or infinite voxels")
        return volume

    # Where tiles and patches meet is told in the volume's own voxels.
    borders = {
        f"{kind}_borders": [
            [plane + int(side.start) for plane in planes] for planes, side in zip(axes, box, strict=True)
        ]
        for kind, axes in result.facts.pop("borders", {}).items()
    }
    facts = {"seconds": seconds, **result.facts, **borders}
    return Result(whole(result.mean), whole(result.sd), whole(result.first), facts)


def load_method(model: Path | None, usage: dict[str, Any], precision: str, memory_mb: int | None = None) -> Method:
    """The method that `usage` describes, as a function that takes `memory_mb` megabytes on a CPU at most, if it is
    given."""
    if not kinds()[usage["kind"]].trained:
        # All that an interpolation does is to begin.
        facts = {"nfe": 0, "samples": 1, "n_parameters": 0}
        return lambda data, _mask, _seed, _progress: Result(data, None, data, dict(facts))
    import torch

    from iqt.enhance.models import Enhancer

    if model is None:
        raise UserError(f"a method of kind {usage['kind']} needs --model, the folder of its trained model")
    enhancer = Enhancer(model, usage, precision, memory_mb)

    def enhance(data: np.ndarray, mask: np.ndarray, seed: int, progress: Progress | None) -> Result:
        tensors = (torch.from_numpy(np.ascontiguousarray(each)) for each in (data, mask))
        lowfield, inside = tensors
        found = enhancer(lowfield, seed, inside, progress)
        patch = enhancer.method.patches.patch if enhancer.method.patchwise else None
        facts = {
            "nfe": found.nfe,
            "samples": enhancer.method.samples,
            "n_parameters": enhancer.n_parameters,
            "tile": list(found.tiling.edges),
            "tiles": len(found.tiling.boxes),
            "tiles_skipped": found.tiling.n_skipped,
            "borders": {"tile": found.tiling.borders(), **({"patch": found.tiling.borders(patch)} if patch else {})},
        }
        sd = None if found.sd is None else found.sd.numpy()
        return Result(found.mean.numpy(), sd, found.first.numpy(), facts)

    return enhance
