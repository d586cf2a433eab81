"""The geometry of an acquisition: slice profile, slice positions, acquisition matrix, and the way back to the grid.

Along one axis at a time, so that the other axes are untouched to the bit.
"""

from __future__ import annotations

from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy.fft import irfft, rfft
from scipy.ndimage import gaussian_filter1d

from iqt.config import LowField
from iqt.errors import UserError
from iqt.imaging.resample import along_axis, gaussian_of
from iqt.io.volumes import Volume

_WORLD_AXES = {"R": 0, "A": 1, "S": 2}
_SMALLEST = 8
_THICK = 3.0
"""Ratio of a voxel's edges from which a scan counts as one of thick slices."""


class Geometry(NamedTuple):
    """The grid that is acquired; lengths in voxels of the high-quality grid."""

    slice_axis: int
    read_axis: int
    phase_axis: int
    thickness: float
    spacing: float
    centres: np.ndarray
    """Positions of the slices along `slice_axis`."""
    matrix: dict[int, int]
    """Voxels within a slice along each in-plane axis that is acquired coarser than the scan."""


def plan(volume: Volume, settings: LowField) -> Geometry:
    """The acquisition's grid for a scan.

    Raises:
        UserError: the scan is a few thick slices itself, or cannot be cut into slices as asked.
    """
    axis = sliced_axis(volume.affine, settings.axis)
    extent, size = volume.data.shape[axis], volume.voxel_size
    check_is_3d(volume)
    unit = size if settings.unit == "mm" else np.ones(3)
    thickness, spacing = settings.thickness / unit[axis], (settings.thickness + settings.gap) / unit[axis]
    if settings.slices and spacing < 1 - 1e-6:
        raise UserError(
            f"thickness {settings.thickness:g} + gap {settings.gap:g} mm: finer than the scan's own slices of "
            f"{size[axis]:g} mm along {settings.axis}; choose thicker slices"
        )
    centres = slice_centres(extent, spacing) if settings.slices else np.arange(extent, dtype=float)
    if len(centres) < 4:
        raise UserError(
            f"thickness {settings.thickness:g} + gap {settings.gap:g}: {extent} voxels along {settings.axis} give "
            f"{len(centres)} slices, and cubic interpolation needs 4; choose thinner slices"
        )
    first = "R" if settings.axis == "A" else "A"
    read = sliced_axis(volume.affine, first if settings.read_axis == "auto" else settings.read_axis)
    read = read if read != axis else next(other for other in range(3) if other != axis)
    matrix = {}
    for other in (each for each in range(3) if each != axis and settings.in_plane > 0):
        wanted = round(volume.data.shape[other] * unit[other] / settings.in_plane)
        if wanted < 4:
            raise UserError(
                f"in_plane {settings.in_plane:g}: leaves {wanted} voxels across the scan; choose finer ones"
            )
        if wanted < volume.data.shape[other]:
            matrix[other] = wanted
    return Geometry(axis, read, 3 - axis - read, thickness, spacing if settings.slices else 1.0, centres, matrix)


def check_is_3d(volume: Volume) -> None:
    """UserError where a scan is too thin, or its voxels too long, for anything to be simulated from it."""
    smallest = int(np.argmin(volume.data.shape))
    if volume.data.shape[smallest] < _SMALLEST:
        raise UserError(
            f"the scan has {' x '.join(map(str, volume.data.shape))} voxels, only {volume.data.shape[smallest]} along "
            f"one axis; simulating slices needs a 3D scan with at least {_SMALLEST} along each"
        )
    size = volume.voxel_size
    if size.max() > _THICK * size.min():
        raise UserError(
            f"the scan has voxels of {' x '.join(f'{edge:g}' for edge in size)} mm, so it consists of thick slices; "
            f"give a scan whose voxels' edges differ by less than {_THICK:g} times"
        )


def acquired_affine(affine: np.ndarray, geometry: Geometry, shape: tuple[int, ...]) -> np.ndarray:
    """The affine of the acquired grid: every voxel stays in its place in the world."""
    to_grid = np.eye(4)
    axis = geometry.slice_axis
    to_grid[axis, axis], to_grid[axis, 3] = geometry.spacing, geometry.centres[0]
    for other, count in geometry.matrix.items():
        to_grid[other, other] = shape[other] / count
    return affine @ to_grid


def upsample(data: np.ndarray, geometry: Geometry, shape: tuple[int, ...]) -> np.ndarray:
    """The acquired grid brought back to the high-quality one by cubic splines."""
    for axis, count in geometry.matrix.items():
        data = along_axis(data, np.arange(shape[axis]) * (count / shape[axis]), axis)
    axis = geometry.slice_axis
    return along_axis(data, (np.arange(shape[axis]) - geometry.centres[0]) / geometry.spacing, axis)


def sliced_axis(affine: np.ndarray, world_axis: str) -> int:
    """The array axis closest to a world axis (`R`, `A` or `S`), whichever way it runs."""
    return int(np.flatnonzero(nib.io_orientation(affine)[:, 0] == _WORLD_AXES[world_axis])[0])


def slice_centres(extent: int, spacing: float) -> np.ndarray:
    """Voxel indices of the centres of the fewest slices `spacing` apart that cover `extent` voxels, centred on them."""
    count = int(np.ceil(extent / spacing - 1e-9))
    return (extent - 1) / 2 + (np.arange(count) - (count - 1) / 2) * spacing


def select_slices(data: np.ndarray, thickness: float, axis: int) -> np.ndarray:
    """Blur along an axis by the slice profile, a Gaussian with a FWHM of `thickness` voxels."""
    return gaussian_filter1d(data, gaussian_of(thickness), axis=axis, mode="nearest")


def acquire_matrix(data: np.ndarray, matrix: dict[int, int]) -> np.ndarray:
    """Acquire fewer in-plane voxels over the same field of view: k-space cropped about its centre, mean kept.

    Voxel 0 keeps its centre, and voxel i lies at i times the ratio of the counts.
    """
    for axis, count in matrix.items():
        spectrum = np.moveaxis(rfft(data, axis=axis), axis, -1)[..., : count // 2 + 1].copy()
        if count % 2 == 0:
            spectrum[..., -1] = 0  # this line's mirror image is not acquired
        found = irfft(spectrum, n=count, axis=-1) * (count / data.shape[axis])
        data = np.moveaxis(found, -1, axis).astype(np.float32)
    return data


def truncate_kspace(data: np.ndarray, keep: float, axis: int) -> np.ndarray:
    """Zero the outer k-space lines along one axis, of which the share `keep` is kept: same grid, less resolution.

    The centre line is always kept, so the mean is untouched, and edges ring as they do on a scanner.
    """
    spectrum = rfft(data, axis=axis)
    kept = int(keep * data.shape[axis] / 2) + 1  # with their mirror images, and the centre once
    outer = [slice(None)] * data.ndim
    outer[axis] = slice(kept, None)
    spectrum[tuple(outer)] = 0
    return irfft(spectrum, n=data.shape[axis], axis=axis).astype(np.float32)
