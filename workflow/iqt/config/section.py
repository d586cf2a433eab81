"""What every part of the configuration is made of."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1, le=10_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Width = Annotated[int, Field(ge=1, le=4096)]
"""Channels and the like: no network that fits into a machine has more."""
Few = Annotated[int, Field(ge=1, le=64)]
"""Blocks, levels and the like."""
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Precision = Literal["auto", "float32", "bfloat16"]


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, because a misspelt key would be silently ignored."""

    # Built when it is used: a job uses a few of sixty, and building all of them takes 0.2 s of its start.
    model_config = ConfigDict(extra="forbid", validate_default=True, use_attribute_docstrings=True, defer_build=True)


SectionType = TypeVar("SectionType", bound=Section)


def hint(word: object, allowed: Iterable[object]) -> str:
    """What was probably meant, or what is allowed."""
    names = [str(name) for name in allowed]
    close = difflib.get_close_matches(str(word), names, n=1, cutoff=0.5)
    return f"Hint: did you mean {close[0]}?" if close else f"Hint: allowed are {', '.join(names)}"


def flat_keys(section: Mapping, prefix: str = "") -> list[str]:
    """The keys of a section and of those in it, `sampling.steps` for one within another."""
    keys = []
    for key, value in section.items():
        keys += flat_keys(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [f"{prefix}{key}"]
    return keys


def merge(base: Mapping, changes: Mapping) -> dict:
    """`changes` laid over `base`, section by section."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if nested else copy.deepcopy(value)
    return merged
