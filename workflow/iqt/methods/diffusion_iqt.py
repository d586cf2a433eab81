"""DiffusionIQT (arXiv 2311.06631): a 3D diffusion model conditional on the low-field volume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from iqt.config.diffusion import Diffusion, Sampling
from iqt.config.networks import DiffusionIQTNetwork
from iqt.config.training import Patches
from iqt.methods.base import Calls, Learned, require_divisible

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from iqt.training.tasks.denoising import DiffusionTask


class Generative(Learned):
    """What has several samples, each a trajectory along which a network like DiffusionIQT's is called at a time."""

    used: ClassVar[tuple[str, ...]] = ("tiling", "sampling")

    @property
    def samples(self) -> int:
        return self.sampling.samples

    @property
    def patchwise(self) -> bool:
        return True

    def inputs(self, volume: Tensor) -> tuple[Tensor, ...]:
        return (volume, volume, volume.new_zeros(len(volume)))

    def memory_layout(self, device: torch.device) -> torch.memory_format:
        """Channels last, but on a CPU channels first for a network that works at full resolution."""
        import torch

        full = self.network.stem == 1 and device.type == "cpu"
        return torch.contiguous_format if full else torch.channels_last_3d


class DiffusionIQTMethod(Generative):
    """The 3D conditional diffusion model of DiffusionIQT."""

    kind: Literal["diffusion_iqt"] = "diffusion_iqt"
    """Kind of method."""
    network: DiffusionIQTNetwork = DiffusionIQTNetwork()
    """Size and parts of the network."""
    diffusion: Diffusion = Diffusion()
    """Forward process and objective."""
    sampling: Sampling = Sampling()
    """How the trained network is run."""

    @model_validator(mode="after")
    def _divisible(self) -> DiffusionIQTMethod:
        require_tokens(self.network, self.patches)
        return self

    @property
    def calls(self) -> int:
        return self.samples * self.sampling.steps

    @property
    def series(self) -> str:
        return self.sampling.sampler

    def build(self) -> nn.Module:
        from iqt.networks.diffusion_iqt import DiffusionIQT

        return DiffusionIQT(self.network, self.patches)

    def task(self, network: nn.Module, standard: dict[str, float]) -> DiffusionTask:
        from iqt.training.tasks.denoising import DiffusionTask

        return DiffusionTask(self, network, standard)

    def estimates(self, calls: Calls) -> Iterator[Tensor]:
        from iqt.diffusion.objectives import to_clean
        from iqt.diffusion.samplers import sample
        from iqt.diffusion.schedules import build_schedule

        def denoise(current: Tensor, logsnr: Tensor) -> Tensor:
            return to_clean(self.diffusion.objective, at_time(calls, current, logsnr), current, logsnr)

        schedule = build_schedule(self.diffusion)
        for k in range(self.samples):

            def noise(step: int, k: int = k) -> Tensor:
                return calls.noise(k, step)

            yield sample(denoise, noise(-1), schedule, self.sampling, noise)

    def tensors(self) -> dict[str, dict[str, Any]]:
        bound = self.diffusion.logsnr_max
        return {
            "noisy": self._volume(f"noisy {self.wanted}", "as the output's, with noise of variance 1 at most"),
            "lowfield": self._volume("low-field volume on the high-quality grid"),
            "logsnr": {"shape": ["batch"], "dtype": "float32", "range": [-bound, bound]},
            "output": self._volume(f"{self.diffusion.objective} of the {self.wanted}"),
        }


def at_time(calls: Calls, current: Tensor, time: Tensor) -> Tensor:
    """The network's output for a whole volume at a time. Each step of a sampler blends its tiles before the next, so
    that overlapping tiles see one noise field and one state, and no seam can grow along the trajectory."""
    import torch

    return calls.whole(
        torch.cat([current, calls.inputs], dim=1),
        lambda tile: calls.forward(tile[:, :1], tile[:, 1:], time.expand(len(tile))),
    )


def require_tokens(network: DiffusionIQTNetwork, patches: Patches) -> None:
    """ValueError where a patch cannot be cut into a level's tokens."""
    for level, token in enumerate(network.tokens):
        edges = (patches.patch,) * 3
        require_divisible(edges, network.stem * 2**level * (token if network.attention else 1), "network.tokens")


METHODS = (DiffusionIQTMethod,)
