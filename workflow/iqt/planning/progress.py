"""How far a run of the workflow is, and about how long it will still take."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

WORDS = {
    "make_template": "making people",
    "fetch": "fetching scans",
    "ingest": "reading scans",
    "make_tissues": "classifying tissue",
    "degrade": "simulating low field",
    "store": "storing regions",
    "train": "training",
    "train_parcellator": "training the parcellator",
    "enhance": "enhancing",
    "calibrate": "calibrating",
    "parcellate_reference": "parcellating references",
    "parcellate_result": "parcellating",
    "evaluate": "scoring",
    "process_scan": "enhancing",
    "plot": "drawing",
    "write_tables": "writing tables",
    "write_page": "writing the page",
}
"""What a rule does, for those that take long enough to be seen."""
FIRST_GUESS = {
    "make_template": 15.0,
    "fetch": 10.0,
    "ingest": 15.0,
    "make_tissues": 30.0,
    "degrade": 9.0,
    "train": 80.0,
    "train_parcellator": 120.0,
    "enhance": 10.0,
    "calibrate": 20.0,
    "parcellate_reference": 8.0,
    "parcellate_result": 8.0,
    "evaluate": 4.0,
    "process_scan": 30.0,
}
"""Seconds of a job in the demo on two cores (docs/measurements/demo.md), for rules none of whose jobs has ended."""
SHORT = 2.5
"""The same for every other rule."""


class Job(NamedTuple):
    """A job that runs: its rule's name without the batch, its wildcards, threads, log and beginning."""

    rule: str
    wildcards: Mapping[str, str]
    threads: int
    log: Path | None
    began: float


class Progress:
    """Jobs of a run; times are in seconds of any clock."""

    def __init__(self, counts: Mapping[str, int], cores: int) -> None:
        """`counts` holds the number of jobs of each rule, `cores` how many threads run at once."""
        self.waiting: Counter[str] = Counter()
        for rule, count in counts.items():
            self.waiting[family(rule)] += count
        self.total, self.cores, self.done = sum(self.waiting.values()), max(1, cores), 0
        self.running: dict[int, Job] = {}
        self._took: dict[str, list[float]] = {}
        self._threads: dict[str, int] = {"train": self.cores, "train_parcellator": self.cores}

    def start(self, number: int, job: Job) -> None:
        """A job begins."""
        self.waiting[job.rule] -= 1
        self.running[number] = job
        self._threads[job.rule] = job.threads

    def finish(self, number: int, now: float) -> None:
        """A job has ended."""
        job = self.running.pop(number, None)
        self.done += 1
        if job is not None:
            self._took.setdefault(job.rule, []).append(now - job.began)

    def seconds_left(self, now: float) -> float:
        """About how long the run will still take: what jobs of each rule took so far, or a guess, on all cores."""
        busy = sum(self._left(job, now) * min(job.threads, self.cores) for job in self.running.values())
        busy += sum(
            count * self._typical(rule) * min(self._threads.get(rule, 1), self.cores)
            for rule, count in self.waiting.items()
        )
        # However many cores there are, the job that runs longest must end.
        return max([busy / self.cores, *(self._left(job, now) for job in self.running.values())])

    def text(self, now: float) -> str:
        """`[12/61] training unet, enhancing cubic; about 3 min left`."""
        doing = ", ".join(dict.fromkeys(map(describe, self.running.values())))
        left = about(self.seconds_left(now))
        return f"[{self.done}/{self.total}] " + "; ".join(filter(None, (doing, f"{left} left")))

    def _typical(self, rule: str) -> float:
        took = self._took.get(rule)
        return sum(took) / len(took) if took else FIRST_GUESS.get(rule, SHORT)

    def _left(self, job: Job, now: float) -> float:
        told = told_left(job.log) if job.rule.startswith("train") and job.log else None
        return told if told is not None else max(0.0, self._typical(job.rule) - (now - job.began))


def family(rule: str) -> str:
    """A rule's name without its low-field set and batch: `enhance_3` is `enhance`, `degrade_portable_3` `degrade`."""
    name = re.sub(r"_\d+$", "", rule)
    alike = [known for known in WORDS if f"{name}_".startswith(f"{known}_")]
    return max(alike, key=len, default=name)


def describe(job: Job) -> str:
    """`enhancing unet`, or without a method what the rule does."""
    named = next((job.wildcards[key] for key in ("method", "name", "model") if key in job.wildcards), None)
    return WORDS.get(job.rule, job.rule.replace("_", " ")) + (f" {named}" if named else "")


def told_left(log: Path) -> float | None:
    """What the last line of a training's log says is left, in seconds."""
    try:
        found = re.findall(r"; (\d+) s left", log.read_text(encoding="utf-8", errors="replace")[-2000:])
    except OSError:
        return None
    return float(found[-1]) if found else None


def about(seconds: float) -> str:
    """Rounded seconds, minutes or hours in words."""
    if seconds < 90:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"
