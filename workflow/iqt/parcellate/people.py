"""The scans that the built-in parcellator is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from iqt.errors import MemoryShortError, StopError, UserError
from iqt.imaging.orientation import array_to_ras, ras_voxel_size
from iqt.imaging.resample import at_voxel_size, labels_on
from iqt.io.batch import OK
from iqt.io.files import read_table
from iqt.io.labels import LabelTable
from iqt.io.naming import anat
from iqt.io.volumes import Volume, bounding_box, intensity_scale, read_on_grid, read_volume
from iqt.networks.multiview import IN_SLICES
from iqt.terminal import warn


class Person(NamedTuple):
    """One training scan in RAS+, cropped to its brain: intensity (X, Y, Z) float16 and classes (X, Y, Z) int16.

    `order` lists the voxels (flat indices) class after class; those of class c are `order[starts[c] : starts[c + 1]]`.
    Together eight bytes a voxel of the brain's box, 80 MB for a person at 0.7 mm.
    """

    image: np.ndarray
    classes: np.ndarray
    order: np.ndarray
    starts: np.ndarray


def make_person(image: np.ndarray, classes: np.ndarray, n_classes: int) -> Person:
    """Index a cropped scan by class; `image` is on the intensity scale, with 0 outside the brain."""
    order = np.argsort(classes, axis=None, kind="stable")
    starts = np.searchsorted(classes.ravel()[order], np.arange(n_classes + 1))
    return Person(image.astype(np.float16), classes.astype(np.int16), order.astype(np.int32), starts)


def usable_scans(participants: Path, split: str) -> list[str]:
    """The scans of a split that every stage before got through; UserError where there is none."""
    rows = [row for row in read_table(participants, required=("scan", "split", "status")) if row["split"] == split]
    usable = [row["scan"] for row in rows if row["status"] == OK]
    if not usable:
        failed = f", but {len(rows)} that failed ({rows[0]['status']})" if rows else ""
        raise UserError(f"{participants}: no usable scan in split {split}{failed}; the parcellator needs at least one")
    return usable


def common_voxel_size(cohort: Path, scans: list[str], suffix: str) -> list[float]:
    """The median voxel size of scans in mm, along R, A and S."""
    headers = [nib.load(anat(cohort, scan, f"{suffix}.nii.gz")) for scan in scans]
    sizes = [ras_voxel_size(header.affine, header.shape) for header in headers]
    return np.median(sizes, axis=0).round(4).tolist()


def read_people(
    cohort: Path, scans: list[str], suffix: str, table: LabelTable, voxel_size: tuple[float, ...]
) -> list[Person]:
    """The training scans that can be read; the others are listed on stderr, each with the reason.

    Raises:
        UserError: none can.
    """
    people, reason = [], ""
    for scan in scans:
        try:
            people.append(read_person(cohort, scan, suffix, table, voxel_size))
        except (StopError, MemoryShortError):
            raise
        except UserError as error:
            reason = str(error)
            warn(f"{scan} is left out: {reason}")
    if not people:
        raise UserError(
            f"the built-in parcellator has nothing to learn from: {reason}. Give the cohort labels, or set "
            "parcellate.builtin.weights: shipped"
        )
    return people


def read_person(cohort: Path, scan: str, suffix: str, table: LabelTable, voxel_size: tuple[float, ...]) -> Person:
    """A training scan on the intensity scale, cropped to its brain, with its classes.

    Args:
        voxel_size: mm along R, A, S that a scan of other voxels is resampled to.
    """
    path = anat(cohort, scan, f"{suffix}.nii.gz")
    volume = read_volume(path)
    mask = read_on_grid(anat(cohort, scan, "desc-brain_mask.nii.gz"), volume, np.uint8) > 0
    label_map = anat(cohort, scan, "dseg.nii.gz")
    if not label_map.is_file():
        raise UserError(f"{label_map}: no such label map; the built-in parcellator needs one for each training scan")
    classes = table.to_classes(read_on_grid(label_map, volume, np.int32), label_map, volume.voxel_size)
    if not classes[mask].any():
        raise UserError(f"{label_map}: holds no label inside the brain mask")
    scan_of = Volume(np.where(mask, volume.data / intensity_scale(volume.data, mask), 0), volume.affine)
    known, inside = at_voxel_size(scan_of, mask, voxel_size)
    classes = np.where(mask, classes, 0)
    if known is not scan_of:
        classes = labels_on(classes, volume.affine, known)
    box = bounding_box(array_to_ras(inside, known.affine))
    image, classes = (array_to_ras(data, known.affine)[box] for data in (known.data, classes))
    if min(image.shape) < IN_SLICES:
        raise UserError(f"{path}: its brain spans {image.shape} voxels, but the parcellator reads {IN_SLICES} slices")
    return make_person(image, classes, table.n_classes)
