"""Bringing a volume to the voxel size that a parcellator knows, and its labels back."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from nibabel.processing import fwhm2sigma, resample_from_to, resample_to_output
from scipy.ndimage import gaussian_filter

from iqt.io.volumes import Volume
from iqt.parcellate.orient import ras_affine, to_ras

SAME = 0.05
"""Relative difference of voxel sizes that counts as none."""


def ras_voxel_size(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Edge lengths in mm along the axes of the nearest RAS+ order."""
    return nib.affines.voxel_sizes(ras_affine(affine, shape))


def at_voxel_size(volume: Volume, mask: np.ndarray, voxel_size: tuple[float, ...]) -> tuple[Volume, np.ndarray]:
    """The volume, 0 outside its mask, and the mask with voxels of `voxel_size` (mm, RAS+), unless they have them.

    Linear interpolation; where voxels grow, a Gaussian takes away first what the larger ones cannot hold.
    """
    found = ras_voxel_size(volume.affine, mask.shape)
    wanted = np.asarray(voxel_size, float)
    if (np.abs(found / wanted - 1) <= SAME).all():
        return volume, mask
    affine = ras_affine(volume.affine, mask.shape)
    brain = to_ras(mask > 0, volume.affine)
    image = np.where(brain, to_ras(volume.data, volume.affine), 0).astype(np.float32)
    lost = fwhm2sigma(np.sqrt(np.maximum(wanted**2 - found**2, 0))) / found
    image = gaussian_filter(image, lost)
    moved = [
        resample_to_output(nib.Nifti1Image(data, affine), wanted, order=order, cval=0)
        for data, order in ((image, 1), (brain.astype(np.uint8), 0))
    ]
    return Volume(np.asarray(moved[0].dataobj, dtype=np.float32), moved[0].affine), np.asarray(moved[1].dataobj) > 0


def labels_on(labels: np.ndarray, affine: np.ndarray, volume: Volume) -> np.ndarray:
    """A label map with its affine on the grid of `volume`, by nearest neighbour, int32; 0 where it does not reach."""
    image = nib.Nifti1Image(labels.astype(np.int32), affine)
    moved = resample_from_to(image, (volume.data.shape, volume.affine), order=0, mode="constant", cval=0)
    return np.asarray(moved.dataobj).astype(np.int32)
