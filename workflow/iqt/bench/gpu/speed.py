"""How long the full-size network's steps and whole volumes take, beside what the card can do."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iqt.bench.authors import STEPS
from iqt.bench.cost import count_macs, measure_costs
from iqt.bench.gpu.agreement import save_random_model, tensorfloat32
from iqt.bench.gpu.setup import Setup
from iqt.bench.passes import WARM_UP, convolution_seconds, median_seconds, pass_seconds
from iqt.compute.devices import best_device
from iqt.compute.free import out_of_memory
from iqt.compute.memory import peak, reset_peak
from iqt.config.diffusion import Sampling
from iqt.enhance.models import Enhancer
from iqt.enhance.run import MARGIN
from iqt.io.volumes import bounding_box

REPEATS = 8
LAYOUTS = {"last": torch.channels_last_3d, "first": torch.contiguous_format}
MATRIX, TOY_MATRIX = 8192, 256
"""Edges of the matrices whose product tells what the card can do."""
PASSES = 3
"""Operations of a forward and backward pass in units of the forward pass's: the usual count."""


def matrix_rate(setup: Setup) -> Iterator[dict[str, float]]:
    """TFLOP/s of a product of square matrices in bfloat16, in TensorFloat-32 where the card has it, and in float32."""
    device, edge = best_device(), TOY_MATRIX if setup.toy else MATRIX
    kinds = {"bfloat16": (torch.bfloat16, False), "tf32": (torch.float32, True), "float32": (torch.float32, False)}
    for name, (dtype, tf32) in kinds.items():
        left, right = (torch.randn(edge, edge, device=device, dtype=dtype) for _ in range(2))
        with tensorfloat32(tf32):
            seconds = median_seconds(lambda left=left, right=right: left @ right, REPEATS, device)
        yield {f"matrix_{name}_tflops": 2 * edge**3 / seconds / 1e12}


def step_times(setup: Setup) -> Iterator[dict[str, Any]]:
    """Forward and backward pass by batch and by where the channels lie, a row a case, with the convolutions alone:
    first as the configuration trains, then with kernels that need not repeat to the bit, then other batches."""
    yield from matrix_rate(setup)
    wanted = setup.diffusion.training.batch_size
    cases = [(wanted, "last", True), (wanted, "last", False), (wanted, "first", True)]
    cases += [(batch, layout, True) for batch in (1, 2, 4) if batch != wanted for layout in LAYOUTS]
    rows: list[dict[str, Any]] = []
    macs = count_macs(setup.diffusion.build, setup.diffusion.patches.region)
    for batch, layout, deterministic in cases:
        row: dict[str, Any] = {"batch": batch, "channels": layout, "deterministic": deterministic}
        rows.append(row)
        for part in _guarded(_eager(setup, batch, layout, deterministic, macs)):
            row |= part
            yield {"rows": list(rows)}


def compiled_step(setup: Setup) -> Iterator[dict[str, Any]]:
    """The same with torch.compile, for the configuration's batch, channels last; at toy size only traced, since
    compiling for a CPU takes minutes."""
    row: dict[str, Any] = {
        "batch": setup.diffusion.training.batch_size,
        "channels": "last",
        "deterministic": False,
    }
    macs = count_macs(setup.diffusion.build, setup.diffusion.patches.region)
    for part in _guarded(_compiled(setup, row["batch"], macs)):
        row |= part
        yield {"rows": [row]}


def _guarded(parts: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The parts of a case until it ends or fails; the next goes on unless the card's context is broken."""
    try:
        yield from parts
    except (RuntimeError, MemoryError) as error:
        said = str(error).strip().splitlines()
        why = "out of memory" if out_of_memory(error) else f"{type(error).__name__}: {said[0] if said else ''}"
        yield {"failed": why[:120]}
    gc.collect()  # what the case held, so that the next one has all the memory
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # raises where the context is broken
        torch.cuda.empty_cache()


def _eager(setup: Setup, batch: int, layout: str, deterministic: bool, macs: int) -> Iterator[dict[str, Any]]:
    network, inputs = _case(setup, batch, layout)
    with _repeating(deterministic):
        reset_peak(best_device())
        seconds = pass_seconds(network, inputs, _loss, "auto", REPEATS)
        yield _figures(seconds, macs * batch)
        yield {"convolutions_seconds": convolution_seconds(network, inputs, "auto", REPEATS)}


def _compiled(setup: Setup, batch: int, macs: int) -> Iterator[dict[str, Any]]:
    network, inputs = _case(setup, batch, "last")
    network.compile(backend="aot_eager" if setup.toy else "inductor", dynamic=False)
    began = time.perf_counter()
    pass_seconds(network, inputs, _loss, "auto", 1)
    first = time.perf_counter() - began
    yield {"compiling_seconds": first}
    reset_peak(best_device())
    seconds = pass_seconds(network, inputs, _loss, "auto", REPEATS)
    yield _figures(seconds, macs * batch) | {"compiling_seconds": max(0.0, first - (WARM_UP + 1) * seconds)}


def _case(setup: Setup, batch: int, layout: str) -> tuple[torch.nn.Module, tuple[Tensor, ...]]:
    device = best_device()
    torch.manual_seed(0)
    network = setup.diffusion.build().to(device, memory_format=LAYOUTS[layout])
    volume = torch.randn(batch, 1, *setup.diffusion.patches.region, device=device)
    return network, (volume, volume.flip(2), torch.zeros(batch, device=device))


def _figures(seconds: float, macs: int) -> dict[str, float]:
    return {
        "seconds": seconds,
        "peak_gib": peak(best_device()) / 2**30,
        "tflops": 2 * PASSES * macs / seconds / 1e12,
    }


@contextlib.contextmanager
def _repeating(wanted: bool) -> Iterator[None]:
    """Kernels that repeat to the bit, as a training takes them on a GPU unless `training.deterministic` is off."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted and best_device().type == "cuda", warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=True)


def _loss(output: Tensor) -> Tensor:
    return output.float().square().mean()


def volume_times(setup: Setup) -> Iterator[dict[str, Any]]:
    """Seconds of a whole volume as `iqt enhance` makes it, by the recommended sampling and in the paper's twenty steps;
    then the authors' protocol and MONAI's network, whose single calls are timed and counted."""
    data, mask = setup.read_volume()
    yield {"shape": list(data.shape), "brain_voxels": int(np.count_nonzero(mask))}
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
        reset_peak(enhancer.device)
        seconds = []
        for _ in range(2):  # the first loads kernels and finds out how large a tile fits
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
                "peak_gib": peak(enhancer.device) / 2**30,
            }
        }
        del enhancer, made
    costs = measure_costs(setup.diffusion, mask, recommended.steps * recommended.samples, "auto")
    yield {"costs": [{**cost._asdict(), "total_seconds": cost.total_seconds} for cost in costs]}
