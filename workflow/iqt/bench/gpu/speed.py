"""How long the full-size network's steps and whole volumes take, beside what the card can do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from iqt.bench.authors import STEPS
from iqt.bench.cost import count_macs, measure_costs
from iqt.bench.gpu.agreement import save_random_model
from iqt.bench.gpu.setup import Setup
from iqt.bench.passes import convolution_seconds, median_seconds, pass_seconds
from iqt.compute.devices import best_device
from iqt.compute.memory import out_of_memory, peak, reset_peak
from iqt.config.diffusion import Sampling
from iqt.enhance.models import Enhancer
from iqt.enhance.run import MARGIN
from iqt.io.volumes import bounding_box

BATCHES, REPEATS = (1, 2, 4), 8
LAYOUTS = {"last": torch.channels_last_3d, "first": torch.contiguous_format}
MATRIX, TOY_MATRIX = 8192, 256
"""Edges of the matrices whose product tells what the card can do."""
PASSES = 3
"""Operations of a forward and backward pass in units of the forward pass's: the usual count."""


def matrix_rate(setup: Setup) -> Iterator[dict[str, float]]:
    """TFLOP/s of a product of square matrices in bfloat16 and in float32 as convolutions use it."""
    device, edge = best_device(), TOY_MATRIX if setup.toy else MATRIX
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        left, right = (torch.randn(edge, edge, device=device, dtype=dtype) for _ in range(2))
        seconds = median_seconds(lambda left=left, right=right: left @ right, REPEATS, device)
        yield {f"matrix_{name}_tflops": 2 * edge**3 / seconds / 1e12}


def step_times(setup: Setup) -> Iterator[dict[str, Any]]:
    """Forward and backward pass by batch and by where the channels lie; a row a case, with the convolutions alone."""
    yield from matrix_rate(setup)
    rows: list[dict[str, Any]] = []
    for batch in BATCHES:
        for layout in LAYOUTS:
            rows.append(_step_row(setup, batch, layout, compiled=False))
            yield {"rows": list(rows)}


def compiled_step(setup: Setup) -> Iterator[dict[str, Any]]:
    """The same with torch.compile, for one region and for four, channels last; at toy size only traced, since compiling
    for a CPU takes minutes."""
    rows: list[dict[str, Any]] = []
    for batch in (BATCHES[0], *(() if setup.toy else (BATCHES[-1],))):
        rows.append(_step_row(setup, batch, "last", compiled=True))
        yield {"rows": list(rows)}


def _step_row(setup: Setup, batch: int, layout: str, compiled: bool) -> dict[str, Any]:
    method, device = setup.diffusion, best_device()
    row: dict[str, Any] = {"batch": batch, "channels": layout, "compiled": compiled}
    try:
        torch.manual_seed(0)
        network = method.build().to(device, memory_format=LAYOUTS[layout])
        volume = torch.randn(batch, 1, *method.patches.region, device=device)
        inputs = (volume, volume.flip(2), torch.zeros(batch, device=device))
        before = reset_peak(device)
        if compiled:
            network.compile(backend="aot_eager" if setup.toy else "inductor")
            began = time.perf_counter()
            pass_seconds(network, inputs, _loss, "auto", 1)
            row["compiling_seconds"] = time.perf_counter() - began
        row["seconds"] = pass_seconds(network, inputs, _loss, "auto", REPEATS)
        row["peak_gib"] = (peak(device) - before) / 2**30
        macs = count_macs(method.build, method.patches.region) * batch
        row["tflops"] = 2 * PASSES * macs / row["seconds"] / 1e12
        if not compiled:
            row["convolutions_seconds"] = convolution_seconds(network, inputs, "auto", REPEATS)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        row["failed"] = "out of memory"
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return row


def _loss(output: torch.Tensor) -> torch.Tensor:
    return output.float().square().mean()


def volume_times(setup: Setup) -> Iterator[dict[str, Any]]:
    """Seconds of a whole volume as `iqt enhance` makes it, by the recommended sampling and in the paper's twenty steps;
    then the authors' protocol and MONAI's network, whose single calls are timed and counted."""
    data, mask = setup.read_volume()
    model = setup.out / "random"
    save_random_model(model, setup)
    recommended = setup.diffusion.sampling
    box = bounding_box(mask, MARGIN)
    for name, sampling in (
        ("recommended", recommended),
        ("ancestral", Sampling(sampler="ancestral", steps=STEPS)),
    ):
        usage = {"kind": setup.diffusion.kind, "sampling": sampling.model_dump()}
        enhancer = Enhancer(model, usage, "auto")
        before = reset_peak(enhancer.device)
        seconds = []
        for _ in range(2):  # the first finds out which kernels are fast, and how large a tile fits
            began = time.perf_counter()
            made = enhancer(data[box].contiguous(), 1, torch.from_numpy(mask[box]))
            seconds.append(time.perf_counter() - began)
        yield {
            name: {
                "calls": sampling.steps * sampling.samples,
                "tiles": len(made.tiling.boxes),
                "edges": list(made.tiling.edges),
                "first_seconds": seconds[0],
                "seconds": seconds[1],
                "peak_gib": (peak(enhancer.device) - before) / 2**30,
            }
        }
        del enhancer, made
    yield {"shape": list(data.shape), "brain_voxels": int(np.count_nonzero(mask))}
    costs = measure_costs(setup.diffusion, mask, recommended.steps * recommended.samples, "auto")
    yield {"costs": [{**cost._asdict(), "total_seconds": cost.total_seconds} for cost in costs]}
