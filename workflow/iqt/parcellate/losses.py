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
    voxel_weights = weights.to(flat.device)[flat] + EDGE_WEIGHT * label_edges(target).reshape(-1)
    cross_entropy = -(voxel_weights * true).mean()
    counts = torch.bincount(flat, minlength=n_classes)
    overlap = torch.zeros_like(log_p[0]).index_add(0, flat, true.exp())
    dice = 2 * overlap / (log_p.exp().sum(0) + counts)
    return cross_entropy + 1 - dice[counts > 0].mean()


def label_edges(target: Tensor) -> Tensor:
    """1 where a voxel of (B, H, W) has a neighbour above, below, left or right of another class, else 0."""
    edges = torch.zeros_like(target, dtype=torch.float32)
    for axis in (1, 2):
        differs = target.diff(dim=axis) != 0
        size = target.shape[axis]
        edges.narrow(axis, 0, size - 1)[differs] = 1
        edges.narrow(axis, 1, size - 1)[differs] = 1
    return edges


def mean_dice(predicted: Tensor, target: Tensor) -> Tensor:
    """Dice of two class maps, the mean over the classes of the target without the background."""
    n_classes = int(torch.maximum(predicted, target).max()) + 1
    both, a, b = (
        torch.bincount(values.reshape(-1), minlength=n_classes)[1:]
        for values in (target[predicted == target], predicted, target)
    )
    return (2 * both / (a + b))[b > 0].mean() if b.any() else torch.ones((), device=target.device)
