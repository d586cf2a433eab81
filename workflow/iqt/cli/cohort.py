"""Commands that make a cohort."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import SCAN, ListOption, OutOption, SeedOption, SettingsOption, SuffixOption, app, stage


@stage.command()
def template(
    scans: ListOption,
    out: OutOption,
    suffix: SuffixOption = "T1w",
    seed: SeedOption = 1,
    settings: SettingsOption = None,
) -> None:
    """Make people from the MNI152 template."""
    from iqt.cohort.build import build_template
    from iqt.config import Template, parse_section
    from iqt.io.batch import read_list

    build_template(read_list(scans), out, suffix, seed, parse_section(Template, settings))


@stage.command()
def fetch(
    scans: ListOption,
    out: OutOption,
    settings: SettingsOption,
    index: Annotated[Path, typer.Option(help="Index of the source, where it has one.")],
    suffix: SuffixOption = "T1w",
    transport: Annotated[str, typer.Option(help="Keys of the source's s3 that change no file, as JSON text.")] = "{}",
) -> None:
    """Have the files of a list's scans at hand, and record their sizes and checksums."""
    from iqt.cohort.fetch import fetch_scans
    from iqt.config import Cohort, parse_section
    from iqt.io.batch import read_list

    cohort = parse_section(Cohort, settings)
    if how := json.loads(transport):
        section = cohort.settings
        own = section.model_copy(update={"s3": section.s3.model_copy(update=how)})
        cohort = cohort.model_copy(update={cohort.source: own})
    fetch_scans(read_list(scans), out, suffix, cohort, index)


@stage.command()
def ingest(
    scans: ListOption,
    files: Annotated[Path, typer.Option(help="Folder of the records that `iqt stage fetch` wrote.")],
    out: OutOption,
    suffix: SuffixOption = "T1w",
    seed: SeedOption = 1,
    settings: SettingsOption = None,
) -> None:
    """Check fetched scans, extract the brain and write the cohort's volumes."""
    from iqt.cohort.ingest import ingest_scans
    from iqt.config import Cohort, parse_section
    from iqt.io.batch import read_list

    ingest_scans(read_list(scans), files, out, suffix, seed, parse_section(Cohort, settings))


@stage.command()
def participants(
    lists: Annotated[list[Path], typer.Option("--list", help="TSV with columns scan and split; may be repeated.")],
    out: OutOption,
    suffix: SuffixOption = "T1w",
    source: Annotated[str, typer.Option(help="Where the scans come from.")] = "template",
    max_missing: Annotated[float, typer.Option(help="Share of the scans that may have failed.")] = 1.0,
) -> None:
    """Write a cohort's participants.tsv, dataset_description.json and label look-up table."""
    from iqt.cohort.participants import write_participants

    write_participants(lists, out, suffix, source, max_missing)


@app.command(rich_help_panel=SCAN)
def check(
    paths: Annotated[list[Path], typer.Argument(help="Volumes, or folders of them.")],
    lut: Annotated[str, typer.Option(help="Look-up table of label maps: freesurfer, or a TSV.")] = "freesurfer",
) -> None:
    """Run the cohort's checks on any volumes and print a table; the exit status is 1 where one does not pass, which a
    warning is not."""
    from iqt.cohort.inspection import format_table, inspect

    rows = inspect(paths, lut)
    print(format_table(rows))
    if any(row["problems"] for row in rows):
        raise typer.Exit(1)
