"""Rectified flow from a regression's output to the high-quality volume, after posterior-mean rectified flow (PMRF;
Ohayon et al. 2024, arXiv 2410.00418).

Z_0 = X* + sigma noise, where X* is the regression's estimate of the posterior mean; Z_1 is the high-quality volume. The
network learns the velocity Z_1 - Z_0 on the straight line between them.

The paper's network sees Z_t alone, and its flow reaches the least error that perfect perceptual quality allows
(`conditional: false`). One that also sees the low-field volume makes the flow conditional: solved exactly it would
sample the posterior, with the posterior's error; a few steps end between the regression's output and such a sample.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from iqt.config.diffusion import FlowSampling

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(Z_t, t as a scalar tensor) to the velocity, of Z_t's shape."""


def interpolate(start: Tensor, end: Tensor, time: Tensor) -> Tensor:
    """Z_t on the straight line from `start` to `end`, (B, ...); `time` is (B,)."""
    time = time.view(-1, *(1,) * (start.ndim - 1))
    return start + time * (end - start)


def solve(velocity: Velocity, start: Tensor, settings: FlowSampling) -> Tensor:
    """Carry `start` from t = 0 to 1 in `settings.steps` even steps, by Euler's method or Heun's (two calls a step)."""
    current, width = start, 1 / settings.steps
    for step in range(settings.steps):
        now, after = (torch.tensor(each * width, device=start.device, dtype=start.dtype) for each in (step, step + 1))
        slope = velocity(current, now)
        if settings.solver == "heun":
            slope = (slope + velocity(current + width * slope, after)) / 2
        current = current + width * slope
    return current
