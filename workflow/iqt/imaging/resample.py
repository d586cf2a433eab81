"""Putting volumes on other grids, by the affines of both: the one place where voxels are interpolated.

An affine takes voxel indices (the first voxel's centre is 0) to world mm (RAS+). `order` is that of the interpolating
spline: 0 the nearest neighbour, 1 linear, 3 cubic. Where voxels get larger, images are blurred first, so that nothing
finer than the new grid folds back: by the Gaussian whose variance is what a Gaussian voxel of the new full width at
half maximum has more than one of the old.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import nibabel as nib
import numpy as np
from nibabel.processing import fwhm2sigma, resample_from_to
from scipy import ndimage
from scipy.interpolate import make_interp_spline

from iqt.config import Grid
from iqt.errors import UserError
from iqt.imaging.checks import is_sheared
from iqt.imaging.orientation import ras_voxel_size, to_ras
from iqt.io.volumes import Volume, as_stored_in

Kind = Literal["image", "mask", "posterior", "labels"]
ORDER = {"image": 3, "mask": 1, "posterior": 1, "labels": 0}
SAME = 0.05
"""Relative difference of voxel sizes that counts as none."""


def gaussian_of(fwhm: float | np.ndarray) -> float | np.ndarray:
    """Standard deviation of the Gaussian with a full width at half maximum."""
    return fwhm2sigma(fwhm)


def lost_between(old: np.ndarray | float, new: np.ndarray | float) -> np.ndarray:
    """Standard deviation, in voxels of edge `old`, of the blur that brings these to what voxels of edge `new` hold; 0
    where they are no larger."""
    return gaussian_of(np.sqrt(np.maximum((np.asarray(new) / old) ** 2 - 1, 0)))


def on_grid(volume: Volume, shape: tuple[int, ...], affine: np.ndarray, order: int, mode: str = "constant") -> Volume:
    """The volume on a grid; beyond its ends 0, or with `mode: nearest` the value of the end. Nothing is blurred."""
    image = nib.Nifti1Image(volume.data, volume.affine)
    moved = resample_from_to(image, (shape, affine), order=order, mode=mode, cval=0)
    return Volume(np.asarray(moved.dataobj), np.asarray(affine), volume.doubts)


def like(volume: Volume, reference: Volume, kind: Kind, where: object) -> Volume:
    """A mask, posterior or label map on the grid of the image that it belongs to.

    Derivatives often have their axes in another order (fMRIPrep writes RAS) or other voxels than the raw scan: nearest
    neighbour for masks and labels, linear for posteriors, which are blurred first where the image's voxels are larger.

    Raises:
        UserError: nothing of it lies within the image.
    """
    stored = as_stored_in(volume, reference)
    if stored is not None:
        return stored
    soft = kind == "posterior"
    if soft:
        volume = coarsened(volume, reference.affine)
    moved = on_grid(volume, reference.data.shape, reference.affine, order=1 if soft else 0)
    if volume.data.any() and not moved.data.any():
        raise UserError(f"{where}: lies elsewhere in the world than its image; is its affine right?")
    return moved._replace(data=moved.data.astype(volume.data.dtype))


def coarsened(volume: Volume, affine: np.ndarray) -> Volume:
    """The volume on its own grid, blurred as far as the voxels of a grid to be are larger along its axes."""
    # How far apart the voxels to be are along each axis of the volume, in voxels of the latter.
    step = np.abs(np.linalg.inv(volume.affine[:3, :3]) @ affine[:3, :3]).max(axis=1)
    return volume._replace(data=_blurred(volume.data, lost_between(1, step)))


def labels_on(labels: np.ndarray, affine: np.ndarray, volume: Volume) -> np.ndarray:
    """A label map with its affine on the grid of `volume`, by nearest neighbour, int32; 0 where it does not reach."""
    moved = on_grid(Volume(labels.astype(np.int32), affine), volume.data.shape, volume.affine, order=0)
    return moved.data.astype(np.int32)


def linear(volume: Volume, reference: Volume) -> Volume:
    """A volume on `reference`'s grid by trilinear interpolation; beyond its ends it has the value of the end."""
    return on_grid(volume, reference.data.shape, reference.affine, order=1, mode="nearest")


def crop(volume: Volume, settings: Grid) -> Volume:
    """The voxels that `settings.crop` keeps; the affine moves with the first of them.

    Raises:
        UserError: the volume is smaller than the crop.
    """
    if settings.crop is None:
        return volume
    shape = volume.data.shape
    if any(end > side for (_, end), side in zip(settings.crop, shape, strict=True)):
        raise UserError(f"cohort.grid.crop {[list(pair) for pair in settings.crop]} reaches beyond its shape {shape}")
    kept = volume.data[tuple(slice(*pair) for pair in settings.crop)]
    affine = volume.affine.copy()
    affine[:3, 3] = nib.affines.apply_affine(affine, [first for first, _ in settings.crop])
    return Volume(np.ascontiguousarray(kept), affine)


def isotropic(volume: Volume, settings: Grid, kind: Kind) -> Volume:
    """The volume with isotropic voxels of `settings.voxel_size`, or at right angles where it was sheared.

    Cubic for an `image`; linear for a `mask` (half and more is inside) and a `posterior`; nearest neighbour for
    `labels`, which are not blurred.
    """
    size = settings.voxel_size
    if size is None and not is_sheared(volume.affine):
        return volume
    old = volume.voxel_size
    new = np.full(3, size) if size else old
    shape, affine = nib.spaces.vox2out_vox((volume.data.shape, volume.affine), new)
    data = volume.data
    if kind != "labels":
        data = _blurred(data.astype(np.float32), lost_between(old, new))
    moved = on_grid(Volume(data, volume.affine), shape, affine, ORDER[kind]).data
    return Volume(moved >= 0.5 if kind == "mask" else moved, affine)


def at_voxel_size(volume: Volume, mask: np.ndarray, voxel_size: Sequence[float]) -> tuple[Volume, np.ndarray]:
    """The volume, 0 outside its mask, and the mask (X, Y, Z) in RAS order with voxels of `voxel_size` (mm), linearly;
    both as they are where they have them."""
    found = ras_voxel_size(volume.affine, mask.shape)
    wanted = np.asarray(voxel_size, float)
    if (np.abs(found / wanted - 1) <= SAME).all():
        return volume, mask
    brain = to_ras(Volume((mask > 0).astype(np.uint8), volume.affine))
    image = np.where(brain.data, to_ras(volume).data, 0).astype(np.float32)
    grid = nib.spaces.vox2out_vox((image.shape, brain.affine), wanted)
    image = _blurred(image, lost_between(found, wanted))
    moved = on_grid(Volume(image, brain.affine), *grid, order=1)
    return moved._replace(data=moved.data.astype(np.float32)), on_grid(brain, *grid, order=0).data > 0


def over_field(volume: Volume, voxel_size: Sequence[float], order: int = 3) -> Volume:
    """The volume in RAS order with voxels of `voxel_size` (mm, along its own right, front and up axes), centred on the
    same field of view; axis by axis, beyond an end the end's value."""
    turned = to_ras(volume)
    data, affine = turned.data.astype(np.float32), turned.affine.copy()
    for axis, (old, new) in enumerate(zip(turned.voxel_size, voxel_size, strict=True)):
        ratio = float(new / old)
        if math.isclose(ratio, 1, abs_tol=1e-3):
            continue
        if ratio > 1:
            data = ndimage.gaussian_filter1d(data, float(lost_between(old, new)), axis=axis, mode="nearest")
        size = data.shape[axis]
        count = max(1, math.ceil(size / ratio - 1e-6))
        # What the last voxel adds is shared by both ends.
        first = (size - 1) / 2 - ratio * (count - 1) / 2
        data = along_axis(data, first + ratio * np.arange(count), axis, order)
        affine[:3, 3] += affine[:3, axis] * first
        affine[:3, axis] *= ratio
    return Volume(np.ascontiguousarray(data), affine)


def along_axis(data: np.ndarray, indices: np.ndarray, axis: int, order: int = 3) -> np.ndarray:
    """Values at fractional `indices` of one axis; beyond an end the end's value."""
    spline = make_interp_spline(np.arange(data.shape[axis]), data, k=order, axis=axis)
    return spline(np.clip(indices, 0, data.shape[axis] - 1)).astype(np.float32)


def _blurred(data: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(data, sigma) if np.any(sigma) else data
