"""Where a source's files are, as one line of text: a path, an object of a bucket, or a member of a zip file."""

from __future__ import annotations

import os
from pathlib import Path

from iqt.config import S3
from iqt.errors import UserError


class AbsentError(UserError):
    """A file that the source does not have."""


def s3_url(settings: S3, path: str) -> str:
    """`s3://bucket/prefix/path`."""
    return f"s3://{settings.bucket}/" + "/".join(part for part in (settings.prefix.strip("/"), path) if part)


def in_zip(archive: str | os.PathLike, member: str) -> str:
    """The place of a member of a zip file."""
    return f"zip:{archive}!{member}"


def split_member(place: str) -> tuple[str, str]:
    """Archive and member of `zip:<archive>!<member>`."""
    archive, _, member = place.removeprefix("zip:").rpartition("!")
    return archive, member


def list_names(folder: str | Path) -> list[str]:
    """Names in a folder; UserError where it is not one."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}); check the path") from None
