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

    An item has `lowfield` and `hq`, (1, X, Y, Z) float32 on the common intensity scale.
    """

    def __init__(
        self, scans: Sequence[StoredScan], patches: Patches, length: int, seed: int, flip: bool = False
    ) -> None:
        self.scans, self.region, self.length, self.seed, self.flip = list(scans), patches.region, length, seed, flip
        self.foreground = patches.foreground
        for scan in self.scans:
            if any(size < edge for size, edge in zip(scan.mask.shape, self.region, strict=True)):
                raise UserError(
                    f"{scan.scan}: its brain's box of {scan.mask.shape} voxels is smaller than the training region "
                    f"{self.region}; make patches.patch or patches.grid smaller"
                )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, index])
        scan = self.scans[rng.integers(len(self.scans))]
        corner = self._corner(rng, scan.mask)
        box = tuple(slice(start, start + edge) for start, edge in zip(corner, self.region, strict=True))
        pair = np.asarray(scan.pair[(slice(None), *box)], dtype=np.float32)
        if self.flip and rng.random() < 0.5:
            pair = pair[:, ::-1]
        lowfield, high = torch.from_numpy(pair.copy()).unsqueeze(1)
        return {"lowfield": lowfield, "hq": high}

    def _corner(self, rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
        sizes, region = np.array(mask.shape), np.array(self.region)
        centre = rng.integers(sizes)
        if rng.random() < self.foreground:
            while not mask[tuple(centre)]:  # the brain fills about half of its box, so few draws are lost
                centre = rng.integers(sizes)
        return np.clip(centre - region // 2, 0, sizes - region)
