"""Listing a source. Read by the Snakefile, so nothing heavy is imported here.

A place is a path, `s3://bucket/key`, or `zip:<path>!<member>`. What a configuration does not say by itself (everybody
in a bucket, the scans of a BIDS tree) is listed once into an index, which later runs read: planning asks a source once.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from iqt.cohort import bids, folder, hcp
from iqt.cohort.entries import Entry, read_index
from iqt.cohort.split import id_column, participant_id
from iqt.config import Cohort
from iqt.errors import UserError
from iqt.io.files import read_table, read_text, write_table
from iqt.terminal import note, warn


def list_entries(cohort: Cohort, suffix: str, index: Path) -> dict[str, Entry]:
    """The source's scans by name, from the configuration alone or from the index, which is made where there is none."""
    named = _named_people(cohort)
    if named is not None:
        entries = [entry_of(cohort, suffix, f"sub-{person}", index) for person in named]
    else:
        entries = read_index(index) or make_index(cohort, suffix, index)
    return {entry.scan: entry for entry in entries}


def say_what_is_new(cohort: Cohort, suffix: str, index: Path) -> None:
    """Warn where a source on disk has changed since it was listed: the index stays, since other people could be drawn
    for each split. Looks no further than the time of the source's folder where that has not changed."""
    path = getattr(cohort.settings, "path", None)
    if path is None or not index.is_file() or not Path(path).is_dir():
        return
    if Path(path).stat().st_mtime_ns <= index.stat().st_mtime_ns:
        return
    try:
        found = {entry.scan for entry in _list_source(cohort, suffix)}
    except UserError:
        return  # what is listed may be at hand already
    known = {entry.scan for entry in read_index(index)}
    if found == known:
        with contextlib.suppress(OSError):  # somebody else's results
            index.touch()
        return
    changes = [
        f"{len(scans)} {text} ({', '.join(sorted(scans)[:3])}{', ...' if len(scans) > 3 else ''})"
        for scans, text in ((found - known, "new and not read"), (known - found, "gone"))
        if scans
    ]
    warn(
        f"{path} has changed since it was listed: {'; '.join(changes)}. Delete {index} to have it listed again, which "
        "may draw the split anew"
    )


def make_index(cohort: Cohort, suffix: str, index: Path) -> list[Entry]:
    """Ask the source what it holds and write it down."""
    note(f"listing the {suffix} scans of cohort.{cohort.source} into {index}")
    entries = _list_source(cohort, suffix)
    names = [entry.scan for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise UserError(f"cohort.{cohort.source}: {', '.join(twice[:5])} is found more than once; names must differ")
    if not entries:
        raise UserError(f"cohort.{cohort.source}: holds no {suffix} scan; check its settings")
    write_table(index, [asdict(entry) for entry in entries], [field.name for field in fields(Entry)])
    return entries


def entry_of(cohort: Cohort, suffix: str, scan: str, index: Path) -> Entry:
    """The places of one scan."""
    if cohort.source == "hcp":
        return hcp.entry(scan, suffix, cohort.hcp)
    known = _by_scan(index, index.stat().st_mtime_ns) if index.is_file() else {}
    if scan in known:
        return known[scan]
    raise UserError(f"{index}: {scan} is not in it; delete it to have the source listed again")


def read_people(path: str | Path) -> list[str]:
    """Ids of a file: one a line (`#` begins a comment), or a table with a column of ids."""
    path = Path(path)
    if path.suffix in (".tsv", ".csv"):
        rows = read_table(path)
        column = id_column(path, rows)
        people = [participant_id(row[column]).removeprefix("sub-") for row in rows]
    else:
        lines = read_text(path).splitlines()
        people = [word.removeprefix("sub-") for line in lines if (word := line.partition("#")[0].strip())]
    wrong = [person for person in people if not (person.isascii() and person.isalnum())]
    if wrong or not people:
        raise UserError(
            f"{path}: {repr(wrong[0]) if wrong else 'nothing'} is no id; one id of letters (a to z) and digits a line"
        )
    return people


@functools.lru_cache(maxsize=4)
def _by_scan(index: Path, changed: int) -> dict[str, Entry]:
    """The entries of an index by scan, read once until it changes (`changed`: its time in ns)."""
    return {entry.scan: entry for entry in read_index(index)}


def _named_people(cohort: Cohort) -> list[str] | None:
    """The people that the configuration names; None where the source has to be listed."""
    if cohort.source != "hcp" or cohort.hcp.subjects == "all":
        return None
    subjects = cohort.hcp.subjects
    people: Sequence[str] = subjects if isinstance(subjects, list) else read_people(subjects)
    twice = sorted({person for person in people if people.count(person) > 1}) if len(set(people)) < len(people) else []
    if twice:
        raise UserError(f"cohort.hcp.subjects: {', '.join(twice[:5])} is named more than once")
    return list(people)


def _list_source(cohort: Cohort, suffix: str) -> list[Entry]:
    if cohort.source == "bids":
        return bids.list_entries(cohort.bids, suffix)
    if cohort.source == "folder":
        return folder.list_entries(cohort.folder)
    if cohort.source == "labelmaps":
        return folder.list_label_maps(cohort.labelmaps)
    return [hcp.entry(f"sub-{person}", suffix, cohort.hcp) for person in hcp.list_people(cohort.hcp)]
