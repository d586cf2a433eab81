"""Downloads from S3 that go on where they were interrupted, and are kept only when size and checksum are right."""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import hashlib
import os
import random
import shutil
import time
from pathlib import Path
from typing import BinaryIO

import botocore.exceptions as exceptions
import urllib3.exceptions

from iqt.cohort.places import AbsentError
from iqt.cohort.s3 import ChangedError, connect, explained, head
from iqt.config import S3
from iqt.errors import StopError, UserError
from iqt.io.files import CHUNK, digest, read_json, write_json

BROKEN = (exceptions.ResponseStreamingError, exceptions.IncompleteReadError, exceptions.ReadTimeoutError)
BROKEN = (*BROKEN, exceptions.ConnectionClosedError, urllib3.exceptions.HTTPError, ConnectionError)
LONGEST_PAUSE = 20.0
RESTARTS = 3
MB = 1 << 20
PART_SIZES_MB = (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 256, 512)
"""Part sizes that upload tools use; one of them explains the ETag of an object uploaded in parts."""


class Downloader:
    """Brings objects of one bucket to `folder/<bucket>/<key>`; safe for threads, and for jobs that share the folder."""

    def __init__(self, settings: S3, folder: Path) -> None:
        self.settings = settings
        self.folder = Path(folder) / settings.bucket
        self.client = connect(settings)

    def __call__(self, url: str) -> dict:
        """Download `s3://bucket/key`, unless it is there already and still what was downloaded; return its record.

        A part that an earlier call left is continued if the object still is the same (If-Match on its ETag).

        Raises:
            AbsentError: there is no such object.
            StopError: keys, network, server or disk are at fault.
        """
        key = self.key_of(url)
        target = self.folder / key
        try:
            return self._known(url, target) or self._download(url, key, target)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            free = shutil.disk_usage(target.parent if target.parent.is_dir() else ".").free
            raise StopError(
                f"{self.folder}: the disk is full ({free / 1e9:.1f} GB left); make room, or set cohort.downloads to "
                "another disk, and start again to go on where it stopped"
            ) from None

    def key_of(self, url: str) -> str:
        """The key of a URL of this bucket, refused where it would lead out of the folder."""
        key = url.removeprefix(f"s3://{self.settings.bucket}/")
        parts = key.split("/")
        odd = key == url or key.startswith("/") or "\\" in key or "\0" in key or {"", ".", ".."} & set(parts)
        if odd or not (self.folder / key).resolve().is_relative_to(self.folder.resolve()):
            raise UserError(f"{url}: is no object of s3://{self.settings.bucket} that a file can be named after")
        return key

    def size(self, url: str) -> int:
        """Bytes still to be downloaded; AbsentError where there is no such object."""
        key = self.key_of(url)
        target = self.folder / key
        if target.is_file() and _record_path(target).is_file():
            return 0
        partial = _partial_path(target)
        done = partial.stat().st_size if partial.is_file() else 0
        return max(0, head(self.client, self.settings, key)["ContentLength"] - done)

    def _known(self, url: str, target: Path) -> dict | None:
        """The record of a file that is there; None where it is not, or is not what was downloaded."""
        if not (target.is_file() and _record_path(target).is_file()):
            return None
        record = read_json(_record_path(target))
        with target.open("rb") as stream:
            size, checksum = digest(stream)
        if (size, checksum) != (record.get("bytes"), record.get("sha256")):
            target.unlink()
            return None
        return record | {"source": url, "path": str(target)}

    def _download(self, url: str, key: str, target: Path) -> dict:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial_path(target)
        with partial.open("ab") as stream:
            with contextlib.suppress(OSError):  # of a file system without locks
                fcntl.flock(stream, fcntl.LOCK_EX)  # another job may want the same file
            known = self._known(url, target)
            if known:
                partial.unlink(missing_ok=True)
                return known
            for restart in range(RESTARTS):
                try:
                    facts = self._begin(key, partial, stream)
                    self._receive(key, facts, stream)
                    how = self._verify(url, facts, partial)
                except ChangedError:
                    _begin_anew(stream, partial)
                    if restart == RESTARTS - 1:
                        raise StopError(f"{url}: changes while it is downloaded; start again later") from None
                else:
                    break
            with partial.open("rb") as whole:
                size, checksum = digest(whole)
            record = {"bytes": size, "sha256": checksum, "etag": facts["ETag"].strip('"'), "verified": how}
            write_json(_record_path(target), record)
            os.replace(partial, target)
            _state_path(partial).unlink(missing_ok=True)
        return record | {"source": url, "path": str(target)}

    def _begin(self, key: str, partial: Path, stream: BinaryIO) -> dict:
        """What the object is now; what an earlier download of another one left is dropped."""
        try:
            facts = head(self.client, self.settings, key)
        except AbsentError:
            partial.unlink(missing_ok=True)
            _state_path(partial).unlink(missing_ok=True)
            raise
        now = {"etag": facts["ETag"], "bytes": facts["ContentLength"]}
        before = read_json(_state_path(partial)) if _state_path(partial).is_file() else {}
        if before != now or partial.stat().st_size > now["bytes"]:
            _begin_anew(stream, partial)
            write_json(_state_path(partial), now)
        return facts

    def _receive(self, key: str, facts: dict, stream: BinaryIO) -> None:
        """Append range after range; a range that breaks off is continued after a pause that grows."""
        size, part, failures = facts["ContentLength"], int(self.settings.part_mb * MB), 0
        while (at := stream.seek(0, os.SEEK_END)) < size:
            last = min(at + part, size) - 1
            try:
                with explained(self.settings, key):
                    answer = self.client.get_object(
                        Bucket=self.settings.bucket, Key=key, Range=f"bytes={at}-{last}", IfMatch=facts["ETag"]
                    )
                for chunk in answer["Body"].iter_chunks(CHUNK // 4):
                    stream.write(chunk)
                stream.flush()
                failures = 0
            except BROKEN as error:
                stream.flush()
                failures = 1 if stream.seek(0, os.SEEK_END) > at else failures + 1
                if failures >= self.settings.attempts:
                    raise StopError(
                        f"s3://{self.settings.bucket}/{key}: the connection broke {failures} times "
                        f"({type(error).__name__}); check the network, and start again to go on where it stopped"
                    ) from None
                time.sleep(random.random() * min(LONGEST_PAUSE, 0.5 * 2**failures))

    def _verify(self, url: str, facts: dict, partial: Path) -> str:
        """By what the bytes were found to be right; ChangedError where they are not."""
        if partial.stat().st_size != facts["ContentLength"]:
            raise ChangedError(url)
        etag = facts["ETag"].strip('"')
        sha256 = facts.get("ChecksumSHA256", "")
        if sha256 and "-" not in sha256:
            with partial.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").digest()
            if found != base64.b64decode(sha256):
                raise ChangedError(url)
            return "size and SHA-256"
        whole, _, parts = etag.partition("-")
        if len(whole) != 32 or facts.get("ServerSideEncryption") == "aws:kms":  # then it is no checksum
            return "size"
        if not parts:
            if _md5(partial, facts["ContentLength"]).hex() != whole:
                raise ChangedError(url)
            return "size and MD5"
        for size in (mb * MB for mb in PART_SIZES_MB):
            if -(-facts["ContentLength"] // size) == int(parts) and _md5_of_parts(partial, size) == whole:
                return "size and MD5 of its parts"
        return "size"


def _partial_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")


def _state_path(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _record_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.json")


def _begin_anew(stream: BinaryIO, partial: Path) -> None:
    stream.truncate(0)
    _state_path(partial).unlink(missing_ok=True)


def _md5(path: Path, size: int, start: int = 0) -> bytes:
    checksum = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        stream.seek(start)
        while size and (chunk := stream.read(min(size, CHUNK))):
            checksum.update(chunk)
            size -= len(chunk)
    return checksum.digest()


def _md5_of_parts(path: Path, part: int) -> str:
    """The ETag's first word of an object that was uploaded in parts of this size."""
    starts = range(0, path.stat().st_size, part)
    return hashlib.md5(b"".join(_md5(path, part, start) for start in starts), usedforsecurity=False).hexdigest()
