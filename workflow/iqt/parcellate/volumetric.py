"""The 3D parcellator: trained on volumes painted from label maps, so it reads any T1w scan, of a cohort with labels or
without."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
from nibabel.processing import resample_from_to
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from iqt.config import VolumetricParcellator
from iqt.devices import autocast, best_device
from iqt.errors import UserError
from iqt.labels import LabelTable, read_lut
from iqt.naming import seed_of
from iqt.networks.volumetric import build_volumetric
from iqt.parcellate.losses import mean_dice
from iqt.parcellate.paint import LabelMap, PaintedVolumes, read_label_map
from iqt.scans.regrid import FWHM, to_ras
from iqt.training.card import require_size
from iqt.training.checkpoints import load_card, load_weights, save_model
from iqt.training.fit import Task, clear_state, fit, summary
from iqt.volumes import Volume, bounding_box

KIND = "volumetric_parcellator"
MARGIN = 3
"""Voxels around the brain that the network sees too."""


class VolumetricTask(Task):
    """Cross-entropy and soft Dice of whole volumes."""

    monitor = "val_dice"

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
        return {"val_loss": loss, "val_dice": mean_dice(found, batch["target"])}

    def _logits(self, batch: dict[str, Tensor]) -> Tensor:
        return self.network(batch["image"].contiguous(memory_format=torch.channels_last_3d))


def volume_loss(logits: Tensor, target: Tensor, seen: Tensor) -> Tensor:
    """Cross-entropy plus one minus the soft Dice, of logits (B, C, X, Y, Z) against classes (B, X, Y, Z), where `seen`
    (B, X, Y, Z) is true: outside the brain mask no label is asked for.

    Dice is averaged over the structures that the batch holds, the background left out.
    """
    n_classes = logits.shape[1]
    log_p = logits.movedim(1, -1)[seen].float().log_softmax(-1)
    flat = target[seen]
    true = log_p.gather(1, flat[:, None])[:, 0]
    cross_entropy = -true.mean()
    counts = torch.bincount(flat, minlength=n_classes)
    overlap = torch.zeros_like(log_p[0]).index_add(0, flat, true.exp())
    dice = (2 * overlap / (log_p.exp().sum(0) + counts))[1:]
    return cross_entropy + 1 - dice[counts[1:] > 0].mean()


def train_volumetric(
    labels: Path, lut: Path, out: Path, settings: VolumetricParcellator, seed: int, precision: str
) -> None:
    """Train on the label maps of a folder, named as `settings.train` and `settings.val` say, and save to `out`; started
    again, it goes on from its last checkpoint.

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
    result = fit(VolumetricTask(network), train, val, budget, out, seed, precision, card)
    save_model(out, network, {**card, **summary(result)})
    clear_state(out)


def _read_maps(folder: Path, names: tuple[str, ...], table: LabelTable) -> list[LabelMap]:
    found = []
    for name in names:
        paths = [path for path in folder.glob("*.nii.gz") if re.match(rf"{re.escape(name)}(?![A-Za-z0-9])", path.name)]
        if len(paths) != 1:
            raise UserError(f"{folder}: holds {len(paths)} label maps named {name}*.nii.gz, and one is needed")
        found.append(read_label_map(paths[0], table))
    return found


class TrainedVolumetric(NamedTuple):
    """A network in inference mode on its device, and the labels that its classes stand for."""

    network: nn.Module
    table: LabelTable
    levels: int
    precision: str
    voxel_size: float


def load_volumetric(folder: Path, precision: str) -> TrainedVolumetric:
    """A trained 3D parcellator; UserError where the folder holds none, or a damaged one."""
    from iqt.config import VolumetricNetwork

    card = load_card(folder)
    if card.get("kind") != KIND:
        raise UserError(f"{folder}: holds a model of kind {card.get('kind')!r}, but a {KIND} is needed")
    settings = VolumetricNetwork.model_validate(card["settings"])
    table = LabelTable(tuple(card["ids"]), tuple(card["mirrors"]))
    require_size(folder, card, lambda: build_volumetric(settings, table.n_classes))
    network = build_volumetric(settings, table.n_classes)
    load_weights(folder, network)
    size = float(card["voxel_size"][0])
    return TrainedVolumetric(network.eval().to(best_device()), table, len(settings.channels), precision, size)


@torch.inference_mode()
def predict_volumetric(parcellator: TrainedVolumetric, volume: Volume, mask: np.ndarray) -> np.ndarray:
    """Label map (X, Y, Z) int16 of a volume on the intensity scale, in its own axis order and voxels.

    The brain is read at the network's voxel size; its scores are brought back by linear interpolation, so that borders
    are as fine as the volume's voxels, and the label of the highest one is taken inside `mask` (X, Y, Z).

    Raises:
        UserError: the mask is empty.
    """
    brain = to_ras(Volume((mask > 0).astype(np.float32), volume.affine))
    ras = to_ras(Volume(np.where(mask > 0, volume.data, 0).astype(np.float32), volume.affine))
    size = ras.voxel_size
    lost = np.sqrt(np.maximum((parcellator.voxel_size / size) ** 2 - 1, 0)) / FWHM
    shape, affine = nib.spaces.vox2out_vox((ras.data.shape, ras.affine), [parcellator.voxel_size] * 3)
    coarse, inside = (
        np.asarray(resample_from_to(nib.Nifti1Image(data, ras.affine), (shape, affine), order=1).dataobj)
        for data in (ndimage.gaussian_filter(ras.data, lost), brain.data)
    )
    known = inside >= 0.5
    box = bounding_box(known, MARGIN)
    image = np.where(known, coarse, 0)[box].astype(np.float32)
    factor = 2 ** (parcellator.levels - 1)
    padded = np.pad(image, [(0, -side % factor) for side in image.shape])
    device = next(parcellator.network.parameters()).device
    with autocast(parcellator.precision, device):
        logits = parcellator.network(torch.from_numpy(padded)[None, None].to(device))
    scores = logits.float().softmax(1)[0].cpu()[(slice(None), *(slice(0, side) for side in image.shape))]
    first = affine @ nib.affines.from_matvec(np.eye(3), [side.start for side in box])
    best = _highest(scores, np.linalg.inv(first) @ volume.affine, volume.data.shape, mask > 0)
    return np.where(mask > 0, parcellator.table.to_labels(best), 0).astype(np.int16)


def _highest(scores: Tensor, to_scores: np.ndarray, shape: tuple[int, ...], mask: np.ndarray) -> np.ndarray:
    """The class of the highest score, interpolated linearly, at each voxel of a mask: slab by slab, to bound memory.

    Args:
        scores: (classes, x, y, z).
        to_scores: affine (4, 4) from the volume's voxels to those of `scores`.
    """
    best = np.zeros(shape, np.int16)
    ends = np.array(scores.shape[1:]) - 1
    for first in range(0, shape[0], 16):
        part = slice(first, min(first + 16, shape[0]))
        if not mask[part].any():
            continue
        voxels = np.moveaxis(np.indices((part.stop - first, *shape[1:])), 0, -1).astype(np.float32)
        voxels[..., 0] += first
        at = nib.affines.apply_affine(to_scores, voxels) / np.maximum(ends, 1) * 2 - 1
        grid = torch.from_numpy(np.ascontiguousarray(at[..., ::-1], dtype=np.float32))[None]
        values = functional.grid_sample(scores[None], grid, mode="bilinear", align_corners=True)
        best[part] = values[0].argmax(0).numpy()
    return best
