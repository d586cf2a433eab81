"""What the parcellator trains on: random stacks of seven slices a plane, with the middle slice's classes."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from iqt.io.labels import LabelTable
from iqt.io.naming import seed_of
from iqt.io.volumes import SCALE_PERCENTILE
from iqt.networks.multiview import IN_SLICES, PLANES
from iqt.parcellate.people import Person

SLICE_AXIS = {"axial": 2, "coronal": 1, "sagittal": 0}
"""Axis of a RAS+ volume along which a plane's slices follow one another; the other two, in order, are H and W."""

BALANCED = 0.5
"""Share of stacks centred on a structure drawn uniformly (for the small ones); the others on any labelled voxel."""
ROTATION, ZOOM, SHIFT = 10.0, 0.1, 0.06
"""Largest in-plane rotation in degrees, change of size, and shift as a share of the crop."""
SCALE, GAMMA, NOISE, BIAS = 0.1, 0.2, 0.03, 0.1
"""Largest change of intensity, of the log of the gamma, of the noise (in units of the scale) and of the log bias."""
GREYS, SPREAD, BLUR = (0.05, 1.0), 0.08, 0.8
"""With random contrast: a structure's mean intensity, its largest standard deviation, and the blur in voxels."""


class SliceStacks(torch.utils.data.Dataset):
    """Item i holds, for each plane, `<plane>` (7, size, size) float32 and `<plane>_target` (size, size) int64.

    It is drawn from (seed, i) alone. The sagittal target has merged classes. With `augment`, slices are rotated and
    zoomed, and their intensities scaled, bent, biased and given noise; without, they are cut out as they are. With
    `random_contrast` too, they are painted from the labels instead, each structure with a grey of its own every time.
    """

    def __init__(
        self,
        people: list[Person],
        table: LabelTable,
        size: int,
        length: int,
        seed: int,
        augment: bool,
        random_contrast: bool = False,
    ) -> None:
        self.people, self.size, self.length, self.seed = people, size, length, seed
        self.augment, self.merged = augment, table.merged
        self.random_contrast = augment and random_contrast

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng(seed_of(self.seed, index, "slices"))
        person = self.people[rng.integers(len(self.people))]
        item = {}
        for plane in PLANES:
            item[plane], item[f"{plane}_target"] = self._draw(person, plane, rng)
        return item

    def _draw(self, person: Person, plane: str, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        axis = SLICE_AXIS[plane]
        centre = list(np.unravel_index(_draw_voxel(person, rng), person.image.shape))
        number = centre.pop(axis)
        first = number - IN_SLICES // 2
        if self.random_contrast:
            stack = _paint(self.merged[slab(person.classes, axis, first, IN_SLICES)], rng)
        else:
            stack = slab(person.image, axis, first, IN_SLICES).astype(np.float32)
        target = np.moveaxis(person.classes, axis, 0)[number]
        if plane == "sagittal":
            target = self.merged[target]
        grid = self._grid(target.shape, centre, rng)
        cut = _sample(stack, grid, "bilinear")
        if self.augment:
            cut = _change_intensity(cut, rng)
        return cut, _sample(target[None].astype(np.float32), grid, "nearest")[0].long()

    def _grid(self, shape: tuple[int, int], centre: list[int], rng: np.random.Generator) -> torch.Tensor:
        """Where `grid_sample` reads: a square of `size` around `centre`, moved to lie within the slice if it can."""
        angle, zoom, shift = 0.0, 1.0, np.zeros(2)
        if self.augment:
            angle, zoom = np.deg2rad(rng.uniform(-ROTATION, ROTATION)), 1 + rng.uniform(-ZOOM, ZOOM)
            shift = rng.uniform(-SHIFT, SHIFT, 2) * self.size
        half, size = self.size // 2, self.size
        middle = [
            np.clip(at, half, length - size + half) if length > size else length // 2
            for at, length in zip(centre, shape, strict=True)
        ]
        offsets = (np.arange(size) - half) * zoom
        i, j = offsets[:, None], offsets[None, :]
        rows = middle[0] + shift[0] + np.cos(angle) * i - np.sin(angle) * j
        columns = middle[1] + shift[1] + np.sin(angle) * i + np.cos(angle) * j
        scaled = [2 * columns / max(shape[1] - 1, 1) - 1, 2 * rows / max(shape[0] - 1, 1) - 1]
        return torch.from_numpy(np.stack(scaled, axis=-1).astype(np.float32))[None]


def slab(volume: np.ndarray, axis: int, start: int, count: int) -> np.ndarray:
    """`count` slices along `axis` from `start` as (count, H, W), with zeros where they lie outside the volume."""
    volume = np.moveaxis(volume, axis, 0)
    first, last = max(start, 0), min(start + count, len(volume))
    return np.pad(volume[first:last], ((first - start, start + count - last), (0, 0), (0, 0)))


def _draw_voxel(person: Person, rng: np.random.Generator) -> int:
    starts = person.starts
    if rng.random() < BALANCED:
        present = np.flatnonzero(np.diff(starts[1:])) + 1
        chosen = rng.choice(present)
        return int(person.order[rng.integers(starts[chosen], starts[chosen + 1])])
    return int(person.order[rng.integers(starts[1], starts[-1])])


def _sample(stack: np.ndarray, grid: torch.Tensor, mode: str) -> torch.Tensor:
    image = torch.from_numpy(np.ascontiguousarray(stack))[None]
    return functional.grid_sample(image, grid, mode=mode, padding_mode="zeros", align_corners=True)[0]


def _paint(merged: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A scan of any contrast from merged classes (7, H, W), float32, on about the intensity scale; background 0.

    The generative model of SynthSeg (Billot et al., Medical Image Analysis 86, 2023): one Gaussian intensity per
    structure, then a blur for partial volume. Both sides of the brain share a grey.
    """
    n_classes = int(merged.max()) + 1
    mean, spread = rng.uniform(*GREYS, n_classes), rng.uniform(0, SPREAD, n_classes)
    mean[0] = spread[0] = 0
    noise = rng.standard_normal(merged.shape, dtype=np.float32)
    image = (mean[merged] + spread[merged] * noise).astype(np.float32)
    image = gaussian_filter(image, rng.uniform(0, BLUR), truncate=3).clip(min=0)
    image[merged == 0] = 0
    brightest = np.percentile(image[merged > 0], SCALE_PERCENTILE) if merged.any() else 1
    return image / np.float32(max(brightest, GREYS[0]))


def _change_intensity(stack: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Scale, gamma, noise and a smooth bias; the background stays 0."""
    size = stack.shape[-1]
    scale, gamma = 1 + rng.uniform(-SCALE, SCALE), np.exp(rng.uniform(-GAMMA, GAMMA))
    a, b, c = rng.uniform(-BIAS, BIAS, 3)
    u = np.linspace(-1, 1, size, dtype=np.float32)
    bias = np.exp(a * u[:, None] + b * u[None, :] + c * u[:, None] * u[None, :]) * scale
    noise = rng.standard_normal(stack.shape, dtype=np.float32) * rng.uniform(0, NOISE)
    changed = stack.clamp(min=0) ** gamma * torch.from_numpy(bias.astype(np.float32)) + torch.from_numpy(noise)
    return torch.where(stack > 0, changed.float(), torch.zeros(()))
