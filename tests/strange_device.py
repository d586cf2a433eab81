"""A device that is not the CPU and holds no data, in place of a GPU: torch's `meta`.

Under `Strange` operations that mix it with the CPU fail as a GPU's do, by torch itself; so does a generator of random
numbers of another device. What would make a GPU wait for the host (`item`, `float`, `tolist`, `cpu`, ...) is noted
with the line that asked for it, and gets a made-up answer.
"""

from __future__ import annotations

import functools
import traceback
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

DEVICE = torch.device("meta")
ANSWERS = {"item": 1.0, "__float__": 1.0, "__int__": 1, "__bool__": True, "__index__": 1}


RANDOM = ("rand", "randn", "randint")
"""Functions that take a generator."""


class Generator:
    """In place of torch's, which knows no such device: what device it is for is all that counts."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def manual_seed(self, seed: int) -> Generator:
        return self


def _drawn(own: Any, *args: Any, generator: Generator | None = None, **kwargs: Any) -> Tensor:
    device = torch.device(kwargs.get("device") or "cpu")
    if generator is not None and generator.device.type != device.type:
        raise RuntimeError(f"a generator of {generator.device} for random numbers on {device}")
    return own(*args, **kwargs)


class Strange(TorchFunctionMode):
    """Watches every call of torch; `waits` are the lines of the package that would have made a GPU wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __enter__(self) -> Strange:
        self._own = {name: getattr(torch, name) for name in ("Generator", *RANDOM)}
        torch.Generator = Generator
        for name in RANDOM:
            setattr(torch, name, functools.partial(_drawn, self._own[name]))
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, own in self._own.items():
            setattr(torch, name, own)
        super().__exit__(kind, error, trace)

    def __torch_function__(self, func: Any, _types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        first = args[0] if args and isinstance(args[0], Tensor) else None
        name = getattr(func, "__name__", "")
        if first is not None and first.device == DEVICE:
            if name in ANSWERS:
                self._note(name)
                return ANSWERS[name]
            if name in ("tolist", "numpy", "__array__"):
                self._note(name)
                made = torch.zeros(first.shape, dtype=first.dtype)
                return made.tolist() if name == "tolist" else made.numpy()
            if name == "cpu" or (name == "to" and len(args) > 1 and str(args[1]) == "cpu"):
                self._note(name)
                return torch.zeros(first.shape, dtype=first.dtype)
        return func(*args, **kwargs)

    def _note(self, name: str) -> None:
        ours = [frame for frame in traceback.extract_stack() if "/iqt/" in frame.filename]
        self.waits.append(f"{ours[-1].filename.rpartition('/iqt/')[2]}:{ours[-1].name}: {name}" if ours else name)
