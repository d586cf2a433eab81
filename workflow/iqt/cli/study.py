"""A study of a user's own scans: `iqt study`, the same as a BIDS App, and what its rules call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import SCAN, SettingsOption, app, stage
from iqt.errors import UserError

Participants = Annotated[
    list[str] | None, typer.Option("--participant-label", help="Ids, with or without sub-; may be repeated.")
]
Cores = Annotated[int | None, typer.Option(min=1, help="CPU cores; all by default.")]


@app.command(rich_help_panel=SCAN)
def study(
    dataset: Annotated[
        Path, typer.Argument(help="A BIDS dataset, a folder of NIfTI, MGZ or DICOM files, or one file.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the results, a BIDS derivative.")],
    participant_label: Participants = None,
    suffix: Annotated[str, typer.Option(help="Contrast: T1w, T2w or FLAIR.")] = "T1w",
    model: Annotated[str | None, typer.Option(help="Name of a shipped model (iqt models), or a folder.")] = None,
    series: Annotated[
        str | None, typer.Option(help="Regular expression that descriptions of DICOM series must match.")
    ] = None,
    fuse: Annotated[
        bool, typer.Option("--fuse", help="Combine the scans of a session, stacks of thick slices, before enhancing.")
    ] = False,
    samples: Annotated[int | None, typer.Option(min=1, help="Samples whose mean is written.")] = None,
    skull_stripped: Annotated[bool, typer.Option("--skull-stripped", help="Scans are 0 outside the brain.")] = False,
    keep_doubtful_masks: Annotated[
        bool, typer.Option("--keep-doubtful-masks", help="Go on where a brain mask looks wrong.")
    ] = False,
    parcellate: Annotated[bool, typer.Option(help="Label and measure structures.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 1,
    cores: Cores = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and about how long it takes.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that holds something else.")] = False,
) -> None:
    """Enhance every scan of a dataset; started again, it does what is new or was not finished."""
    from iqt.study.run import run_study

    settings = {
        "dataset": str(dataset),
        "out": str(out),
        "participants": participant_label or "all",
        "suffix": suffix,
        "series": series,
        "fuse": fuse,
        "model": model,
        "samples": samples,
        "skull_stripped": skull_stripped,
        "keep_doubtful_masks": keep_doubtful_masks,
        "parcellate": parcellate,
        "seed": seed,
    }
    run_study(settings, cores, dry_run, force)


@stage.command("study-scan")
def study_scan(
    name: Annotated[str, typer.Option(help="Entities of the scan.")],
    settings: SettingsOption,
    where: Annotated[str, typer.Option(help="The study's other keys, which change no result, as JSON.")] = "{}",
) -> None:
    """Enhance, label and measure one scan of a study."""
    from iqt.config.study import parse_study
    from iqt.study.process import process_scan
    from iqt.study.scans import find_scans

    section = parse_study({**json.loads(settings), **json.loads(where)})
    scan = next((scan for scan in find_scans(section)[0] if scan.name == name), None)
    if scan is None:
        raise UserError(f"{section.dataset}: has no scan {name} any more; run the study again")
    process_scan(scan, section)


@stage.command("study-group")
def study_group(
    settings: SettingsOption,
    command: Annotated[str, typer.Option(help="What the user typed, as JSON.")] = "{}",
) -> None:
    """Write the tables and the page of a study."""
    from iqt.config.study import parse_study
    from iqt.study.group import write_group
    from iqt.study.scans import find_scans

    section = parse_study(json.loads(settings))
    scans, left_out = find_scans(section)
    write_group(scans, left_out, section, json.loads(command).get("command"))
