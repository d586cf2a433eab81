"""The 3D parcellator: trained on volumes painted from label maps, so it reads any T1w scan, of a cohort with labels or
without."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from iqt.compute.devices import autocast, best_device
from iqt.config import VolumetricNetwork
from iqt.imaging.orientation import to_ras
from iqt.imaging.resample import lost_between, on_grid
from iqt.io.labels import LabelTable
from iqt.io.volumes import Volume, bounding_box
from iqt.networks.volumetric import build_volumetric
from iqt.parcellate.card import LABELLING
from iqt.training.card import require_size
from iqt.training.checkpoints import load_card, load_weights

KIND = "volumetric_parcellator"
MARGIN = 3
"""Voxels around the brain that the network sees too."""


class TrainedVolumetric(NamedTuple):
    """A network in inference mode on its device, and the labels that its classes stand for."""

    network: nn.Module
    table: LabelTable
    levels: int
    precision: str
    voxel_size: float


def load_volumetric(folder: Path, precision: str) -> TrainedVolumetric:
    """A trained 3D parcellator; UserError where the folder holds none, or a damaged one."""
    card = load_card(folder, {KIND: LABELLING[KIND]})
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
    lost = lost_between(size, parcellator.voxel_size)
    shape, affine = nib.spaces.vox2out_vox((ras.data.shape, ras.affine), [parcellator.voxel_size] * 3)
    coarse, inside = (
        on_grid(Volume(data, ras.affine), shape, affine, order=1).data
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
