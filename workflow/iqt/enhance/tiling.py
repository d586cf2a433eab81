"""Tiles that cover a volume and blend into one another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Box = tuple[slice, slice, slice]

SHARE = 0.5
"""Of the memory that there is, what tiles may take: other jobs run beside this one."""


class Tiling:
    """Overlapping tiles over a volume of `shape` (X, Y, Z), each a whole number of `unit`s along each axis.

    An axis that fits into the largest tile gets a single one. The last tile is flush with the border, so every voxel is
    predicted. Weights fall along half a Hann window towards a border that another tile covers, and add up to one.

    `padded` is the shape that a volume needs first: at least one unit, and whole units where a single tile covers it.

    Args:
        tile: largest edge in voxels, rounded down to whole units.
        overlap: voxels that neighbours share at least; half a tile where that is less.
        mask: (X, Y, Z), true where a result is wanted; tiles without any such voxel are skipped. In one call
            a voxel in the mask gets what it would get without it, since every tile that covers the voxel is kept.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        unit: tuple[int, int, int],
        tile: int,
        overlap: int,
        mask: Tensor | None = None,
    ) -> None:
        self.shape = shape
        self.edges, self.padded, starts = [], [], []
        for size, step in zip(shape, unit, strict=True):
            edge = tile_edge(size, step, tile)
            padded = max(size, edge)
            self.edges.append(edge)
            self.padded.append(padded)
            starts.append(_starts(padded, edge, min(overlap, edge // 2)))
        self.starts = starts
        self.weights = [_ramps(begins, edge) for begins, edge in zip(starts, self.edges, strict=True)]
        self.boxes: list[Box] = []
        self._places: list[tuple[int, int, int]] = []
        self.n_skipped = 0
        for place in itertools.product(*(range(len(begins)) for begins in starts)):
            corner = (begins[index] for begins, index in zip(starts, place, strict=True))
            box = tuple(slice(start, start + edge) for start, edge in zip(corner, self.edges, strict=True))
            if mask is None or mask[box].any():
                self.boxes.append(box)
                self._places.append(place)
            else:
                self.n_skipped += 1

    def apply(
        self,
        volume: Tensor,
        network: Callable[[Tensor], Tensor],
        batch: int = 1,
        after: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Run `network` on the tiles of `volume` (1, C, *padded), `batch` at once, and blend what it returns.

        Returns (1, 1, *padded); 0 where only skipped tiles lie. `after` is called with the number of tiles just done.
        """
        total = torch.zeros(1, 1, *self.padded, device=volume.device)
        covered = torch.zeros(self.padded, device=volume.device) if self.n_skipped else None
        for first in range(0, len(self.boxes), batch):
            boxes = self.boxes[first : first + batch]
            results = network(torch.cat([volume[(slice(None), slice(None), *box)] for box in boxes])).float()
            for place, box, result in zip(self._places[first : first + batch], boxes, results, strict=True):
                weight = self._weight(place).to(volume.device)
                total[(0, 0, *box)] += weight * result[0]
                if covered is not None:
                    covered[box] += weight
            if after is not None:
                after(len(boxes))
        if covered is not None:
            # Beside a skipped tile the weights of the others add up to less than one.
            total /= torch.where(covered > 0, covered, torch.ones_like(covered))
        return total

    def borders(self, patch: int | None = None) -> list[list[int]]:
        """For each axis the planes inside the volume at which a tile begins or ends, or else a patch of `patch` voxels
        within a tile; plane i lies between voxels i - 1 and i."""
        found = []
        for size, edge, begins in zip(self.shape, self.edges, self.starts, strict=True):
            step = patch or edge
            planes = {plane for start in begins for plane in range(start, start + edge + 1, step)}
            found.append(sorted(plane for plane in planes if 0 < plane < size))
        return found

    def _weight(self, place: tuple[int, int, int]) -> Tensor:
        x, y, z = (windows[index] for windows, index in zip(self.weights, place, strict=True))
        return x[:, None, None] * y[None, :, None] * z[None, None, :]


def largest_tile(shape: tuple[int, int, int], unit: tuple[int, int, int], per_voxel: float, available: float) -> int:
    """The largest tile edge with which a tile of a volume of `shape` fits into `SHARE` of the memory `available`
    (bytes); the smallest tile there is where none does."""
    voxels = SHARE * available / per_voxel
    for tile in smaller_tiles(shape, unit, math.inf):
        edges = [tile_edge(size, step, tile) for size, step in zip(shape, unit, strict=True)]
        if math.prod(edges) <= voxels:
            return tile
    return min(unit)


def smaller_tiles(shape: tuple[int, int, int], unit: tuple[int, int, int], below: float) -> Iterator[int]:
    """Tile edges that differ, from the whole volume down to one unit, those under `below`."""
    edges = {
        step * count for size, step in zip(shape, unit, strict=True) for count in range(1, 1 + math.ceil(size / step))
    }
    # Below the shortest edge of a unit nothing gets smaller.
    return (edge for edge in sorted(edges, reverse=True) if min(unit) <= edge < below)


def tile_edge(size: int, unit: int, tile: int) -> int:
    """A tile's edge along an axis of `size` voxels: whole units, no more than `tile` holds or the axis needs."""
    return min(max(unit, tile // unit * unit), -(-size // unit) * unit)


def _starts(size: int, edge: int, overlap: int) -> list[int]:
    count = 1 + -(-(size - edge) // (edge - overlap))
    return [round(index * (size - edge) / max(1, count - 1)) for index in range(count)]


def _ramps(starts: list[int], edge: int) -> list[Tensor]:
    """Each tile's weights along an axis; at every voxel those of the tiles that cover it add up to one."""
    size = starts[-1] + edge
    windows = []
    for index, start in enumerate(starts):
        weight = torch.ones(edge, dtype=torch.float64)
        for neighbour, rising in ((index - 1, True), (index + 1, False)):
            if not 0 <= neighbour < len(starts):
                continue
            width = edge - abs(start - starts[neighbour])
            ramp = torch.sin(torch.linspace(0, torch.pi / 2, width + 2, dtype=torch.float64)[1:-1]) ** 2
            part = slice(0, width) if rising else slice(edge - width, edge)
            weight[part] *= ramp if rising else ramp.flip(0)
        windows.append(weight)
    total = torch.zeros(size, dtype=torch.float64)
    for start, weight in zip(starts, windows, strict=True):
        total[start : start + edge] += weight
    return [(weight / total[start : start + edge]).float() for start, weight in zip(starts, windows, strict=True)]
