"""One person drawn from the MNI152 template: a stand-in for real anatomy, with true tissues and labels.

A person's shape is the template seen through a random invertible deformation; cortical thickness, sulci and ventricles
differ too, and so do intensities. Everything follows from the run's seed and the scan's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from iqt.cohort import anatomy, deform
from iqt.config import Template
from iqt.errors import UserError
from iqt.io.naming import seed_of

MARGIN_MM = 12.0
"""Empty space around the template's brain; a deformation fades out in it, so that no brain leaves the volume."""
LATTICE_MM = 4.0
SUBVOXEL_MM = 1.5
"""A voxel is the mean of points at most this far apart, near the template's own 1 mm: larger voxels mix tissues."""

SCALE_SD, STRETCH_SD, ROTATION_SD = 0.03, 0.015, np.deg2rad(2.0)
"""Head size, stretch along one axis (both log) and rotation about one axis (radians)."""
SYMMETRY = 0.8
"""Share of the smooth displacement's variance that both hemispheres have in common."""
VENTRICLE = (0.1, 0.3)
"""Mean and standard deviation of how far the ventricles' walls move, as a share of `deformation`."""
SHRINK = 0.8
"""Factor on a velocity whose flow, once discretised, is not invertible."""

SHARPNESS = 3.0
"""Power of the template's probabilities, an average over 152 people, that makes one person's crisp tissues."""
WEIGHT = {"wm": 1.25, "csf": 2.5}
"""Weight of a tissue against grey matter before sharpening: in the average, narrow gyri and sulci have turned grey."""
THICKNESS_SD = {"wm": 0.15, "csf": 0.35}
"""Standard deviation of the log weight of a tissue against grey matter, over places and people."""
THICKNESS_MM = 8.0

INTENSITY = {"wm": (1.0, 0.0), "gm": (0.70, 0.02), "csf": (0.30, 0.03), "deep": (0.05, 0.01)}
"""T1w mean and standard deviation over people, relative to white matter; `deep` is added in deep grey matter."""
DEEP = ("Thalamus", "Caudate", "Putamen")
SCANNER = (700.0, 1000.0)
"""Range of the intensity of white matter in the scanner's arbitrary units."""
TEXTURE_MM, BIAS_MM, NOISE = 1.2, 40.0, 0.005
"""Smoothness of texture and bias field; standard deviation of the noise, relative to white matter."""


class Person(NamedTuple):
    """Volumes (X, Y, Z) on one grid, the same for everybody: RAS+, MNI millimetres."""

    T1w: np.ndarray
    """float32, scanner units, 0 outside the brain."""
    mask: np.ndarray
    wm: np.ndarray
    """Posterior, float32; wm, gm and csf sum to 1 in the mask and are 0 outside."""
    gm: np.ndarray
    csf: np.ndarray
    dseg: np.ndarray
    """int16, labels of `resources/template_dseg.tsv`, 0 outside the brain."""
    affine: np.ndarray
    drawn: dict[str, float | list[float]]
    """What was drawn, and the range of the Jacobian over the brain."""


def make_person(scan: str, seed: int, settings: Template) -> Person:
    """The person called `scan`; the same seed and settings give the same bits.

    Raises:
        UserError: nilearn's template is missing, or no invertible deformation was found for such settings.
    """

    def rng(purpose: str) -> np.random.Generator:
        return np.random.default_rng(seed_of(seed, scan, purpose))

    template = anatomy.load_anatomy()
    axes = deform.lattice(template.box(MARGIN_MM), LATTICE_MM)
    points, affine = make_grid(axes, settings.voxel_size)
    velocity, shape = draw_velocity(rng("shape"), template, axes, settings)
    displacement, jacobian, shrunk = flow(velocity, axes, points)
    weights = draw_weights(rng("tissue"), axes, points)
    mask, tissues = warp_tissues(template, displacement, points, settings.voxel_size, weights)
    kind, dseg = warp_labels(template, displacement, points, mask, tissues)
    signal, contrast = draw_signal(rng("contrast"), tissues, kind)
    signal += settings.texture * draw_texture(rng("texture"), mask.shape, settings.voxel_size)
    bias = deform.Spline.through(deform.draw_field(rng("bias"), axes, BIAS_MM), axes).on_grid(points)
    signal *= np.exp(settings.bias_field * bias)
    signal += NOISE * rng("noise").standard_normal(mask.shape, dtype=np.float32)
    T1w = np.where(mask, np.maximum(contrast["white_matter_intensity"] * signal, 0), 0).astype(np.float32)
    inside = jacobian[mask]
    drawn = {**shape, "shrunk": shrunk, **contrast}
    drawn |= {"jacobian_min": float(inside.min()), "jacobian_max": float(inside.max())}
    gm, wm, csf = tissues
    return Person(T1w, mask, wm, gm, csf, dseg, affine, drawn)


def make_grid(axes: deform.Axes, voxel_size: float) -> tuple[list[np.ndarray], np.ndarray]:
    """Voxel centres in mm along each axis, filling the lattice's box, and the affine."""
    points = []
    for axis in axes:
        count = int((axis[-1] - axis[0]) / voxel_size + 1e-9)
        centre = (axis[0] + axis[-1]) / 2
        points.append(centre + voxel_size * (np.arange(count) - (count - 1) / 2))
    affine = np.diag([voxel_size] * 3 + [1.0])
    affine[:3, 3] = [side[0] for side in points]
    return points, affine


def draw_velocity(
    rng: np.random.Generator, template: anatomy.Anatomy, axes: deform.Axes, settings: Template
) -> tuple[np.ndarray, dict]:
    """A velocity (3, X, Y, Z) in mm on the lattice, from the person to the template, and what was drawn for it.

    The sum of a random smooth field, of a rotation with scaling about the centre, and of a flow towards the ventricles,
    which widens them.
    """
    smooth = np.stack([deform.draw_field(rng, axes, settings.smoothness) for _ in range(3)])
    mirrored = smooth[:, ::-1] * np.array([-1, 1, 1])[:, None, None, None]  # the box is centred on x = 0
    smooth = np.sqrt(SYMMETRY / 2) * (smooth + mirrored) + np.sqrt((1 - SYMMETRY) / 2) * (smooth - mirrored)
    scale = rng.normal(0, SCALE_SD) + rng.normal(0, STRETCH_SD, 3)
    turn = rng.normal(0, ROTATION_SD, 3)
    widening = settings.deformation * rng.normal(*VENTRICLE)
    linear = np.diag(-scale) + np.cross(np.eye(3), turn)
    where = np.stack(np.meshgrid(*axes, indexing="ij"))
    centre = np.array([(axis[0] + axis[-1]) / 2 for axis in axes])[:, None, None, None]
    velocity = settings.deformation * smooth + np.tensordot(linear, where - centre, axes=1)
    velocity += widening * towards_ventricles(template, axes)
    drawn = {
        "log_scale": scale.tolist(),
        "rotation_degrees": np.rad2deg(turn).tolist(),
        "ventricle_wall_mm": float(widening),
    }
    return velocity * deform.window(axes, MARGIN_MM), drawn


def towards_ventricles(template: anatomy.Anatomy, axes: deform.Axes) -> np.ndarray:
    """Vectors (3, X, Y, Z) on the lattice that point into the lateral ventricles, at most 1 long."""
    where = np.stack(np.meshgrid(*axes, indexing="ij"))
    ventricle = template.sample("kind", where, order=0) == anatomy.KIND["Lateral-Ventricle"]
    slope = np.stack(np.gradient(ndimage.gaussian_filter(ventricle.astype(float), 1.5)))
    return slope / np.linalg.norm(slope, axis=0).max()


def flow(
    velocity: np.ndarray, axes: deform.Axes, points: Sequence[np.ndarray]
) -> tuple[list[deform.Spline], np.ndarray, int]:
    """The displacement that a velocity gives, its Jacobian on the grid, and how often the velocity was shrunk."""
    for shrunk in range(10):
        field = deform.integrate(SHRINK**shrunk * velocity, axes)
        displacement = [deform.Spline.through(part, axes) for part in field]
        jacobian = deform.jacobian(displacement, points)
        if jacobian.min() > 0:
            return displacement, jacobian, shrunk
    raise UserError(
        "no invertible deformation was found; lower deformation of cohort's source, or raise smoothness, and run again"
    )


def draw_weights(rng: np.random.Generator, axes: deform.Axes, points: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Weights of WM and CSF against GM on the grid: high where the cortex is thin, or sulci and ventricles wide."""
    fields = (deform.Spline.through(deform.draw_field(rng, axes, THICKNESS_MM), axes).on_grid(points) for _ in WEIGHT)
    offsets = rng.normal(0, 0.3, 2)  # a person's own level, besides what varies over places
    named = zip(WEIGHT, fields, offsets, strict=True)
    return tuple(WEIGHT[tissue] * np.exp(THICKNESS_SD[tissue] * (field + offset)) for tissue, field, offset in named)


def warp_tissues(
    template: anatomy.Anatomy,
    displacement: list[deform.Spline],
    points: Sequence[np.ndarray],
    voxel_size: float,
    weights: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """The person's brain mask (X, Y, Z) and posteriors of GM, WM and CSF (3, X, Y, Z).

    Each voxel is the mean over points inside it, sharpened before averaging: a voxel on a border holds both tissues.
    """
    near = template.sample("inside", _warped(displacement, points), order=0) > 0
    near = ndimage.binary_dilation(near, np.ones((3, 3, 3), bool))
    wm_weight, csf_weight = (weight[near] for weight in weights)
    per_axis = int(np.ceil(voxel_size / SUBVOXEL_MM))
    offsets = voxel_size * ((np.arange(per_axis) + 0.5) / per_axis - 0.5)
    total, count = np.zeros((3, wm_weight.size), np.float32), np.zeros(wm_weight.size, np.float32)
    for step in np.ndindex(per_axis, per_axis, per_axis):
        shifted = [side + offsets[number] for side, number in zip(points, step, strict=True)]
        at = _warped(displacement, shifted)[:, near]
        inside = template.sample("inside", at, order=0)
        gm, wm = template.sample("gm", at, order=1), template.sample("wm", at, order=1)
        power = SHARPNESS + (1 - SHARPNESS) * template.sample("mixed", at, order=1)
        raw = np.stack([gm, wm_weight * wm, csf_weight * np.maximum(1 - gm - wm, 0)]) ** power
        total += inside * raw / raw.sum(axis=0)
        count += inside
    kept = count >= per_axis**3 / 2
    mask, tissues = np.zeros(near.shape, bool), np.zeros((3, *near.shape), np.float32)
    mask[near] = kept
    tissues[:, mask] = total[:, kept] / count[kept]
    return mask, tissues


def warp_labels(
    template: anatomy.Anatomy,
    displacement: list[deform.Spline],
    points: Sequence[np.ndarray],
    mask: np.ndarray,
    tissues: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Structure (in `anatomy.KINDS`) and label of each voxel: place from the template, tissue from the person."""
    at = _warped(displacement, points)
    kind = template.sample("kind", at, order=0)
    labels = anatomy.label_table()[kind, tissues.argmax(axis=0), (at[0] >= 0).astype(np.uint8)]
    return kind, np.where(mask, labels, 0).astype(np.int16)


def draw_signal(rng: np.random.Generator, tissues: np.ndarray, kind: np.ndarray) -> tuple[np.ndarray, dict]:
    """T1w signal relative to white matter, and the drawn intensities."""
    mean = {name: float(rng.normal(*INTENSITY[name])) for name in ("gm", "wm", "csf", "deep")}
    deep = np.isin(kind, [anatomy.KIND[name] for name in DEEP])
    gm, wm, csf = tissues
    signal = (mean["gm"] + mean["deep"] * deep) * gm + mean["wm"] * wm + mean["csf"] * csf
    contrast = {f"{name}_signal": value for name, value in mean.items()}
    return signal.astype(np.float32), {**contrast, "white_matter_intensity": float(rng.uniform(*SCANNER))}


def draw_texture(rng: np.random.Generator, shape: tuple[int, ...], voxel_size: float) -> np.ndarray:
    """Fine structure within tissue: noise of standard deviation 1, smoothed over about a millimetre."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, TEXTURE_MM / voxel_size, mode="wrap")
    return noise / noise.std()


def _warped(displacement: list[deform.Spline], points: Sequence[np.ndarray]) -> np.ndarray:
    """Where each point of a grid lies in the template, (3, X, Y, Z), mm."""
    start = np.meshgrid(*(side.astype(np.float32) for side in points), indexing="ij", sparse=True)
    return np.stack([part.on_grid(points) + side for part, side in zip(displacement, start, strict=True)])
