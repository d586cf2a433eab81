"""Methods as functions of a whole low-field volume."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from iqt.config import DiffusionIQTMethod, FlowMethod
from iqt.devices import autocast, best_device
from iqt.diffusion.flow import solve
from iqt.diffusion.objectives import to_clean
from iqt.diffusion.samplers import sample
from iqt.diffusion.schedules import build_schedule
from iqt.enhance import memory
from iqt.enhance.run import Progress
from iqt.enhance.tiling import Tiling
from iqt.errors import StopError
from iqt.naming import seed_of
from iqt.networks.build import build_network, memory_layout
from iqt.training.card import method_of
from iqt.training.checkpoints import load_card, load_weights


class Enhanced(NamedTuple):
    """(X, Y, Z) mean over samples, their standard deviation (None for one sample), the first of them, the number of
    network calls, and the tiles they were made in."""

    mean: Tensor
    sd: Tensor | None
    first: Tensor
    nfe: int
    tiling: Tiling


class Enhancer:
    """A trained model, ready to enhance volumes on the low-field intensity scale."""

    def __init__(self, folder: Path, usage: dict, precision: str, memory_mb: int | None = None) -> None:
        """`usage` is the part of the method's entry that says how the weights are used (`Config.used_by`); `memory_mb`
        what of the machine's memory is this job's (a GPU's is its own)."""
        self.card = load_card(folder)
        self.method = method_of(folder, self.card, usage)
        self.device, self.precision, self.memory_mb = best_device(), precision, memory_mb
        network = build_network(self.method)
        load_weights(folder, network)
        layout = memory_layout(self.method, self.device)
        self.network = network.eval().to(self.device, memory_format=layout)
        self.standard = self.card["standardisation"]
        self.n_parameters = self.card["n_parameters"]
        self.n_samples = self.method.sampling.samples if self._generative else 1
        self._per_voxel: float | None = None

    @torch.inference_mode()
    def __call__(
        self, lowfield: Tensor, seed: int, mask: Tensor | None = None, progress: Progress | None = None
    ) -> Enhanced:
        """Enhance (X, Y, Z); the result is on the high-quality scale.

        Sample k of a volume follows from `seed` and k alone, whatever the number of samples. Where memory runs out the
        volume is begun again, tile by tile if several went at once, then in smaller tiles.

        Args:
            mask: (X, Y, Z), true where a result is wanted; tiles that lie wholly outside it are skipped.

        Raises:
            StopError: memory does not suffice for the smallest tile.
        """
        shape, unit = tuple(lowfield.shape), self.method.patches.region
        try:
            tile = self._first_tile(shape)
        except (MemoryError, RuntimeError) as error:
            if not memory.out_of_memory(error):
                raise
            raise StopError(f"memory does not suffice for one region of {unit} voxels; free some") from None
        at_once = self.method.tiling.batch
        while True:
            tiling = Tiling(shape, unit, tile, self.method.tiling.overlap, mask)
            try:
                return self._enhance(lowfield, seed, tiling, at_once, progress)
            except (MemoryError, RuntimeError) as error:
                if not memory.out_of_memory(error):
                    raise
                if at_once > 1:
                    at_once = 1
                    continue
                tile = next(memory.smaller_tiles(shape, unit, min(tile, 0.75 * max(tiling.edges))), 0)
            edges = " x ".join(map(str, tiling.edges))
            if not tile:
                raise StopError(f"memory does not suffice for a tile of {edges} voxels; free some, or use fewer jobs")
            print(f"out of memory with tiles of {edges} voxels; goes on with {tile}", file=sys.stderr, flush=True)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    @property
    def patchwise(self) -> bool:
        """Whether the network treats patches apart, so that their borders could show."""
        return self._generative

    @property
    def _generative(self) -> bool:
        return isinstance(self.method, DiffusionIQTMethod | FlowMethod)

    def _first_tile(self, shape: tuple[int, int, int]) -> int:
        settings, unit = self.method.tiling, self.method.patches.region
        if settings.tile != "auto":
            return settings.tile
        if self._per_voxel is None:
            region = torch.zeros(1, 1, *unit, device=self.device)
            arguments = (region, region, torch.zeros(1, device=self.device)) if self._generative else (region,)
            passes = [lambda: self._forward(*arguments)]
            if isinstance(self.method, FlowMethod):
                passes.append(lambda: self._regress(region))
            self._per_voxel = max(memory.bytes_per_voxel(each, region.numel(), self.device) for each in passes)
        # For one tile, whatever goes at once: a result must not depend on that.
        available = memory.available_bytes(self.device, self.memory_mb)
        return memory.largest_tile(shape, unit, self._per_voxel, available)

    def _enhance(
        self, lowfield: Tensor, seed: int, tiling: Tiling, at_once: int, progress: Progress | None
    ) -> Enhanced:
        standard = self.standard
        inputs = torch.full(tiling.padded, -standard["input_mean"] / standard["input_sd"])
        where = tuple(slice(0, size) for size in lowfield.shape)
        inputs[where] = (lowfield - standard["input_mean"]) / standard["input_sd"]
        inputs = inputs[None, None].to(self.device)
        n_calls = self._n_calls()
        done, total = 0, n_calls * len(tiling.boxes)

        def after(n_tiles: int) -> None:
            nonlocal done
            done += n_tiles
            if progress is not None:
                progress(done, total)

        def call(volume: Tensor, network: Callable[[Tensor], Tensor]) -> Tensor:
            return tiling.apply(volume, network, at_once, after)

        # A flow's samples start from the same estimate.
        start = call(inputs, self._regress) if isinstance(self.method, FlowMethod) else None
        estimates = []
        for k in range(self.n_samples):
            output = self._run(inputs, start, call, tiling, seed_of(seed, k))[0, 0].cpu()[where]
            output = output * standard["target_sd"] + standard["target_mean"]
            estimates.append(output + lowfield if self.method.target == "residual" else output)
        stacked = torch.stack(estimates)
        sd = stacked.std(0) if len(estimates) > 1 else None
        return Enhanced(stacked.mean(0), sd, estimates[0], n_calls, tiling)

    def _n_calls(self) -> int:
        """Network calls a volume, all samples together."""
        if isinstance(self.method, FlowMethod):
            return 1 + self.n_samples * self.method.sampling.calls
        return self.n_samples * self.method.sampling.steps if self._generative else 1

    def _run(self, inputs: Tensor, start: Tensor | None, call: Callable, tiling: Tiling, seed: int) -> Tensor:
        """One estimate of the whole volume, standardised. Each step of a sampler blends its tiles before the next, so
        that overlapping tiles see one noise field and one state, and no seam can grow along the trajectory."""
        if not self._generative:
            return call(inputs, self._forward)

        def noise(step: int) -> Tensor:
            return noise_field(tiling, seed_of(seed, step)).to(self.device)

        def predict(current: Tensor, time: Tensor) -> Tensor:
            return call(
                torch.cat([current, inputs], dim=1),
                lambda tile: self._forward(tile[:, :1], tile[:, 1:], time.expand(len(tile))),
            )

        if isinstance(self.method, FlowMethod):
            return solve(predict, start + self.method.noise * noise(-1), self.method.sampling)

        def denoise(current: Tensor, logsnr: Tensor) -> Tensor:
            predicted = predict(current, logsnr)
            return to_clean(self.method.diffusion.objective, predicted, current, logsnr)

        schedule = build_schedule(self.method.diffusion)
        return sample(denoise, noise(-1), schedule, self.method.sampling, noise)

    def _forward(self, *tensors: Tensor) -> Tensor:
        with autocast(self.precision, self.device):
            return self.network(*tensors)

    def _regress(self, tiles: Tensor) -> Tensor:
        with autocast(self.precision, self.device):
            return self.network.start(tiles)


def noise_field(tiling: Tiling, seed: int) -> Tensor:
    """Standard normal noise, (1, 1, *padded), of which each voxel of the volume gets the same whatever the tiles.

    Drawn on the CPU, where it is the same for every device.
    """
    generator = torch.Generator().manual_seed(seed)
    inside = torch.randn(tiling.shape, generator=generator)
    if tuple(tiling.padded) == tuple(tiling.shape):
        return inside[None, None]
    whole = torch.randn(tiling.padded, generator=generator)
    whole[tuple(slice(0, size) for size in tiling.shape)] = inside
    return whole[None, None]
