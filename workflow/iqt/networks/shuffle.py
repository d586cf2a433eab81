"""Pixel-shuffle in 3D: resolution against channels, without loss and without parameters (Shi et al. 2016). What has its
channels last in memory keeps them there."""

from __future__ import annotations

import torch
from torch import Tensor


def layout_of(volume: Tensor) -> torch.memory_format:
    """How a tensor (B, C, X, Y, Z) with several channels lies in memory: with its channels last, or first."""
    last = volume.is_contiguous(memory_format=torch.channels_last_3d) and not volume.is_contiguous()
    return torch.channels_last_3d if last else torch.contiguous_format


def unshuffle(volume: Tensor, factor: int) -> Tensor:
    """3D pixel-unshuffle: (B, C, X, Y, Z) to (B, C * factor^3, X / factor, ...)."""
    if factor == 1:
        return volume
    batch, channels, *sizes = volume.shape
    x, y, z = (size // factor for size in sizes)
    view = volume.reshape(batch, channels, x, factor, y, factor, z, factor).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return view.reshape(batch, channels * factor**3, x, y, z).contiguous(memory_format=layout_of(volume))


def shuffle(volume: Tensor, factor: int) -> Tensor:
    """The inverse of `unshuffle`."""
    if factor == 1:
        return volume
    batch, channels, x, y, z = volume.shape
    channels //= factor**3
    view = volume.reshape(batch, channels, factor, factor, factor, x, y, z).permute(0, 1, 5, 2, 6, 3, 7, 4)
    merged = view.reshape(batch, channels, x * factor, y * factor, z * factor)
    return merged.contiguous(memory_format=layout_of(volume))
