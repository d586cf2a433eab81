"""What a scanner makes of a volume, as a linear operator and its transpose.

Each acquired voxel is the volume under a Gaussian whose full width at half maximum along each axis of the acquisition
is the voxel's edge, less what a voxel of the volume has already. The grids may lie anywhere to one another.
"""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
from scipy.sparse import csr_array

from iqt.imaging.resample import lost_between

WHOLE = 1e-3
"""How far from a whole number a ratio of edges may be by rounding."""
REACH = 4.0
"""Standard deviations of a slice profile beyond which it is 0."""


class Acquisition:
    """From volumes on one grid to the voxels of another, `grid` and `acquired` as (shape, affine)."""

    def __init__(self, grid: tuple[tuple[int, ...], np.ndarray], acquired: tuple[tuple[int, ...], np.ndarray]) -> None:
        self.grid_shape, self.shape = tuple(grid[0]), tuple(acquired[0])
        size, own = nib.affines.voxel_sizes(acquired[1]), nib.affines.voxel_sizes(grid[1])
        # Trilinear to a grid along the axes of the acquisition as fine as the volume's, and there each axis by itself.
        parts = np.maximum(np.ceil(size / own.min() - WHOLE), 1).astype(int)
        # What is lacking to the acquired voxel's profile, in voxels of that grid.
        sigma = lost_between(own.min(), size) * own.min() * parts / size
        self._fine_shape = tuple(int(count) for count in parts * self.shape)
        to_acquired = nib.affines.from_matvec(np.diag(1 / parts), (1 / parts - 1) / 2)
        self._trilinear = _trilinear(
            self.grid_shape, np.linalg.inv(grid[1]) @ acquired[1] @ to_acquired, self._fine_shape
        )
        self._profiles = [
            _profile(count, int(part), float(each)) for count, part, each in zip(self.shape, parts, sigma, strict=True)
        ]

    def forward(self, volume: np.ndarray) -> np.ndarray:
        """The acquired voxels (X, Y, Z) of a volume on the grid; 0 counts as what lies beyond it."""
        data = (self._trilinear @ volume.ravel()).reshape(self._fine_shape)
        for axis, profile in enumerate(self._profiles):
            data = _along(profile, data, axis)
        return data

    def transpose(self, acquired: np.ndarray) -> np.ndarray:
        """The transpose of `forward`."""
        data = acquired
        for axis, profile in enumerate(self._profiles):
            data = _along(profile.T, data, axis)
        return (self._trilinear.T @ data.ravel()).reshape(self.grid_shape)


def _along(matrix: csr_array, data: np.ndarray, axis: int) -> np.ndarray:
    moved = np.moveaxis(data, axis, 0)
    product = matrix @ moved.reshape(moved.shape[0], -1)
    return np.ascontiguousarray(np.moveaxis(product.reshape(-1, *moved.shape[1:]), 0, axis))


def _profile(count: int, parts: int, sigma: float) -> csr_array:
    """(count, count * parts): the share of each fine voxel in each acquired one; the end's value goes on beyond it."""
    if parts == 1:
        return csr_array(np.eye(count, dtype=np.float32))
    fine = count * parts
    reach = int(np.ceil(REACH * sigma + parts / 2))
    offsets = np.arange(-reach, reach + parts)
    weights = np.exp(-0.5 * ((offsets - (parts - 1) / 2) / sigma) ** 2)
    rows = np.repeat(np.arange(count), offsets.size)
    columns = np.clip(rows * parts + np.tile(offsets, count), 0, fine - 1)
    values = np.tile(weights / weights.sum(), count).astype(np.float32)
    return csr_array((values, (rows, columns)), shape=(count, fine))


def _trilinear(shape: tuple[int, ...], to_grid: np.ndarray, fine_shape: tuple[int, ...]) -> csr_array:
    """Interpolation of a volume of `shape` at the voxels of a grid, whose indices `to_grid` takes to the volume's."""
    axes = [np.arange(count, dtype=np.float32) for count in fine_shape]
    indices, weights = [], []
    for axis in range(3):
        row = to_grid[axis].astype(np.float32)
        place = (
            (row[0] * axes[0])[:, None, None] + (row[1] * axes[1])[None, :, None] + (row[2] * axes[2] + row[3])
        ).ravel()
        low = np.floor(place)
        indices.append(low.astype(np.int32))
        weights.append(place - low)
    n_rows = int(np.prod(fine_shape))
    columns, values = np.empty((n_rows, 8), np.int32), np.empty((n_rows, 8), np.float32)
    steps = (shape[1] * shape[2], shape[2], 1)
    for number, corner in enumerate(itertools.product((0, 1), repeat=3)):
        column, value = np.zeros(n_rows, np.int32), np.ones(n_rows, np.float32)
        for axis, side in enumerate(corner):
            index = indices[axis] + side
            inside = (index >= 0) & (index < shape[axis])
            value *= np.where(inside, weights[axis] if side else 1 - weights[axis], 0)
            column += np.clip(index, 0, shape[axis] - 1) * steps[axis]
        columns[:, number], values[:, number] = column, value
    starts = np.arange(0, 8 * n_rows + 1, 8, dtype=np.int64 if 8 * n_rows > 2**31 - 1 else np.int32)
    return csr_array((values.ravel(), columns.ravel(), starts), shape=(n_rows, int(np.prod(shape))))
