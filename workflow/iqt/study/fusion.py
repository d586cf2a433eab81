"""Stacks of thick slices of one session, combined into one volume before it is enhanced.

The stacks are registered rigidly to the first. The volume is what explains all of them best: the
least-squares solution under each one's own slice profile with a penalty on differences between neighbours (Gholipour et
al. 2010), begun from their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.sparse.linalg import LinearOperator, cg

from iqt.degrade.register import COVERED, center, describe, field_of_view, on_grid, register
from iqt.errors import UserError
from iqt.imaging.acquisition import Acquisition
from iqt.imaging.resample import over_field
from iqt.io.volumes import Volume, bounding_box, corners, intensity_scale

VOXEL_MM = 1.0
"""Voxels of the combined volume."""
MARGIN_MM = 8.0
"""Seen around the brain."""
SMOOTH = 0.02
"""Weight of the squared differences between neighbours against that of the squared errors of a stack."""
ITERATIONS = 8
"""Steps of conjugate gradients at most."""


class Stack(NamedTuple):
    """A scan and its brain mask (bool) on its voxels; `name` is what messages call it."""

    name: str
    scan: Volume
    mask: np.ndarray


class Combined(NamedTuple):
    """The volume, its brain mask (bool), what is known of each stack, and what a user should know."""

    volume: Volume
    mask: np.ndarray
    stacks: list[dict[str, Any]]
    warnings: list[str]


def combine(stacks: Sequence[Stack]) -> Combined:
    """Register the stacks and combine them into a volume with voxels of 1 mm, which lies where the first
    one lies, on the intensity scale. A stack that cannot be registered, or that lies elsewhere afterwards by more than
    a voxel in the median of the brain's eighths, is left out with a warning.

    Raises:
        UserError: fewer than two stacks can be used.
    """
    reference, *others = stacks
    target = over_field(reference.scan, (VOXEL_MM,) * 3)
    inside = over_field(Volume(reference.mask.astype(np.float32), reference.scan.affine), (VOXEL_MM,) * 3, order=1).data
    placed, told, warnings = [_brain_alone(reference)], [{"name": reference.name, "reference": True}], []
    for stack in others:
        try:
            found = register(stack.scan, target, inside >= 0.5, "rigid")
            apart = float(np.median(found.residual)) if found.residual else np.inf
            if apart > max(stack.scan.voxel_size):
                raise UserError(f"it lies {apart:.1f} mm from its place after registration")
            if found.covered < COVERED:
                raise UserError(f"it shows only {100 * found.covered:.0f} % of the brain after registration")
        except UserError as error:
            warnings.append(f"{stack.name} is not used: {error}")
            continue
        moved = Volume(stack.scan.data, np.linalg.inv(found.matrix) @ stack.scan.affine)
        placed.append(_brain_alone(stack._replace(scan=moved)))
        moved_by = describe(found.matrix, center(inside >= 0.5, target.affine))
        told.append({"name": stack.name, "residual_mm": round(apart, 3), **moved_by, "matrix": found.matrix.tolist()})
    if len(placed) < 2:
        raise UserError(f"no two of the {len(stacks)} stacks can be combined: {'; '.join(warnings)}")
    grid = _grid(target, placed)
    # A stack has a say where it shows anything.
    says = np.sum([field_of_view(stack.scan, grid) for stack in placed], axis=0)
    mask = np.sum([on_grid(_mask(stack), grid) for stack in placed], axis=0) >= 0.5 * np.maximum(says, 1)
    return Combined(Volume(reconstruct([stack.scan for stack in placed], grid), grid.affine), mask, told, warnings)


def average(stacks: Sequence[Volume], grid: Volume) -> np.ndarray:
    """The mean of the stacks on a grid by cubic splines."""
    return np.mean([on_grid(stack, grid) for stack in stacks], axis=0, dtype=np.float32)


def reconstruct(
    stacks: Sequence[Volume], grid: Volume, smooth: float = SMOOTH, iterations: int = ITERATIONS
) -> np.ndarray:
    """The volume on a grid (X, Y, Z) whose acquisitions are nearest to the stacks, in the sense of least squares."""
    shape = grid.data.shape
    operators = [Acquisition((shape, grid.affine), (stack.data.shape, stack.affine)) for stack in stacks]
    # Each stack's voxels stand for as many of the grid's as they cover, so that all stacks weigh alike.
    weights = [float(np.prod(stack.voxel_size)) / VOXEL_MM**3 for stack in stacks]

    def normal(flat: np.ndarray) -> np.ndarray:
        volume = flat.reshape(shape).astype(np.float32)
        total = smooth * len(stacks) * _roughness(volume)
        for operator, weight in zip(operators, weights, strict=True):
            total += weight * operator.transpose(operator.forward(volume))
        return total.ravel()

    wanted = np.zeros(shape, np.float32)
    for operator, weight, stack in zip(operators, weights, stacks, strict=True):
        wanted += weight * operator.transpose(stack.data)
    size = int(np.prod(shape))
    equations = LinearOperator((size, size), matvec=normal, dtype=np.float32)
    found, _ = cg(equations, wanted.ravel(), x0=average(stacks, grid).ravel(), maxiter=iterations, rtol=1e-3)
    return found.reshape(shape).astype(np.float32)


def _roughness(volume: np.ndarray) -> np.ndarray:
    """Half of the gradient of the sum of the squared differences between neighbours."""
    return -ndimage.laplace(volume, mode="nearest")


def _brain_alone(stack: Stack) -> Stack:
    """The stack cut to the box of its brain and a margin, on the intensity scale."""
    scale = intensity_scale(stack.scan.data, stack.mask)
    box = bounding_box(stack.mask, np.ceil(MARGIN_MM / stack.scan.voxel_size).astype(int))
    affine = stack.scan.affine @ nib.affines.from_matvec(np.eye(3), [side.start for side in box])
    data = np.ascontiguousarray(stack.scan.data[box], np.float32) / scale
    return Stack(stack.name, Volume(data, affine), stack.mask[box])


def _mask(stack: Stack) -> Volume:
    return Volume(stack.mask.astype(np.float32), stack.scan.affine)


def _grid(target: Volume, stacks: Sequence[Stack]) -> Volume:
    """The part of the reference's grid, or of its continuation, that the stacks' boxes take."""
    to_grid = np.linalg.inv(target.affine)
    ends = np.concatenate(
        [nib.affines.apply_affine(to_grid @ stack.scan.affine, corners(stack.mask.shape)) for stack in stacks]
    )
    low, high = np.floor(ends.min(axis=0)).astype(int), np.ceil(ends.max(axis=0)).astype(int)
    return Volume(np.empty(high - low + 1, np.float32), target.affine @ nib.affines.from_matvec(np.eye(3), low))
