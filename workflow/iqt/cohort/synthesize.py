"""Scans made from label maps: real anatomy, invented intensities.

After SynthSeg (Billot et al., Medical Image Analysis 86, 2023) and SynthSR (Iglesias et al., Science Advances 9, 2023):
deform the labels, draw one Gaussian intensity per structure, blur for partial volume, add texture and a bias field.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from iqt.cohort import deform
from iqt.cohort.template import flow
from iqt.config import LabelMaps
from iqt.errors import UserError
from iqt.imaging import checks
from iqt.io.naming import seed_of
from iqt.io.volumes import Volume, bounding_box

TISSUES = ("WM", "GM", "CSF")
INTENSITY = {
    "T1w": {"WM": (1.0, 0.02), "GM": (0.70, 0.03), "CSF": (0.30, 0.04)},
    "T2w": {"WM": (0.45, 0.03), "GM": (0.62, 0.03), "CSF": (1.0, 0.05)},
    "FLAIR": {"WM": (0.65, 0.03), "GM": (0.85, 0.03), "CSF": (0.22, 0.04)},
}
"""Mean and standard deviation over people of a tissue's intensity, relative to the brightest; set by hand."""
STRUCTURE_SD = 0.03
"""Standard deviation over structures of a tissue."""
RANDOM = (0.1, 1.0)
"""Range of a structure's intensity with `contrast: random`."""
OUTSIDE = 500
"""SynthSeg's label maps number what is outside the brain from here on."""
SCANNER = (600.0, 1000.0)
PARTIAL_VOLUME = 0.5
"""Standard deviation, in voxels, of the blur that mixes neighbours."""
MARGIN_MM = 12.0
LATTICE_MM = 5.0
BIAS_MM = 45.0
TEXTURE_MM = 0.7


class Person(NamedTuple):
    """Volumes (X, Y, Z) on one grid, and what was drawn."""

    image: np.ndarray
    mask: np.ndarray
    dseg: np.ndarray
    tissues: np.ndarray
    """Posteriors of WM, GM, CSF, (3, X, Y, Z)."""
    affine: np.ndarray
    drawn: dict


def make_person(labels: Volume, scan: str, suffix: str, seed: int, settings: LabelMaps) -> Person:
    """A scan made from a label map in RAS order, cut to its brain; the same seed and scan give the same bits.

    Raises:
        UserError: the map holds labels that the table does not know, or none of the brain.
    """

    def rng(purpose: str) -> np.random.Generator:
        return np.random.default_rng(seed_of(seed, scan, purpose))

    table = checks.read_labels(settings.lut)
    brain = _brain(labels, table)
    size = labels.voxel_size
    points = [side * np.arange(count) for side, count in zip(size, brain.data.shape, strict=True)]
    ends = np.array([[-LATTICE_MM] * 3, [side[-1] + LATTICE_MM for side in points]])
    axes = deform.lattice(ends, LATTICE_MM)
    moved, shape = _deform(rng("shape"), brain.data, axes, points, settings)
    mask = _mask(moved)
    moved = np.where(mask, np.where(moved == 0, _liquid(table), moved), 0)  # gaps between gyri
    means, contrast = _draw_means(rng("contrast"), table, suffix, settings.contrast)
    signal = _mix(means[moved], mask)
    noise = ndimage.gaussian_filter(rng("texture").standard_normal(mask.shape), TEXTURE_MM / size, mode="wrap")
    signal += settings.texture * noise / noise.std()
    bias = deform.Spline.through(deform.draw_field(rng("bias"), axes, BIAS_MM), axes).on_grid(points)
    level = float(rng("scanner").uniform(*SCANNER))
    signal *= level * np.exp(settings.bias_field * bias)
    image = np.where(mask, np.maximum(signal, 0), 0).astype(np.float32)
    drawn = {"level": level, **shape, **contrast}
    return Person(image, mask, moved, _posteriors(moved, mask, table), brain.affine, drawn)


def _brain(labels: Volume, table: checks.Labels) -> Volume:
    """The brain's labels in a box around them; what lies outside the brain becomes 0."""
    data = np.where((labels.data > 0) & (labels.data < OUTSIDE) | (labels.data >= 1000), labels.data, 0)
    if not data.any():
        raise UserError("holds no label of the brain")
    problems = checks.label_problems(np.unique(data).tolist(), table)
    if problems:
        raise UserError("; ".join(problems))
    for label in np.unique(data[data > 0]).tolist():
        if table.rows[label]["tissue"] not in TISSUES:
            raise UserError(
                f"holds label {label}, whose tissue in {table.path.name} is {table.rows[label]['tissue']!r} and not "
                f"{', '.join(TISSUES)}"
            )
    margin = int(np.ceil(MARGIN_MM / labels.voxel_size.min()))
    box = bounding_box(np.pad(data, margin) > 0, margin)
    first = [side.start - margin for side in box]
    affine = labels.affine.copy()
    affine[:3, 3] = affine[:3, :3] @ first + affine[:3, 3]
    return Volume(np.ascontiguousarray(np.pad(data, margin)[box]), affine)


def _deform(
    rng: np.random.Generator,
    labels: np.ndarray,
    axes: deform.Axes,
    points: Sequence[np.ndarray],
    settings: LabelMaps,
) -> tuple[np.ndarray, dict]:
    """Labels moved by a random invertible deformation (nearest neighbour), and the range of its Jacobian."""
    fields = np.stack([deform.draw_field(rng, axes, settings.smoothness) for _ in range(3)])
    velocity = settings.deformation * fields * deform.window(axes, 2 * MARGIN_MM)
    displacement, jacobian, shrunk = flow(velocity, axes, points)
    start = np.meshgrid(*(side.astype(np.float32) for side in points), indexing="ij", sparse=True)
    at = np.stack(
        [
            (part.on_grid(points) + side) / (side_mm[1] - side_mm[0])
            for part, side, side_mm in zip(displacement, start, points, strict=True)
        ]
    )
    moved = ndimage.map_coordinates(labels, at, order=0, mode="constant", cval=0)
    return moved, {
        "shrunk": shrunk,
        "jacobian_min": float(jacobian.min()),
        "jacobian_max": float(jacobian.max()),
    }


def _mask(labels: np.ndarray) -> np.ndarray:
    """The brain: its labels, closed over narrow gaps and holes, in one piece, without the thin fluid down the spine."""
    closed = ndimage.binary_closing(labels > 0, iterations=2) | (labels > 0)
    parts, count = ndimage.label(ndimage.binary_opening(closed, iterations=2))
    if count == 0:
        raise UserError("is nowhere five voxels thick, so it is no map of a brain")
    return ndimage.binary_fill_holes(parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]))


def _liquid(table: checks.Labels) -> int:
    """The label of the fluid around the brain; 0 where the table has none."""
    fluids = [label for label, row in table.rows.items() if row["tissue"] == "CSF"]
    return next((label for label in fluids if table.rows[label]["name"] == "CSF"), min(fluids, default=0))


def _draw_means(rng: np.random.Generator, table: checks.Labels, suffix: str, contrast: str) -> tuple[np.ndarray, dict]:
    """Intensity by label, the same in both hemispheres, and what was drawn for the tissues."""
    means = np.zeros(max(table.rows) + 1, np.float32)
    tissues = {name: float(rng.normal(*INTENSITY[suffix][name])) for name in TISSUES}
    for label, row in sorted(table.rows.items()):
        mirror = int(row["mirror"])
        if mirror in table.rows and mirror < label:
            means[label] = means[mirror]
        elif contrast == "random":
            means[label] = rng.uniform(*RANDOM)
        else:
            means[label] = max(tissues[row["tissue"]] + rng.normal(0, STRUCTURE_SD), 0.02)
    drawn = {"contrast": contrast if contrast == "random" else suffix}
    return means, drawn if contrast == "random" else drawn | {
        f"{name.lower()}_signal": tissues[name] for name in TISSUES
    }


def _mix(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Values blurred over about a voxel, as partial volume does, with nothing from outside the mask."""
    inside = ndimage.gaussian_filter(mask.astype(np.float32), PARTIAL_VOLUME)
    blurred = ndimage.gaussian_filter(np.where(mask, values, 0).astype(np.float32), PARTIAL_VOLUME)
    return np.where(mask, blurred / np.maximum(inside, 1e-6), 0)


def _posteriors(labels: np.ndarray, mask: np.ndarray, table: checks.Labels) -> np.ndarray:
    """Share of WM, GM and CSF in each voxel, mixed as the intensities are; they sum to 1 in the mask."""
    number = np.full(max(table.rows) + 1, TISSUES.index("CSF"), np.uint8)
    for label, row in table.rows.items():
        number[label] = TISSUES.index(row["tissue"])
    tissue = number[labels]
    return np.stack([_mix((tissue == index).astype(np.float32), mask) for index in range(len(TISSUES))])
