"""A user's own scan brought to a model's grid: checked, turned, resampled as the simulator does, and masked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iqt.config import Mask
from iqt.errors import UserError
from iqt.imaging.brain_mask import find_brain
from iqt.imaging.checks import brain_where_not_zero, mask_problems, scan_problems
from iqt.imaging.contrast import contrast_warnings
from iqt.imaging.orientation import ras_voxel_size
from iqt.imaging.resample import over_field
from iqt.io.nifti import in_mm
from iqt.io.volumes import Volume, read_mask, read_volume, say_doubts

NEGATIVE = 0.1
"""Share of the brain's voxels that may be negative: magnitudes have none, but noise corrections leave a few."""
TOLERANCE = 0.25
"""How much coarser or finer than in training an acquired voxel may be before it is worth a warning."""


MASK_HINT = "mask (--mask FILE; in a study NAME_desc-brain_mask.nii.gz beside the scan, or in derivatives)"


class Intake(NamedTuple):
    """A scan and its brain mask (bool) on the model's grid, where the mask came from, the scan as it was acquired, and
    what a user should know."""

    scan: Volume
    mask: np.ndarray
    mask_source: str
    acquired: Volume
    warnings: list[str]


def load_scan(
    path: Path,
    mask: Path | None,
    stripped: bool,
    settings: Mask | None,
    grid: Mapping[str, Any],
    contrast: str | None = None,
    keep_doubtful_mask: bool = False,
) -> Intake:
    """Read a scan of any orientation, voxel size and data type, and bring it to the grid that a model was trained on.

    Its axes are turned to the order right, front, up and keep their directions, so that slices stay slices; voxels get
    the model's size by cubic splines, as in the simulator that made the model's training scans.

    Args:
        mask: brain mask with the scan's voxels; None to find one, which for a scan that shows the brain alone is where
            it stands out of what surrounds it.
        stripped: the scan is skull-stripped, its brain is where it is not 0.
        settings: the engine that finds the brain, where a user asked for one: then a scan that shows the brain alone is
            not noticed.
        grid: the `grid` of a model's card.
        contrast: BIDS suffix of the scans that the model was trained on.
        keep_doubtful_mask: go on with a brain mask that looks wrong.

    Raises:
        UserError: the file or its mask is no usable scan, or the mask looks wrong; the message says why.
    """
    source = read_volume(path)
    problems = scan_problems(source)
    if problems:
        raise UserError(f"{path}: {'; '.join(problems)}")
    warnings = say_doubts(path, source.doubts)
    warnings += contrast_warnings(path, contrast) + _range_warnings(source, grid)
    inside, origin, doubts = brain_of(path, source, mask, stripped, settings)
    warnings += doubts
    doubtful = mask_problems(inside, source.affine)
    if doubtful and not keep_doubtful_mask:
        raise UserError(
            f"{path}: {'; '.join(doubtful)} ({origin}); a result inside a wrong brain is wrong. Hint: give a better "
            f"{MASK_HINT}, another --mask-engine, or keep this one with --keep-doubtful-mask (iqt study: "
            "--keep-doubtful-masks)"
        )
    warnings += doubtful
    values = source.data[inside]
    if np.ptp(values) == 0:
        raise UserError(f"{path}: constant inside the brain mask ({origin}); give another mask")
    if (values < 0).mean() > NEGATIVE:
        share = 100 * (values < 0).mean()
        raise UserError(
            f"{path}: negative in {share:.0f} % of the brain ({origin}), as no MRI scanner's magnitude image is"
        )
    scan = over_field(source, grid["voxel_size_mm"])
    soft = over_field(Volume(inside.astype(np.float32), source.affine), grid["voxel_size_mm"], order=1)
    moved = soft.data >= 0.5
    if not moved.any():
        raise UserError(f"{path}: nothing of the brain mask ({origin}) is left on the model's grid; check the mask")
    return Intake(scan, moved, origin, source, warnings)


def brain_of(
    path: Path, source: Volume, mask: Path | None, stripped: bool, settings: Mask | None
) -> tuple[np.ndarray, str, list[str]]:
    """The brain mask (bool) on a scan's grid, where it came from, and what its file leaves in doubt; arguments as of
    `load_scan`, `source` is the scan."""
    if mask is not None:
        found = read_mask(mask, source)
        return found.data, str(mask), say_doubts(mask, found.doubts)
    if stripped:
        return brain_where_not_zero(source), "image not 0", []
    try:
        found, origin = find_brain(source, settings or Mask(), notice=settings is None)
    except UserError as error:
        raise type(error)(f"{path}: {error}. Hint: give a {MASK_HINT}, or --skull-stripped") from None
    return found.data > 0, origin, []


def _range_warnings(source: Volume, grid: Mapping[str, Any]) -> list[str]:
    """Where a scan's voxels are unlike those that the model saw, sentences that name both."""
    trained = grid.get("acquired") or _as_before(grid)
    if trained is None:
        return []
    own = ras_voxel_size(source.affine, source.data.shape)
    sliced = ["RAS".index(axis) for axis in trained["slice_axes"]]
    for axis in sliced:
        within = [_within(each, trained["in_plane_mm"]) for each in np.delete(own, axis)]
        if _within(own[axis], trained["slice_spacing_mm"]) and all(within):
            return []
    return [
        f"the scan has voxels of {in_mm(own)} (right x front x up), but the model was trained on slices "
        f"{between(trained['slice_spacing_mm'])} mm apart along {' or '.join(trained['slice_axes'])}, with voxels of "
        f"{between(trained['in_plane_mm'])} mm within a slice: the result may be worse than in the model's benchmark"
    ]


def _as_before(grid: Mapping[str, Any]) -> dict[str, Any] | None:
    """What cards of earlier versions say: one size of acquired voxels."""
    size, axis = grid.get("acquired_voxel_size_mm"), grid.get("slice_axis") or "S"
    if size is None:
        return None
    sliced = "RAS".index(axis)
    others = np.delete(np.array(size, float), sliced)
    spacing = (size[sliced], size[sliced])
    return {"slice_axes": [axis], "slice_spacing_mm": spacing, "in_plane_mm": (others.min(), others.max())}


def _within(value: float, trained: Sequence[float]) -> bool:
    return trained[0] / (1 + TOLERANCE) <= value <= trained[1] * (1 + TOLERANCE)


def between(limits: Sequence[float]) -> str:
    """A lowest and a highest number, as a person reads them."""
    low, high = limits
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
