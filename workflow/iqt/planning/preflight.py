"""What a run checks before its first job, and what it says when a job has failed.

Only the Snakefile calls these. They concern the machine and never a result.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from pathlib import Path
from typing import IO

from iqt.compute.gpus import visible_gpus
from iqt.errors import UserError
from iqt.io.claim import claim
from iqt.io.files import PARTIAL, nearest_folder, read_json

LITTLE_MB = 200
"""Free space under which a failure is most likely a full disk's."""
CLOCK_S = 120
"""Seconds by which a file may be newer than now before the clock is in doubt; file servers differ by less."""


REMEDY = 'find {} -exec touch -d "$(date -R)" {{}} +'
"""Sets all files of a folder to one present second; `snakemake --touch` fails on files from the future, and deletes."""
QUEUED = "iqt.queued"
"""Below .snakemake: there while a run on a cluster has not ended, whose jobs may outlive it."""


class Run:
    """A run's claim to the folder `.snakemake` that Snakemake keeps its state in.

    Snakemake locks the files of a run, but a run that was killed leaves its locks behind and nobody may start again
    before `--unlock`. The system drops a claim with the process that holds it, so locks in a folder that no run and no
    job claims are stale.
    """

    def __init__(self, state: Path) -> None:
        self.state = state
        self.handle: IO[str] | None = None

    def claim(self) -> None:
        """Claim the folder, beside others."""
        with contextlib.suppress(OSError):  # a folder that is only read, or a file system without locks
            self.state.mkdir(exist_ok=True)
            self.handle = claim(self.state, fcntl.LOCK_SH)

    def drop_stale_locks(self, results: Path) -> bool:
        """Remove the locks of runs that were killed and had their jobs on this machine, and the half-written files that
        no job will meet again; whether there were any locks.

        Those of a run on a cluster stay, since its jobs may still be in the queue: Snakemake says what to do.
        """
        locks = list((self.state / "locks").glob("*.lock"))
        if not locks or (self.state / QUEUED).exists():
            return False
        try:
            alone = claim(self.state, fcntl.LOCK_EX)
            if alone is None:
                return False
            with alone:
                for path in (*locks, *_unfinished(results)):
                    path.unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def start(self, local: bool) -> None:
        """Note where jobs run, for whoever finds this run's locks."""
        if not local:
            (self.state / QUEUED).touch()

    def end(self) -> None:
        """The run has ended by itself, its jobs before it."""
        (self.state / QUEUED).unlink(missing_ok=True)


def check_name(results: Path, source: str) -> None:
    """Raise UserError where the results folder holds a run on people of another source, which would be lost."""
    described = results / "cohort" / "dataset_description.json"
    if not described.is_file():
        return
    known = re.search(r"\((\w+)\)$", str(read_json(described).get("Name")))
    if known and known.group(1) != source:
        raise UserError(
            f"{results}: holds a run on people of cohort.source {known.group(1)}, and this one is on those of "
            f"{source}; give it a name of its own (name: in the configuration), or delete that folder"
        )


def check_folder(results: Path) -> None:
    """Raise UserError where the results folder cannot be written."""
    folder = nearest_folder(results)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"{folder}: this folder cannot be written (read-only file system or permissions); make it writable, or run "
            "in another folder with snakemake --directory"
        )


def check_engines(tissues: str, ingest: str) -> None:
    """Raise UserError where a stage needs FSL, which the container image does not hold."""
    for key, wanted, now in (("tissues.engine", "fast", tissues), ("cohort.mask.engine", "mask_bet", ingest)):
        if wanted == now:
            raise UserError(
                f"{key}: FSL is not in the container image; choose another engine, or run without --sdm apptainer"
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
            f"clock right and run the same command again. If it is right now, `{REMEDY.format(results)}` gives the "
            "files the present time"
        )


def failure_hint(results: Path) -> str:
    """What the machine's state says about a failure; empty where it says nothing."""
    folder = nearest_folder(results)
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
