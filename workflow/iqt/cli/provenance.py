"""Commands about how results were made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import BENCHMARK, SettingsOption, app, stage


@app.command(rich_help_panel=BENCHMARK)
def provenance(
    result: Annotated[Path, typer.Argument(help="A file or folder of a finished run.")],
    everything: Annotated[bool, typer.Option("--all", help="List every file of every step.")] = False,
) -> None:
    """Print how a result was made: rule by rule back to the source files, with checksums."""
    from iqt.provenance.chain import describe, trace

    print(describe(trace(result), shown=None if everything else 3))


@stage.command("record-provenance")
def record_provenance(
    root: Annotated[Path, typer.Option(help="Folder of the run.")],
    result: Annotated[list[Path], typer.Option(help="A file that the run was for; may be repeated.")],
    settings: SettingsOption,
    snakemake: Annotated[str, typer.Option(help="Version of Snakemake.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
) -> None:
    """Write how a run was made: commit, configuration, versions, seeds, host, durations, sources and checksums."""
    from iqt.config import Config, parse_section
    from iqt.provenance.collect import write_provenance

    write_provenance(root, result, parse_section(Config, settings), snakemake, out)
