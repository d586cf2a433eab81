"""What a training step costs: convolutions of the same shapes alone, the forward and backward pass, and the real loop.

    make bench-step

Convolutions: each of the network's, forward and backward, with its input's shape and layout, and nothing between them.
Pass: forward, loss and backward of one batch that lies in memory. Loop: `fit` on a store of memory maps, with reading,
gradient clipping, the moving average, logging and the optimiser, as the difference between a longer and a shorter
training, so that starting up does not count. Medians; nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from iqt.compute.devices import best_device, machine, use_bfloat16
from iqt.io.files import write_text
from iqt.methods import parse_method
from iqt.methods.base import Learned
from iqt.training.fit import fit
from iqt.training.patches import RegionDataset
from iqt.training.store import StoredScan

METHODS = {
    "diffusion_iqt (the demo's)": {"kind": "diffusion_iqt", "network": {"blocks": 1}},
    "unet": {"kind": "unet"},
    "esrgan (generator alone)": {"kind": "esrgan"},
}
TRAINING = {"batch_size": 4, "validate_every": 20, "validation_regions": 1}
REPEATS = 15
SHORT, LONG = 20, 60
"""Steps of the two trainings."""
STANDARD = {"input_mean": 0.5, "input_sd": 0.3, "target_mean": 0.0, "target_sd": 0.1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    where = machine()
    lines = [
        "# A training step\n",
        f"`make bench-step`, {datetime.date.today()}, {where['cpu']}, {where['threads']} threads, "
        f"{'bfloat16' if use_bfloat16('auto', best_device()) else 'float32'}, oneDNN up to "
        f"{torch.backends.cpu.get_cpu_capability()}. Four regions of 32^3 a step; seconds.\n",
        "| network | convolutions alone | pass | pass / convolutions | loop | loop / pass |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, settings in METHODS.items():
        method = parse_method({**settings, "training": TRAINING})
        alone, whole, loop = convolutions(method), one_pass(method), in_the_loop(method)
        lines.append(f"| {name} | {alone:.3f} | {whole:.3f} | {whole / alone:.2f} | {loop:.3f} | {loop / whole:.2f} |")
        print(lines[-1], flush=True)
    write_text(out, "\n".join(lines) + "\n")


def inputs_of(method: Learned) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    region = torch.randn(TRAINING["batch_size"], 1, *method.patches.region)
    return tuple(each.contiguous() for each in method.inputs(region))


def built(method: Learned) -> nn.Module:
    return method.build().to(memory_format=method.memory_layout(best_device()))


def timed(work: Callable[[], None]) -> float:
    for _ in range(3):
        work()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=use_bfloat16("auto", best_device()))


def one_pass(method: Learned) -> float:
    network, inputs = built(method), inputs_of(method)

    def work() -> None:
        network.zero_grad()
        with autocast():
            loss = network(*inputs).float().square().mean()
        loss.backward()

    return timed(work)


def convolutions(method: Learned) -> float:
    network, seen = built(method), []
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            module.register_forward_hook(
                lambda module, inputs, _output: seen.append((module, inputs[0].detach().clone()))
            )
    with torch.no_grad(), autocast():
        network(*inputs_of(method))
    seen = [(module, features.requires_grad_()) for module, features in seen]

    def work() -> None:
        for module, features in seen:
            with autocast():
                made = functional_of(module)(features)
            made.backward(torch.ones_like(made))
            features.grad = module.weight.grad = None

    return timed(work)


def functional_of(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The convolution alone, without what a subclass does around it."""
    plain = nn.ConvTranspose3d if isinstance(module, nn.ConvTranspose3d) else nn.Conv3d
    return lambda features: plain.forward(module, features)


def in_the_loop(method: Learned) -> float:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        scans = [scan(Path(folder), name, rng) for name in ("a", "b")]
        regions = RegionDataset(scans, method.patches, LONG * TRAINING["batch_size"], 1, augment=True)
        seconds = {}
        for steps in (SHORT, LONG):
            torch.manual_seed(0)
            task = method.task(built(method), STANDARD)
            settings = method.training.model_copy(update={"steps": steps})
            start = time.perf_counter()
            fit(task, regions, regions, settings, Path(folder, str(steps)), 1, "auto", {})
            seconds[steps] = time.perf_counter() - start
    return (seconds[LONG] - seconds[SHORT]) / (LONG - SHORT)


def scan(folder: Path, name: str, rng: np.random.Generator) -> StoredScan:
    np.save(folder / f"{name}.npy", rng.random((2, 160, 190, 160), dtype=np.float32).astype(np.float16))
    pair = np.load(folder / f"{name}.npy", mmap_mode="r")
    mask = np.ones(pair.shape[1:], np.uint8)
    return StoredScan(name, pair, mask, {"n_brain": mask.size, "left_right_axis": 0})


if __name__ == "__main__":
    main()
