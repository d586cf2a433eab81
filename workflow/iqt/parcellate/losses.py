"""What the parcellator's networks minimise, and the figure that training watches."""

from __future__ import annotations

import contextlib

import numpy as np
import torch
from torch import Tensor

from iqt.parcellate.people import Person

EDGE_WEIGHT = 5.0
"""Added to the weight of a voxel that touches another label in its slice (FastSurferCNN's loss)."""


def class_weights(people: list[Person], classes_of: np.ndarray) -> Tensor:
    """Median frequency balancing: the median class frequency over each class's own, at most 5.

    `classes_of` maps a class to the one that is trained (`merged`, or itself). A class without a voxel weighs 5.
    """
    counts = np.bincount(classes_of, weights=sum(np.diff(person.starts) for person in people))
    return torch.from_numpy(np.minimum(np.median(counts[counts > 0]) / np.maximum(counts, 1), 5.0).astype(np.float32))


def slice_loss(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy plus soft Dice of logits (B, C, H, W) against classes (B, H, W).

    A voxel's cross-entropy weighs its class's weight plus `EDGE_WEIGHT` on label edges. Dice is averaged over the
    classes that the batch holds.
    """
    n_classes = logits.shape[1]
    log_p = logits.float().permute(0, 2, 3, 1).reshape(-1, n_classes).log_softmax(-1)
    flat = target.reshape(-1)
    true = log_p.gather(1, flat[:, None])[:, 0]
    voxel_weights = weights[flat] + EDGE_WEIGHT * label_edges(target).reshape(-1)
    cross_entropy = -(voxel_weights * true).mean()
    counts, overlap = sums_by_class(torch.stack([torch.ones_like(true), true.exp()]), flat, n_classes)
    dice = 2 * overlap / (log_p.exp().sum(0) + counts)
    return cross_entropy + 1 - mean_where(dice, counts > 0)


def label_edges(target: Tensor) -> Tensor:
    """1 where a voxel of (B, H, W) has a neighbour above, below, left or right of another class, else 0."""
    edges = torch.zeros_like(target, dtype=torch.bool)
    for axis in (1, 2):
        differs = target.diff(dim=axis) != 0
        size = target.shape[axis]
        edges.narrow(axis, 0, size - 1).logical_or_(differs)
        edges.narrow(axis, 1, size - 1).logical_or_(differs)
    return edges.float()


def mean_dice(predicted: Tensor, target: Tensor, n_classes: int) -> Tensor:
    """Dice of two maps of classes below `n_classes`, the mean over the classes of the target without the background; 1
    where it holds nothing else."""
    predicted, target = predicted.reshape(-1), target.reshape(-1)
    ones = torch.ones(target.shape, device=target.device)
    both, b = sums_by_class(torch.stack([ones * (predicted == target), ones]), target, n_classes)[:, 1:]
    a = sums_by_class(ones[None], predicted, n_classes)[0, 1:]
    return torch.where((b > 0).any(), mean_where(2 * both / (a + b).clamp_min(1), b > 0), 1.0)


def sums_by_class(values: Tensor, classes: Tensor, n_classes: int) -> Tensor:
    """Sums of `values` (K, N) over the voxels of each class, (K, n_classes); `classes` (N,) holds whole numbers.

    By a product with what is 1 at a voxel's class: counting, or selecting by a mask, would make a GPU wait for the
    host, and adding by index is slow there where it must repeat to the bit.
    """
    return product(values, values.new_zeros(len(classes), n_classes).scatter_(1, classes[:, None], 1.0))


def product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product in float32 where the rest runs in bfloat16, in which no count above 256 is exact."""
    kind = left.device.type
    known = torch.amp.is_autocast_available(kind)
    with torch.autocast(kind, enabled=False) if known else contextlib.nullcontext():
        return left.float() @ right.float()


def mean_where(values: Tensor, wanted: Tensor) -> Tensor:
    """Mean of `values` where `wanted` is true, 0 where it is nowhere; without waiting, as `sums_by_class`."""
    return torch.where(wanted, values, 0).sum() / wanted.sum().clamp_min(1)
