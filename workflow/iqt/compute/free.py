"""The main memory that is free, and running out of it; apart from what needs torch, which takes seconds to import."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

from iqt.errors import MemoryShortError


def free_bytes() -> float:
    """What the kernel calls available, within the limits of control groups, which is how containers and clusters limit
    a process."""
    return min([_system_bytes(), *_group_bytes()])


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; torch's on a CPU is a RuntimeError like any other."""
    if isinstance(error, MemoryError | MemoryShortError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text)


def _system_bytes() -> float:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return math.inf


GROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def _group_bytes() -> list[float]:
    """What each control group around this process leaves, of version 2 or 1."""
    try:
        lines = [line.split(":", 2) for line in MEMBERSHIP.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return []
    found = []
    for _, controllers, own in lines:
        if not controllers:
            root, limit, used, cache = GROUPS, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, used, cache = (
                GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file",
            )  # fmt: skip
        else:
            continue
        folder = root / own.lstrip("/")
        for group in (folder, *folder.parents):
            with contextlib.suppress(OSError, ValueError):  # no limit: no such file, or the word max
                most = int((group / limit).read_text())
                held = int((group / used).read_text())
                # Files that were read count as used until somebody needs the memory.
                statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                found.append(most - held + int(statistics.get(cache, 0)))
            if group == root:
                break
    return found
