"""Networks by size: counting parameters without making a network, and bringing one to a number of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

if TYPE_CHECKING:
    from iqt.methods.base import Learned


Sizable = TypeVar("Sizable", bound="Learned")


def count_parameters(network: nn.Module) -> int:
    """Parameters, those of a regression that it starts from among them."""
    return sum(parameter.numel() for parameter in network.parameters())


def network_size(method: Learned) -> int:
    """Parameters of a method's network, counted without making it."""
    with torch.device("meta"):
        return count_parameters(method.build())


def resize(method: Sizable, n_parameters: int) -> Sizable:
    """The method with its network widened or narrowed to the number of parameters closest to `n_parameters`; its depth
    and the proportions of its levels stay."""

    def widened(width: int) -> Sizable:
        return method.model_copy(update={"network": method.network.widened(width)})

    low, high = 1, 2
    while network_size(widened(high)) < n_parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if network_size(widened(middle)) < n_parameters else (low, middle)
    return min(map(widened, (low, high)), key=lambda each: abs(network_size(each) - n_parameters))
