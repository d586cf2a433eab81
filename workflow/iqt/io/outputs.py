"""What a command for one scan writes: refused before anything is computed, and put into place together."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from iqt.errors import StopError, UserError
from iqt.io.files import PARTIAL, nearest_folder, read_json, replacing
from iqt.io.naming import beside

NIFTI = (".nii.gz", ".nii")
PICTURES = (".png", ".svg", ".pdf")
FILES = "files"
"""Key of a record: what else was written for the result, by this run or one before it, and may be written again."""


def check_outputs(
    out: Path,
    inputs: Iterable[Path | None],
    kind: str,
    ours: Callable[[dict[str, Any]], bool],
    volumes: Iterable[Path | None] = (),
    pictures: Iterable[Path | None] = (),
    tables: Iterable[Path] = (),
) -> Path:
    """The name of the record beside `out`, after a look at all that will be written with it.

    Args:
        inputs: what the command reads. Here and below, None stands for what was not asked for.
        kind: what the record is one of, for messages: `an enhancement`.
        ours: whether the content of a record that is there already is of that kind, so that it may be replaced.
        volumes, pictures, tables: what else is written.

    Raises:
        UserError: a name has an ending that would not be readable afterwards, is one of the inputs, another output's, a
            folder's or that of a file that no record says was made here, or its folder cannot be written to.
    """
    record = beside(out, ".json")
    known = read_json(record) if os.path.lexists(record) and not record.is_dir() else None
    tables, made = list(tables), set()
    if isinstance(known, dict) and ours(known):
        listed = (out.parent / str(name) for name in known.get(FILES, ()))
        made = {path.resolve() for path in (out, *tables, *listed)}
    taken = {path.resolve() for path in inputs if path is not None}
    for paths, endings in (((out, *volumes), NIFTI), (pictures, PICTURES), ((*tables, record), None)):
        for path in paths:
            if path is None:
                continue
            if endings is not None and not path.name.endswith(endings):
                raise UserError(f"{path}: the name must end in {' or '.join(endings)}")
            if path.resolve() in taken:
                raise UserError(f"{path}: is named twice among inputs and outputs; choose another name")
            if path.is_dir():
                raise UserError(f"{path}: is the name of a folder; choose another name")
            if not os.access(nearest_folder(path.parent), os.W_OK):
                raise StopError(f"{path}: nothing can be written into that folder; choose another")
            free = not os.path.lexists(path) or (path.exists() and path.stat().st_size == 0)
            if not free and path != record and path.resolve() not in made:
                raise UserError(
                    f"{path}: is there already, and no {record.name} says that it was made here (or an interrupted run "
                    "left it); choose another name, or delete it first"
                )
            taken.add(path.resolve())
    if known is not None and not made:
        raise UserError(f"{record}: is there already and no record of {kind}; choose another name than {out}")
    return record


def written(out: Path, paths: Iterable[Path]) -> list[str]:
    """What a record says under `FILES`, as names from its folder: the files that are written with `out`, and those that
    earlier runs wrote with it and that are there still."""
    record = beside(out, ".json")
    before = read_json(record).get(FILES, ()) if record.exists() else ()
    now = [os.path.relpath(path, out.parent) for path in paths if path != out]
    return [*now, *(name for name in before if name not in now and (out.parent / name).is_file())]


@contextlib.contextmanager
def replacing_all(paths: Iterable[Path]) -> Iterator[dict[Path, Path]]:
    """A temporary name for each of `paths`; they take their places when the block ends without an error, the first of
    them last."""
    with contextlib.ExitStack() as stack:
        # Left in the opposite order.
        yield {path: stack.enter_context(replacing(path)) for path in paths}


@contextlib.contextmanager
def drafting(out: Path) -> Iterator[Path]:
    """The name of `out` in a temporary folder beside it. All that the block writes there takes its place without the
    folder when the block ends without an error, JSON last."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{PARTIAL}{out.name}-", dir=out.parent) as folder:
        yield Path(folder, out.name)
        for made in sorted(Path(folder).iterdir(), key=lambda path: path.suffix == ".json"):
            os.replace(made, out.parent / made.name)
