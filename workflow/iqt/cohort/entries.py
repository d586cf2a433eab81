"""The scans of a source: where each of their files is, and the index that says so."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from iqt.config import Cohort
from iqt.io.files import read_table

READ = ("brain", "head", "mask", "labels", "wm", "gm", "csf", "lowfield")
"""Fields of an entry that are places."""


@dataclass(frozen=True)
class Entry:
    """The places of a scan's files; empty where the source has none.

    `brain` is the image without skull, `head` with it; where both are given, `head` is read only if `brain` is absent.
    `lowfield` is a real low-field scan of the same person. `lut` names the table of the labels in resources/.
    """

    scan: str
    brain: str = ""
    head: str = ""
    mask: str = ""
    labels: str = ""
    wm: str = ""
    gm: str = ""
    csf: str = ""
    lowfield: str = ""
    lut: str = ""

    def digest(self) -> str:
        """A few letters that change when a place does."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]


TRANSPORT = {"profile", "part_mb", "parallel", "attempts"}
"""Keys of a bucket's section that change no file."""
NOT_OF_A_SCAN = {"subjects": True, "s3": TRANSPORT}
"""Keys of a source's settings that change nothing about a scan, as pydantic's `exclude`."""


def transport_of(cohort: Cohort) -> dict[str, Any]:
    """How a bucket's files are brought; empty for a source without one."""
    bucket = getattr(cohort.settings, "s3", None)
    return {} if bucket is None else bucket.model_dump(mode="json", include=TRANSPORT)


def index_path(cohort: Cohort, suffix: str, folder: Path) -> Path:
    """Where the index of these settings belongs: other settings have another one."""
    section = cohort.settings.model_dump(mode="json")
    bucket = getattr(cohort.settings, "s3", None)
    if bucket is not None:  # how it is asked makes no other source
        section["s3"] |= {key: type(bucket).model_fields[key].default for key in TRANSPORT}
    text = json.dumps([cohort.source, suffix, section])
    return folder / f"index-{hashlib.sha256(text.encode()).hexdigest()[:8]}.tsv"


def read_index(index: Path) -> list[Entry]:
    """The entries of an index; empty where there is none."""
    if not index.is_file():
        return []
    known = [field.name for field in fields(Entry)]
    return [Entry(**{name: row[name] for name in known}) for row in read_table(index, required=known)]
