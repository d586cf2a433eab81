"""Pictures of the simulator: every step of one scan, and the presets side by side, in three planes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from iqt.imaging.orientation import to_ras
from iqt.io.files import replacing
from iqt.io.volumes import Volume

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
_BRIGHTEST = 99.5
_HEADROOM = 1.25
"""What coil and contrast make brighter than the input must still be seen."""
_INCHES = 1.75


class Plane(NamedTuple):
    """One slice in the world's directions: (X, Y) and [left, right, bottom, top] in mm."""

    data: np.ndarray
    extent: list[float]


class Preview:
    """An observer of `simulator.apply` that keeps three planes of each step, through the middle of the input's signal.

    Args:
        volume: the input, which decides the place of the planes and the grey window.
    """

    def __init__(self, volume: Volume) -> None:
        self.point = nib.affines.apply_affine(volume.affine, _middle(volume.data))
        signal = volume.data[volume.data > 0]
        self.window = _HEADROOM * float(np.percentile(signal, _BRIGHTEST)) if signal.size else 1.0
        self.steps: list[tuple[str, list[Plane]]] = []

    def __call__(self, name: str, volume: Volume) -> None:
        self.steps.append((name, planes_through(volume, self.point)))

    def save(self, out: Path) -> None:
        """Write the picture, one column per step."""
        draw_planes(self.steps, self.window, out)


def planes_through(volume: Volume, point: np.ndarray) -> list[Plane]:
    """The sagittal, coronal and axial slice closest to a point of the world, as acquired (nothing interpolated)."""
    data, affine, _ = to_ras(volume)
    size = nib.affines.voxel_sizes(affine)
    exact = nib.affines.apply_affine(np.linalg.inv(affine), point)
    index = np.clip(np.rint(exact).astype(int), 0, np.array(data.shape) - 1)
    low = -(exact + 0.5) * size  # from the point, which seldom is a voxel's centre
    high = low + np.array(data.shape) * size
    planes = []
    for axis in PLANES.values():
        across, up = (other for other in range(3) if other != axis)
        planes.append(Plane(np.array(np.take(data, index[axis], axis)), [low[across], high[across], low[up], high[up]]))
    return planes


def draw_planes(columns: Sequence[tuple[str, Sequence[Plane]]], window: float, out: Path) -> None:
    """Columns of three planes each, all in one grey window from 0 to `window`, to a .png, .svg or .pdf."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_INCHES * len(columns), 3 * _INCHES + 0.3), dpi=130, facecolor="black")
    axes = figure.subplots(3, len(columns), squeeze=False)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.93, wspace=0.03, hspace=0.03)
    for column, (name, planes) in enumerate(columns):
        for row, plane in enumerate(planes):
            place = axes[row, column]
            look = {"cmap": "gray", "vmin": 0, "vmax": window, "origin": "lower", "interpolation": "none"}
            place.imshow(plane.data.T, extent=plane.extent, **look)
            left, right, bottom, top = columns[0][1][row].extent  # the same piece of the world in every column
            place.set(xlim=(left, right), ylim=(bottom, top), facecolor="black")
            place.axis("off")
        middle = axes[0, column].get_position()
        figure.text((middle.x0 + middle.x1) / 2, 0.955, name, color="white", fontsize=9, ha="center")
    with replacing(out) as temporary:
        figure.savefig(temporary)


def plot_presets(
    volume: Volume,
    tissues: Mapping[str, np.ndarray],
    names: Sequence[str],
    seed: int,
    scan: str,
    suffix: str,
    out: Path,
) -> None:
    """The scan and what each preset makes of it, as acquired and brought back to the scan's grid."""
    from iqt.config import LowField
    from iqt.degrade import simulator

    view = Preview(volume)
    view("high quality", volume)
    for name in names:
        settings = LowField(preset=name)
        drawn = simulator.draw(settings, seed, scan, suffix)
        result = simulator.apply(volume, tissues, settings, drawn, suffix)
        view(f"{name}, as acquired", result.thick)
        view(f"{name}, on the grid", Volume(result.upsampled, volume.affine))
    view.save(out)


def _middle(data: np.ndarray) -> np.ndarray:
    """Voxel indices of the middle of what is above zero; the array's middle where nothing is."""
    middle = (np.array(data.shape) - 1) / 2
    for axis in range(3):
        weights = np.maximum(data, 0).sum(axis=tuple(other for other in range(3) if other != axis), dtype=float)
        if weights.sum() > 0:
            middle[axis] = np.average(np.arange(data.shape[axis]), weights=weights)
    return middle
