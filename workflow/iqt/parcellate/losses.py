"""What the parcellator's networks minimise, and the figure that training watches."""

from __future__ import annotations

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
    counts = sum_by_class(torch.ones_like(true), flat, n_classes)
    dice = 2 * sum_by_class(true.exp(), flat, n_classes) / (log_p.exp().sum(0) + counts)
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
    both, a, b = (
        sum_by_class(weights, classes, n_classes)[1:]
        for weights, classes in ((ones * (predicted == target), target), (ones, predicted), (ones, target))
    )
    return torch.where((b > 0).any(), mean_where(2 * both / (a + b).clamp_min(1), b > 0), 1.0)


def sum_by_class(values: Tensor, classes: Tensor, n_classes: int) -> Tensor:
    """Sums of `values` (N,) over each class in `classes` (N,), whole numbers. Counting or selecting by a mask
    would make a GPU wait for the host to learn how large the result is."""
    return values.new_zeros(n_classes).index_add(0, classes, values)


def mean_where(values: Tensor, wanted: Tensor) -> Tensor:
    """Mean of `values` where `wanted` is true, 0 where it is nowhere; without waiting, as `sum_by_class`."""
    return torch.where(wanted, values, 0).sum() / wanted.sum().clamp_min(1)
