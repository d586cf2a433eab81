"""Where networks run and in which precision."""

from __future__ import annotations

import contextlib
import functools
import platform
from typing import Any, get_args

import torch
from torch.overrides import TorchFunctionMode

from iqt.compute.gpus import claim_gpus
from iqt.config.section import Precision
from iqt.errors import UserError
from iqt.terminal import note


@functools.cache
def best_device() -> torch.device:
    """The GPU where there is one, else the CPU; says which. The first call claims a card that no other job uses."""
    claim_gpus()
    if torch.cuda.is_available():
        device, name = torch.device("cuda"), torch.cuda.get_device_name()
    else:
        device, name = torch.device("cpu"), f"the CPU, {torch.get_num_threads()} threads; no GPU is visible"
    note(f"runs on {name}")
    return device


def use_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether `compute.precision` means bfloat16 on this device.

    `auto` takes it on a GPU alone. A result must not depend on the kind of CPU that a job lands on, and few have the
    instructions: with AMX a scan takes 0.8 to 1.0 times as long, a training step 0.6 to 1.3 times (docs/measurements/
    step.md), without instructions tens of times.

    Raises:
        UserError: there is no such precision.
    """
    if precision not in get_args(Precision):
        raise UserError(f"precision {precision!r} must be one of {', '.join(get_args(Precision))}")
    if precision != "auto":
        return precision == "bfloat16"
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The autocast context of `compute.precision` on a device."""
    return torch.autocast(device.type, torch.bfloat16, enabled=use_bfloat16(precision, device))


def training_guard(bfloat16: bool, device: torch.device) -> contextlib.AbstractContextManager:
    """The context to train in: it keeps bfloat16 on a CPU from wrong gradients."""
    return _ThinConvolutions() if bfloat16 and device.type == "cpu" else contextlib.nullcontext()


class _ThinConvolutions(TorchFunctionMode):
    """Runs 3D convolutions whose first edge is shorter than the kernel in float32.

    oneDNN (in torch 2.13) leaves a part of their bfloat16 weight gradients unwritten: whatever lay in that memory
    becomes the gradient, at times NaN. Such volumes are small, so the precision costs nothing.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv3d or func is torch.conv_transpose3d:
            volume, weight = args[:2]
            if volume.shape[-3] < weight.shape[-3]:
                with torch.autocast("cpu", enabled=False):
                    return func(*(each.float() if torch.is_tensor(each) else each for each in args), **kwargs)
        return func(*args, **kwargs)


def machine() -> dict[str, str | int | None]:
    """What a result was computed on: kind of CPU and GPU, never a host's name."""
    return {
        "cpu": _cpu_info("model name") or platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _cpu_info(key: str) -> str | None:
    """An entry of Linux's /proc/cpuinfo."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            return next(line.split(":", 1)[1].strip() for line in handle if line.split(":")[0].strip() == key)
    except (OSError, StopIteration):
        return None
