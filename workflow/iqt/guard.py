"""What a run checks before its first job, and what it says when a job has failed.

Only the Snakefile calls these. They concern the machine and never a result.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import IO

from iqt.errors import UserError
from iqt.files import PARTIAL
from iqt.gpus import visible_gpus

LITTLE_MB = 200
"""Free space under which a failure is most likely a full disk's."""
CLOCK_S = 120
"""Seconds by which a file may be newer than now before the clock is in doubt; file servers differ by less."""


class Run:
    """This process's claim to a folder that Snakemake runs in.

    Snakemake locks the files of a run, but a run that was killed leaves its locks behind and nobody may start again
    before `--unlock`. The system drops a claim with the process that holds it, so locks without a claim are stale.
    """

    def __init__(self, state: Path) -> None:
        self.state = state
        self.handle: IO[str] | None = None

    def claim(self) -> bool:
        """Claim the folder; False where another process has."""
        if self.handle is None:
            self.state.mkdir(exist_ok=True)
            handle = (self.state / "iqt.claim").open("a+")
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # claimed, or a file system without locks
                handle.close()
                return False
            self.handle = handle
        return True

    def drop_stale_locks(self, results: Path) -> bool:
        """Remove the locks of a run that was killed and had its jobs on this machine, and the half-written files that
        no job will meet again; whether there were any locks.

        A killed cluster run's stay, since its jobs may still be in the queue: Snakemake says what to do.
        """
        try:
            locks = list((self.state / "locks").glob("*.lock"))
            if not locks or not self.claim():
                return False
            self.handle.seek(0)
            if self.handle.read().strip() != "local":
                return False
            for path in (*locks, *_unfinished(results)):
                path.unlink(missing_ok=True)
        except OSError:  # a folder that is only read, by a dry run or a report
            return False
        return True

    def start(self, local: bool) -> None:
        """Note where jobs run, for the run that finds this one's locks."""
        if self.claim():
            self.handle.truncate(0)
            self.handle.write("local\n" if local else "cluster\n")
            self.handle.flush()


def check_folder(results: Path) -> None:
    """Raise UserError where the results folder cannot be written."""
    folder = next(path for path in (results, *results.absolute().parents) if path.is_dir())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"{folder}: this folder cannot be written (read-only file system or permissions); make it writable, or run "
            "in another folder with snakemake --directory"
        )


def check_image(path: Path) -> None:
    """Raise UserError where the container image is not there."""
    if not path.is_file():
        raise UserError(
            f"{path}: no such image; build it with `apptainer build envs/iqt.sif envs/iqt.def`, or leave out "
            "--sdm apptainer"
        )


def check_clock(results: Path) -> None:
    """Raise UserError where files of an earlier run are newer than now: whatever is made from them would be older than
    they are, so every job that reads one would fail at its end."""
    now = time.time()
    newest, path = max(((path.stat().st_mtime, path) for path in _few_files(results)), default=(0.0, results))
    if newest > now + CLOCK_S:
        raise UserError(
            f"the clock stands {round((newest - now) / 60)} min behind {path}, which an earlier run wrote; set the "
            "clock right and run the same command again. If it is right now, `snakemake --touch` with the same options "
            "gives the files the present time"
        )


def failure_hint(results: Path) -> str:
    """What the machine's state says about a failure; empty where it says nothing."""
    folder = next(path for path in (results, *results.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(folder).free / 1e6
    if free >= LITTLE_MB:
        return ""
    return (
        f"{folder}: only {free:.0f} MB are free there, so the disk is most likely full. Free some space and start the "
        "same command again: finished files are kept, half-written ones are not taken for results"
    )


def gpu_note() -> str:
    """What a local run does about GPUs."""
    cards = len(visible_gpus())
    return f"{cards} GPU(s), one job a card" if cards else "no GPU is visible here: networks run on the CPU"


def _unfinished(results: Path) -> list[Path]:
    """Half-written files in the folders of few files; a batch removes those of its own scans."""
    folders = (results, *(results / name for name in ("cohort", "lists", "metrics", "tables", "figures")))
    return [path for folder in (*folders, *results.glob("models/*/seed-*")) for path in folder.glob(f"{PARTIAL}*")]


def _few_files(results: Path) -> list[Path]:
    """Files that the stages leave a few of each, so that looking costs nothing with 50,000 people."""
    patterns = ("*", "cohort/*", "lists/*", "metrics/*", "models/*/*/model.json", "tables/*")
    return [path for pattern in patterns for path in results.glob(pattern) if path.is_file()]
