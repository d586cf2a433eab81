"""The kinds of method, one module each: what a user may write of it, and all that the stages ask of it (`base.py`).

A module in this package is found by itself; it lists its kinds in `METHODS`. Nothing heavy is imported until a kind
builds something, since a workflow is planned with these classes too.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iqt.methods.base import Learned, Method


@functools.cache
def kinds() -> dict[str, type[Method]]:
    """The class of each `kind` of the configuration, by module."""
    names = sorted(found.name for found in pkgutil.iter_modules(__path__) if found.name != "base")
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return {kind: method for module in modules for method in module.METHODS for kind in method.names()}


def module_of(kind: str) -> str:
    """The dotted name of the module of a kind."""
    return kinds()[kind].__module__


def parse_method(settings: dict[str, Any]) -> Learned:
    """The method that settings (`Plan.trained_by`) describe, at the size of the one that `size_like` holds, starting
    from the one that `start` holds.

    Raises:
        ValidationError: settings that the kind does not allow.
        KeyError: no known kind.
    """
    return kinds()[settings["kind"]].resolved(settings)


# The configuration's models are a union of all kinds and are made of the same sections, so they come first, whichever
# is imported; not as a statement, from which rules would follow that every kind needs the whole configuration.
importlib.import_module("iqt.config")
