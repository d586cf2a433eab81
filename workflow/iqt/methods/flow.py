"""A rectified flow from a regression's output to the high-quality volume (arXiv 2410.00418)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from iqt.config.diffusion import FlowSampling
from iqt.config.networks import DiffusionIQTNetwork
from iqt.config.section import Name
from iqt.methods.base import Calls, Method
from iqt.methods.diffusion_iqt import Generative, at_time, require_tokens
from iqt.methods.unet import UNetMethod

if TYPE_CHECKING:
    from torch import Tensor, nn

    from iqt.training.tasks.flow import FlowTask


class FlowMethod(Generative):
    """A rectified flow from a regression's output to the high-quality volume (arXiv 2410.00418)."""

    kind: Literal["flow"] = "flow"
    """Kind of method."""
    start: Name
    """The method that it starts from, a regression (`unet`) with the same `target`."""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Noise added to the regression's output, in standard deviations of the target."""
    conditional: bool = True
    """Whether the network that gives the velocity also sees the low-field volume. The paper's does not."""
    network: DiffusionIQTNetwork = DiffusionIQTNetwork()
    """Size and parts of the network that gives the velocity."""
    sampling: FlowSampling = FlowSampling()
    """How the trained flow is run."""
    _regression: UNetMethod | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _divisible(self) -> FlowMethod:
        require_tokens(self.network, self.patches)
        return self

    def check_among(self, name: str, methods: Mapping[str, Method]) -> None:
        start = methods.get(self.start)
        if not isinstance(start, UNetMethod):
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
    def resolved(cls, settings: Mapping[str, Any]) -> FlowMethod:
        start = settings.get("start")
        if not isinstance(start, dict):
            return cls.model_validate(settings)
        method = cls.model_validate({**settings, "start": start["kind"]})
        method._regression = UNetMethod.resolved(start)
        return method

    @property
    def regression(self) -> UNetMethod:
        """The method that `start` names; known where settings were resolved."""
        if self._regression is None:
            raise ValueError(f"the regression {self.start!r} that the flow starts from is not resolved")
        return self._regression

    @property
    def starts_from(self) -> str:
        return self.start

    @property
    def calls(self) -> int:
        return 1 + self.samples * self.sampling.calls

    @property
    def series(self) -> str:
        return f"flow, {self.sampling.solver}"

    def build(self) -> nn.Module:
        from iqt.networks.diffusion_iqt import DiffusionIQT
        from iqt.networks.flow import FlowNetwork

        velocity = DiffusionIQT(self.network, self.patches, self.conditional)
        return FlowNetwork(self.regression.build(), velocity, self.conditional)

    def task(self, network: nn.Module, standard: dict[str, float]) -> FlowTask:
        from iqt.training.tasks.flow import FlowTask

        return FlowTask(self, network, standard)

    def passes(self, network: nn.Module) -> list[nn.Module]:
        return [network, network.start]

    def estimates(self, calls: Calls) -> Iterator[Tensor]:
        from iqt.diffusion.flow import solve

        # All samples start from the same estimate.
        start = calls.whole(calls.inputs, lambda tiles: calls.forward(tiles, of=calls.network.start))
        for k in range(self.samples):
            begin = start + self.noise * calls.noise(k, -1)
            yield solve(lambda current, time: at_time(calls, current, time), begin, self.sampling)

    def tensors(self) -> dict[str, dict[str, Any]]:
        seen = {"lowfield": self._volume("low-field volume on the high-quality grid")} if self.conditional else {}
        return {
            "current": self._volume(f"point on the way to the {self.wanted}"),
            **seen,
            "time": {"shape": ["batch"], "dtype": "float32", "range": [0, 1]},
            "output": self._volume("velocity"),
        }


METHODS = (FlowMethod,)
