"""Training the built-in parcellator on the cohort's high-quality scans and their label maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from iqt.config import Parcellator
from iqt.io.labels import read_lut
from iqt.io.naming import seed_of
from iqt.networks.multiview import PLANES, MultiView
from iqt.parcellate.losses import class_weights, mean_dice, slice_loss
from iqt.parcellate.people import common_voxel_size, read_people, usable_scans
from iqt.parcellate.predict import KIND, build_network
from iqt.parcellate.slices import SliceStacks
from iqt.training.checkpoints import save_model
from iqt.training.fit import Task, clear_state, digest_of, fit, summary


class ParcellationTask(Task):
    """The three planes at once: the sum of their losses."""

    monitor = "val_dice"
    smaller = "lower training.batch_size or slice_size of parcellate.builtin"

    def __init__(self, network: MultiView, weights: dict[str, Tensor]) -> None:
        """`weights` holds the class weights of each plane."""
        super().__init__()
        self.network = network
        for plane in PLANES:  # moves with the task, and is no part of its state
            self.register_buffer(f"{plane}_weights", weights[plane], persistent=False)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        logits = self.network(batch)
        return sum(self._loss(logits, batch, plane) for plane in PLANES)

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        logits = self.network(batch)
        targets = {plane: batch[f"{plane}_target"] for plane in PLANES}
        losses = [self._loss(logits, batch, plane) for plane in PLANES]
        scores = [mean_dice(logits[plane].argmax(1), targets[plane], logits[plane].shape[1]) for plane in PLANES]
        return {"val_loss": sum(losses), "val_dice": sum(scores) / len(scores)}

    def _loss(self, logits: dict[str, Tensor], batch: dict[str, Tensor], plane: str) -> Tensor:
        return slice_loss(logits[plane], batch[f"{plane}_target"], getattr(self, f"{plane}_weights"))


def train_parcellator(
    participants: Path,
    cohort: Path,
    suffix: str,
    lut: Path,
    out: Path,
    settings: Parcellator,
    seed: int,
    precision: str,
    workers: int = 0,
) -> None:
    """Train on the scans of the training split, validate on those of the validation split, and save to `out`; `workers`
    read the slices, which are the same however many.

    Raises:
        UserError: in a split no scan can be used, since none has a label map or enough slices; the look-up table is
            not valid.
    """
    table = read_lut(lut)
    scans = {split: usable_scans(participants, split) for split in ("train", "val")}
    voxel_size = common_voxel_size(cohort, scans["train"], suffix)
    people = {split: read_people(cohort, names, suffix, table, voxel_size) for split, names in scans.items()}
    budget = settings.training.model_copy(update={"workers": workers})
    size, length = settings.slice_size, budget.steps * budget.batch_size
    train = SliceStacks(
        people["train"], table, size, length, seed_of(seed, "train"), True, settings.contrast == "random"
    )
    val = SliceStacks(people["val"], table, size, budget.validation_regions, seed_of(seed, "val"), augment=False)
    torch.manual_seed(seed_of(seed, "weights"))
    network = build_network(settings, table)
    own = class_weights(people["train"], np.arange(table.n_classes))
    weights = {"axial": own, "coronal": own, "sagittal": class_weights(people["train"], table.merged)}
    card = {
        "kind": KIND,
        "settings": settings.model_dump(mode="json"),
        "ids": list(table.ids),
        "mirrors": list(table.mirrors),
        "voxel_size": voxel_size,
        "suffix": suffix,
        "seed": seed,
    }
    arrays = {split: [values for one in each for values in (one.image, one.classes)] for split, each in people.items()}
    identity = {**card, "scans": scans, "data": {split: digest_of(each) for split, each in arrays.items()}}
    result = fit(ParcellationTask(network, weights), train, val, budget, out, seed, precision, identity)
    counts = {split: len(found) for split, found in people.items()}
    save_model(out, network, {**card, "scans": counts, **summary(result)})
    clear_state(out)
