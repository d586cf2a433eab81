"""Volumes painted from label maps while training runs, no two alike: real anatomy, invented scans.

After SynthSeg (Billot et al., Medical Image Analysis 86, 2023): deform a label map, draw an intensity for every
structure, and acquire the result as scanners and brain extraction do: partial volume, blur, thick slices, bias
field, noise, and a mask whose border is not quite right.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch.nn import functional

from iqt.config import Painting
from iqt.errors import UserError
from iqt.imaging.orientation import to_ras
from iqt.imaging.resample import gaussian_of
from iqt.io.labels import LabelTable
from iqt.io.naming import seed_of
from iqt.io.volumes import SCALE_PERCENTILE, bounding_box, read_volume

OUTSIDE = 500
"""SynthSeg's label maps number what is outside the brain from here on; a FreeSurfer map has nothing there."""
MARGIN_MM = 25
WHITE, GREY, FLUID = 1.0, 0.66, 0.25
"""Middle of the intensities of a T1w scan, relative to white matter."""
FLUIDS = (4, 5, 14, 15, 24, 31, 43, 44, 63, 72)
WHITES = (2, 7, 16, 28, 41, 46, 60, 77, 78, 79, 85, *range(251, 256))
DEEP = {10: 0.45, 49: 0.45, 13: 0.7, 52: 0.7, 12: 0.2, 51: 0.2, 16: -0.1, 28: -0.15, 60: -0.15}
"""Structures between grey and white matter, by how far from their tissue's intensity towards the other's."""


class LabelMap(NamedTuple):
    """A head in RAS order, cut to its brain with some of what surrounds it: `labels` (X, Y, Z) numbers the entries of
    `ids`, `classes` holds the parcellator's class of each, `voxel_size` is in mm, and `middle` (3) is that of the brain
    in voxels, the fluid down the spine left out."""

    labels: np.ndarray
    ids: np.ndarray
    classes: np.ndarray
    voxel_size: np.ndarray
    middle: np.ndarray


def read_label_map(path: Path, table: LabelTable) -> LabelMap:
    """A label map with FreeSurfer's ids; UserError where it is unreadable or holds no structure of the table."""
    volume = to_ras(read_volume(path, np.int32))
    classes = table.to_classes(volume.data, path, volume.voxel_size)
    if not classes.any():
        raise UserError(f"{path}: holds no structure that the parcellator knows")
    margin = round(MARGIN_MM / float(volume.voxel_size.min()))
    solid = (classes > 0) & ~np.isin(volume.data, FLUIDS)
    box = bounding_box(solid, margin)
    ids, labels = np.unique(volume.data[box], return_inverse=True)
    # A label that several structures share goes to the nearer one, so a pair is numbered and not a label.
    pairs, where = np.unique(labels * table.n_classes + classes[box], return_inverse=True)
    if len(pairs) > 255:
        raise UserError(f"{path}: holds {len(pairs)} different labels, and at most 255 can be painted")
    inside = np.argwhere(solid[box])
    middle = (inside.min(0) + inside.max(0)) / 2
    entries, kinds = np.divmod(pairs, table.n_classes)
    return LabelMap(where.astype(np.uint8), ids[entries], kinds, volume.voxel_size, middle)


class PaintedVolumes(torch.utils.data.Dataset):
    """Item i holds `image` (1, *region) float32 on the intensity scale, 0 outside the brain mask, and `target`
    (*region) int64, its classes; both are drawn from (seed, i) alone.

    Without `augment` a map is painted as a plain T1w scan, where it lies.
    """

    def __init__(
        self, maps: Sequence[LabelMap], table: LabelTable, settings: Painting, length: int, seed: int, augment: bool
    ) -> None:
        self.maps, self.settings, self.length, self.seed, self.augment = maps, settings, length, seed, augment
        self.mirrors = np.asarray(table.mirrors)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng(seed_of(self.seed, index, "paint"))
        chosen = self.maps[rng.integers(len(self.maps)) if self.augment else index % len(self.maps)]
        points = self._points(chosen, rng)
        numbers = _nearest(chosen.labels, points)
        classes = chosen.classes[numbers]
        means, spreads = self._intensities(chosen, rng)
        image = self._mixed(chosen, points, numbers, means, spreads, rng)
        mask = self._mask(classes, rng)
        if self.augment:
            image = self._acquired(image, rng)
        image = np.where(mask, np.maximum(image, 0), 0)
        image /= max(float(np.percentile(image[mask], SCALE_PERCENTILE)), 1e-3)
        classes = np.where(mask, classes, 0)
        if self.augment and rng.random() < 0.5:
            image, classes = image[::-1], self.mirrors[classes[::-1]]
        return {
            "image": torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None],
            "target": torch.from_numpy(np.ascontiguousarray(classes)).long(),
        }

    def _points(self, chosen: LabelMap, rng: np.random.Generator) -> np.ndarray:
        """Where in the map (3, *region), in its voxels, the region's voxels lie: affine and smoothly deformed."""
        settings, region = self.settings, self.settings.region
        centred = [(np.arange(side) - (side - 1) / 2) * settings.voxel_size for side in region]
        grid = np.stack(np.meshgrid(*centred, indexing="ij")).astype(np.float32)
        shift = np.zeros(3)
        if self.augment:
            turn = Rotation.from_euler("xyz", rng.normal(0, settings.rotation / 2, 3), degrees=True).as_matrix()
            stretch = np.diag(np.exp(rng.normal(0, settings.scale / 2, 3)))
            shear = np.eye(3) + np.triu(rng.normal(0, 0.01, (3, 3)), 1)
            coarse = rng.standard_normal((3, *(max(4, round(side / 10)) for side in region)))
            field = _smooth(coarse, region) * settings.deformation
            grid = np.einsum("ij,jxyz->ixyz", (turn @ stretch @ shear).astype(np.float32), grid + field)
            shift = rng.normal(0, settings.shift / 2, 3)
        middle = chosen.middle + shift / chosen.voxel_size
        return grid / chosen.voxel_size.reshape(3, 1, 1, 1).astype(np.float32) + middle.reshape(3, 1, 1, 1)

    def _intensities(self, chosen: LabelMap, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of every entry of the map; both sides of a structure are alike."""
        by_class: dict[int, tuple[float, float]] = {}
        random = self.augment and rng.random() < self.settings.random_contrast
        width = 1.0 if self.augment else 0.0
        white = WHITE
        grey = GREY + width * rng.normal(0, 0.09)
        fluid = FLUID + width * rng.normal(0, 0.08)
        spread = rng.uniform(0.01, 0.06) if self.augment else 0.03
        means, spreads = np.zeros(len(chosen.ids)), np.zeros(len(chosen.ids))
        for number, (label, kind) in enumerate(zip(chosen.ids, chosen.classes, strict=True)):
            key = int(min(kind, self.mirrors[kind])) if kind else -int(label) - 1
            if key not in by_class:
                if label >= OUTSIDE or not kind or random:
                    mean = rng.uniform(0.05, 1.1)
                elif label in FLUIDS:
                    mean = fluid
                else:
                    tissue, other = (white, grey) if label in WHITES else (grey, white)
                    mean = tissue + DEEP.get(int(label), 0.0) * abs(white - grey) * np.sign(other - tissue)
                    mean += width * rng.normal(0, 0.03)
                by_class[key] = max(mean, 0.02), spread * (rng.uniform(0.5, 2) if self.augment else 1)
            means[number], spreads[number] = by_class[key]
        means[chosen.ids == 0] = 0
        return means.astype(np.float32), spreads.astype(np.float32)

    def _mixed(
        self,
        chosen: LabelMap,
        points: np.ndarray,
        numbers: np.ndarray,
        means: np.ndarray,
        spreads: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """The painted volume, each voxel the mean of several places within it: partial volume."""
        half = self.settings.voxel_size / chosen.voxel_size.min() / 4
        total = means[numbers].astype(np.float32)
        for signs in ((1, 1, 1), (-1, -1, 1), (-1, 1, -1), (1, -1, -1)):
            offset = np.array(signs, np.float32).reshape(3, 1, 1, 1) * half
            total += means[_nearest(chosen.labels, points + offset)]
        return total / 5 + spreads[numbers] * rng.standard_normal(numbers.shape, dtype=np.float32)

    def _mask(self, classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The brain, closed over its folds; with `augment` its border wanders by some millimetres."""
        brain = ndimage.binary_closing(np.pad(classes > 0, 3), iterations=2)[3:-3, 3:-3, 3:-3] | (classes > 0)
        parts, _ = ndimage.label(ndimage.binary_opening(brain, iterations=2))  # without what runs down the spine
        largest = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
        brain = ndimage.binary_fill_holes(brain & ndimage.binary_dilation(largest, iterations=2))
        if not self.augment:
            return brain
        distance = ndimage.distance_transform_edt(~brain) - ndimage.distance_transform_edt(brain)
        wander = _smooth(rng.standard_normal((1, 8, 8, 8)), classes.shape)[0]
        border = rng.uniform(-1.0, 2.0) + rng.uniform(0, 1.5) * wander  # mm
        return distance * self.settings.voxel_size <= border.clip(max=4)

    def _acquired(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Blurred, perhaps in thick slices, with a bias field, noise and another gamma."""
        settings = self.settings
        image = ndimage.gaussian_filter(image, rng.uniform(0, settings.blur))
        if rng.random() < settings.thick_share:
            axis, thickness = int(rng.integers(3)), rng.uniform(settings.voxel_size, settings.thickness)
            image = ndimage.gaussian_filter1d(image, gaussian_of(thickness / settings.voxel_size), axis=axis)
            spacing = thickness / settings.voxel_size
            sides = list(image.shape)
            sides[axis] = max(4, round(sides[axis] / spacing))
            thick = functional.interpolate(torch.from_numpy(image)[None, None], sides, mode="trilinear")
            image = functional.interpolate(thick, image.shape, mode="trilinear")[0, 0].numpy()
        field = _smooth(rng.standard_normal((1, 4, 4, 4)), image.shape)[0]
        image = np.maximum(image, 0) ** np.exp(rng.normal(0, 0.15)) * np.exp(rng.uniform(0, settings.bias) * field)
        return image + rng.uniform(0, settings.noise) * rng.standard_normal(image.shape, dtype=np.float32)


def _nearest(labels: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The entries of a map at points (3, X, Y, Z) in its voxels; beyond its ends those of the ends."""
    at = [np.clip(np.rint(axis), 0, side - 1).astype(np.intp) for axis, side in zip(points, labels.shape, strict=True)]
    return labels[at[0], at[1], at[2]]


def _smooth(coarse: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Coarse random values (C, ...) on a finer grid (C, *shape), float32."""
    values = torch.from_numpy(coarse.astype(np.float32))[None]
    return functional.interpolate(values, tuple(shape), mode="trilinear", align_corners=True)[0].numpy()
