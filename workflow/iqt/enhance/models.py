"""Methods as functions of a whole low-field volume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from iqt.compute import memory
from iqt.compute.devices import autocast, best_device
from iqt.compute.free import out_of_memory
from iqt.enhance.progress import Progress
from iqt.enhance.tiling import Tiling, largest_tile, smaller_tiles
from iqt.errors import StopError
from iqt.io.naming import seed_of
from iqt.terminal import note
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
        """`usage` is the part of the method's entry that says how the weights are used (`Plan.used_by`); `memory_mb`
        what of the machine's memory is this job's (a GPU's is its own)."""
        self.card = load_card(folder)
        self.method = method_of(folder, self.card, usage)
        self.device, self.precision, self.memory_mb = best_device(), precision, memory_mb
        network = self.method.build()
        load_weights(folder, network)
        layout = self.method.memory_layout(self.device)
        self.network = network.eval().to(self.device, memory_format=layout)
        self.standard = self.card["standardisation"]
        self.n_parameters = self.card["n_parameters"]
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
            if not out_of_memory(error):
                raise
            raise StopError(f"memory does not suffice for one region of {unit} voxels; free some") from None
        at_once = self.method.tiling.batch
        while True:
            tiling = Tiling(shape, unit, tile, self.method.tiling.overlap, mask)
            try:
                return self._enhance(lowfield, seed, tiling, at_once, progress)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if at_once > 1:
                    at_once = 1
                    continue
                tile = next(smaller_tiles(shape, unit, min(tile, 0.75 * max(tiling.edges))), 0)
            edges = " x ".join(map(str, tiling.edges))
            if not tile:
                raise StopError(f"memory does not suffice for a tile of {edges} voxels; free some, or use fewer jobs")
            note(f"out of memory with tiles of {edges} voxels; goes on with {tile}")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _first_tile(self, shape: tuple[int, int, int]) -> int:
        settings, unit = self.method.tiling, self.method.patches.region
        if settings.tile != "auto":
            return settings.tile
        if self._per_voxel is None:
            region = torch.zeros(1, 1, *unit, device=self.device)
            passes = [(part, (region,)) for part in self.method.passes(self.network)]
            passes[0] = (self.network, self.method.inputs(region))
            self._per_voxel = max(
                memory.bytes_per_voxel(
                    lambda part=part, tensors=tensors: self.forward(*tensors, of=part), region.numel(), self.device
                )
                for part, tensors in passes
            )
        # For one tile, whatever goes at once: a result must not depend on that.
        available = memory.available_bytes(self.device, self.memory_mb)
        return largest_tile(shape, unit, self._per_voxel, available)

    def _enhance(
        self, lowfield: Tensor, seed: int, tiling: Tiling, at_once: int, progress: Progress | None
    ) -> Enhanced:
        standard = self.standard
        inputs = torch.full(tiling.padded, -standard["input_mean"] / standard["input_sd"])
        where = tuple(slice(0, size) for size in lowfield.shape)
        inputs[where] = (lowfield - standard["input_mean"]) / standard["input_sd"]
        inputs = inputs[None, None].to(self.device)
        done, total = 0, self.method.calls * len(tiling.boxes)

        def after(n_tiles: int) -> None:
            nonlocal done
            done += n_tiles
            if progress is not None:
                progress(done, total)

        calls = VolumeCalls(self, inputs, tiling, at_once, seed, after)
        # Mean and squared deviations are carried along (Welford 1962): hundreds of samples would not fit into memory.
        for n, sample in enumerate(self.method.estimates(calls), start=1):
            estimate = sample[0, 0].cpu()[where] * standard["target_sd"] + standard["target_mean"]
            if self.method.target == "residual":
                estimate = estimate + lowfield
            if n == 1:
                first, mean, squares = estimate, torch.zeros_like(estimate), torch.zeros_like(estimate)
            change = estimate - mean
            mean += change / n
            squares += change * (estimate - mean)
        sd = (squares / (n - 1)).sqrt() if n > 1 else None
        return Enhanced(mean, sd, first, self.method.calls, tiling)

    def forward(self, *tensors: Tensor, of: nn.Module | None = None) -> Tensor:
        """One pass of the network, or of a part of it, at the precision that was chosen."""
        with autocast(self.precision, self.device):
            return (of or self.network)(*tensors)


class VolumeCalls:
    """`methods.base.Calls` of one volume."""

    def __init__(
        self,
        enhancer: Enhancer,
        inputs: Tensor,
        tiling: Tiling,
        at_once: int,
        seed: int,
        after: Callable[[int], None],
    ) -> None:
        self.inputs, self.network, self.forward = inputs, enhancer.network, enhancer.forward
        self._tiling, self._at_once, self._seed, self._after = tiling, at_once, seed, after

    def whole(self, volume: Tensor, network: Callable[[Tensor], Tensor]) -> Tensor:
        return self._tiling.apply(volume, network, self._at_once, self._after)

    def noise(self, sample: int, step: int) -> Tensor:
        return noise_field(self._tiling, seed_of(seed_of(self._seed, sample), step)).to(self.inputs.device)


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
