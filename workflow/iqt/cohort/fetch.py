"""Have a source's files at hand: find or download them, and record where each came from, its size and checksum."""

from __future__ import annotations

import datetime
import hashlib
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from iqt.batch import run_scans
from iqt.cohort.entries import READ, Entry, entry_of
from iqt.config import Cohort
from iqt.errors import UserError
from iqt.naming import flat

CHUNK = 1 << 20


class AbsentError(UserError):
    """A file that the source does not have."""


def fetch_scans(scans: Iterable[str], out: Path, suffix: str, cohort: Cohort, index: Path) -> None:
    """Write `out/<scan>_files.json` for each scan: `status`, and `files` with a record for each field of its entry.

    A scan of which the source lacks a file is recorded with the reason. What is wrong with the source as a whole (keys,
    network, disk) stops the command.
    """
    run_scans(
        scans,
        lambda scan: flat(out, scan, "files.json"),
        lambda scan: [],
        lambda scan: fetch_scan(entry_of(cohort, suffix, scan, index), {}),
    )


def fetch_scan(entry: Entry, fetchers: dict[str, Callable[[str], dict]]) -> dict:
    """The record of one scan.

    Args:
        fetchers: what fetches places that begin with a word, such as `s3`; paths and zip members are known here.
    """

    def fetch(place: str) -> dict:
        scheme = place.partition(":")[0]
        record = fetchers.get(scheme, {"zip": _in_zip}.get(scheme, _on_disk))(place)
        return record | {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}

    files = {}
    wanted = [field for field in READ if getattr(entry, field)]
    if entry.brain and entry.head:  # the second choice
        wanted.remove("head")
    for field in wanted:
        try:
            files[field] = fetch(getattr(entry, field))
        except AbsentError as error:
            if field != "brain" or not entry.head:
                raise
            try:
                files["head"] = fetch(entry.head)
            except AbsentError as other:
                raise AbsentError(f"{error}, and {other}") from None
    return {"lut": entry.lut, "files": files}


def digest(stream: BinaryIO) -> tuple[int, str]:
    """Size and SHA-256 of what a stream holds."""
    total, checksum = 0, hashlib.sha256()
    while chunk := stream.read(CHUNK):
        total += len(chunk)
        checksum.update(chunk)
    return total, checksum.hexdigest()


def split_member(place: str) -> tuple[str, str]:
    """Archive and member of `zip:<archive>!<member>`."""
    archive, _, member = place.removeprefix("zip:").rpartition("!")
    return archive, member


def _on_disk(place: str) -> dict:
    try:
        with open(place, "rb") as stream:
            size, checksum = digest(stream)
    except FileNotFoundError:
        raise AbsentError(f"{place}: no such file") from None
    except OSError as error:
        raise UserError(f"{place}: cannot be read ({error.strerror})") from None
    if size == 0:
        raise UserError(f"{place}: is empty")
    return {"source": place, "path": place, "bytes": size, "sha256": checksum}


def _in_zip(place: str) -> dict:
    archive, member = split_member(place)
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(member) as stream:
            size, checksum = digest(stream)  # to the end, where the archive's own checksum is compared
    except FileNotFoundError:
        raise AbsentError(f"{archive}: no such file") from None
    except KeyError:
        raise AbsentError(f"{archive}: has no {member}") from None
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{archive}: {member} cannot be read ({error}); is the file complete?") from None
    return {"source": place, "path": place, "bytes": size, "sha256": checksum}
