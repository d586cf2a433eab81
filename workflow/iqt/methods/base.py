"""What every kind of method answers, and how most trained ones answer it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, get_args

from pydantic import Field

from iqt.config.section import Name, Positive, Section
from iqt.config.training import Patches, Training

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from iqt.io.volumes import Volume
    from iqt.training.tasks.base import EnhancementTask


class Tiling(Section):
    """How a whole volume passes through a network."""

    tile: Positive | Literal["auto"] = "auto"
    """Largest edge of a tile in voxels, rounded down to whole regions. `auto`: as large as half of the memory allows,
    up to the whole brain in one piece: of the 6 GB that a job of the workflow asks for on a CPU, of all that a GPU has,
    or, for a single scan, of what is free."""
    overlap: Annotated[int, Field(ge=0)] = 16
    """Voxels that neighbouring tiles share and blend at least."""
    batch: Positive = 1
    """Tiles that pass through the network at once; the result does not depend on it."""


class Method(Section):
    """A method of any kind. `used` names the keys that its weights do not depend on."""

    used: ClassVar[tuple[str, ...]] = ()
    trained: ClassVar[bool] = False
    """Whether it has weights."""

    base: str | None = None
    """Entry that this one copies; what follows changes it."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The values of `kind` that stand for it."""
        return get_args(cls.model_fields["kind"].annotation)

    @property
    def samples(self) -> int:
        """Samples a scan, whose mean is the result."""
        return 1

    @property
    def draws(self) -> bool:
        """Whether its samples differ."""
        return False

    @property
    def starts_from(self) -> str | None:
        """The method whose trained model its training starts from."""
        return None

    @property
    def series(self) -> str | None:
        """The line of a figure of quality against cost that it is a point of, if it can be run at several costs."""
        return None

    def check_among(self, name: str, methods: Mapping[str, Method]) -> None:
        """ValueError where this entry, `name`, does not go with the others."""

    @classmethod
    def begin(cls, kind: str, upsampled: Volume, slices: Callable[[], Volume]) -> Volume:
        """The low-field volume on the high-quality grid that it works on.

        Args:
            kind: which of `names` it is.
            upsampled: by cubic interpolation, as the low-field stage ends.
            slices: reads them as they were acquired.
        """
        return upsampled


class Calls(Protocol):
    """What an estimate of a whole volume is made with; tensors are (1, channels, X, Y, Z), standardised, on the
    device."""

    inputs: Tensor
    """The low-field volume."""
    network: nn.Module

    def whole(self, volume: Tensor, network: Callable[[Tensor], Tensor]) -> Tensor:
        """A function of tiles (N, channels, x, y, z), applied to the whole volume tile by tile and blended."""

    def forward(self, *tensors: Tensor, of: nn.Module | None = None) -> Tensor:
        """One pass of the network, or of a part of it, at the precision that was chosen."""

    def noise(self, sample: int, step: int) -> Tensor:
        """Standard normal noise that depends on the volume's seed, the sample and the step alone."""


class Learned(Method):
    """What every trained method has."""

    used: ClassVar[tuple[str, ...]] = ("tiling",)
    trained: ClassVar[bool] = True

    target: Literal["residual", "image"] = "residual"
    """What the network predicts: the high-quality volume (the paper), or its difference from the low-field one."""
    trained_on: Name = "main"
    """Low-field set whose acquisitions of the training and validation people it is trained on."""
    patches: Patches = Patches()
    """Changes to the top-level `patches`, for this method alone."""
    training: Training = Training()
    """Changes to the top-level `training`, for this method alone."""
    tiling: Tiling = Tiling()
    """How a whole volume passes through the network."""

    def trained_by(self) -> dict[str, Any]:
        """The keys that its weights depend on, beside other entries that it names."""
        left_out = dict.fromkeys((*self.used, "base", "size_like", "start"), True)
        return self.model_dump(mode="json", exclude={**left_out, "training": {"workers"}})

    @property
    def calls(self) -> int:
        """Network calls a volume, all samples together."""
        return 1

    @property
    def patchwise(self) -> bool:
        """Whether the network treats patches apart, so that their borders could show."""
        return False

    @classmethod
    def resolved(cls, settings: Mapping[str, Any]) -> Learned:
        """The method of `Plan.trained_by`'s settings, perhaps with some keys of its use."""
        from iqt.methods import parse_method
        from iqt.networks.size import network_size, resize

        method = cls.model_validate({key: value for key, value in settings.items() if key != "size_like"})
        if "size_like" in settings:
            method = resize(method, network_size(parse_method(settings["size_like"])))
        return method

    def build(self) -> nn.Module:
        """The network, with fresh weights; it takes `inputs`."""
        raise NotImplementedError

    def task(self, network: nn.Module, standard: dict[str, float]) -> EnhancementTask:
        """What the network is trained for; `standard` holds the mean and standard deviation of inputs and targets."""
        from iqt.training.tasks.base import RegressionTask

        return RegressionTask(self, network, standard)

    def inputs(self, volume: Tensor) -> tuple[Tensor, ...]:
        """What the network is called with, in the shapes that a low-field volume (B, 1, X, Y, Z) gives."""
        return (volume,)

    def passes(self, network: nn.Module) -> list[nn.Module]:
        """Parts of the network that whole volumes pass through one after the other, so that memory must hold each
        alone: first the network, called with `inputs`, then those that are called with the low-field volume."""
        return [network]

    def estimates(self, calls: Calls) -> Iterator[Tensor]:
        """Each sample of a whole volume, (1, 1, X, Y, Z), standardised."""
        yield calls.whole(calls.inputs, calls.forward)

    def memory_layout(self, device: torch.device) -> torch.memory_format:
        """The layout in memory with which the network is fastest; `make bench-speed` measures it."""
        import torch

        return torch.channels_last_3d

    def tensors(self) -> dict[str, dict]:
        """What goes into the network and comes out, for the card of a model."""
        return {
            "lowfield": self._volume("low-field volume on the high-quality grid"),
            "output": self._volume(self.wanted),
        }

    @property
    def wanted(self) -> str:
        """The target in words."""
        return "high-quality minus low-field volume" if self.target == "residual" else "high-quality volume"

    def _volume(self, content: str, values: str = "", channels: int = 1) -> dict[str, Any]:
        standardised = "mean 0 and standard deviation 1 over the training brains (see standardisation)"
        shape = {
            "shape": ["batch", channels, "X", "Y", "Z"],
            "multiples": list(self.patches.region),
            "dtype": "float32",
        }
        return {**shape, "content": content, "range": values or standardised}


def require_divisible(edges: tuple[int, ...], factor: int, because: str) -> None:
    """ValueError where edges are not multiples of what a network asks for."""
    if any(edge % factor for edge in edges):
        raise ValueError(f"patches: edges {edges} must be multiples of {factor}, which {because} asks for")


def check_size_like(name: str, wanted: str | None, methods: Mapping[str, Method]) -> None:
    """ValueError where the method that another shall be as large as has no size of its own."""
    other = methods.get(wanted) if wanted is not None else None
    own = other is not None and other.trained and not other.starts_from and not getattr(other, "size_like", None)
    if wanted is not None and not own:
        raise ValueError(
            f"methods.{name}.size_like {wanted!r} must name a trained method with a size of its own that starts from "
            "no other"
        )
