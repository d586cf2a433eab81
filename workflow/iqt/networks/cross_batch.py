"""Cross-batch: patches of one region that see each other.

DiffusionIQT (arXiv 2311.06631) cuts a region into patches, pads each patch's convolutions with its neighbours' true
values and lets attention take keys and values from all patches. Padding with the neighbours' values is one convolution
over the merged region, and linear attention over all patches is attention over the merged region; so features stay
merged, and what belongs to a single patch (normalisation, squeeze-and-excitation, anything that is switched off) is
done on the split view.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class PatchGrid(NamedTuple):
    """Patches along each axis; the same at every level of a network, since levels only change the resolution."""

    x: int
    y: int
    z: int

    @classmethod
    def of(cls, shape: torch.Size | tuple[int, ...], edges: tuple[int, int, int]) -> PatchGrid:
        """The grid of patches with the given edges in a volume whose last three sizes are `shape`'s.

        Raises:
            ValueError: an edge does not divide the volume.
        """
        sizes = tuple(shape[-3:])
        if any(size % edge or size < edge for size, edge in zip(sizes, edges, strict=True)):
            raise ValueError(f"a volume of {sizes} voxels cannot be cut into patches of {edges}")
        return cls(*(size // edge for size, edge in zip(sizes, edges, strict=True)))

    @property
    def count(self) -> int:
        """Patches in the grid."""
        return self.x * self.y * self.z

    def split(self, merged: Tensor) -> Tensor:
        """(B, C, X, Y, Z) to (B * count, C, X / x, Y / y, Z / z)."""
        if self.count == 1:
            return merged
        batch, channels, *sizes = merged.shape
        px, py, pz = (size // count for size, count in zip(sizes, self, strict=True))
        view = merged.reshape(batch, channels, self.x, px, self.y, py, self.z, pz)
        return view.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(-1, channels, px, py, pz)

    def merge(self, patches: Tensor) -> Tensor:
        """The inverse of `split`."""
        if self.count == 1:
            return patches
        _, channels, px, py, pz = patches.shape
        view = patches.reshape(-1, *self, channels, px, py, pz).permute(0, 4, 1, 5, 2, 6, 3, 7)
        return view.reshape(-1, channels, self.x * px, self.y * py, self.z * pz)


class PatchConv3d(nn.Conv3d):
    """A convolution over the merged region (`cross`), or over each patch with zeros at its border."""

    def __init__(self, inputs: int, outputs: int, kernel: int, cross: bool, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, padding=(kernel - 1) // 2)
        self.cross = cross

    def forward(self, features: Tensor, grid: PatchGrid) -> Tensor:
        if self.cross:
            return super().forward(features)
        return grid.merge(super().forward(grid.split(features)))


class PatchGroupNorm(nn.GroupNorm):
    """GroupNorm whose statistics are each patch's own, as in the paper, whatever the region or tile around it.

    `scale` and `shift`, (B, C, 1, 1, 1), modulate the result: normalised * (1 + scale) + shift.
    """

    def forward(
        self, features: Tensor, grid: PatchGrid, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        # Pooled moments give each patch's statistics without moving the volume in memory, and everything that is
        # constant over a patch is multiplied out before it meets the voxels.
        mean = self._over_groups(functional.adaptive_avg_pool3d(features.float(), tuple(grid)))
        square = self._over_groups(functional.adaptive_avg_pool3d(features.float().square(), tuple(grid)))
        weight, bias = (value.view(1, -1, 1, 1, 1) for value in (self.weight, self.bias))
        gain = (square - mean.square()).clamp_min(0).add(self.eps).rsqrt() * weight
        offset = bias - mean * gain
        if scale is not None:
            gain, offset = gain * (1 + scale), offset * (1 + scale) + shift
        return torch.addcmul(spread(offset, features), spread(gain, features), features)

    def _over_groups(self, pooled: Tensor) -> Tensor:
        batch, channels, *grid = pooled.shape
        grouped = pooled.view(batch, self.num_groups, -1, *grid).mean(2, keepdim=True)
        return grouped.expand(-1, -1, channels // self.num_groups, *grid).reshape(batch, channels, *grid)


def spread(values: Tensor, features: Tensor) -> Tensor:
    """One value a patch, (B, C, x, y, z), repeated over that patch's voxels in `features`' size and type."""
    # In the features' own memory layout: element-wise operations on mixed layouts are several times slower.
    channels_last = features.is_contiguous(memory_format=torch.channels_last_3d)
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    values = values.to(features.dtype).contiguous(memory_format=layout)
    return functional.interpolate(values, size=features.shape[2:], mode="nearest").contiguous(memory_format=layout)
