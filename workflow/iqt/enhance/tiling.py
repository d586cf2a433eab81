"""Tiles that cover a volume and blend into one another."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

Box = tuple[slice, slice, slice]


class Tiling:
    """Overlapping tiles over a volume of `shape` (X, Y, Z), each a whole number of `unit`s along each axis.

    An axis that fits into the largest tile gets a single one. The last tile is flush with the border, so every voxel is
    predicted. Weights fall along half a Hann window towards a border that another tile covers, and add up to one.

    `padded` is the shape that a volume needs first: at least one unit, and whole units where a single tile covers it.
    """

    def __init__(self, shape: tuple[int, int, int], unit: tuple[int, int, int], tile: int, overlap: int) -> None:
        self.shape = shape
        self.edges, self.padded, starts = [], [], []
        for size, step in zip(shape, unit, strict=True):
            largest = max(step, tile // step * step)
            edge = min(largest, -(-size // step) * step)
            padded = max(size, edge)
            self.edges.append(edge)
            self.padded.append(padded)
            starts.append(_starts(padded, edge, min(overlap, edge - 1)))
        self.boxes: list[Box] = [
            tuple(slice(start, start + edge) for start, edge in zip(corner, self.edges, strict=True))
            for corner in itertools.product(*starts)
        ]
        self.weights = [_ramps(begins, edge) for begins, edge in zip(starts, self.edges, strict=True)]
        self.starts = starts

    def apply(self, volumes: Tensor, network: Callable[[Tensor], Tensor]) -> Tensor:
        """Run `network` on the tiles of (B, C, *padded) and blend what it returns, (B, 1, *padded)."""
        total = torch.zeros(volumes.shape[0], 1, *self.padded, device=volumes.device)
        for box, weight in zip(self.boxes, self._products(volumes.device), strict=True):
            where = (slice(None), slice(None), *box)
            total[where] += weight * network(volumes[where]).float()
        return total

    def _products(self, device: torch.device) -> list[Tensor]:
        products = []
        for x, y, z in itertools.product(*self.weights):
            products.append((x[:, None, None] * y[None, :, None] * z[None, None, :]).to(device))
        return products


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
