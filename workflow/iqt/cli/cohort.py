"""Commands that make a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import ListOption, OutOption, SeedOption, SettingsOption, SuffixOption, app


@app.command()
def template(
    scans: ListOption,
    out: OutOption,
    suffix: SuffixOption = "T1w",
    seed: SeedOption = 1,
    settings: SettingsOption = None,
) -> None:
    """Make people from the MNI152 template."""
    from iqt.batch import read_list
    from iqt.cohort.build import build_template
    from iqt.config import Template, parse_section

    build_template(read_list(scans), out, suffix, seed, parse_section(Template, settings))


@app.command()
def participants(
    lists: Annotated[list[Path], typer.Option("--list", help="TSV with columns scan and split; may be repeated.")],
    out: OutOption,
    suffix: SuffixOption = "T1w",
    source: Annotated[str, typer.Option(help="Where the scans come from.")] = "template",
) -> None:
    """Write a cohort's participants.tsv, dataset_description.json and label look-up table."""
    from iqt.cohort.build import write_participants

    write_participants(lists, out, suffix, source)
