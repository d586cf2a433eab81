"""Commands that store training data and train networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import CohortOption, ListOption, OutOption, PrecisionOption, SeedOption, SuffixOption, app


@app.command()
def store(
    scans: ListOption,
    cohort: CohortOption,
    lowfield: Annotated[Path, typer.Option(help="Folder of the low-field set.")],
    out: OutOption,
    suffix: SuffixOption = "T1w",
) -> None:
    """Write the uncompressed volumes that training reads."""
    from iqt.batch import read_list
    from iqt.training.store import build_store

    build_store(read_list(scans), cohort, lowfield, out, suffix)


@app.command()
def train(
    participants: Annotated[Path, typer.Option(help="participants.tsv of the cohort.")],
    store: Annotated[Path, typer.Option(help="Folder written by `iqt store`.")],
    out: OutOption,
    settings: Annotated[str, typer.Option(help="The method's entry, as JSON text.")],
    name: Annotated[str, typer.Option(help="The model's name.")],
    seed: SeedOption = 1,
    precision: PrecisionOption = "auto",
) -> None:
    """Train a method's network; started again, it goes on from the last checkpoint."""
    from iqt.training.enhancement import train_model

    train_model(json.loads(settings), participants, store, out, seed, precision, name)
