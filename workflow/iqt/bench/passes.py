"""What the parts of a training step cost: a network's convolutions alone, and its forward and backward pass."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from iqt.compute.devices import autocast

WARM_UP = 3


def median_seconds(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median seconds of a piece of work, after some runs that warm up."""

    def finished() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    for _ in range(WARM_UP):
        work()
    seconds = []
    for _ in range(repeats):
        began = finished()
        work()
        seconds.append(finished() - began)
    return statistics.median(seconds)


def pass_seconds(
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    loss: Callable[[Tensor], Tensor],
    precision: str,
    repeats: int,
) -> float:
    """Seconds of a forward pass, the loss of its output and the backward pass, on the device where the inputs lie."""
    device = inputs[0].device

    def work() -> None:
        network.zero_grad()
        with autocast(precision, device):
            value = loss(network(*inputs))
        value.backward()

    return median_seconds(work, repeats, device)


def convolution_seconds(network: nn.Module, inputs: tuple[Tensor, ...], precision: str, repeats: int) -> float:
    """Seconds of the network's convolutions alone, forward and backward, each with its own input's shape and layout and
    nothing between them."""
    device, seen = inputs[0].device, []
    hooks = [
        module.register_forward_hook(lambda module, given, _output: seen.append((module, given[0].detach().clone())))
        for module in network.modules()
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d)
    ]
    with torch.no_grad(), autocast(precision, device):
        network(*inputs)
    for hook in hooks:
        hook.remove()
    seen = [(module, features.requires_grad_()) for module, features in seen]

    def work() -> None:
        for module, features in seen:
            plain = nn.ConvTranspose3d if isinstance(module, nn.ConvTranspose3d) else nn.Conv3d
            with autocast(precision, device):
                made = plain.forward(module, features)  # without what a subclass does around it
            made.backward(torch.ones_like(made))
            features.grad = module.weight.grad = None

    return median_seconds(work, repeats, device)
