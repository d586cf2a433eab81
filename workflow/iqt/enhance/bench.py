"""What a whole volume costs: the authors' protocol re-enacted, and ours, with the same network.

The volume is the 1 mm template brain on a 256^3 grid and the weights are random: cost does not depend on them. Of each
way one network call on one tile is run and timed, and the volume's seconds are that times the calls it takes, as the
report says; MACs are counted, not measured.
"""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from nilearn.datasets import load_mni152_brain_mask
from torch import Tensor, nn

from iqt.config import DiffusionIQTMethod
from iqt.devices import autocast, best_device, machine
from iqt.enhance import memory
from iqt.enhance.run import MARGIN
from iqt.enhance.tiling import Tiling
from iqt.errors import UserError
from iqt.files import write_text
from iqt.networks.build import build_network, count_parameters
from iqt.networks.cross_batch import PatchConv3d, PatchGrid
from iqt.networks.describe import describe
from iqt.volumes import bounding_box

EDGE = 256
STRIDE, FOREGROUND, STEPS = 32, 0.05, 20
"""The authors' protocol: tiles of a region every 32 voxels, without those of under 5 % brain, 20 ancestral steps."""


class Cost(NamedTuple):
    """One way: tiles of a region's size a volume (a larger tile counts as those it holds), network calls on each, MACs
    and seconds of one call on one of them, and its peak memory in bytes."""

    name: str
    tiles: int
    calls: int
    macs: int
    seconds: float
    peak: float

    @property
    def total_macs(self) -> float:
        return float(self.macs) * self.tiles * self.calls

    @property
    def total_seconds(self) -> float:
        return self.seconds * self.tiles * self.calls


def bench_speed(method: DiffusionIQTMethod, recommended: int, out: Path, precision: str = "auto") -> list[Cost]:
    """Write a table (Markdown) of what one volume costs each way; `recommended` is our number of network calls.

    Raises:
        UserError: the network is not one that sees its patches' neighbours.
    """
    if not method.network.cross_batch.padding:
        raise UserError("the authors' protocol pads patches with their neighbours: network.cross_batch.padding is off")
    mask, region = template_mask(), method.patches.region
    macs = describe(method).macs
    network = build_network(method).eval().to(best_device(), memory_format=torch.channels_last_3d)
    theirs = len(authors_tiles(mask, region))
    box = bounding_box(mask, MARGIN)
    inside = torch.from_numpy(mask[box])
    with_halos = _run(lambda *tensors: _with_halos(network, *tensors), region, "float32")
    merged = _run(network, region, precision)
    device, shape = best_device(), tuple(inside.shape)
    per_voxel = merged[1] * (memory.SCRATCH if device.type == "cpu" else 1) / math.prod(region)
    tile = memory.largest_tile(shape, region, per_voxel, memory.available_bytes(device))
    tiling = Tiling(shape, region, tile, method.tiling.overlap, inside)
    ours = len(tiling.boxes) * math.prod(tiling.edges) // math.prod(region)
    costs = [
        Cost("authors' protocol", theirs, STEPS, macs, *with_halos),
        Cost("ours, equal steps", ours, STEPS, macs, *merged),
        Cost("ours, recommended", ours, recommended, macs, *merged),
    ]
    write_text(out, _markdown(costs, region, count_parameters(network)))
    return costs


def template_mask() -> np.ndarray:
    """The template's brain mask in the middle of a grid of 256^3 voxels of 1 mm."""
    brain = np.asarray(load_mni152_brain_mask(resolution=1).dataobj) > 0
    mask = np.zeros((EDGE,) * 3, bool)
    mask[tuple(slice((EDGE - size) // 2, (EDGE - size) // 2 + size) for size in brain.shape)] = brain
    return mask


def authors_tiles(mask: np.ndarray, region: tuple[int, int, int]) -> list[tuple[slice, ...]]:
    """The tiles of the authors' plan that hold enough brain."""
    starts = [range(0, size - edge + 1, STRIDE) for size, edge in zip(mask.shape, region, strict=True)]
    boxes = [
        (slice(x, x + region[0]), slice(y, y + region[1]), slice(z, z + region[2]))
        for x in starts[0]
        for y in starts[1]
        for z in starts[2]
    ]
    return [box for box in boxes if mask[box].mean() >= FOREGROUND]


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


def _with_halos(network: nn.Module, *tensors: Tensor) -> Tensor:
    """The network with its convolutions patch by patch, for the length of a call."""
    merged = PatchConv3d.forward
    PatchConv3d.forward = halo_convolution
    try:
        return network(*tensors)
    finally:
        PatchConv3d.forward = merged


def _run(call: Callable[..., Tensor], region: tuple[int, int, int], precision: str) -> tuple[float, float]:
    """Seconds and peak bytes of one network call on one tile."""
    device = best_device()
    volume = torch.randn(1, 1, *region, device=device)
    seconds = 0.0

    def forward() -> Tensor:
        nonlocal seconds
        began = time.perf_counter()
        with torch.inference_mode(), autocast(precision, device):
            result = call(volume, volume, torch.zeros(1, device=device))
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        return result

    if device.type == "cuda":
        forward()  # which chooses the kernels
    peak = memory.bytes_per_voxel(forward, 1, device) / (memory.SCRATCH if device.type == "cpu" else 1)
    return seconds, peak


def _markdown(costs: list[Cost], region: tuple[int, int, int], n_parameters: int) -> str:
    where, first = machine(), costs[0]
    edges = " x ".join(map(str, region))
    rows = [
        f"| {cost.name} | {cost.tiles} | {cost.calls} | {cost.total_macs:.3g} | "
        f"{first.total_macs / cost.total_macs:.1f} | {cost.seconds:.2f} | {cost.total_seconds:,.0f} | "
        f"{first.total_seconds / cost.total_seconds:.1f} | {cost.peak / 2**30:.2f} |"
        for cost in costs
    ]
    return "\n".join(
        [
            "# What a whole volume costs, measured",
            "",
            f"`make bench-speed`, {datetime.date.today()}, {where['threads']} threads of {where['cpu']}, GPU: "
            f"{where['gpu']}, torch {where['torch']}.",
            "",
            f"The template brain at 1 mm on a grid of {EDGE}^3, a network of {n_parameters:,} parameters with random",
            f"weights. One call on one tile of {edges} voxels is timed; a volume's seconds are that times tiles and",
            "calls, so extrapolated. MACs are counted. Peak memory is that of the tensors of a call that are alive at",
            "once, without what a library takes for itself.",
            "",
            "| way | tiles | calls | MACs | fewer | s a call | s a volume | faster | peak GiB |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            *rows,
            "",
            "- Authors' protocol: tiles every 32 voxels, those of under 5 % brain skipped, patches padded with their",
            "  neighbours one by one, float32.",
            f"- Ours: the brain's box in tiles as large as half the free memory allows, counted in tiles of {edges};",
            "  merged patches, the precision that `auto` chooses.",
            "",
        ]
    )
