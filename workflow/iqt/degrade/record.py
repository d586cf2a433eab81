"""What was drawn for a simulated scan, as its JSON sidecar keeps it, so that it can be replayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from iqt.config import LowField
from iqt.config.lowfield import Axis, Contrast, Length, Moved, Noise, PerTissue, PositiveNumber, Thickness
from iqt.degrade.artefacts import BIAS, DISTORTION
from iqt.errors import UserError

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
Time = Annotated[float, Field(ge=0, le=1)]
World = tuple[float, float, float]


@with_config(STRICT)
class Relaxation(TypedDict):
    """T1 and T2 in ms of (WM, GM, CSF)."""

    t1: PerTissue
    t2: PerTissue


@with_config(STRICT)
class Pose(TypedDict):
    """Where the head is from `start` to `end` of the acquisition: degrees about the world's axes, and mm."""

    start: Time
    end: Time
    rotation: World
    translation: World


@with_config(STRICT)
class Artefacts(TypedDict, total=False):
    """As `artefacts.draw_artefacts` gives them: a share of lines, coefficients of fields, poses."""

    kspace: Annotated[float, Field(gt=0, le=1)]
    bias_field: Annotated[list[float], Field(min_length=len(BIAS), max_length=len(BIAS))]
    distortion: Annotated[list[float], Field(min_length=len(DISTORTION), max_length=len(DISTORTION))]
    motion: list[Pose]


Acquisition = with_config(STRICT)(
    TypedDict(
        "Acquisition",
        {
            "thickness": Thickness,
            "gap": Length,
            "in_plane": Length,
            "axis": Axis,
            "contrast": Contrast,
            "noise": Noise,
            "shift.snr": PositiveNumber,
            "shift.contrast": Moved,
        },
        total=False,
    )
)
"""Of `LowField.drawn_keys` the values."""


@dataclass(frozen=True, config=STRICT)
class Draw:
    """Everything random about one simulated scan; what is off is None or absent."""

    snr_wm: PositiveNumber | None
    snr_gm: PositiveNumber | None
    noise_seed: Annotated[int, Field(ge=0)]
    relaxation: Relaxation | None = None
    artefacts: Artefacts = field(default_factory=dict)
    acquisition: Acquisition = field(default_factory=dict)

    def to_dict(self) -> dict:
        """JSON-able, without what is off."""
        values = TypeAdapter(Draw).dump_python(self, mode="json")
        return {name: value for name, value in values.items() if value is not None and value != {}}

    @classmethod
    def from_dict(cls, record: Mapping) -> Draw:
        """From what `to_dict` gave.

        Raises:
            UserError: a part is missing, unknown or not what it should be.
        """
        try:
            return TypeAdapter(cls).validate_python({"snr_wm": None, "snr_gm": None, **record})
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, ("draw", *problem["loc"])))
            raise UserError(f"{where}: {problem['msg']}; this is not the record of a simulated scan") from None


def describe(scan: str | None, seed: int | None, suffix: str, engine: str, settings: LowField, made: Mapping) -> dict:
    """What a sidecar says of a simulated scan: whose it is, where its tissues came from, the settings, and what was
    `made`."""
    return {
        "scan": scan,
        "suffix": suffix,
        "seed": seed,
        "tissues": engine,
        **made,
        "settings": settings.model_dump(mode="json"),
    }
