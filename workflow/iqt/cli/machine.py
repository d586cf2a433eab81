"""Commands about this machine: what is installed, and what a report of a fault should say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import HELP, app
from iqt.errors import UserError


@app.command(rich_help_panel=HELP)
def doctor(
    smoke: Annotated[bool, typer.Option(help="Also enhance a small phantom, which takes seconds.")] = True,
) -> None:
    """Look at what is installed and what works, in one table; the exit status is 1 where something needed does not."""
    from iqt.doctor import FAILED, examine, table

    found = examine(smoke)
    print(table(found))
    if any(one.state == FAILED for one in found):
        raise typer.Exit(1)


@app.command("bug-report", rich_help_panel=HELP)
def bug_report(
    config: Annotated[Path | None, typer.Option(help="The configuration of the run, with its paths taken out.")] = None,
) -> None:
    """Print what a report of a fault should contain: versions, machine, and a configuration without paths and keys."""
    from iqt.doctor import bug_report as report

    if config is not None and not config.is_file():
        raise UserError(f"{config}: no such file")
    print(report(config))
