"""What a method's network is made of and what it costs, worked out without running it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from iqt.methods.base import Learned
from iqt.networks.size import count_parameters

STATE_BYTES = 20
"""Bytes a parameter needs in training: weight, gradient, AdamW's two moments and the averaged weight, in float32."""
WEIGHT_BYTES = 8
"""Bytes of one that is not trained: weight and averaged weight."""


class Layer(NamedTuple):
    """A module: its kind, the shape (channels first) that it returns, its parameters and its MACs a region."""

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    macs: int


class Description(NamedTuple):
    """`macs` are multiply-accumulates of one forward pass of a region, through a regression that it starts from too;
    `activations` the bytes that training keeps of a region for the backward pass, in float32 and with bfloat16
    autocast; `state` the bytes of weights and optimiser."""

    layers: list[Layer]
    region: tuple[int, int, int]
    n_patches: int
    parameters: int
    macs: int
    activations: dict[str, int]
    state: int


def describe(method: Learned, depth: int = 1) -> Description:
    """Describe a method's network on one training region; `depth` is how far layers are opened."""
    activations = {}
    for precision in ("float32", "bfloat16"):
        with FakeTensorMode():
            network = method.build()
            shapes = _record_shapes(network)
            kept = _KeptTensors(network.parameters())
            region = torch.zeros(1, 1, *method.patches.region)
            whole, *others = method.passes(network)
            macs = {}
            with kept, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                for part, inputs in ((whole, method.inputs(region)), *((each, (region,)) for each in others)):
                    macs |= _macs(part, inputs, _name_in(network, part))
            activations[precision] = kept.bytes
    parameters = count_parameters(network)
    trained = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    return Description(
        layers=_layers(network, depth, shapes, macs),
        region=method.patches.region,
        n_patches=math.prod(method.patches.grid),
        parameters=parameters,
        macs=sum(macs[_name_in(network, part)] for part in method.passes(network)),
        activations=activations,
        state=STATE_BYTES * trained + WEIGHT_BYTES * (parameters - trained),
    )


def format_description(name: str, description: Description) -> str:
    """A description as plain text: the layer table, then the totals (of a GAN, its generator's alone)."""
    rows = [("layer", "kind", "output", "parameters", "MMAC")]
    for layer in description.layers:
        shape = " x ".join(map(str, layer.output))
        rows.append((layer.name, layer.kind, shape, f"{layer.parameters:,}", f"{layer.macs / 1e6:,.1f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) if place < 3 else cell.rjust(width) for place, (cell, width) in enumerate(pairs))
        for pairs in (zip(row, widths, strict=True) for row in rows)
    ]
    edges = " x ".join(map(str, description.region))
    kept = ", ".join(f"{size / 2**20:,.0f} MiB in {kind}" for kind, size in description.activations.items())
    return "\n".join(
        [
            f"{name}: one training region of {edges} voxels ({description.n_patches} patches)",
            "",
            lines[0].rstrip(),
            "-" * max(map(len, lines)),
            *(line.rstrip() for line in lines[1:]),
            "",
            f"parameters                   {description.parameters:,}",
            f"MACs a patch                 {description.macs / description.n_patches / 1e9:.2f} G",
            f"MACs a region                {description.macs / 1e9:.2f} G",
            f"memory, weights + optimiser  {description.state / 2**20:,.0f} MiB",
            f"memory, training a region    {kept}",
        ]
    )


def _name_in(network: nn.Module, part: nn.Module) -> str:
    return next(name for name, module in network.named_modules() if module is part)


def _macs(part: nn.Module, inputs: tuple[Tensor, ...], name: str) -> dict[str, int]:
    """MACs of one pass through a part, and of each module in it, by their names in the network."""
    counter = FlopCounterMode(display=False)
    with counter:
        part(*inputs)
    counted = {key.partition(".")[2]: each for key, each in counter.get_flop_counts().items() if "." in key}
    # Each multiply-accumulate is two floating-point operations.
    found = {".".join(filter(None, (name, key))): sum(each.values()) // 2 for key, each in counted.items()}
    return found | {name: counter.get_total_flops() // 2}


def _record_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in network.named_modules():

        def note(_module: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
            shapes[name] = tuple(output.shape[1:])

        module.register_forward_hook(note)
    return shapes


class _KeptTensors(torch.autograd.graph.saved_tensors_hooks):
    """Counts the memory that autograd keeps for a backward pass, each storage once and the weights not at all."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self.bytes = 0
        self._seen = {weight.untyped_storage()._cdata for weight in weights}
        self._alive: list[Tensor] = []  # so that no address is used twice
        super().__init__(self._count, lambda tensor: tensor)

    def _count(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            self._alive.append(tensor)
            self.bytes += storage.nbytes()
        return tensor


def _layers(network: nn.Module, depth: int, shapes: dict, macs: dict) -> list[Layer]:
    """The modules that are called, down to `depth` of them inside one another; what a module that is opened has or does
    of its own, beside the modules in it, stays in a row of its name."""
    rows: list[Layer] = []

    def walk(module: nn.Module, name: str, level: int) -> tuple[int, int]:
        """Rows of what lies in a module; returns the parameters and MACs that they hold."""
        parameters = operations = 0
        for key, child in module.named_children():
            path = f"{name}.{key}" if name else key
            if path not in shapes or isinstance(child, nn.Sequential):
                held = walk(child, path, level)
            else:
                held = row(child, path, level)
            parameters, operations = parameters + held[0], operations + held[1]
        return parameters, operations

    def row(module: nn.Module, name: str, level: int) -> tuple[int, int]:
        own = total = count_parameters(module), macs.get(name, 0)
        place = len(rows)
        if level < depth and any(True for _ in module.children()):
            held = walk(module, name, level + 1)
            own = total[0] - held[0], total[1] - held[1]
        if any(own):
            rows.insert(place, Layer(name, type(module).__name__, shapes[name], *own))
        return total

    walk(network, "", 1)
    return rows
