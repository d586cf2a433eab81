"""Commands of the built-in parcellator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import (
    CohortOption,
    ListOption,
    OutOption,
    PrecisionOption,
    SeedOption,
    SettingsOption,
    SuffixOption,
    app,
)


@app.command()
def train_parcellator(
    participants: Annotated[Path, typer.Option(help="participants.tsv of the cohort.")],
    cohort: CohortOption,
    lut: Annotated[Path, typer.Option(help="Look-up table of the labels.")],
    out: OutOption,
    suffix: SuffixOption = "T1w",
    seed: SeedOption = 1,
    settings: SettingsOption = None,
    precision: PrecisionOption = "auto",
) -> None:
    """Train the built-in parcellator on the training people's high-quality scans."""
    from iqt.config import Parcellator, parse_section
    from iqt.parcellate.train import train_parcellator

    train_parcellator(participants, cohort, suffix, lut, out, parse_section(Parcellator, settings), seed, precision)


@app.command()
def parcellate(
    scans: ListOption,
    images: Annotated[Path, typer.Option(help="Folder of the volumes to label.")],
    layout: Annotated[str, typer.Option(help="anat (high-quality scans) or flat (enhanced results).")],
    cohort: CohortOption,
    model: Annotated[Path, typer.Option(help="Folder of the trained parcellator.")],
    out: OutOption,
    suffix: SuffixOption = "T1w",
    precision: PrecisionOption = "auto",
) -> None:
    """Label the structures of each volume of a list."""
    from iqt.batch import read_list
    from iqt.parcellate.run import parcellate_scans

    parcellate_scans(read_list(scans), images, layout, suffix, cohort, model, out, precision)
