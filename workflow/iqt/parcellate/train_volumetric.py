"""Training the 3D parcellator, on volumes that are painted from label maps while it runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iqt.config import VolumetricParcellator
from iqt.errors import UserError
from iqt.io.labels import LabelTable, read_lut
from iqt.io.naming import seed_of
from iqt.networks.volumetric import build_volumetric
from iqt.parcellate.losses import mean_dice, mean_where, product, sums_by_class
from iqt.parcellate.paint import LabelMap, PaintedVolumes, read_label_map
from iqt.parcellate.volumetric import KIND
from iqt.training.checkpoints import save_model
from iqt.training.fit import Task, clear_state, digest_of, fit, summary


class VolumetricTask(Task):
    """Cross-entropy and soft Dice of whole volumes."""

    monitor = "val_dice"
    smaller = "lower training.batch_size or painting.region"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        return volume_loss(self._logits(batch), batch["target"], batch["image"][:, 0] > 0)

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        logits = self._logits(batch)
        seen = batch["image"][:, 0] > 0
        found = torch.where(seen, logits.argmax(1), 0)
        loss = volume_loss(logits, batch["target"], seen)
        return {"val_loss": loss, "val_dice": mean_dice(found, batch["target"], logits.shape[1])}

    def _logits(self, batch: dict[str, Tensor]) -> Tensor:
        return self.network(batch["image"].contiguous(memory_format=torch.channels_last_3d))


def volume_loss(logits: Tensor, target: Tensor, seen: Tensor) -> Tensor:
    """Cross-entropy plus one minus the soft Dice, of logits (B, C, X, Y, Z) against classes (B, X, Y, Z), where `seen`
    (B, X, Y, Z) is true: outside the brain mask no label is asked for.

    Dice is averaged over the structures that the batch holds, the background left out.
    """
    n_classes = logits.shape[1]
    log_p = logits.movedim(1, -1).reshape(-1, n_classes).float().log_softmax(-1)
    flat, inside = target.reshape(-1), seen.reshape(-1).float()
    true = log_p.gather(1, flat[:, None])[:, 0]
    cross_entropy = -mean_where(true, seen.reshape(-1))
    counts, overlap = sums_by_class(torch.stack([inside, true.exp() * inside]), flat, n_classes)
    dice = 2 * overlap / (product(inside, log_p.exp()) + counts).clamp_min(1e-12)
    return cross_entropy + 1 - mean_where(dice[1:], counts[1:] > 0)


def train_volumetric(
    labels: Path,
    lut: Path,
    out: Path,
    settings: VolumetricParcellator,
    seed: int,
    precision: str,
    recipe: Mapping[str, Any],
) -> None:
    """Train on the label maps of a folder, named as `settings.train` and `settings.val` say, and save to `out`; started
    again, it goes on from its last checkpoint.

    Args:
        recipe: for the card, how the model was made: the commit of the code, and whether files differed from it.

    Raises:
        UserError: a label map is missing or cannot be used.
    """
    table = read_lut(lut)
    maps = {name: _read_maps(labels, getattr(settings, name), table) for name in ("train", "val")}
    budget, painting = settings.training, settings.painting
    length = budget.steps * budget.batch_size
    train = PaintedVolumes(maps["train"], table, painting, length, seed_of(seed, "train"), augment=True)
    val = PaintedVolumes(maps["val"], table, painting, budget.validation_regions, seed_of(seed, "val"), augment=False)
    torch.manual_seed(seed_of(seed, "weights"))
    network = build_volumetric(settings.network, table.n_classes)
    card = {
        "kind": KIND,
        "settings": settings.network.model_dump(mode="json"),
        "painting": painting.model_dump(mode="json"),
        "ids": list(table.ids),
        "mirrors": list(table.mirrors),
        "voxel_size": [painting.voxel_size] * 3,
        "suffix": "T1w",
        "seed": seed,
        "data": {"train": list(settings.train), "val": list(settings.val), **settings.source.model_dump()},
    }
    arrays = (values for label_map in (*maps["train"], *maps["val"]) for values in label_map)
    identity = {**card, "training": budget.model_dump(mode="json", exclude={"workers"}), "maps": digest_of(arrays)}
    result = fit(VolumetricTask(network), train, val, budget, out, seed, precision, identity)
    save_model(out, network, {**card, "recipe": dict(recipe), **summary(result)})
    clear_state(out)


def _read_maps(folder: Path, names: tuple[str, ...], table: LabelTable) -> list[LabelMap]:
    found = []
    for name in names:
        paths = [path for path in folder.glob("*.nii.gz") if re.match(rf"{re.escape(name)}(?![A-Za-z0-9])", path.name)]
        if len(paths) != 1:
            raise UserError(f"{folder}: holds {len(paths)} label maps named {name}*.nii.gz, and one is needed")
        found.append(read_label_map(paths[0], table))
    return found
