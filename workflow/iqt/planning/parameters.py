"""Parameters and resources of rules. Snakemake formats strings, where braces would be wildcards; what a function
returns it takes as it is."""

from __future__ import annotations

import hashlib
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


def command_prefix(package: Path) -> str:
    """What goes before each job's shell: a function `iqt`, so that a line of a log can be pasted where it is installed.

    PYTHONPATH, the folder that holds the package, is set in it, because --use-conda blanks an inherited one. The strict
    mode is Snakemake's own, which it leaves out where there is a prefix: without it `| tee` would hide a failure.
    """
    path = shlex.quote(str(package)).replace("{", "{{").replace("}", "}}")
    return f'set -euo pipefail; iqt() {{{{ PYTHONPATH={path} python -m iqt "$@"; }}}}; '


def without_braces(path: Path, links: Path, make: bool = True) -> str:
    """A user's file as an input, where Snakemake takes braces for wildcards whatever names it: by a link without, in
    the folder `links`, made here unless another process has made it."""
    if not set("{}") & set(str(path)):
        return str(path)
    link = links / (hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:12] + path.suffix)
    if make and not link.is_symlink():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.absolute())
    return str(link)


def per_attempt(amount: int) -> Parameter:
    """A resource that grows with every attempt, so that a job killed for want of it comes back with more."""
    return lambda wildcards, attempt: amount * attempt
