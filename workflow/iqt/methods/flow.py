"""A rectified flow from a regression's output to the high-quality volume (arXiv 2410.00418)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from iqt.config.diffusion import FlowSampling
from iqt.config.networks import DiffusionIQTNetwork
from iqt.config.section import Name
from iqt.methods.base import Calls
from iqt.methods.diffusion_iqt import Generative, at_time, started

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

    @model_validator(mode="after")
    def _samples_differ(self) -> FlowMethod:
        if self.sampling.samples > 1 and not self.draws:
            raise ValueError(f"sampling.samples {self.sampling.samples} are all alike with noise 0; leave it out")
        return self

    @property
    def draws(self) -> bool:
        return self.noise > 0

    @property
    def calls(self) -> int:
        return 1 + self.samples * self.sampling.calls

    @property
    def series(self) -> str:
        return f"flow, {self.sampling.solver}"

    def build(self) -> nn.Module:
        from iqt.networks.diffusion_iqt import DiffusionIQT
        from iqt.networks.started import FlowNetwork

        velocity = DiffusionIQT(self.network, self.patches, n_conditions=int(self.conditional))
        return FlowNetwork(self.regression.build(), velocity, self.conditional)

    def task(self, network: nn.Module, standard: dict[str, float]) -> FlowTask:
        from iqt.training.tasks.flow import FlowTask

        return FlowTask(self, network, standard)

    def passes(self, network: nn.Module) -> list[nn.Module]:
        return [network, network.start]

    def estimates(self, calls: Calls) -> Iterator[Tensor]:
        from iqt.diffusion.flow import solve

        start = started(calls)
        for k in range(self.samples):
            begin = start + self.noise * calls.noise(k, -1)
            yield solve(lambda current, time: at_time(calls, current, calls.inputs, time), begin, self.sampling)

    def tensors(self) -> dict[str, dict[str, Any]]:
        seen = {"lowfield": self._volume("low-field volume on the high-quality grid")} if self.conditional else {}
        return {
            "current": self._volume(f"point on the way to the {self.wanted}"),
            **seen,
            "time": {"shape": ["batch"], "dtype": "float32", "range": [0, 1]},
            "output": self._volume("velocity", "in units of target_sd (see standardisation)"),
        }


METHODS = (FlowMethod,)
