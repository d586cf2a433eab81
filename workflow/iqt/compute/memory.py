"""Memory: what a forward pass needs, what the machine has, and running out of it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from iqt.compute.free import free_bytes
from iqt.compute.gpus import share_of_a_card

SCRATCH = 1.4
"""Memory that a CPU needs, in units of the tensors alive, for what convolutions take besides. Measured as the growth of
the process it is 1.1 (channels last) to 1.35 (first) with the full-size network on 96^3 and 192^3 voxels, and above
this only where tens of megabytes are at stake; a GPU's allocator counts it itself."""


def bytes_per_voxel(forward: Callable[[], Tensor], n_voxels: int, device: torch.device) -> float:
    """What one forward pass over `n_voxels` needs at its peak, measured by running it, divided among the voxels."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        forward()
        return (torch.cuda.max_memory_allocated() - before) / n_voxels
    with _LiveTensors() as live:
        forward()
    return SCRATCH * live.peak / n_voxels


def available_bytes(device: torch.device, limit_mb: int | None = None) -> float:
    """Memory for this process on a device, in bytes.

    With `limit_mb`, which a job of the workflow asked for, these megabytes, or its share of a GPU: a result must
    not depend on what else happens to run. Otherwise what is free: on a CPU what the kernel calls available, within the
    limits of control groups, which is how containers limit a process.
    """
    if device.type == "cuda":
        free, whole = torch.cuda.mem_get_info()
        if limit_mb:
            return whole * share_of_a_card()
        return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return limit_mb * 1e6 if limit_mb else free_bytes()


def reset_peak(device: torch.device) -> int:
    """Begin to watch for the peak of memory; returns the bytes in use now, by the process or on the GPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # proc(5): resets VmHWM
    return _status_bytes("VmRSS")


def peak(device: torch.device) -> int:
    """The most bytes in use at once since `reset_peak`."""
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else _status_bytes("VmHWM")


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of the tensors made inside it that are alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.now = 0
        self._sizes: dict[int, int] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing here is compiled, and keeping the compiler out would import it, which takes seconds

    def __torch_dispatch__(self, function: Any, _types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._sizes:
                    self._sizes[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._free, storage._cdata)
        return result

    def _free(self, key: int) -> None:
        self.now -= self._sizes.pop(key)
