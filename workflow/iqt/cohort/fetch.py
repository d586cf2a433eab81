"""Have a source's files at hand: find or download them, and record where each came from, its size and checksum."""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from iqt.cohort.entries import READ, Entry
from iqt.cohort.listing import entry_of
from iqt.cohort.places import AbsentError, split_member
from iqt.config import S3, Cohort
from iqt.errors import StopError, UserError
from iqt.io.batch import allow_missing, run_scans
from iqt.io.files import DISK, digest, missing_file, nearest_folder
from iqt.io.naming import flat

ASKING = 16
"""Requests for sizes at the same time."""


def fetch_scans(scans: Iterable[str], out: Path, suffix: str, cohort: Cohort, index: Path) -> None:
    """Write `out/<scan>_files.json` for each scan: `status`, and `files` with a record for each field of its entry.

    A record's date is that of the download, or of a local file's last change.

    A scan of which the source lacks a file is recorded with the reason.

    Raises:
        StopError: what is wrong with the source as a whole: keys, network, disk.
    """
    scans = list(scans)
    fetchers = fetchers_of(cohort)
    entries = {scan: entry_of(cohort, suffix, scan, index) for scan in scans}
    with ThreadPoolExecutor(bucket_of(cohort).parallel if fetchers else 1) as pool:
        jobs = {scan: pool.submit(fetch_scan, entries[scan], fetchers) for scan in scans}
        try:
            run_scans(
                scans, lambda scan: flat(out, scan, "files.json"), lambda scan: [], lambda scan: jobs[scan].result()
            )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def check_source(scans: Iterable[str], suffix: str, cohort: Cohort, index: Path) -> dict:
    """Ask for every file that will be read, before anything is: what is missing, and how much is to be downloaded.

    Raises:
        StopError: the source refuses, more scans than `cohort.max_missing` lack a file, or the disk has no room.
    """
    scans = list(scans)
    fetchers = fetchers_of(cohort)
    if fetchers:
        from iqt.cohort.s3 import check_access

        check_access(bucket_of(cohort))

    def ask(scan: str) -> tuple[int, str]:
        try:
            return _size(entry_of(cohort, suffix, scan, index), fetchers), ""
        except StopError:
            raise
        except UserError as error:
            return 0, str(error)

    with ThreadPoolExecutor(ASKING if fetchers else 1) as pool:
        found = dict(zip(scans, pool.map(ask, scans), strict=True))
    missing = {scan: reason for scan, (_, reason) in found.items() if reason}
    allow_missing(missing, len(scans), cohort.max_missing)
    wanted = sum(size for size, _ in found.values())
    free = shutil.disk_usage(nearest_folder(cohort.downloads)).free
    if wanted > free:
        raise StopError(
            f"{cohort.downloads}: {wanted / 1e9:.1f} GB are to be downloaded, but its disk has {free / 1e9:.1f} GB "
            "left; make room, set cohort.downloads to another disk, or ask for fewer people"
        )
    return {"scans": len(scans), "bytes_to_download": wanted, "missing": missing}


def fetchers_of(cohort: Cohort) -> dict[str, Callable[[str], dict]]:
    """What brings places to this machine that are elsewhere, by the word they begin with."""
    bucket = bucket_of(cohort)
    if bucket is None:
        return {}
    from iqt.cohort.download import Downloader

    return {"s3": Downloader(bucket, Path(cohort.downloads))}


def bucket_of(cohort: Cohort) -> S3 | None:
    """The bucket that a cohort comes from, if it does from one."""
    if cohort.source == "hcp" and cohort.hcp.access == "s3":
        return cohort.hcp.s3
    if cohort.source == "bids" and cohort.bids.downloaded:
        return cohort.bids.s3
    return None


def fetch_scan(entry: Entry, fetchers: Mapping[str, Callable[[str], dict]]) -> dict:
    """The record of one scan.

    Args:
        fetchers: what fetches places that begin with a word, such as `s3`; paths and zip members are known here.
    """

    def fetch(place: str) -> dict:
        scheme = place.partition(":")[0]
        record = fetchers.get(scheme, {"zip": _in_zip}.get(scheme, _on_disk))(place)
        local = split_member(record["path"])[0] if record["path"].startswith("zip:") else record["path"]
        changed = datetime.datetime.fromtimestamp(os.stat(local).st_mtime, datetime.UTC)
        return record | {"date": changed.isoformat(timespec="seconds")}

    return {"lut": entry.lut, "files": _each(entry, fetch)}


def _each(entry: Entry, ask: Callable[[str], Any]) -> dict[str, Any]:
    """`ask` of each place that is wanted; `head` is the second choice after `brain`."""
    answers = {}
    for field in READ:
        place = getattr(entry, field)
        if not place or (field == "head" and entry.brain):
            continue
        try:
            answers[field] = ask(place)
        except AbsentError as error:
            if field != "brain" or not entry.head:
                raise
            try:
                answers["head"] = ask(entry.head)
            except AbsentError as other:
                raise AbsentError(f"{error}, and {other}") from None
    return answers


def _size(entry: Entry, fetchers: Mapping[str, Any]) -> int:
    """Bytes of an entry that are to be downloaded; AbsentError where a file is missing."""

    def ask(place: str) -> int:
        scheme = place.partition(":")[0]
        if scheme in fetchers:
            return fetchers[scheme].size(place)
        if scheme == "zip":
            archive, member = split_member(place)
            with _opened(archive, member) as opened:
                opened.getinfo(member)
        elif not os.path.isfile(place):
            raise AbsentError(missing_file(place))
        return 0

    return sum(_each(entry, ask).values())


def _on_disk(place: str) -> dict:
    try:
        with open(place, "rb") as stream:
            size, checksum = digest(stream)
    except FileNotFoundError:
        raise AbsentError(missing_file(place)) from None
    except OSError as error:
        kind = StopError if error.errno in DISK else UserError
        raise kind(f"{place}: cannot be read ({error.strerror})") from None
    if size == 0:
        raise UserError(f"{place}: is empty")
    return {"source": place, "path": place, "bytes": size, "sha256": checksum}


def _in_zip(place: str) -> dict:
    archive, member = split_member(place)
    with _opened(archive, member) as opened, opened.open(member) as stream:
        size, checksum = digest(stream)  # to the end, where the archive's own checksum is compared
    return {"source": place, "path": place, "bytes": size, "sha256": checksum}


@contextlib.contextmanager
def _opened(archive: str, member: str) -> Iterator[zipfile.ZipFile]:
    """A zip file; AbsentError where it or its member is not there, UserError where it is damaged."""
    try:
        with zipfile.ZipFile(archive) as opened:
            yield opened
    except FileNotFoundError:
        raise AbsentError(f"{archive}: no such file") from None
    except KeyError:
        raise AbsentError(f"{archive}: has no {member}") from None
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{archive}: {member} cannot be read ({error}); is the file complete?") from None
