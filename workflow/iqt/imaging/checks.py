"""What a volume must be like before it is used: each check that fails is a sentence."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage

from iqt.errors import UserError
from iqt.imaging.kinds import kind_of
from iqt.io.labels import read_rows
from iqt.io.nifti import in_mm
from iqt.io.shipped import table_file
from iqt.io.volumes import Volume

COLUMNS = ("index", "name", "abbreviation", "color", "hemisphere", "mirror", "tissue")
VOXEL_MM = (0.2, 20)
FIELD_MM = (80, 450)
BRAIN_LITRES = (0.7, 2.2)
SHEAR = 0.01
"""Cosine between two axes of a grid above which it counts as sheared; rounding in a header stays far below."""
LARGEST_PIECE = 0.98
BORDER_SHARE = 0.001
FILLED = 0.9
FEWEST = 8
"""Voxels along each axis that a scan needs: fewer slices show too little of a brain, and splines have no room."""
SIGNED = 0.3
"""How far below zero a magnitude image may reach, as a share of how far above: Gaussian noise around a background of
zero, splines and corrections of noise leave some, a phase or a difference reaches as far on both sides."""
EMPTY_BORDER = 0.75
"""Share of zeros in the outermost voxels from which on zeros are what lies around the brain or head."""
NOISE_DEVIATIONS = 3
"""Standard deviations above the noise around it from which on a voxel is brain or head."""


class Labels(NamedTuple):
    """Rows of a look-up table by label."""

    path: Path
    rows: dict[int, dict[str, str]]


def read_labels(name: str) -> Labels:
    """The look-up table `resources/<name>_dseg.tsv`, or a user's own where the name ends in .tsv, without the row of
    the background that one may have.

    Raises:
        UserError: as `io.labels.read_rows`, or a structure's mirror image has no row.
    """
    path = table_file(name)
    rows = {index: row for index, row in read_rows(path, COLUMNS).items() if index}
    lost = next((index for index, row in rows.items() if int(row["mirror"]) not in rows), None)
    if lost is not None:
        raise UserError(
            f"{path}: label {lost} has the mirror image {rows[lost]['mirror']}, which has no row; add it, or name "
            f"{lost} itself for a structure of the midline"
        )
    return Labels(path, rows)


def is_sheared(affine: np.ndarray) -> bool:
    """Whether two axes of the grid are not at right angles."""
    axes = affine[:3, :3] / nib.affines.voxel_sizes(affine)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > SHEAR)


def axes_of(affine: np.ndarray) -> str:
    """Where the array's axes run, such as `LIA`."""
    return "".join(nib.aff2axcodes(affine))


def image_problems(volume: Volume, sheared_ok: bool = False) -> list[str]:
    """What is wrong with an image that could be read (3D, finite, with an invertible affine), sentences.

    Args:
        sheared_ok: it will be resampled to a grid at right angles.
    """
    problems = []
    if np.ptp(volume.data) == 0:
        problems.append(f"is constant: every voxel is {volume.data.flat[0]:g}")
    size = volume.voxel_size
    if not (VOXEL_MM[0] <= size.min() and size.max() <= VOXEL_MM[1]):
        problems.append(f"has voxels of {in_mm(size)}, outside {VOXEL_MM[0]} to {VOXEL_MM[1]} mm; correct its header")
    field = size * volume.data.shape
    if not (FIELD_MM[0] <= field.min() and field.max() <= FIELD_MM[1]):
        problems.append(
            f"spans {in_mm(field)}, and a head's scan {FIELD_MM[0]} to {FIELD_MM[1]} mm; correct its header"
        )
    if is_sheared(volume.affine) and not sheared_ok:
        problems.append("has a sheared affine: its axes are not at right angles; resample it")
    return problems


def scan_problems(volume: Volume, sheared_ok: bool = False) -> list[str]:
    """What says that a volume is no scan of a head, sentences: its geometry first, and only where that is in order what
    is in it."""
    if min(volume.data.shape) < FEWEST:
        shape = " x ".join(map(str, volume.data.shape))
        return [f"has {shape} voxels, and at least {FEWEST} are needed along each axis; a few slices are not enough"]
    problems = image_problems(volume, sheared_ok)
    if problems:
        return problems
    kind = kind_of(volume.data)
    if kind != "image":
        what = "a mask" if kind == "mask" else "a label map"
        return [f"holds {np.unique(volume.data).size} different values, so it is {what}, not an MRI scan"]
    return sign_problems(volume.data)


def sign_problems(data: np.ndarray) -> list[str]:
    """What says that an image (X, Y, Z) is signed, a sentence."""
    low, high = (float(np.percentile(data, share)) for share in (1, 99))
    if low >= 0 or -low <= SIGNED * max(high, 0):
        return []
    return [
        f"reaches from {low:.4g} to {high:.4g} (1st and 99th percentile), so it is signed, as a phase, a difference or "
        "a standardised image is and no MRI scanner's magnitude image"
    ]


def skull_stripped_brain(volume: Volume) -> np.ndarray | None:
    """The brain (bool, holes filled) of a scan that shows the brain alone, with zeros or noise around it; None for a
    scan of a head.

    What stands out of the outermost voxels is a brain if it is one piece of a brain's size with nothing beside it: a
    head's is closed by the scalp and larger.
    """
    border = np.ones(volume.data.shape, bool)
    border[1:-1, 1:-1, 1:-1] = False
    around = volume.data[border]
    zeros = (around == 0).mean() >= EMPTY_BORDER
    if zeros:
        found = volume.data != 0
    else:
        middle = np.median(around)
        spread = 1.4826 * np.median(np.abs(around - middle))
        above = volume.data > middle + NOISE_DEVIATIONS * spread
        # More than half of a voxel's neighbourhood: noise alone never is, and edges stay where they are.
        found = ndimage.uniform_filter(above.astype(np.float32), 3) > 0.5
    parts, count = ndimage.label(found)
    if count == 0:
        return None
    sizes = np.bincount(parts.ravel())[1:]
    if sizes.max() < LARGEST_PIECE * sizes.sum():
        return None
    piece = parts == 1 + np.argmax(sizes)
    # Slices are filled one by one, too: the scalp of a scan cut off at the neck closes nothing in three dimensions.
    filled = ndimage.binary_fill_holes(piece)
    axial = int(np.argmax(volume.voxel_size))
    for number in range(filled.shape[axial]):
        place = tuple(number if axis == axial else slice(None) for axis in range(3))
        filled[place] = ndimage.binary_fill_holes(filled[place])
    litres = np.count_nonzero(filled) * abs(np.linalg.det(volume.affine[:3, :3])) / 1e6
    if litres > BRAIN_LITRES[1] or (not zeros and mask_problems(filled, volume.affine)):
        return None
    return filled


def brain_where_not_zero(volume: Volume) -> np.ndarray:
    """The brain of a scan that is known to show it alone, bool: where it is not 0, holes filled."""
    return ndimage.binary_fill_holes(volume.data != 0)


def mask_problems(mask: np.ndarray, affine: np.ndarray) -> list[str]:
    """What suggests that a brain mask (X, Y, Z) is wrong, sentences: its volume, its pieces, or that it was cut off."""
    voxels = int(np.count_nonzero(mask))
    if voxels == 0:
        return ["the brain mask is empty"]
    problems = []
    litres = voxels * abs(np.linalg.det(affine[:3, :3])) / 1e6
    if not BRAIN_LITRES[0] <= litres <= BRAIN_LITRES[1]:
        problems.append(f"the brain mask holds {litres:.2f} l, outside {BRAIN_LITRES[0]} to {BRAIN_LITRES[1]} l")
    at_border = voxels - int(np.count_nonzero(mask[1:-1, 1:-1, 1:-1]))
    if at_border > BORDER_SHARE * voxels:
        problems.append(f"the brain mask touches the volume's border with {at_border} voxels; the brain may be cut off")
    parts, count = ndimage.label(mask)
    largest = np.bincount(parts.ravel())[1:].max() / voxels
    if largest < LARGEST_PIECE:
        problems.append(f"the brain mask is in {count} pieces, the largest {100 * largest:.0f} % of it")
    return problems


def overlap_problems(data: np.ndarray, mask: np.ndarray) -> list[str]:
    """Whether a brain-extracted image has something in its mask, sentences."""
    inside = mask > 0
    if not inside.any():
        return []
    filled = np.count_nonzero(data[inside]) / np.count_nonzero(inside)
    if filled < FILLED:
        return [f"the image is 0 in {100 * (1 - filled):.0f} % of the brain mask, so the two do not belong together"]
    return []


def label_problems(present: Collection[int], labels: Labels) -> list[str]:
    """Labels that the look-up table does not know, as one sentence."""
    unknown = sorted(set(present) - set(labels.rows) - {0})
    if not unknown:
        return []
    listed = ", ".join(map(str, unknown[:10])) + (", ..." if len(unknown) > 10 else "")
    return [f"holds labels {listed}, which {labels.path.name} does not know"]
