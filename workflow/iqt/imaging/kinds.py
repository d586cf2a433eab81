"""Whether a volume holds an image, a mask or labels: by what is in it, never by its name."""

from __future__ import annotations

import numpy as np

LABEL_LIKE = 0.4
"""Share of a value's neighbours that have it too, in the median over the values, from which on they are labels: an
image has hardly any voxel beside another one of exactly its value."""
MOST_LABELS = 512
NOTHING = 1e-3
"""Share of a mask's value that its background may have."""
LOOKED_AT = 96
"""Voxels a side of the middle that tells a label map from an image."""


def kind_of(data: np.ndarray) -> str:
    """What a volume (X, Y, Z) holds by its content: `mask` (0 and one more value), `labels` (few values, most of which
    form patches), else `image`."""
    highest = data.max()
    background = np.abs(data) <= NOTHING * highest
    two_values = highest > 0 and background.any() and bool((background | (data == highest)).all())
    # Among whole numbers what is not 0 is a label, however small beside the highest.
    if two_values and (not data[background].any() or (data % 1).any()):
        return "mask"
    middle = [(size - min(size, LOOKED_AT)) // 2 for size in data.shape]
    block = data[tuple(slice(first, first + LOOKED_AT) for first in middle)]
    values, where = np.unique(block, return_inverse=True)
    if values.size > MOST_LABELS:
        return "image"
    where = where.reshape(block.shape)
    alike, counted = np.zeros(values.size), np.zeros(values.size)
    for axis in range(3):
        first, second = np.moveaxis(where, axis, 0)[:-1], np.moveaxis(where, axis, 0)[1:]
        counted += np.bincount(first.ravel(), minlength=values.size)
        alike += np.bincount(first[first == second].ravel(), minlength=values.size)
    patches = (alike / np.maximum(counted, 1))[values != 0]
    return "labels" if patches.size and np.median(patches) >= LABEL_LIKE else "image"
