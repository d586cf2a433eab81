"""Tissue maps from FreeSurfer's labels (aparc+aseg, aseg, wmparc)."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from iqt.config import LabelTissues
from iqt.degrade.contrast import TISSUES
from iqt.errors import UserError

RANGES: dict[str, tuple[tuple[int, int], ...]] = {
    # Brain stem and ventral diencephalon are mostly fibres: intensity-based classifiers call them white, too.
    "WM": (
        *((2, 2), (7, 7), (16, 16), (25, 25), (28, 28), (41, 41), (46, 46), (57, 57), (60, 60), (77, 79), (85, 85)),
        *((192, 192), (250, 255), (3000, 4999), (5001, 5002), (13100, 14999)),
    ),
    "GM": (
        *((3, 3), (8, 13), (17, 20), (26, 27), (42, 42), (47, 52), (53, 56), (58, 59), (80, 82), (96, 97)),
        *((1000, 2999), (11100, 12999)),
    ),
    "CSF": (
        (4, 5),
        (14, 15),
        (24, 24),
        (30, 31),
        (43, 44),
        (62, 63),
        (72, 72),
        (122, 122),
        *((136, 137), (163, 164), (221, 221), (257, 257)),
    ),
}
"""First and last label of each tissue, numbered as FreeSurferColorLUT.txt does; both ends are included."""
OUTSIDE = ((0, 0), (118, 121), (165, 165), (258, 260), (500, 530))
"""Labels of what is not brain: background, skull, head, and SynthSeg's tissues of the head."""
_UNKNOWN = 0.01


def tissue_of(labels: np.ndarray) -> np.ndarray:
    """Number of each voxel's tissue, uint8: 0 outside, 1 WM, 2 GM, 3 CSF, 255 for a label that is not FreeSurfer's."""
    found, where = np.unique(labels, return_inverse=True)
    number = np.full(found.shape, 255, np.uint8)
    for value, ranges in enumerate((OUTSIDE, *(RANGES[name] for name in TISSUES))):
        for first, last in ranges:
            number[(found >= first) & (found <= last)] = value
    return number[where].reshape(labels.shape)


def tissues_from_labels(
    labels: np.ndarray, mask: np.ndarray | None, voxel_size: np.ndarray, settings: LabelTissues
) -> dict[str, np.ndarray]:
    """Posteriors of WM, GM and CSF, (X, Y, Z) float32: each label's tissue, its borders softened.

    FreeSurfer labels no CSF around the brain, so brain voxels without a label are CSF. Inside the brain the three sum
    to one, outside they are zero.

    Args:
        mask: the brain; without it, what is labelled.
        voxel_size: edges in mm.

    Raises:
        UserError: more than one voxel in a hundred has a label that is none of FreeSurfer's, or a tissue is absent.
    """
    number = tissue_of(labels)
    strange = number == 255
    if strange.sum() > _UNKNOWN * np.count_nonzero(labels):
        examples = ", ".join(map(str, np.unique(labels[strange])[:5]))
        raise UserError(f"labels {examples}: none of FreeSurfer's tissues; the labels engine needs aparc+aseg or aseg")
    number[strange] = 0
    brain = number > 0 if mask is None else mask > 0
    number[brain & (number == 0)] = 3
    number[~brain] = 0
    absent = [name for value, name in enumerate(TISSUES, start=1) if not (number == value).any()]
    if absent:
        raise UserError(f"labels: no voxel of {', '.join(absent)} in the brain; are its ids FreeSurfer's?")
    sigma = settings.blur / np.asarray(voxel_size)
    soft = [gaussian_filter((number == value).astype(np.float32), sigma) for value in (1, 2, 3)]
    total = np.maximum(sum(soft), np.finfo(np.float32).tiny)
    return {name: np.where(brain, data / total, 0).astype(np.float32) for name, data in zip(TISSUES, soft, strict=True)}
