"""From a method's settings to its network."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter
from torch import nn

from iqt.config import DiffusionIQTMethod, ESRGANMethod, FlowMethod, Learned, Method, UNetMethod

Sizable = TypeVar("Sizable", UNetMethod, ESRGANMethod)


def parse_method(settings: dict[str, Any]) -> Learned:
    """The method that settings (`Config.trained_by`) describe, at the size of the one that `size_like` holds, starting
    from the one that `start` holds."""
    own = {key: value for key, value in settings.items() if key != "size_like"}
    start = own.get("start")
    if isinstance(start, dict):
        own["start"] = start["kind"]
    method = TypeAdapter(Method).validate_python(own)
    if isinstance(method, FlowMethod) and isinstance(start, dict):
        method._regression = parse_method(start)
    if "size_like" in settings:
        method = resize(method, network_size(TypeAdapter(Method).validate_python(settings["size_like"])))
    return method


def build_network(method: Learned) -> nn.Module:
    """The network of a trained method, with fresh weights."""
    if isinstance(method, DiffusionIQTMethod):
        from iqt.networks.diffusion_iqt import DiffusionIQT

        return DiffusionIQT(method.network, method.patches)
    if isinstance(method, UNetMethod):
        from iqt.networks.unet import build_unet  # imports MONAI, which takes seconds

        return build_unet(method.network)
    if isinstance(method, ESRGANMethod):
        from iqt.networks.esrgan import RRDBNet

        return RRDBNet(method.network)
    if isinstance(method, FlowMethod):
        from iqt.networks.diffusion_iqt import DiffusionIQT
        from iqt.networks.flow import FlowNetwork

        velocity = DiffusionIQT(method.network, method.patches, method.conditional)
        return FlowNetwork(build_network(method.regression), velocity, method.conditional)
    raise TypeError(f"{type(method).__name__} has no network")


def memory_layout(method: Learned, device: torch.device) -> torch.memory_format:
    """The layout in memory with which a method's network is fastest: channels last, but on a CPU channels first for a
    diffusion model or flow that works at full resolution. `make bench-speed` measures it."""
    full = isinstance(method, DiffusionIQTMethod | FlowMethod) and method.network.stem == 1
    return torch.contiguous_format if full and device.type == "cpu" else torch.channels_last_3d


def count_parameters(network: nn.Module) -> int:
    """Parameters, those of the regression that a flow starts from among them."""
    return sum(parameter.numel() for parameter in network.parameters())


def network_size(method: Learned) -> int:
    """Parameters of a method's network, counted without making it."""
    with torch.device("meta"):
        return count_parameters(build_network(method))


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
