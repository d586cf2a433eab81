"""Which files of the package a job runs: the import closure of a module, found without importing anything.

Snakemake does not look into an imported package, so a rule names what it runs as inputs, and an edit reruns exactly
the rules whose closure holds the edited file.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
NAME = PACKAGE.name


def closure(*modules: str, without: tuple[str, ...] = ()) -> list[Path]:
    """The files (relative to the package's folder) of modules and all that they import, lazily too, in order.

    `from iqt.config import LowField` leads to the module that defines it, not to all that `iqt/config/__init__.py`
    gathers. What is imported for types alone (`if TYPE_CHECKING`) does not count, nor the package's own `__init__.py`,
    which holds a version to record and no code.

    Args:
        modules: dotted names, such as `iqt.cohort.build`.
        without: modules, and packages with all in them, at which it ends, where a lazy import is for other jobs.

    Raises:
        ModuleNotFoundError: the package has no such module.
    """
    found: set[str] = set()
    waiting = [*modules]
    while waiting:
        module = waiting.pop()
        if module in found or module == NAME or any(f"{module}.".startswith(f"{end}.") for end in without):
            continue
        found.add(module)
        waiting += imports(module)
    return sorted(_file(module).relative_to(PACKAGE) for module in found)


@functools.cache
def imports(module: str) -> tuple[str, ...]:
    """The package's modules that a module imports anywhere in it, in the order of their names."""
    return tuple(sorted(set(_imports(module))))


def _imports(module: str) -> Iterator[str]:
    for node in _statements(_tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _own(alias.name))
        elif isinstance(node, ast.ImportFrom) and node.module and _own(node.module):
            for alias in node.names:
                yield from _defining(node.module, alias.name)


def _defining(module: str, name: str) -> Iterator[str]:
    """The module that `from module import name` needs: a submodule, or the one that an `__init__.py` has it from."""
    if _exists(f"{module}.{name}"):
        yield f"{module}.{name}"
        return
    if _file(module).name == "__init__.py":
        for node in _tree(module).body:
            if isinstance(node, ast.ImportFrom) and node.module and _own(node.module):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        yield from _defining(node.module, alias.name)
                        return
    yield module


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Every statement within a node but those for type checkers alone; expressions hold none and are not entered."""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        for child in getattr(node, field, ()):
            if isinstance(child, ast.If) and _is_for_types(child.test):
                continue
            yield child
            yield from _statements(child)


def _is_for_types(test: ast.expr) -> bool:
    names = (getattr(part, "id", None) or getattr(part, "attr", None) for part in ast.walk(test))
    return "TYPE_CHECKING" in names


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_file(module).read_text(encoding="utf-8"))


def _own(module: str) -> bool:
    return module == NAME or module.startswith(f"{NAME}.")


@functools.cache
def _exists(module: str) -> bool:
    path = _path(module)
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


@functools.cache
def _file(module: str) -> Path:
    path = _path(module)
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    raise ModuleNotFoundError(f"{module}: no such module of {PACKAGE}")


def _path(module: str) -> Path:
    return PACKAGE.joinpath(*module.split(".")[1:])
