"""The claim that a run and its jobs hold on the folder that Snakemake keeps its state in. Standard library alone."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

CLAIM = "iqt.claim"
"""Below .snakemake: the file that every run, and every job of one, holds a shared lock on as long as it lives."""


def claim(state: Path, kind: int) -> IO[str] | None:
    """Take a shared or exclusive lock on the folder for as long as the result stays open; None where another one's
    claim does not allow it, or the file system knows no locks."""
    handle = (state / CLAIM).open("a")
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return None
    return handle
