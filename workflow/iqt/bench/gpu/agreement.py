"""Whether a GPU gives what a CPU gives: the network's output, bfloat16, repeats, and a training that goes on."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from iqt.bench.gpu.setup import DIFFUSION, STANDARD, Setup, with_random_weights
from iqt.compute.devices import best_device
from iqt.config import Patches, Training
from iqt.enhance.models import Enhancer
from iqt.methods.diffusion_iqt import DiffusionIQTMethod
from iqt.training.checkpoints import save_model
from iqt.training.fit import clear_state, fit


def agreement(setup: Setup) -> Iterator[dict[str, float]]:
    """The figures of `bars.BARS`, each as soon as it is known."""
    yield {"float32": device_difference(setup.diffusion, tf32=False)}
    yield {"tensorfloat32": device_difference(setup.diffusion, tf32=True)}
    model = setup.out / "random"
    save_random_model(model, setup)
    yield {"bfloat16_psnr": bfloat16_psnr(model, setup.diffusion)}
    yield {"repeat": repeat_difference(model, setup.diffusion)}
    yield {"resume": resume_difference(setup.diffusion, setup.out / "resume")}


def device_difference(method: DiffusionIQTMethod, tf32: bool) -> float:
    """Largest difference between a network's outputs on the CPU and on the device, in standard deviations of the
    former, on two patches; `tf32` lets convolutions and products of matrices use TensorFloat-32."""
    small = _two_patches(method)
    torch.manual_seed(0)
    network = with_random_weights(small.build().eval(), 1)
    noisy, lowfield = (torch.randn(1, 1, *small.patches.region) for _ in range(2))
    inputs, device = (noisy, lowfield, torch.tensor([-1.0])), best_device()
    with torch.inference_mode(), tensorfloat32(tf32):
        here = network(*inputs)
        there = network.to(device, memory_format=method.memory_layout(device))(*(each.to(device) for each in inputs))
    return float((there.cpu() - here).abs().max() / here.std())


def _two_patches(method: DiffusionIQTMethod) -> DiffusionIQTMethod:
    """The method on regions small enough for a CPU, with a border between patches."""
    return method.model_copy(update={"patches": Patches(patch=method.patches.patch, grid=(2, 1, 1))})


@contextlib.contextmanager
def tensorfloat32(allowed: bool) -> Iterator[None]:
    """Whether convolutions and products of matrices in float32 may use TensorFloat-32 within the block."""
    switches = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = allowed
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def save_random_model(folder: Path, setup: Setup) -> None:
    """Write a model of the diffusion network with random weights, as a training would; its target is the image, so that
    what it makes is the network's alone."""
    torch.manual_seed(0)
    network = with_random_weights(setup.diffusion.build(), 1)
    settings = {**setup.trained_by(DIFFUSION), "target": "image"}
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, network, {"kind": setup.diffusion.kind, "settings": settings, "standardisation": STANDARD})


def bfloat16_psnr(model: Path, method: DiffusionIQTMethod) -> float:
    """PSNR (dB) of what the model makes in bfloat16 of a region of noise, against float32; the range is that of the
    latter."""
    full, half = (_enhanced(model, method, precision) for precision in ("float32", "bfloat16"))
    return psnr(half, full)


def psnr(values: Tensor, reference: Tensor) -> float:
    """PSNR in dB, the range being the reference's; that of `evaluate` needs scikit-image, which a bundle lacks."""
    span = reference.max() - reference.min()
    return float(20 * torch.log10(span / (values - reference).square().mean().sqrt().clamp_min(1e-12)))


def repeat_difference(model: Path, method: DiffusionIQTMethod) -> float:
    """Largest difference between two samples of one seed, in standard deviations of the first."""
    first, second = (_enhanced(model, method, "auto") for _ in range(2))
    return float((first - second).abs().max() / first.std())


def _enhanced(model: Path, method: DiffusionIQTMethod, precision: str) -> Tensor:
    usage = {"kind": method.kind, "sampling": method.sampling.model_dump()}
    volume = torch.randn(method.patches.region, generator=torch.Generator().manual_seed(2))
    return Enhancer(model, usage, precision)(volume, seed=3).mean


class Interrupted(Exception):
    """What stops a training here."""


class Noise(Dataset):
    """Regions of noise, each of its own seed; asking for the one numbered `stop` or later raises `Interrupted`."""

    def __init__(self, method: DiffusionIQTMethod, length: int, stop: int | None = None) -> None:
        self.shape, self.length, self.stop = (2, 1, *method.patches.region), length, stop

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.stop is not None and index >= self.stop:
            raise Interrupted
        lowfield, high = torch.rand(self.shape, generator=torch.Generator().manual_seed(index))
        return {"lowfield": lowfield, "hq": high, "index": index}


def resume_difference(method: DiffusionIQTMethod, folder: Path) -> float:
    """How far apart the weights are after a training of four steps and after one that was stopped after the second and
    went on, in units of the distance that four steps moved them (root mean squares)."""
    steps, half = 4, 2
    small = _two_patches(method)
    settings = Training(
        steps=steps, validate_every=half, batch_size=1, validation_regions=1, warmup=0, ema_decay=0, keep="last"
    )

    def train(out: Path, stop: int | None) -> tuple[Tensor, Tensor]:
        """All weights before and after."""
        torch.manual_seed(0)
        network = small.build()
        before = _flat(network)
        fit(small.task(network, STANDARD), Noise(small, steps, stop), Noise(small, 1), settings, out, 1, "auto", {})
        clear_state(out)
        return before, _flat(network)

    shutil.rmtree(folder, ignore_errors=True)
    before, whole = train(folder / "whole", None)
    with contextlib.suppress(Interrupted):
        train(folder / "stopped", half)
    _, continued = train(folder / "stopped", None)
    return float((whole - continued).norm() / (whole - before).norm())


def _flat(network: nn.Module) -> Tensor:
    return torch.cat([weight.detach().float().cpu().flatten() for weight in network.parameters()])
