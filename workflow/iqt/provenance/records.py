"""What Snakemake recorded of the job that made each file.

Snakemake keeps a record an output below `.snakemake`: a JSON file each (the default), or rows of an SQLite database
(`--persistence-backend db`). Both hold the rule, the inputs and the times; no interface to them is documented, so all
that this package knows of them is in this module. Written for Snakemake 9.
"""

from __future__ import annotations

import json
import re
import sqlite3
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from iqt.errors import UserError

STATE = ".snakemake"


@dataclass(frozen=True)
class Record:
    """The job behind an output."""

    output: str
    """Path as the workflow names it, relative to its folder."""
    rule: str
    """Name of the rule, a batch's number taken off."""
    inputs: tuple[str, ...]
    started: float | None
    ended: float | None
    """Seconds since 1970."""


def find_workdir(path: Path) -> Path | None:
    """The folder that Snakemake ran in: the nearest one above `path` that holds its state."""
    path = path.absolute()
    return next((folder for folder in (path, *path.parents) if (folder / STATE).is_dir()), None)


def read_records(workdir: Path) -> dict[str, Record]:
    """Every output's record by its path; empty where Snakemake kept none.

    Raises:
        UserError: the database is not readable.
    """
    database = workdir / STATE / "metadata.db"
    records = {record.output: record for record in _from_files(workdir / STATE / "metadata")}
    if database.is_file():
        records |= {record.output: record for record in _from_database(database)}
    return records


def _from_files(folder: Path) -> Iterator[Record]:
    for path in folder.rglob("*"):
        # A name longer than a file's may be is cut into folders that begin with @.
        name = "".join(part.removeprefix("@") for part in path.relative_to(folder).parts)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            output = urlsafe_b64decode(name).decode()
        except (OSError, ValueError):  # a folder, or a record that a killed run left half-written
            continue
        yield _record(output, content)


def _from_database(path: Path) -> Iterator[Record]:
    query = "SELECT target, rule, input, starttime, endtime FROM snakemake_metadata WHERE namespace = ?"
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            rows = connection.execute(query, (str(path.parent.absolute()),)).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise UserError(f"{path}: Snakemake's database is not readable ({error})") from None
    for target, rule, inputs, started, ended in rows:
        content = {"rule": rule, "input": json.loads(inputs or "[]"), "starttime": started, "endtime": ended}
        yield _record(target, content)


def _record(output: str, content: dict) -> Record:
    return Record(
        output=output,
        rule=re.sub(r"_\d+$", "", content.get("rule") or "unknown"),
        inputs=tuple(content.get("input") or ()),
        started=content.get("starttime"),
        ended=content.get("endtime"),
    )
