"""Methods as functions of a whole low-field volume."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from iqt.config import DiffusionIQTMethod
from iqt.devices import autocast, best_device
from iqt.diffusion.objectives import to_clean
from iqt.diffusion.samplers import sample
from iqt.diffusion.schedules import build_schedule
from iqt.enhance.tiling import Tiling
from iqt.naming import seed_of
from iqt.networks.build import build_network, parse_method
from iqt.training.checkpoints import load_card, load_weights


class Enhanced(NamedTuple):
    """(X, Y, Z) mean over samples, their standard deviation (None for one sample), and the number of network calls."""

    mean: Tensor
    sd: Tensor | None
    nfe: int


class Enhancer:
    """A trained model, ready to enhance volumes on the low-field intensity scale."""

    def __init__(self, folder: Path, usage: dict, precision: str) -> None:
        """`usage` is the part of the method's entry that says how the weights are used (`Config.used_by`)."""
        card = load_card(folder)
        self.method = parse_method({**card["settings"], **usage})
        self.device, self.precision = best_device(), precision
        network = build_network(self.method)
        load_weights(folder, network)
        self.network = network.eval().to(self.device, memory_format=torch.channels_last_3d)
        self.standard = card["standardisation"]
        self.n_parameters = card["n_parameters"]

    @torch.inference_mode()
    def __call__(self, lowfield: Tensor, seed: int) -> Enhanced:
        """Enhance (X, Y, Z); the result is on the high-quality scale.

        Sample k of a volume follows from `seed` and k alone, whatever the number of samples.
        """
        tiling = Tiling(tuple(lowfield.shape), self.method.patches.region, **self.method.tiling.model_dump())
        standard = self.standard
        inputs = torch.full(tiling.padded, -standard["input_mean"] / standard["input_sd"])
        where = tuple(slice(0, size) for size in lowfield.shape)
        inputs[where] = (lowfield - standard["input_mean"]) / standard["input_sd"]
        inputs = inputs[None, None].to(self.device)
        runs = self._runs(inputs, tiling, seed)
        estimates = []
        for run in runs:
            output = run()[0, 0].cpu()[where] * standard["target_sd"] + standard["target_mean"]
            estimates.append(output + lowfield if self.method.target == "residual" else output)
        stacked = torch.stack(estimates)
        sd = stacked.std(0) if len(estimates) > 1 else None
        steps = self.method.sampling.steps if isinstance(self.method, DiffusionIQTMethod) else 1
        return Enhanced(stacked.mean(0), sd, steps * len(estimates))

    def _runs(self, inputs: Tensor, tiling: Tiling, seed: int) -> list[Callable[[], Tensor]]:
        if not isinstance(self.method, DiffusionIQTMethod):
            return [lambda: tiling.apply(inputs, self._forward)]
        return [partial(self._sample, inputs, tiling, seed_of(seed, k)) for k in range(self.method.sampling.samples)]

    def _sample(self, inputs: Tensor, tiling: Tiling, seed: int) -> Tensor:
        """One sample of the whole volume. Each step blends its tiles before the next, so that overlapping tiles see one
        noise field and one state, and no seam can grow along the trajectory."""

        def noise(step: int) -> Tensor:
            generator = torch.Generator().manual_seed(seed_of(seed, step))  # on the CPU: the same on every device
            return torch.randn(inputs.shape, generator=generator).to(self.device)

        def denoise(current: Tensor, logsnr: Tensor) -> Tensor:
            pair = torch.cat([current, inputs], dim=1)
            predicted = tiling.apply(
                pair, lambda tile: self._forward(tile[:, :1], tile[:, 1:], logsnr.expand(len(tile)))
            )
            return to_clean(self.method.diffusion.objective, predicted, current, logsnr)

        schedule = build_schedule(self.method.diffusion)
        return sample(denoise, noise(-1), schedule, self.method.sampling, noise)

    def _forward(self, *tensors: Tensor) -> Tensor:
        with autocast(self.precision, self.device):
            return self.network(*tensors)
