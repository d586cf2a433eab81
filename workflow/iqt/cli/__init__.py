"""The command line: one subcommand a rule. A subcommand imports its own stage only when it is called, so that help and
cheap stages start at once."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Annotated

import typer

from iqt import __version__
from iqt.cli import (  # noqa: F401  (they register)
    bench,
    cohort,
    config,
    degrade,
    enhance,
    evaluate,
    experiments,
    export,
    machine,
    parcellate,
    provenance,
    report,
    study,
    train,
)
from iqt.cli.options import app
from iqt.errors import UserError
from iqt.terminal import LEVEL, one_message


def main() -> None:
    """Run the command line; a UserError ends in its message and exit status 1, Ctrl-C in 130."""
    with one_message("iqt"):
        app()


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"iqt {__version__}")
        raise typer.Exit


JOBS = ("stage", "plot")
"""Groups of subcommands that rules call."""


@app.callback()
def common(
    context: typer.Context,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores by default.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say warnings and errors alone.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    if quiet and verbose:
        raise UserError("--quiet and --verbose: one of the two")
    if quiet or verbose:
        os.environ[LEVEL] = "quiet" if quiet else "verbose"
    if context.invoked_subcommand in JOBS and os.access(".snakemake", os.W_OK):
        from iqt.io.claim import claim

        # A run that finds another one's locks must see that its jobs still live.
        job = claim(Path(".snakemake"), fcntl.LOCK_SH)
        if job is not None:
            context.with_resource(job)
    if threads is not None:  # read by numerical libraries when they are first imported, which is later
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(threads)
