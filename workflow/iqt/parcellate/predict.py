"""Labels of a whole volume from the three planes' networks."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from iqt.compute.devices import autocast, best_device
from iqt.config import Parcellator
from iqt.imaging.orientation import array_from_ras, array_to_ras
from iqt.imaging.resample import at_voxel_size, labels_on
from iqt.io.labels import LabelTable
from iqt.io.volumes import Volume, bounding_box
from iqt.networks.multiview import IN_SLICES, PLANES, MultiView
from iqt.parcellate.card import LABELLING
from iqt.parcellate.slices import SLICE_AXIS, slab
from iqt.training.card import require_size
from iqt.training.checkpoints import load_card, load_weights

KIND = "parcellator"
PLANE_WEIGHTS = {"axial": 0.4, "coronal": 0.4, "sagittal": 0.2}
"""Share of each plane's logits in the sum (FastSurferCNN's view aggregation)."""

MARGIN = 2
"""Voxels around the brain that the networks see too."""

SLICES_AT_ONCE = 8


class TrainedParcellator(NamedTuple):
    """A network in inference mode on its device, and the labels that its classes stand for."""

    network: MultiView
    table: LabelTable
    levels: int
    precision: str
    voxel_size: tuple[float, float, float] | None = None
    """mm along R, A, S that it was trained on; None takes every volume as it is."""


def build_network(settings: Parcellator, table: LabelTable) -> MultiView:
    """The untrained network of a configuration entry for a label table."""
    return MultiView(table.n_classes, table.n_merged, settings.filters, settings.levels, settings.kernel)


def load_parcellator(folder: Path, precision: str) -> TrainedParcellator:
    """A trained parcellator; UserError where the folder holds none, or one of another kind."""
    card = load_card(folder, {KIND: LABELLING[KIND]})
    settings = Parcellator.model_validate(card["settings"])
    table = LabelTable(tuple(card["ids"]), tuple(card["mirrors"]))
    require_size(folder, card, lambda: build_network(settings, table))
    network = build_network(settings, table)
    load_weights(folder, network)
    voxel_size = tuple(card["voxel_size"]) if card.get("voxel_size") else None
    return TrainedParcellator(network.eval().to(best_device()), table, settings.levels, precision, voxel_size)


def predict_labels(parcellator: TrainedParcellator, volume: Volume, mask: np.ndarray) -> np.ndarray:
    """Label map (X, Y, Z) int16 of a volume on the intensity scale, in the volume's own axis order.

    `mask` (X, Y, Z) is the brain: the networks see 0 outside it, and the labels there are 0. A volume with other voxels
    than the training's is resampled to those, and its labels are brought back by nearest neighbour.

    Raises:
        UserError: the mask is empty.
    """
    if parcellator.voxel_size is None:
        return _predict(parcellator, volume, mask)
    known, inside = at_voxel_size(volume, mask, parcellator.voxel_size)
    labels = _predict(parcellator, known, inside)
    if known is not volume:
        labels = labels_on(labels, known.affine, volume).astype(np.int16)
    return np.where(mask > 0, labels, 0).astype(np.int16)


@torch.inference_mode()
def plane_scores(parcellator: TrainedParcellator, image: np.ndarray) -> torch.Tensor:
    """The weighted sum over planes of the logits, (X, Y, Z, classes), for a RAS+ image (X, Y, Z).

    The sagittal network's merged classes count for both hemispheres. Softmax would shift a voxel's logits of one plane
    by one number, which does not change the order of the sums, so none is taken.
    """
    device = next(parcellator.network.parameters()).device
    merged = torch.from_numpy(parcellator.table.merged).to(device)
    scores = torch.zeros(*image.shape, parcellator.table.n_classes, device=device)
    for plane in PLANES:
        axis, network = SLICE_AXIS[plane], parcellator.network.nets[plane]
        along = scores.movedim(axis, 0)
        for start in range(0, len(along), SLICES_AT_ONCE):
            count = min(SLICES_AT_ONCE, len(along) - start)
            near = slab(image, axis, start - IN_SLICES // 2, count + IN_SLICES - 1)
            stacks = torch.from_numpy(np.stack([near[k : k + IN_SLICES] for k in range(count)])).to(device)
            with autocast(parcellator.precision, device):
                logits = network(stacks).float().permute(0, 2, 3, 1)
            if plane == "sagittal":
                logits = logits[..., merged]
            along[start : start + count].add_(logits, alpha=PLANE_WEIGHTS[plane])
    return scores


def _predict(parcellator: TrainedParcellator, volume: Volume, mask: np.ndarray) -> np.ndarray:
    """`predict_labels` of a volume with the training's voxels."""
    brain = array_to_ras(mask > 0, volume.affine)
    box = bounding_box(brain, MARGIN)
    image = np.where(brain[box], array_to_ras(volume.data, volume.affine)[box], 0).astype(np.float32)
    factor = 2**parcellator.levels
    padded = np.pad(image, [(0, -size % factor) for size in image.shape])
    classes = plane_scores(parcellator, padded).argmax(dim=-1).cpu().numpy()
    labels = np.zeros(brain.shape, np.int16)
    inside = classes[tuple(slice(0, size) for size in image.shape)]
    labels[box] = np.where(brain[box], parcellator.table.to_labels(inside), 0)
    return np.ascontiguousarray(array_from_ras(labels, volume.affine))
