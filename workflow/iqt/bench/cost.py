"""What enhancing a whole volume costs: the authors' protocol, MONAI's diffusion model, and ours, side by side.

The volume is the 1 mm template brain on a 256^3 grid and the weights are random: cost does not depend on them. Of each
way one network call on one tile is run and timed, and the volume's seconds are that times its tiles and calls.
"""

from __future__ import annotations

import gc
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from iqt.bench.authors import STEPS, halo_padding, tile_plan
from iqt.compute import memory
from iqt.compute.devices import autocast, best_device
from iqt.enhance.run import MARGIN
from iqt.enhance.tiling import Tiling, largest_tile
from iqt.io.volumes import bounding_box
from iqt.methods.diffusion_iqt import DiffusionIQTMethod
from iqt.networks.size import count_parameters

EDGE = 256
RUNS, ENOUGH = 3, 60.0
"""A call is run once to warm up, then as many times, or fewer where that takes longer than so many seconds."""
MONAI_OVERLAP = 0.25
"""SlidingWindowInferer's default."""


class Cost(NamedTuple):
    """One way: tiles a volume, the edges of each, network calls on each; MACs, seconds (the median of `runs`) and peak
    bytes of one call on one tile."""

    name: str
    tiles: int
    edges: tuple[int, int, int]
    calls: int
    macs: int
    seconds: float
    runs: int
    peak: float

    @property
    def total_macs(self) -> float:
        return float(self.macs) * self.tiles * self.calls

    @property
    def total_seconds(self) -> float:
        return self.seconds * self.tiles * self.calls


def measure_costs(method: DiffusionIQTMethod, mask: np.ndarray, recommended: int, precision: str) -> list[Cost]:
    """Cost of each way on a volume with the brain in `mask` (X, Y, Z); `recommended` is our number of network calls.
    The network must be one whose patches are padded with their neighbours."""
    region, device = method.patches.region, best_device()
    network = method.build().eval().to(device)  # with channels first in memory, as theirs
    with halo_padding():
        theirs = measure_call(network, region, "float32")
    network.to(memory_format=method.memory_layout(device))
    tiling = our_tiling(network, method, mask, precision)
    edges = tuple(tiling.edges)
    ours = measure_call(network, edges, precision)
    size = count_parameters(network)
    del network  # so that its memory is not counted with the next

    def rival() -> nn.Module:
        return monai_network(size, len(method.network.multipliers))

    rivals = measure_call(rival().eval().to(device), region, precision)
    n_windows = monai_windows(mask.shape, region)
    rival_macs = count_macs(rival, region)
    return [
        Cost("authors' protocol", len(tile_plan(mask, region)), region, STEPS, macs_of(method, region), *theirs),
        Cost("MONAI, DDIM 20", n_windows, region, 20, rival_macs, *rivals),
        Cost("ours, equal steps", len(tiling.boxes), edges, STEPS, macs_of(method, edges), *ours),
        Cost("ours, recommended", len(tiling.boxes), edges, recommended, macs_of(method, edges), *ours),
    ]


def measure_layouts(method: DiffusionIQTMethod, precision: str) -> dict[str, float]:
    """Seconds of one call on one region with the channels last in memory, and with them first."""
    network, region = method.build().eval().to(best_device()), method.patches.region
    layouts = {"last": torch.channels_last_3d, "first": torch.contiguous_format}
    return {
        name: measure_call(network.to(memory_format=layout), region, precision)[0] for name, layout in layouts.items()
    }


def template_mask() -> np.ndarray:
    """The template's brain mask in the middle of a grid of 256^3 voxels of 1 mm."""
    from nilearn.datasets import load_mni152_brain_mask

    return _in_the_middle(np.asarray(load_mni152_brain_mask(resolution=1).dataobj) > 0)


def template_volume() -> tuple[np.ndarray, np.ndarray]:
    """The template on the same grid, (X, Y, Z) float32, and its brain mask."""
    from nilearn.datasets import load_mni152_template

    return _in_the_middle(np.asarray(load_mni152_template(resolution=1).dataobj, np.float32)), template_mask()


def _in_the_middle(volume: np.ndarray) -> np.ndarray:
    whole = np.zeros((EDGE,) * 3, volume.dtype)
    whole[tuple(slice((EDGE - size) // 2, (EDGE - size) // 2 + size) for size in volume.shape)] = volume
    return whole


def our_tiling(network: nn.Module, method: DiffusionIQTMethod, mask: np.ndarray, precision: str) -> Tiling:
    """The brain's box in tiles as an enhancement chooses them: the largest that the memory holds."""
    device, region = best_device(), method.patches.region
    inside = torch.from_numpy(mask[bounding_box(mask, MARGIN)])
    arguments = _arguments(region, device)
    with torch.inference_mode(), autocast(precision, device):
        per_voxel = memory.bytes_per_voxel(lambda: network(*arguments), math.prod(region), device)
    shape = tuple(inside.shape)
    tile = largest_tile(shape, region, per_voxel, memory.available_bytes(device))
    return Tiling(shape, region, tile, method.tiling.overlap, inside)


class _Rival(nn.Module):
    """MONAI's diffusion model with the calling convention of ours."""

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        from monai.networks.nets import DiffusionModelUNet

        self.network = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=2,
            out_channels=1,
            num_res_blocks=2,
            channels=[width * 2**level for level in range(levels)],
            attention_levels=[False] * levels,
            num_head_channels=width,
            # The whole matrix of scores would not fit into memory in the middle of a region of 96^3.
            use_flash_attention=True,
        )

    def forward(self, noisy: Tensor, lowfield: Tensor, logsnr: Tensor) -> Tensor:
        return self.network(torch.cat([noisy, lowfield], dim=1), logsnr)


def monai_network(n_parameters: int, levels: int) -> nn.Module:
    """MONAI's DiffusionModelUNet of about so many parameters: attention in the middle alone, since at its higher levels
    that would cost many times the rest; widths in steps of 32, as its group norms want."""

    def size(width: int) -> int:
        with torch.device("meta"):
            return count_parameters(_Rival(width, levels))

    return _Rival(min(range(32, 257, 32), key=lambda width: abs(size(width) - n_parameters)), levels)


def monai_windows(shape: tuple[int, ...], region: tuple[int, int, int]) -> int:
    """Windows that MONAI's SlidingWindowInferer runs on a volume, by having it run."""
    from monai.inferers import SlidingWindowInferer

    count = 0

    def network(windows: Tensor) -> Tensor:
        nonlocal count
        count += len(windows)
        return windows

    SlidingWindowInferer(region, overlap=MONAI_OVERLAP)(torch.zeros(1, 1, *shape), network)
    return count


def macs_of(method: DiffusionIQTMethod, edges: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one call of a method's network on one tile."""
    return count_macs(lambda: method.build(), edges)


def count_macs(build: Callable[[], nn.Module], edges: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one call of a network on one tile, counted without computing."""
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        build()(*_arguments(edges, torch.device("cpu")))
    return counter.get_total_flops() // 2


def measure_call(network: nn.Module, edges: tuple[int, int, int], precision: str) -> tuple[float, int, float]:
    """Median seconds of one call on one tile, the runs it is the median of, and the bytes that a call takes at its
    peak: on a CPU the growth of the process, on a GPU what its allocator counts."""
    device = best_device()
    arguments = _arguments(edges, device)

    def forward() -> float:
        began = time.perf_counter()
        with torch.inference_mode(), autocast(precision, device):
            network(*arguments)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    shape = " x ".join(map(str, edges))
    print(f"{type(network).__name__}, a tile of {shape} voxels, {precision}", file=sys.stderr, flush=True)
    gc.collect()
    before = memory.reset_peak(device)
    forward()
    peak = memory.peak(device) - before
    seconds: list[float] = []
    while len(seconds) < RUNS and sum(seconds) < ENOUGH:
        seconds.append(forward())
    return statistics.median(seconds), len(seconds), peak


def _arguments(edges: tuple[int, int, int], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    volume = torch.zeros(1, 1, *edges, device=device)
    return volume, volume, torch.zeros(1, device=device)
