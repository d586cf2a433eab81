"""The authors' protocol of inference (arXiv 2311.06631 and its code), re-enacted to compare ours with.

Tiles of one training region at a stride of a third of it, those of under 5 % brain skipped; each is sampled by itself
in 20 ancestral steps from noise of its own, and its inner part (a sixth of it cut off each face) overwrites what lay
there. Convolutions pad patch by patch.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from iqt.config.diffusion import Sampling
from iqt.diffusion.objectives import to_clean
from iqt.diffusion.samplers import sample
from iqt.diffusion.schedules import build_schedule
from iqt.io.naming import seed_of
from iqt.methods.diffusion_iqt import DiffusionIQTMethod
from iqt.networks.cross_batch import PatchConv3d, PatchGrid

FOREGROUND, STEPS = 0.05, 20
SAMPLING = Sampling(sampler="ancestral", steps=STEPS)
Box = tuple[slice, slice, slice]


def tile_plan(mask: np.ndarray, region: tuple[int, int, int]) -> list[Box]:
    """The tiles that hold enough brain, in the order in which they are run; `mask` is (X, Y, Z) with edges that
    `padded_shape` gives."""
    starts = [range(0, size - edge + 1, edge // 3) for size, edge in zip(mask.shape, region, strict=True)]
    boxes = [
        tuple(slice(start, start + edge) for start, edge in zip(corner, region, strict=True))
        for corner in itertools.product(*starts)
    ]
    return [box for box in boxes if mask[box].mean() >= FOREGROUND]


def padded_shape(shape: tuple[int, ...], region: tuple[int, int, int]) -> tuple[int, ...]:
    """The edges from `shape` on with which the plan's last tile ends at the border; the paper's 256^3 is such."""
    return tuple(
        edge + edge // 3 * max(0, -(-(size - edge) // (edge // 3))) for size, edge in zip(shape, region, strict=True)
    )


def enhance_as_authors(
    network: nn.Module, method: DiffusionIQTMethod, inputs: Tensor, mask: np.ndarray, seed: int
) -> Tensor:
    """One sample of a volume (X, Y, Z), standardised like `inputs` and 0 where no tile's inner part lies.

    Args:
        inputs: (X, Y, Z), the standardised low-field volume, on the network's device.
        mask: (X, Y, Z), true in the brain.
    """
    region, schedule = method.patches.region, build_schedule(method.diffusion)
    shape = padded_shape(tuple(inputs.shape), region)
    growth = [after - before for before, after in zip(inputs.shape, shape, strict=True)]
    whole = nn.functional.pad(inputs, [side for more in reversed(growth) for side in (0, more)], value=inputs.min())
    result = torch.zeros_like(whole)
    with halo_padding():
        for number, box in enumerate(tile_plan(np.pad(mask, [(0, more) for more in growth]), region)):
            tile = whole[box][None, None]

            def noise(step: int, number: int = number) -> Tensor:
                generator = torch.Generator().manual_seed(seed_of(seed, number, step))
                return torch.randn((1, 1, *region), generator=generator).to(inputs.device)

            def denoise(current: Tensor, logsnr: Tensor, tile: Tensor = tile) -> Tensor:
                predicted = network(current, tile, logsnr.expand(1)).float()
                return to_clean(method.diffusion.objective, predicted, current, logsnr)

            made = sample(denoise, noise(-1), schedule, SAMPLING, noise)[0, 0]
            inner = tuple(
                slice(edge // 6 if side.start else 0, edge - (edge // 6 if side.stop < size else 0))
                for side, edge, size in zip(box, region, shape, strict=True)
            )
            result[box][inner] = made[inner]
    return result[tuple(slice(0, size) for size in inputs.shape)]


@contextlib.contextmanager
def halo_padding() -> Iterator[None]:
    """Within it, networks convolve patch by patch as the authors do."""
    merged = PatchConv3d.forward
    PatchConv3d.forward = halo_convolution
    try:
        yield
    finally:
        PatchConv3d.forward = merged


def halo_convolution(self: PatchConv3d, features: Tensor, grid: PatchGrid) -> Tensor:
    """What `PatchConv3d` does with `cross`, as the authors do it: each patch padded with its neighbours' values, or
    zeros at the border, and convolved by itself."""
    reach, stride = self.padding[0], self.stride[0]
    padded = nn.functional.pad(features, (reach,) * 6)
    for axis, count in zip((2, 3, 4), grid, strict=True):
        edge = features.shape[axis] // count
        padded = padded.unfold(axis, edge + 2 * reach, edge)
    patches = padded.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(0, 3).contiguous()
    return grid.merge(nn.functional.conv3d(patches, self.weight, self.bias, stride=stride))
