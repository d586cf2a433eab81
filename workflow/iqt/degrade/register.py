"""Real low-field scans in place of simulated ones: registered to the high-quality scan of the same person."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from iqt.config import LowField
from iqt.errors import UserError
from iqt.imaging.checks import scan_problems
from iqt.imaging.resample import coarsened, gaussian_of, lost_between
from iqt.io import batch, naming
from iqt.io.files import read_json
from iqt.io.volumes import Volume, bounding_box, read_on_grid, read_volume, save_volume, say_doubts

WORKING_MM = 2.0
"""Voxels of the high-quality scan that is registered to: finer ones tell nothing about slices of millimetres."""
LEVELS = {"level_iters": [1000, 200, 50], "sigmas": [3.0, 1.0, 0.0], "factors": [4, 2, 1]}
FINEST = {"level_iters": [100], "sigmas": [0.0], "factors": [1]}
LOCAL = {"level_iters": [100, 50], "sigmas": [1.0, 0.0], "factors": [2, 1]}
BINS = 32
RESTARTS = 5
"""Times that the finest level starts again nearby: its line search stops at ripples of the mutual information, and at
which of them depends on how a processor rounds. The best of all ends is kept."""
NEARBY_MM, NEARBY = 0.7, 0.01
"""How far off a restart begins (standard deviation): its translation in mm, its rotation in radians, its scale."""
RIM_MM = 6.0
"""Seen around the brain, too: its border tells its size."""
FEW_VOXELS = 1000
"""Brain voxels that an eighth of the brain must have, in both scans, to be registered by itself."""
COVERED, WHOLE = 0.8, 0.99
"""Share of the brain that a low-field scan must show, and below which it is said that a part is missing."""


class Alignment(NamedTuple):
    """`matrix` (4, 4): from the high-quality scan's world to the low-field scan's, in mm. `residual`: how far, in mm,
    each eighth of the brain would still move by itself. `covered`: share of the brain within the low-field scan."""

    matrix: np.ndarray
    residual: list[float]
    covered: float


def register_scans(
    scans: Iterable[str], cohort: Path, out: Path, suffix: str, settings: LowField, set_name: str
) -> None:
    """Write one low-field set (`out` is its folder) from the low-field scans that the cohort brings.

    As for simulated ones there are the slices as acquired, whose affine now puts them into the high-quality scan's
    world (no voxel is touched), the same by cubic splines on its grid, and a sidecar. A scan without a partner, or
    whose partner cannot be read or does not lie on it afterwards (by more than a voxel in the median, or with more than
    a fifth of the brain missing), is recorded in its sidecar.
    """

    def outputs(scan: str) -> list[Path]:
        return [naming.anat(out, scan, ending) for ending in (f"{suffix}.nii.gz", f"space-HQ_{suffix}.nii.gz")]

    def work(scan: str) -> dict:
        sidecar = naming.anat(cohort, scan, f"{suffix}.json")
        batch.require_ok(sidecar, "cohort")
        partner = read_json(sidecar).get("files", {}).get("lowfield")
        if partner is None:
            raise UserError("the source has no low-field scan of it")
        high = read_volume(naming.anat(cohort, scan, f"{suffix}.nii.gz"))
        mask = read_on_grid(naming.anat(cohort, scan, "desc-brain_mask.nii.gz"), high, np.uint8) > 0
        low = read_volume(Path(partner["path"]))
        problems = scan_problems(low)
        if problems:
            raise UserError(f"{partner['source']}: {'; '.join(problems)}")
        found = register(low, high, mask, settings.registration)
        _check(found, low, partner["source"])
        placed = Volume(low.data, np.linalg.inv(found.matrix) @ low.affine)
        thick, upsampled = outputs(scan)
        save_volume(thick, placed.data, placed.affine)
        save_volume(upsampled, on_grid(coarsened(placed, high.affine), high), high.affine)
        limit = float(max(placed.voxel_size)) / 2
        largest = max(found.residual)
        warnings = say_doubts(partner["source"], low.doubts)
        if largest > limit:
            warnings.append(
                f"a part of the brain lies {largest:.1f} mm from its place after registration, more than half a "
                f"voxel of the low-field scan ({limit:.1f} mm)"
            )
        if found.covered < WHOLE:
            warnings.append(
                f"the low-field scan lacks {100 * (1 - found.covered):.0f} % of the brain, where it is 0: methods are "
                "trained and scored on that, too"
            )
        return {
            "set": set_name,
            "suffix": suffix,
            "settings": {"registration": settings.registration},
            "lowfield": partner,
            "matrix": found.matrix.tolist(),
            **describe(found.matrix, center(mask, high.affine)),
            "residual_mm": round(float(np.median(found.residual)), 3),
            "largest_residual_mm": round(largest, 3),
            "covered": round(found.covered, 4),
            "voxel_size_mm": [round(float(edge), 4) for edge in placed.voxel_size],
            "warnings": warnings,
        }

    batch.run_scans(scans, lambda scan: naming.anat(out, scan, f"{suffix}.json"), outputs, work)


def register(low: Volume, high: Volume, mask: np.ndarray, kind: str) -> Alignment:
    """Align a low-field scan with a brain-extracted one of the same person by mutual information (dipy; Mattes et al.
    2003), which holds across contrasts.

    The high-quality scan is blurred to the low-field scan's voxels first: against thick slices a sharp scan has its
    largest mutual information beside the right place.

    Args:
        low: the low-field scan, with or without skull, wherever its header puts it.
        high: the high-quality scan.
        mask: its brain (bool), where, and 6 mm around which, intensities are compared.
        kind: `rigid` or `affine`.

    Raises:
        UserError: the registration fails, as where one of the two shows nothing.
    """
    from dipy.align import affine_registration
    from dipy.align.imaffine import AffineRegistration, MutualInformationMetric
    from dipy.align.transforms import TranslationTransform3D

    logging.getLogger("dipy").setLevel(logging.WARNING)
    static, inside = _coarser(high, mask)
    static, inside = _around(Volume(_blurred_as(static, low), static.affine), inside)
    seen = ndimage.binary_dilation(inside, iterations=round(RIM_MM / float(min(static.voxel_size))))
    pipeline = ["center_of_mass", "translation", "rigid", *(["affine"] if kind == "affine" else [])]
    try:
        _, matrix = affine_registration(
            low.data, static.data, moving_affine=low.affine, static_affine=static.affine,
            pipeline=pipeline, nbins=BINS, static_mask=seen.astype(np.int32), **LEVELS,
        )  # fmt: skip
        matrix = _best_nearby(matrix, low, static, seen, center(inside, static.affine), kind)
    except (ValueError, np.linalg.LinAlgError, RuntimeError) as error:
        raise UserError(f"the low-field scan cannot be registered ({error}); does it show the same head?") from None
    if not np.isfinite(matrix).all():
        raise UserError("the low-field scan cannot be registered: nothing in common was found")
    local = AffineRegistration(metric=MutualInformationMetric(nbins=BINS), verbosity=0, **LOCAL)
    shown = field_of_view(low, Volume(static.data, matrix @ static.affine))
    residual = []
    for part in eighths(inside):
        box = tuple(part)
        if np.count_nonzero(inside[box] & shown[box]) < FEW_VOXELS:
            continue
        affine = static.affine @ nib.affines.from_matvec(np.eye(3), [side.start for side in box])
        moved = local.optimize(
            static.data[box], low.data, TranslationTransform3D(), None, static_grid2world=affine,
            moving_grid2world=low.affine, starting_affine=matrix, static_mask=inside[box].astype(np.int32),
        )  # fmt: skip
        middle = center(inside[box], affine)
        residual.append(float(np.linalg.norm(_apply(moved.affine, middle) - _apply(matrix, middle))))
    return Alignment(matrix, residual, np.count_nonzero(inside & shown) / np.count_nonzero(inside))


def _best_nearby(
    matrix: np.ndarray, low: Volume, static: Volume, seen: np.ndarray, centre: np.ndarray, kind: str
) -> np.ndarray:
    """The matrix of the largest mutual information that the finest level ends at from a matrix and from its
    neighbours, `RESTARTS` of them, which are always the same ones."""
    from dipy.align.imaffine import AffineRegistration, MutualInformationMetric
    from dipy.align.transforms import AffineTransform3D, RigidTransform3D

    optimiser = AffineRegistration(metric=MutualInformationMetric(nbins=BINS), verbosity=0, **FINEST)
    transform = AffineTransform3D() if kind == "affine" else RigidTransform3D()

    def optimum(start: np.ndarray) -> tuple[float, np.ndarray]:
        found, _, least = optimiser.optimize(
            static.data, low.data, transform, None, static_grid2world=static.affine, moving_grid2world=low.affine,
            starting_affine=start, static_mask=seen.astype(np.int32), ret_metric=True,
        )  # fmt: skip
        return float(least), found.affine

    rng = np.random.default_rng(0)
    to_centre = nib.affines.from_matvec(np.eye(3), centre)
    best = optimum(matrix)
    for _ in range(RESTARTS):
        turn = Rotation.from_rotvec(rng.normal(0, NEARBY, 3)).as_matrix()
        if kind == "affine":
            turn = turn @ np.diag(1 + rng.normal(0, NEARBY, 3))
        aside = nib.affines.from_matvec(turn, rng.normal(0, NEARBY_MM, 3))
        best = min(best, optimum(best[1] @ to_centre @ aside @ np.linalg.inv(to_centre)), key=lambda end: end[0])
    return best[1]


def on_grid(low: Volume, high: Volume) -> np.ndarray:
    """A scan on another one's grid by cubic splines, as simulated scans are brought to it; 0 where it shows nothing."""
    step = np.linalg.inv(low.affine) @ high.affine
    data = ndimage.affine_transform(
        low.data, step[:3, :3], step[:3, 3], output_shape=high.data.shape, order=3, mode="nearest", output=np.float32
    )
    return np.where(field_of_view(low, high), data, np.float32(0))


def field_of_view(low: Volume, high: Volume) -> np.ndarray:
    """Which voxels (bool) of one grid lie within the voxels of another."""
    step = np.linalg.inv(low.affine) @ high.affine
    ones = np.pad(np.ones(low.data.shape, np.uint8), 1)
    return ndimage.affine_transform(ones, step[:3, :3], step[:3, 3] + 1, output_shape=high.data.shape, order=0) > 0


def describe(matrix: np.ndarray, centre: np.ndarray) -> dict:
    """Rotation about the world's axes in degrees, displacement of the brain's centre in mm, and change of volume."""
    turn, stretch = np.linalg.qr(matrix[:3, :3])
    turn = turn * np.sign(np.diag(stretch))  # the factorisation may mirror axes
    return {
        "rotation_deg": [round(float(angle), 3) for angle in Rotation.from_matrix(turn).as_euler("xyz", degrees=True)],
        "translation_mm": [round(float(value), 3) for value in _apply(matrix, centre) - centre],
        "volume_ratio": round(float(np.linalg.det(matrix[:3, :3])), 4),
    }


def center(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """World coordinates of a mask's centre of mass."""
    return _apply(affine, np.array(ndimage.center_of_mass(mask)))


def eighths(mask: np.ndarray) -> list[Sequence[slice]]:
    """The volume cut in two along each axis at the mask's centre of mass."""
    middle = np.rint(ndimage.center_of_mass(mask)).astype(int)
    halves = [(slice(0, cut), slice(cut, size)) for cut, size in zip(middle, mask.shape, strict=True)]
    return list(itertools.product(*halves))


def _check(found: Alignment, low: Volume, where: str) -> None:
    """UserError where the registration cannot have been right."""
    if found.covered < COVERED:
        raise UserError(f"{where}: shows only {100 * found.covered:.0f} % of the brain after registration")
    voxel = float(max(low.voxel_size))
    if not found.residual or np.median(found.residual) > voxel:
        told = f"{np.median(found.residual):.1f} mm" if found.residual else "nobody knows how far"
        raise UserError(
            f"{where}: lies {told} from its place after registration (the median of the brain's eighths), more than a "
            f"voxel of {voxel:.1f} mm; are the two of one person, and the affine right?"
        )


def _coarser(high: Volume, mask: np.ndarray) -> tuple[Volume, np.ndarray]:
    """The scan and its mask with voxels of `WORKING_MM` where they are finer."""
    from nibabel.processing import resample_to_output

    if min(high.voxel_size) >= 0.75 * WORKING_MM:
        return high, mask
    blurred = ndimage.gaussian_filter(high.data, gaussian_of(WORKING_MM) / high.voxel_size)
    image = resample_to_output(nib.Nifti1Image(blurred, high.affine), WORKING_MM, order=1)
    inside = resample_to_output(nib.Nifti1Image(mask.astype(np.float32), high.affine), WORKING_MM, order=1)
    return Volume(np.asarray(image.dataobj, np.float32), image.affine), np.asarray(inside.dataobj) >= 0.5


def _blurred_as(high: Volume, low: Volume) -> np.ndarray:
    """The high-quality scan as voxels as wide as the low-field scan's show it, along the axes that run nearest."""
    cosines = np.abs((low.affine[:3, :3] / low.voxel_size).T @ (high.affine[:3, :3] / high.voxel_size))
    wide = (cosines * low.voxel_size[:, None]).max(axis=0)
    return ndimage.gaussian_filter(high.data, lost_between(high.voxel_size, wide))


def _around(volume: Volume, mask: np.ndarray) -> tuple[Volume, np.ndarray]:
    """A volume and its mask cut to what is seen around the brain: more costs time alone."""
    box = bounding_box(mask, margin=1 + round(RIM_MM / float(min(volume.voxel_size))))
    affine = volume.affine @ nib.affines.from_matvec(np.eye(3), [side.start for side in box])
    return Volume(np.ascontiguousarray(volume.data[box]), affine), mask[box]


def _apply(matrix: np.ndarray, point: np.ndarray) -> np.ndarray:
    return nib.affines.apply_affine(matrix, point)
