"""Random regions of the patch store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from iqt.config import Patches
from iqt.errors import UserError
from iqt.training.store import StoredScan


class RegionDataset(Dataset):
    """Item i is the i-th region of a whole training run, drawn from (seed, i) alone, so that a run can be resumed.

    An item has `lowfield` and `hq`, (1, X, Y, Z) float32 on the common intensity scale, and its own `index`.
    """

    def __init__(
        self, scans: Sequence[StoredScan], patches: Patches, length: int, seed: int, augment: bool = False
    ) -> None:
        """`augment` mirrors and changes intensities as `patches` says.

        Raises:
            UserError: a scan is smaller than a region, or its brain mask is empty.
        """
        self.scans, self.patches, self.length, self.seed, self.augment = list(scans), patches, length, seed, augment
        for scan in self.scans:
            if any(size < edge for size, edge in zip(scan.mask.shape, patches.region, strict=True)):
                raise UserError(
                    f"{scan.scan}: its brain's box of {scan.mask.shape} voxels is smaller than the training region "
                    f"{patches.region}; make patches.patch or patches.grid smaller"
                )
            if not scan.record["n_brain"]:
                raise UserError(f"{scan.scan}: its brain mask is empty, so no region can be drawn from it; remove it")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, index])
        scan = self.scans[rng.integers(len(self.scans))]
        corner = self._corner(rng, scan.mask)
        box = tuple(slice(start, start + edge) for start, edge in zip(corner, self.patches.region, strict=True))
        pair = np.asarray(scan.pair[(slice(None), *box)], dtype=np.float32)
        if self.augment:
            pair = self._augmented(rng, pair, scan.record["left_right_axis"])
        lowfield, high = torch.from_numpy(np.ascontiguousarray(pair)).unsqueeze(1)
        return {"lowfield": lowfield, "hq": high, "index": index}

    def _corner(self, rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
        sizes, region = np.array(mask.shape), np.array(self.patches.region)
        centre = rng.integers(sizes)
        if rng.random() < self.patches.foreground:
            while not mask[tuple(centre)]:  # the brain fills about half of its box, so few draws are lost
                centre = rng.integers(sizes)
        return np.clip(centre - region // 2, 0, sizes - region)

    def _augmented(self, rng: np.random.Generator, pair: np.ndarray, left_right: int) -> np.ndarray:
        """Both volumes alike, so that what lies between them stays what it was."""
        patches = self.patches
        if patches.flip and rng.random() < 0.5:
            pair = np.flip(pair, axis=1 + left_right)
        if patches.gamma:
            # Noise and splines leave a few values below zero, which have no power: they keep their sign.
            pair = np.sign(pair) * np.abs(pair) ** np.float32(np.exp(rng.uniform(-patches.gamma, patches.gamma)))
        if patches.gain:
            pair = pair * np.float32(1 + rng.uniform(-patches.gain, patches.gain))
        return pair
