"""In what order and direction a volume's axes are stored.

World axes run to the right, to the front and up (RAS+). Nothing here changes a value.
"""

from __future__ import annotations

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform

from iqt.io.volumes import Volume


def to_ras(volume: Volume) -> Volume:
    """The same voxels, with axes turned so that they run to the right, to the front and up."""
    turned = array_to_ras(volume.data, volume.affine)
    return Volume(np.ascontiguousarray(turned), ras_affine(volume.affine, volume.data.shape), volume.doubts)


def array_to_ras(data: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """An array (X, Y, Z) with its axes permuted and flipped to the nearest RAS+ order."""
    return apply_orientation(data, io_orientation(affine))


def array_from_ras(data: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Undo `array_to_ras`: a RAS+ array in the axis order of the volume that `affine` belongs to."""
    return apply_orientation(data, ornt_transform([[0, 1], [1, 1], [2, 1]], io_orientation(affine)))


def ras_affine(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The affine, after `to_ras`, of a volume with this affine and shape."""
    return affine @ inv_ornt_aff(io_orientation(affine), shape)


def ras_voxel_size(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Edge lengths in mm along the axes of the nearest RAS+ order."""
    return nib.affines.voxel_sizes(ras_affine(affine, shape))
