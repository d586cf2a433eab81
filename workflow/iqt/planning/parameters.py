"""Parameters and resources of rules. Snakemake formats strings, where braces would be wildcards; what a function
returns it takes as it is."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

Parameter = Callable[..., Any]


def verbatim(value: str) -> Parameter:
    """A user's text as a parameter."""
    return lambda wildcards: value


def option(name: str, files: Iterable[str | Path]) -> Parameter:
    """An option with a user's file, quoted for the shell; nothing where there is no file."""
    return verbatim(" ".join(f"{name} {shlex.quote(str(path))}" for path in files))


def as_json(section: BaseModel | Mapping | Callable[[Any], BaseModel | Mapping]) -> Parameter:
    """A section of the configuration as one command-line argument: only what a rule uses, so only that reruns it.

    Args:
        section: a section, a dictionary, or a function of the wildcards that returns one.
    """

    def text(wildcards: Any) -> str:
        content = section(wildcards) if callable(section) else section
        content = content.model_dump(mode="json") if isinstance(content, BaseModel) else content
        return json.dumps(content, separators=(",", ":"))

    return text


def per_attempt(amount: int) -> Parameter:
    """A resource that grows with every attempt, so that a job killed for want of it comes back with more."""
    return lambda wildcards, attempt: amount * attempt
