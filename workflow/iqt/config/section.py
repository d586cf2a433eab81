"""What every part of the configuration is made of."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Triple = tuple[Positive, Positive, Positive]


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, because a misspelt key would be silently ignored."""

    model_config = ConfigDict(extra="forbid", validate_default=True, use_attribute_docstrings=True)


SectionType = TypeVar("SectionType", bound=Section)


def merge(base: Mapping, changes: Mapping) -> dict:
    """`changes` laid over `base`, section by section."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if nested else copy.deepcopy(value)
    return merged
