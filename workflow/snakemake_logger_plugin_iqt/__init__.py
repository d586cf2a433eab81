"""`snakemake --logger iqt`: one line that says what runs and about how long it will still take, warnings, and for a job
that failed its log. Everything else is in Snakemake's own log file.

Snakemake imports every plugin that it finds before it reads a Snakefile. So `iqt` is imported only when a job starts:
by then the Snakefile has chosen the package that lies beside it, which need not be the installed one.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

EVERY = 15.0
"""Seconds between lines where there is no terminal whose line could be written over."""
LAST_LINES = 20
"""Of a failed job's log."""


class LogHandler(LogHandlerBase):
    """Shows a run's progress on standard error."""

    writes_to_stream, writes_to_file, needs_rulegraph = True, False, False
    has_filter, has_formatter = True, True

    def __post_init__(self) -> None:
        self.stream, self.terminal = sys.stderr, sys.stderr.isatty()
        self.counts: dict[str, int] = {}
        self.cores, self.progress = 1, None
        self.shown = self.width = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        event, now = getattr(record, "event", None), time.monotonic()
        match event:
            case LogEvent.RESOURCES_INFO:
                self.cores = int(getattr(record, "cores", None) or self.cores)
            case LogEvent.RUN_INFO:
                self.counts = {rule: count for rule, count in record.stats.items() if rule != "total"}
                if self.common_settings.dryrun:
                    self._write(record.getMessage())
            case LogEvent.JOB_INFO if not self.common_settings.dryrun:
                self._start(record, now)
                self._show(now)
            case LogEvent.JOB_FINISHED if self.progress:
                self.progress.finish(record.job_id, now)
                self._show(now)
            case LogEvent.JOB_ERROR | LogEvent.GROUP_ERROR:
                self._failed(record)
            case _ if record.levelno >= logging.WARNING or record.getMessage().startswith("Nothing to be done"):
                self._write(record.getMessage())

    def close(self) -> None:
        if self.terminal and self.width:
            print(file=self.stream, flush=True)
            self.width = 0
        super().close()

    def _start(self, record: logging.LogRecord, now: float) -> None:
        from iqt.planning.progress import Job, Progress, family

        self.progress = self.progress or Progress(self.counts, self.cores)
        logs = list(map(Path, record.log or ()))
        wildcards = dict(record.wildcards or {})
        job = Job(family(record.rule_name), wildcards, record.threads, logs[0] if logs else None, now)
        self.progress.start(record.jobid, job)

    def _show(self, now: float) -> None:
        text = self.progress.text(now)
        if self.terminal:
            print(f"\r{text.ljust(int(self.width))}", end="", file=self.stream, flush=True)
            self.width = len(text)
        elif now - self.shown > EVERY or self.progress.done == self.progress.total:
            print(text, file=self.stream, flush=True)
            self.shown = now

    def _write(self, text: str) -> None:
        """A message of its own line."""
        if self.terminal and self.width:
            print("\r" + " " * int(self.width) + "\r", end="", file=self.stream)
            self.width = 0
        print(text, file=self.stream, flush=True)

    def _failed(self, record: logging.LogRecord) -> None:
        self._write(record.getMessage())
        for path in map(Path, getattr(record, "log", None) or ()):
            if path.is_file():
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
                self._write("\n".join([f"{path} ends:", *(f"  {line}" for line in lines[-LAST_LINES:])]))
