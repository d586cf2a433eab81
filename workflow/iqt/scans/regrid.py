"""Putting a scan and all that belongs to it on another grid: cropped, in RAS order, with other voxels."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to
from scipy import ndimage

from iqt.config import Grid
from iqt.errors import UserError
from iqt.io.volumes import Volume, as_stored_in
from iqt.scans.checks import is_sheared

FWHM = 2.3548
"""Of a Gaussian, in standard deviations."""


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


def to_ras(volume: Volume) -> Volume:
    """The same voxels, with axes turned so that they run to the right, to the front and up."""
    turned = nib.as_closest_canonical(nib.Nifti1Image(volume.data, volume.affine))
    return Volume(np.ascontiguousarray(turned.dataobj), turned.affine, volume.doubts)


def like(volume: Volume, reference: Volume, kind: str, where: object) -> Volume:
    """A mask, posterior or label map on the grid of the image that it belongs to, by the affines of both.

    Derivatives often have their axes in another order (fMRIPrep writes RAS) or other voxels than the raw scan: nearest
    neighbour for masks and labels, linear for posteriors.

    Raises:
        UserError: nothing of it lies within the image.
    """
    stored = as_stored_in(volume, reference)
    if stored is not None:
        return stored
    order = 1 if kind == "posterior" else 0
    moved = resample_from_to(
        nib.Nifti1Image(volume.data, volume.affine), (reference.data.shape, reference.affine), order=order
    )
    data = np.asarray(moved.dataobj).astype(volume.data.dtype)
    if volume.data.any() and not data.any():
        raise UserError(f"{where}: lies elsewhere in the world than its image; is its affine right?")
    return Volume(data, reference.affine, volume.doubts)


def resample(volume: Volume, settings: Grid, kind: str) -> Volume:
    """The volume with isotropic voxels of `settings.voxel_size`, or at right angles where it was sheared.

    Cubic for an `image`, after a blur where voxels get larger, so that nothing finer than the new grid folds back;
    linear for a `mask` (half and more is inside) and a `posterior`; nearest neighbour for `labels`.
    """
    size = settings.voxel_size
    if size is None and not is_sheared(volume.affine):
        return volume
    old = volume.voxel_size
    new = np.full(3, size) if size else old
    shape, affine = nib.spaces.vox2out_vox((volume.data.shape, volume.affine), new)
    data = volume.data
    if kind != "labels":
        data = data.astype(np.float32)
        wider = np.sqrt(np.maximum((new / old) ** 2 - 1, 0)) / FWHM
        if wider.any():
            data = ndimage.gaussian_filter(data, wider)
    order = {"image": 3, "mask": 1, "posterior": 1, "labels": 0}[kind]
    moved = resample_from_to(nib.Nifti1Image(data, volume.affine), (shape, affine), order=order)
    data = np.asarray(moved.dataobj)
    return Volume(data >= 0.5 if kind == "mask" else data, affine)
