"""DiffusionIQT (arXiv 2311.06631): a 3D diffusion model conditional on the low-field volume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import PrivateAttr, model_validator

from iqt.config.diffusion import Diffusion, Sampling
from iqt.config.networks import DiffusionIQTNetwork
from iqt.config.section import Name
from iqt.config.training import Patches
from iqt.methods.base import Calls, Learned, Method, require_divisible

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from iqt.methods.unet import UNetMethod
    from iqt.training.tasks.denoising import DiffusionTask


class Generative(Learned):
    """What has several samples, each a trajectory along which a network like DiffusionIQT's is called at a time. It may
    start from a regression that is trained first."""

    used: ClassVar[tuple[str, ...]] = ("tiling", "sampling")

    start: Name | None = None
    _regression: Any = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        require_tokens(self.network, self.patches)
        return self

    def check_among(self, name: str, methods: Mapping[str, Method]) -> None:
        if self.start is None:
            return
        start = methods.get(self.start)
        if start is None or start.kind != "unet":
            raise ValueError(f"methods.{name}.start {self.start!r} must name a method of kind unet")
        if start.target != self.target:
            raise ValueError(
                f"methods.{name}.target {self.target} must be that of its start {self.start}, {start.target}"
            )
        if start.trained_on != self.trained_on:
            raise ValueError(
                f"methods.{name}.trained_on {self.trained_on} must be its start's, {start.trained_on} of {self.start}"
            )
        if any(edge % start.factor for edge in self.patches.region):
            raise ValueError(
                f"methods.{name}.patches: edges {self.patches.region} must be multiples of {start.factor}, which the "
                f"levels of its start {self.start} ask for"
            )

    @classmethod
    def resolved(cls, settings: Mapping[str, Any]) -> Self:
        from iqt.methods import parse_method

        start = settings.get("start")
        if not isinstance(start, dict):
            return cls.model_validate(settings)
        method = cls.model_validate({**settings, "start": start["kind"]})
        if start["kind"] != "unet":
            raise ValueError(f"a {method.kind} starts from a unet, not from a {start['kind']}")
        method._regression = parse_method(start)
        return method

    @property
    def regression(self) -> UNetMethod:
        """The method that `start` names; known where settings were resolved."""
        if self._regression is None:
            raise ValueError(f"the regression {self.start!r} that the {self.kind} starts from is not resolved")
        return self._regression

    @property
    def starts_from(self) -> str | None:
        return self.start

    @property
    def samples(self) -> int:
        return self.sampling.samples

    @property
    def draws(self) -> bool:
        return True

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
    start: Name | None = None
    """A method, a regression (`unet`) with the same `target`, that is trained first: what is drawn then is what it
    leaves, and the network sees its output beside the low-field volume (predict and refine, Whang et al. 2022). The
    paper's starts from none."""
    network: DiffusionIQTNetwork = DiffusionIQTNetwork()
    """Size and parts of the network."""
    diffusion: Diffusion = Diffusion()
    """Forward process and objective."""
    sampling: Sampling = Sampling()
    """How the trained network is run."""

    @property
    def calls(self) -> int:
        return (self.start is not None) + self.samples * self.sampling.steps

    @property
    def series(self) -> str:
        return self.sampling.sampler if self.start is None else f"{self.sampling.sampler}, from a regression"

    def build(self) -> nn.Module:
        from iqt.networks.diffusion_iqt import DiffusionIQT
        from iqt.networks.started import RefiningNetwork

        if self.start is None:
            return DiffusionIQT(self.network, self.patches)
        return RefiningNetwork(self.regression.build(), DiffusionIQT(self.network, self.patches, n_conditions=2))

    def inputs(self, volume: Tensor) -> tuple[Tensor, ...]:
        import torch

        noisy, conditions, logsnr = super().inputs(volume)
        return noisy, conditions if self.start is None else torch.cat([conditions, conditions], dim=1), logsnr

    def passes(self, network: nn.Module) -> list[nn.Module]:
        return [network] if self.start is None else [network, network.start]

    def task(self, network: nn.Module, standard: dict[str, float]) -> DiffusionTask:
        from iqt.training.tasks.denoising import DiffusionTask

        return DiffusionTask(self, network, standard)

    def estimates(self, calls: Calls) -> Iterator[Tensor]:
        import torch

        from iqt.diffusion.objectives import to_clean
        from iqt.diffusion.samplers import sample
        from iqt.diffusion.schedules import build_schedule

        start = None if self.start is None else started(calls)
        conditions = calls.inputs if start is None else torch.cat([calls.inputs, start], dim=1)

        def denoise(current: Tensor, logsnr: Tensor) -> Tensor:
            return to_clean(self.diffusion.objective, at_time(calls, current, conditions, logsnr), current, logsnr)

        schedule = build_schedule(self.diffusion)
        for k in range(self.samples):

            def noise(step: int, k: int = k) -> Tensor:
                return calls.noise(k, step)

            drawn = sample(denoise, noise(-1), schedule, self.sampling, noise)
            yield drawn if start is None else start + drawn

    def tensors(self) -> dict[str, dict[str, Any]]:
        bound, low = self.diffusion.logsnr_max, "low-field volume on the high-quality grid"
        wanted = self.wanted if self.start is None else f"{self.wanted}, minus the regression's estimate of it"
        if self.start is None:
            seen = {"lowfield": self._volume(low)}
        else:
            seen = {"conditions": self._volume(f"{low}, then the regression's output", channels=2)}
        return {
            "noisy": self._volume(f"noisy {wanted}", "as the output's, with noise of variance 1 at most"),
            **seen,
            "logsnr": {"shape": ["batch"], "dtype": "float32", "range": [-bound, bound]},
            "output": self._volume(f"{self.diffusion.objective} of the {wanted}", "" if self.start is None else LEFT),
        }


LEFT = "in units of target_sd (see standardisation): what a regression leaves varies less than 1"
"""Of what a method predicts that starts from a regression."""


def started(calls: Calls) -> Tensor:
    """The regression's output for a whole volume, once for all samples."""
    return calls.whole(calls.inputs, lambda tiles: calls.forward(tiles, of=calls.network.start))


def at_time(calls: Calls, current: Tensor, conditions: Tensor, time: Tensor) -> Tensor:
    """The network's output for a whole volume at a time. Each step of a sampler blends its tiles before the next, so
    that overlapping tiles see one noise field and one state, and no seam can grow along the trajectory."""
    import torch

    return calls.whole(
        torch.cat([current, conditions], dim=1),
        lambda tile: calls.forward(tile[:, :1], tile[:, 1:], time.expand(len(tile))),
    )


def require_tokens(network: DiffusionIQTNetwork, patches: Patches) -> None:
    """ValueError where a patch cannot be cut into a level's tokens."""
    for level, token in enumerate(network.tokens):
        edges = (patches.patch,) * 3
        require_divisible(edges, network.stem * 2**level * (token if network.attention else 1), "network.tokens")


METHODS = (DiffusionIQTMethod,)
