"""Training the built-in parcellator on the cohort's high-quality scans and their label maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from iqt.batch import OK
from iqt.config import Parcellator
from iqt.errors import UserError
from iqt.files import read_table
from iqt.naming import anat, seed_of
from iqt.networks.multiview import IN_SLICES, PLANES, MultiView
from iqt.parcellate.labels import LabelTable, read_lut
from iqt.parcellate.orient import to_ras
from iqt.parcellate.predict import KIND, build_network
from iqt.parcellate.slices import Person, SliceStacks, class_weights, make_person
from iqt.training.checkpoints import save_model
from iqt.training.fit import Task, fit
from iqt.volumes import bounding_box, intensity_scale, read_on_grid, read_volume

EDGE_WEIGHT = 5.0
"""Added to the weight of a voxel that touches another label in its slice (FastSurferCNN's loss)."""


class ParcellationTask(Task):
    """The three planes at once: the sum of their losses."""

    def __init__(self, network: MultiView, weights: dict[str, Tensor]) -> None:
        """`weights` holds the class weights of each plane."""
        super().__init__()
        self.network, self.weights = network, weights

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        logits = self.network(batch)
        return sum(slice_loss(logits[plane], batch[f"{plane}_target"], self.weights[plane]) for plane in PLANES)

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        logits = self.network(batch)
        targets = {plane: batch[f"{plane}_target"] for plane in PLANES}
        losses = [slice_loss(logits[plane], targets[plane], self.weights[plane]) for plane in PLANES]
        scores = [mean_dice(logits[plane].argmax(1), targets[plane]) for plane in PLANES]
        return {"val_loss": sum(losses), "val_dice": sum(scores) / len(scores)}


def train_parcellator(
    participants: Path,
    cohort: Path,
    suffix: str,
    lut: Path,
    out: Path,
    settings: Parcellator,
    seed: int,
    precision: str,
) -> None:
    """Train on the scans of the training split, validate on those of the validation split, and save to `out`.

    Raises:
        UserError: no usable scan in either split, a scan without a label map, with labels that `lut` lacks, or with
            fewer slices than the network reads; the look-up table is not valid.
    """
    table = read_lut(lut)
    scans = {split: _usable(participants, split) for split in ("train", "val")}
    people = {split: [read_person(cohort, scan, suffix, table) for scan in names] for split, names in scans.items()}
    budget = settings.training
    train = SliceStacks(
        people["train"],
        table,
        settings.slice_size,
        budget.steps * budget.batch_size,
        seed_of(seed, "train"),
        augment=True,
        flip=budget.flip,
    )
    val = SliceStacks(
        people["val"], table, settings.slice_size, budget.validation_regions, seed_of(seed, "val"), augment=False
    )
    torch.manual_seed(seed_of(seed, "weights"))
    network = build_network(settings, table)
    own = class_weights(people["train"], np.arange(table.n_classes))
    weights = {"axial": own, "coronal": own, "sagittal": class_weights(people["train"], table.merged)}
    card = {
        "kind": KIND,
        "settings": settings.model_dump(mode="json"),
        "ids": list(table.ids),
        "mirrors": list(table.mirrors),
        "seed": seed,
    }
    identity = {**card, "scans": scans, "suffix": suffix}
    result = fit(ParcellationTask(network, weights), train, val, budget, out, seed, precision, identity)
    save_model(out, network, {**card, "scans": {split: len(names) for split, names in scans.items()}, "training": result})


def read_person(cohort: Path, scan: str, suffix: str, table: LabelTable) -> Person:
    """A training scan on the intensity scale, cropped to its brain, with its classes."""
    path = anat(cohort, scan, f"{suffix}.nii.gz")
    volume = read_volume(path)
    mask = read_on_grid(anat(cohort, scan, "desc-brain_mask.nii.gz"), volume, np.uint8) > 0
    label_map = anat(cohort, scan, "dseg.nii.gz")
    if not label_map.is_file():
        raise UserError(f"{label_map}: no such label map; the built-in parcellator learns from one for each training scan")
    classes = table.to_classes(read_on_grid(label_map, volume, np.int32), label_map)
    if not classes[mask].any():
        raise UserError(f"{label_map}: holds no label inside the brain mask")
    image = np.where(mask, volume.data / intensity_scale(volume.data, mask), 0)
    brain = to_ras(mask, volume.affine)
    box = bounding_box(brain)
    image, classes = to_ras(image, volume.affine)[box], to_ras(np.where(mask, classes, 0), volume.affine)[box]
    if min(image.shape) < IN_SLICES:
        raise UserError(f"{path}: its brain spans {image.shape} voxels, but the parcellator reads {IN_SLICES} slices")
    return make_person(image, classes, table.n_classes)


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


def _usable(participants: Path, split: str) -> list[str]:
    rows = [row for row in read_table(participants, required=("scan", "split", "status")) if row["split"] == split]
    usable = [row["scan"] for row in rows if row["status"] == OK]
    if not usable:
        failed = f", but {len(rows)} that failed ({rows[0]['status']})" if rows else ""
        raise UserError(f"{participants}: no usable scan in split {split}{failed}; the parcellator needs at least one")
    return usable
