"""What was drawn for a simulated scan, as its JSON sidecar keeps it, so that it can be replayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from iqt.config import LowField
from iqt.config.lowfield import Axis, Contrast, Length, Moved, Noise, Thickness
from iqt.degrade.artefacts import BIAS, DISTORTION
from iqt.errors import UserError

_Time = Annotated[float, Field(ge=0, le=1)]
_Positive = Annotated[float, Field(gt=0)]
_World = tuple[float, float, float]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Relaxation(_Part):
    t1: tuple[_Positive, _Positive, _Positive]
    t2: tuple[_Positive, _Positive, _Positive]


class _Pose(_Part):
    start: _Time
    end: _Time
    rotation: _World
    translation: _World


class _Artefacts(_Part):
    kspace: Annotated[float, Field(gt=0, le=1)] | None = None
    bias_field: Annotated[list[float], Field(min_length=len(BIAS), max_length=len(BIAS))] | None = None
    distortion: Annotated[list[float], Field(min_length=len(DISTORTION), max_length=len(DISTORTION))] | None = None
    motion: list[_Pose] | None = None


class _Acquisition(_Part):
    thickness: Thickness | None = None
    gap: Length | None = None
    in_plane: Length | None = None
    axis: Axis | None = None
    contrast: Contrast | None = None
    noise: Noise | None = None
    snr: Annotated[_Positive | None, Field(alias="shift.snr")] = None
    moved: Annotated[Moved | None, Field(alias="shift.contrast")] = None


class _Record(_Part):
    snr_wm: _Positive | None = None
    snr_gm: _Positive | None = None
    noise_seed: Annotated[int, Field(ge=0)]
    relaxation: _Relaxation | None = None
    artefacts: _Artefacts = _Artefacts()
    acquisition: _Acquisition = _Acquisition()


@dataclass(frozen=True)
class Draw:
    """Everything random about one simulated scan; what is off is None or absent."""

    snr_wm: float | None
    snr_gm: float | None
    noise_seed: int
    relaxation: Mapping[str, list[float]] | None = None
    """T1 and T2 in ms of (WM, GM, CSF)."""
    artefacts: Mapping = field(default_factory=dict)
    """As `artefacts.draw_artefacts` gives it."""
    acquisition: Mapping = field(default_factory=dict)
    """Of `LowField.drawn_keys` the values."""

    def to_dict(self) -> dict:
        """JSON-able, without what is off."""
        return {name: value for name, value in vars(self).items() if value is not None and value != {}}

    @classmethod
    def from_dict(cls, record: Mapping) -> Draw:
        """From what `to_dict` gave.

        Raises:
            UserError: a part is missing, unknown or not what it should be.
        """
        try:
            checked = _Record.model_validate(record)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, ("draw", *problem["loc"])))
            raise UserError(f"{where}: {problem['msg']}; this is not the record of a simulated scan") from None
        parts = checked.model_dump(mode="json", exclude_none=True, by_alias=True)
        further = (parts.get(name, {}) for name in ("artefacts", "acquisition"))
        return cls(checked.snr_wm, checked.snr_gm, checked.noise_seed, parts.get("relaxation"), *further)


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
