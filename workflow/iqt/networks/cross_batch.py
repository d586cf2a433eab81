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

from iqt.networks.mish import mish


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

    def view(self, merged: Tensor) -> Tensor:
        """(B, C, X, Y, Z) as (B, C, x, X / x, y, Y / y, z, Z / z), so that what is one number a patch, (B, C, x, 1, y,
        1, z, 1), broadcasts over that patch's voxels: nothing is copied."""
        batch, channels, *sizes = merged.shape
        pairs = (part for size, count in zip(sizes, self, strict=True) for part in (count, size // count))
        return merged.reshape(batch, channels, *pairs)

    def split(self, merged: Tensor) -> Tensor:
        """(B, C, X, Y, Z) to (B * count, C, X / x, Y / y, Z / z)."""
        if self.count == 1:
            return merged
        patches = self.view(merged).permute(0, 2, 4, 6, 1, 3, 5, 7)
        return patches.reshape(-1, *patches.shape[4:])

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


class PatchNormMish(nn.GroupNorm):
    """GroupNorm whose statistics are each patch's own, as in the paper, whatever the region or tile around it; then
    Mish, which follows it everywhere in the network.

    `scale` and `shift`, (B, C, 1, 1, 1), modulate what is normalised: mish(normalised * (1 + scale) + shift).
    """

    def forward(
        self, features: Tensor, grid: PatchGrid, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        # Everything that is constant over a patch is multiplied out before it meets the voxels: one pass over them for
        # each moment and one for the result.
        view = grid.view(features)
        mean, square = (self._over_groups(moment) for moment in patch_moments(view))
        weight, bias = (value.view(1, -1, *(1,) * 6) for value in (self.weight, self.bias))
        gain = (square - mean.square()).clamp_min(0).add(self.eps).rsqrt() * weight
        offset = bias - mean * gain
        if scale is not None:
            scale, shift = (value[..., None, None, None] for value in (scale, shift))
            gain, offset = gain * (1 + scale), offset * (1 + scale) + shift
        gain, offset = (_along_rows(value.to(view.dtype), view) for value in (gain, offset))
        return mish(view, gain, offset).reshape(features.shape)

    def _over_groups(self, moments: Tensor) -> Tensor:
        batch, channels, *grid = moments.shape
        grouped = moments.view(batch, self.num_groups, -1, *grid).mean(2, keepdim=True)
        return grouped.expand(-1, -1, channels // self.num_groups, *grid).reshape(batch, channels, *grid)


WITHIN = (3, 5, 7)
"""Axes of `PatchGrid.view` that run inside a patch."""


def patch_mean(view: Tensor) -> Tensor:
    """Mean of each patch, (B, C, x, 1, y, 1, z, 1), from `PatchGrid.view` of features; in float32 at least."""
    # The last axis by itself: over the other two whole rows of voxels, and of channels where these lie last, are added.
    rows = view.mean(WITHIN[:2], keepdim=True, dtype=torch.promote_types(view.dtype, torch.float32))
    return rows.mean(WITHIN[2], keepdim=True)


def patch_moments(view: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and mean square of each patch and channel, as `patch_mean` has them."""
    return _Moments.apply(view)


class _Moments(torch.autograd.Function):
    """Both moments, with a single pass over the voxels backward; autograd has four for the norm alone."""

    @staticmethod
    def forward(ctx, view: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(view)
        return patch_mean(view), patch_mean(view.to(torch.promote_types(view.dtype, torch.float32)).square())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, mean: Tensor, square: Tensor) -> Tensor:
        (view,) = ctx.saved_tensors
        share = mean.numel() / view.numel()
        slope, offset = (
            _along_rows((value * factor).to(view.dtype), view) for value, factor in ((square, 2 * share), (mean, share))
        )
        return torch.addcmul(offset, slope, view)


def _along_rows(value: Tensor, view: Tensor) -> Tensor:
    """What is one number a patch, written out along the last axis and in the layout of `view`, so that both run through
    memory side by side: a loop of a whole row, where it would be one of a patch's edge or of the channels."""
    value = value.expand(*value.shape[:-1], view.shape[-1])
    if view.stride(1) != 1:
        return value.contiguous()
    return value.movedim(1, -1).contiguous().movedim(-1, 1)
