"""A user's own scan brought to a model's grid: checked, turned, resampled as the simulator does, and masked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage

from iqt.config import Mask
from iqt.errors import UserError
from iqt.scans.brain_mask import make_mask
from iqt.scans.checks import image_problems, mask_problems
from iqt.scans.regrid import FWHM, to_ras
from iqt.volumes import Volume, read_on_grid, read_volume, resample_axis

FEWEST = 8
"""Voxels along each axis that a scan needs: fewer slices show too little of a brain, and splines have no room."""
FEWEST_VALUES = 32
"""Different values below which an image is a mask or a label map."""
NEGATIVE = 0.1
"""Share of voxels that may be negative: magnitudes have none, but splines and noise corrections leave a few."""
TOLERANCE = 0.25
"""How much coarser or finer than in training an acquired voxel may be before it is worth a warning."""


class Intake(NamedTuple):
    """A scan and its brain mask (bool) on the model's grid, where the mask came from, the scan's own voxels in mm, and
    what a user should know."""

    scan: Volume
    mask: np.ndarray
    mask_source: str
    voxel_size: list[float]
    warnings: list[str]


def take_in(path: Path, mask: Path | None, stripped: bool, settings: Mask, grid: Mapping[str, Any]) -> Intake:
    """Read a scan of any orientation, voxel size and data type, and bring it to the grid that a model was trained on.

    Its axes are turned to the order right, front, up and keep their directions, so that slices stay slices; voxels get
    the model's size by cubic splines, as in the simulator that made the model's training scans.

    Args:
        mask: brain mask on the scan's grid; None to find one.
        stripped: the scan is skull-stripped, its brain is where it is not 0.
        grid: the `grid` of a model's card.

    Raises:
        UserError: the file or its mask is no usable scan; the message says why.
    """
    source = read_volume(path)
    _check(path, source)
    warnings = [*_header_warnings(path), *_range_warnings(source.voxel_size, source.affine, grid)]
    if mask is not None:
        inside, origin = read_on_grid(mask, source) > 0, str(mask)
        if not inside.any():
            raise UserError(f"{mask}: the brain mask is empty")
    elif stripped:
        inside, origin = ndimage.binary_fill_holes(source.data > 0), "image > 0"
    else:
        try:
            inside, origin = make_mask(source, settings).data > 0, settings.engine
        except UserError as error:
            raise type(error)(f"{path}: {error}. Hint: --mask FILE, or --skull-stripped") from None
    warnings += mask_problems(inside, source.affine)
    if np.ptp(source.data[inside]) == 0:
        raise UserError(f"{path}: constant inside the brain mask ({origin}); give another mask")
    scan = to_grid(source, grid["voxel_size_mm"])
    soft = to_grid(Volume(inside.astype(np.float32), source.affine), grid["voxel_size_mm"], order=1)
    moved = soft.data >= 0.5
    if not moved.any():
        raise UserError(f"{path}: nothing of the brain mask ({origin}) is left on the model's grid; check the mask")
    return Intake(scan, moved, origin, _rounded(source.voxel_size), warnings)


def to_grid(volume: Volume, voxel_size: list[float], order: int = 3) -> Volume:
    """The volume in RAS order with voxels of `voxel_size` (mm, along its own right, front and up axes), over the same
    field of view. Finer voxels are blurred first, so that nothing folds back. `order` is 3 for an image, 1 for a mask.
    """
    turned = to_ras(volume)
    data, affine = turned.data.astype(np.float32), turned.affine.copy()
    for axis, (old, new) in enumerate(zip(turned.voxel_size, voxel_size, strict=True)):
        ratio = float(new / old)
        if math.isclose(ratio, 1, abs_tol=1e-3):
            continue
        if ratio > 1:
            data = ndimage.gaussian_filter1d(data, math.sqrt(ratio**2 - 1) / FWHM, axis=axis, mode="nearest")
        size = data.shape[axis]
        count = max(1, math.ceil(size / ratio - 1e-6))
        # The new voxels are centred on the old field of view: what the last one adds is shared by both ends.
        first = (size - 1) / 2 - ratio * (count - 1) / 2
        data = resample_axis(data, first + ratio * np.arange(count), axis, order)
        affine[:3, 3] += affine[:3, axis] * first
        affine[:3, axis] *= ratio
    return Volume(np.ascontiguousarray(data), affine)


def _check(path: Path, volume: Volume) -> None:
    """UserError where a volume that could be read is no scan of a head."""
    if min(volume.data.shape) < FEWEST:
        shape = " x ".join(map(str, volume.data.shape))
        raise UserError(
            f"{path}: has {shape} voxels, and at least {FEWEST} are needed along each axis; a few slices are not enough"
        )
    problems = image_problems(volume)
    if not problems:
        values = np.unique(volume.data)
        if len(values) < FEWEST_VALUES:
            problems.append(f"holds {len(values)} different values, so it is a mask or a label map, not an MRI scan")
        elif (volume.data < 0).mean() > NEGATIVE:
            share = 100 * (volume.data < 0).mean()
            problems.append(f"is negative in {share:.0f} % of its voxels, as no MRI scanner's magnitude image is")
    if problems:
        raise UserError(f"{path}: {'; '.join(problems)}")


def _header_warnings(path: Path) -> list[str]:
    """What the header leaves open about where voxels lie."""
    header = nib.load(path).header
    codes = [int(header[name]) for name in ("qform_code", "sform_code") if name in header]
    if codes and not any(codes):
        return [
            f"{path.name} has no affine (qform_code and sform_code are 0): its axes are taken to run left, front and "
            "up, so left and right may be swapped"
        ]
    return []


def _range_warnings(voxel_size: np.ndarray, affine: np.ndarray, grid: Mapping[str, Any]) -> list[str]:
    """Where a scan's voxels are unlike those that the model saw, sentences that name both."""
    trained = grid.get("acquired_voxel_size_mm")
    if trained is None:
        return []
    # Axes of the scan in RAS order, whatever their order in the file.
    own = np.empty(3)
    own[nib.io_orientation(affine)[:, 0].astype(int)] = voxel_size
    found = []
    ratio = own / np.array(trained)
    if ratio.max() > 1 + TOLERANCE or ratio.min() < 1 / (1 + TOLERANCE):
        found.append(
            f"the scan has voxels of {_mm(own)} (right x front x up), but the model was trained on {_mm(trained)}: "
            "the result may be worse than in the model's benchmark"
        )
    return found


def _mm(values: Any) -> str:
    return " x ".join(f"{value:.3g}" for value in values) + " mm"


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]
