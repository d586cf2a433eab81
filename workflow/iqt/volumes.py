"""Reading, checking and writing NIfTI volumes, and the one intensity scale of the project."""

from __future__ import annotations

import math
import re
import zlib
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from iqt.errors import UserError
from iqt.files import replacing
from iqt.naming import SCAN_PATTERN

SCALE_PERCENTILE = 99.5
BROKEN = (OSError, EOFError, ValueError, zlib.error, HeaderDataError, KeyError, OverflowError)
"""What nibabel raises of files that are cut off, or that a header lies about."""
LARGEST = 2**31
"""Voxels of a volume that nobody has; a header that names more is damaged."""


class Volume(NamedTuple):
    """`data` (X, Y, Z) and `affine` (4, 4), voxel indices to world millimetres (RAS+)."""

    data: np.ndarray
    affine: np.ndarray

    @property
    def voxel_size(self) -> np.ndarray:
        """Edge lengths of a voxel along the array's axes, in mm."""
        return nib.affines.voxel_sizes(self.affine)


def read_volume(path: str | Path, dtype: type = np.float32) -> Volume:
    """A 3D volume as `dtype`; UserError where it is absent, unreadable, not 3D, not finite or has no usable affine."""
    path = Path(path)
    try:
        image = nib.load(path)
        if min(image.shape, default=0) < 1 or math.prod(image.shape) > LARGEST:
            raise ValueError(f"shape {image.shape}")
        data = np.asanyarray(image.dataobj)
    except FileNotFoundError:
        # The workflow knows a volume by its record alone, and would not make it again.
        scan = re.match(SCAN_PATTERN, path.name)
        record = next(path.parent.glob(f"{scan.group()}_*.json"), None) if scan else None
        gone = f"; it was made once and deleted: run snakemake again with --forcerun {record}" if record else ""
        raise UserError(f"{path}: no such file{gone}") from None
    except (nib.filebasedimages.ImageFileError, *BROKEN) as error:
        raise UserError(f"{path}: not readable as an image ({error}); is it complete?") from None
    if data.ndim == 4 and data.shape[3] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise UserError(f"{path}: has shape {data.shape}, but a single 3D volume is needed; extract one volume")
    if data.dtype.names or np.iscomplexobj(data):
        kind = "colours" if data.dtype.names else "complex numbers"
        raise UserError(f"{path}: holds {kind}, but a magnitude image with one number a voxel is needed")
    if not np.isfinite(data).all():
        raise UserError(f"{path}: holds {np.count_nonzero(~np.isfinite(data))} voxels that are NaN or infinite")
    affine = np.asarray(image.affine, dtype=float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise UserError(f"{path}: its affine is not invertible, so voxels have no place in the world; fix the header")
    return Volume(np.ascontiguousarray(data, dtype=dtype), affine)


def read_on_grid(path: str | Path, reference: Volume, dtype: type = np.float32) -> np.ndarray:
    """The data of a volume that must lie on `reference`'s grid; UserError where shape or affine differ."""
    volume = read_volume(path, dtype)
    same = volume.data.shape == reference.data.shape
    if not same or not np.allclose(volume.affine, reference.affine, atol=1e-3):
        raise UserError(
            f"{path}: lies on another grid than its reference: shape {volume.data.shape} against "
            f"{reference.data.shape}, or another affine; resample it first"
        )
    return volume.data


def resample_linear(volume: Volume, reference: Volume) -> Volume:
    """A volume on `reference`'s grid by trilinear interpolation; beyond its ends it has the value of the end."""
    from nibabel.processing import resample_from_to  # imports scipy, which takes a while

    image = nib.Nifti1Image(volume.data, volume.affine)
    grid = reference.data.shape, reference.affine
    return Volume(np.asarray(resample_from_to(image, grid, order=1, mode="nearest").dataobj), reference.affine)


def resample_axis(data: np.ndarray, indices: np.ndarray, axis: int, order: int = 3) -> np.ndarray:
    """Values at fractional `indices` of one axis, by the interpolating spline (cubic, or linear for `order` 1); beyond
    an end the end's value."""
    from scipy.interpolate import make_interp_spline  # scipy takes a while to import

    spline = make_interp_spline(np.arange(data.shape[axis]), data, k=order, axis=axis)
    return spline(np.clip(indices, 0, data.shape[axis] - 1)).astype(np.float32)


def save_volume(path: str | Path, data: np.ndarray, affine: np.ndarray) -> None:
    """Write a NIfTI file under a temporary name, then rename.

    Images are float32 without a slope (an integer file with a slope makes FastSurfer skip its own rescaling), masks
    uint8 and label maps int16.
    """
    if data.dtype == bool:
        data = data.astype(np.uint8)
    elif np.issubdtype(data.dtype, np.integer):
        data = data.astype(data.dtype if data.dtype == np.uint8 else np.int16)
    else:
        data = data.astype(np.float32)
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        nib.save(image, temporary)


def intensity_scale(data: np.ndarray, mask: np.ndarray) -> float:
    """The value that a volume is divided by: its own 99.5th percentile inside the brain mask.

    Raises:
        UserError: the mask is empty, or the percentile is not positive.
    """
    inside = data[mask > 0]
    if inside.size == 0:
        raise UserError("the brain mask is empty")
    scale = float(np.percentile(inside, SCALE_PERCENTILE))
    if scale <= 0:
        raise UserError(f"the {SCALE_PERCENTILE}th percentile inside the brain mask is {scale:g}, not positive")
    return scale


def bounding_box(mask: np.ndarray, margin: int = 0) -> tuple[slice, slice, slice]:
    """The smallest box around a mask, widened by `margin` voxels and cut at the volume's border."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(mask.any(axis=others))
        if filled.size == 0:
            raise UserError("the brain mask is empty")
        box.append(slice(max(0, filled[0] - margin), min(mask.shape[axis], filled[-1] + 1 + margin)))
    return tuple(box)
