"""Random smooth fields, and invertible deformations made from them.

Fields live on a coarse lattice in world millimetres and are read between its points as cubic splines, so that a
person's shape does not depend on the voxel size and derivatives are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage, sparse
from scipy.interpolate import BSpline, make_interp_spline

Axes = tuple[np.ndarray, np.ndarray, np.ndarray]


def lattice(box: np.ndarray, spacing: float) -> Axes:
    """Evenly spaced coordinates from one corner of a box (2, 3) to the other, at most `spacing` mm apart."""
    return tuple(np.linspace(low, high, int(np.ceil((high - low) / spacing)) + 1) for low, high in box.T)


def draw_field(rng: np.random.Generator, axes: Axes, smoothness: float) -> np.ndarray:
    """Gaussian random field on a lattice, mean 0 and standard deviation 1 over many draws.

    `smoothness` is the standard deviation in mm of the Gaussian that white noise is convolved with.
    """
    noise, norm = rng.standard_normal([len(axis) for axis in axes]), 1.0
    for number, axis in enumerate(axes):
        sigma = smoothness / (axis[1] - axis[0])
        noise = ndimage.gaussian_filter1d(noise, sigma, axis=number, mode="wrap")
        impulse = np.zeros(len(axis))
        impulse[0] = 1
        norm *= np.linalg.norm(ndimage.gaussian_filter1d(impulse, sigma, mode="wrap"))
    return noise / norm


def window(axes: Axes, margin: float) -> np.ndarray:
    """1 inside a lattice, falling to 0 over its outer `margin` mm: a velocity times it leaves the border in place."""
    sides = []
    for axis in axes:
        depth = np.minimum(axis - axis[0], axis[-1] - axis)
        sides.append(np.sin(np.pi / 2 * np.clip(depth / margin, 0, 1)) ** 2)
    return sides[0][:, None, None] * sides[1][:, None] * sides[2]


def integrate(velocity: np.ndarray, axes: Axes, squarings: int = 7) -> np.ndarray:
    """Displacement in mm, (3, X, Y, Z), of flowing for unit time along a stationary velocity (mm): invertible.

    Scaling and squaring (Arsigny et al., MICCAI 2006); the inverse is the integral of the negative velocity.
    """
    scale = np.array([axis[1] - axis[0] for axis in axes])[:, None, None, None]
    start = np.indices(velocity.shape[1:])
    displacement = velocity / 2**squarings
    for _ in range(squarings):
        at = start + displacement / scale
        displacement = displacement + np.stack(
            [ndimage.map_coordinates(part, at, order=1, mode="nearest") for part in displacement]
        )
    return displacement


class Spline(NamedTuple):
    """A field on a lattice, read anywhere as the interpolating cubic spline."""

    axes: Axes
    coefficients: np.ndarray

    @classmethod
    def through(cls, field: np.ndarray, axes: Axes) -> Spline:
        """The spline through a field's values (X, Y, Z)."""
        for axis in axes:
            field = np.moveaxis(make_interp_spline(axis, field, k=3).c, 0, -1)
        return cls(axes, field.astype(np.float32))

    def on_grid(self, points: Sequence[np.ndarray], derivative: int | None = None) -> np.ndarray:
        """Values on the grid spanned by coordinates along each axis (float32), or the derivative along one axis."""
        values = self.coefficients
        for number, (axis, wanted) in enumerate(zip(self.axes, points, strict=True)):
            basis = _basis(axis, wanted, derivative=int(number == derivative))
            flat = basis @ np.ascontiguousarray(values).reshape(len(axis), -1)
            values = np.moveaxis(flat.reshape(len(wanted), *values.shape[1:]), 0, -1)
        return np.ascontiguousarray(values)


def jacobian(displacement: Sequence[Spline], points: Sequence[np.ndarray]) -> np.ndarray:
    """Determinant of the derivative of x -> x + displacement(x) on a grid; above 0 where the map is invertible."""
    rows = []
    for number, part in enumerate(displacement):
        row = [part.on_grid(points, derivative=axis) for axis in range(3)]
        row[number] += 1
        rows.append(row)
    (a, b, c), (d, e, f), (g, h, i) = rows
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def _basis(axis: np.ndarray, points: np.ndarray, derivative: int) -> sparse.csr_array:
    """Cubic B-splines over an axis (or their derivatives) at points: four entries a row, so products stay cheap."""
    knots = make_interp_spline(axis, axis, k=3).t
    return sparse.csr_array(BSpline(knots, np.eye(len(axis)), 3)(points, nu=derivative).astype(np.float32))
