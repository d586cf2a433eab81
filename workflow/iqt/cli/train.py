"""Commands that store training data and train networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import (
    TRAINING,
    CohortOption,
    ListOption,
    OutOption,
    PrecisionOption,
    SeedOption,
    SuffixOption,
    WorkersOption,
    app,
    stage,
)
from iqt.errors import UserError


@stage.command()
def store(
    scans: ListOption,
    cohort: CohortOption,
    lowfield: Annotated[Path, typer.Option(help="Folder of the low-field set.")],
    out: OutOption,
    suffix: SuffixOption = "T1w",
) -> None:
    """Write the uncompressed volumes that training reads."""
    from iqt.io.batch import read_list
    from iqt.training.store import build_store

    build_store(read_list(scans), cohort, lowfield, out, suffix)


@stage.command()
def train(
    participants: Annotated[Path, typer.Option(help="participants.tsv of the cohort.")],
    store: Annotated[Path, typer.Option(help="Folder written by `iqt stage store`.")],
    out: OutOption,
    settings: Annotated[str, typer.Option(help="The method's entry, as JSON text.")],
    name: Annotated[str, typer.Option(help="The model's name.")],
    seed: SeedOption = 1,
    precision: PrecisionOption = "auto",
    devices: Annotated[int, typer.Option(min=0, help="GPUs to share each batch; without a GPU, processes.")] = 1,
    workers: WorkersOption = 0,
    start: Annotated[Path | None, typer.Option(help="Folder of the regression that it starts from.")] = None,
) -> None:
    """Train a method's network; started again, it goes on from the last checkpoint."""
    from iqt.training.enhancement import train_model

    # None where Snakemake was told that there are none (`--resources gpu=0`).
    devices = max(1, devices)
    train_model(json.loads(settings), participants, store, out, seed, precision, name, devices, start, workers)


@app.command(rich_help_panel=TRAINING)
def describe(
    config: Annotated[Path, typer.Option(help="A configuration file.")],
    method: Annotated[str | None, typer.Option(help="One of its methods; all that are trained by default.")] = None,
    depth: Annotated[int, typer.Option(min=1, help="How far layers are opened in the table.")] = 1,
) -> None:
    """Print the layers, parameters, MACs and memory of a configuration's networks."""
    from iqt.config import read_config
    from iqt.methods import parse_method
    from iqt.networks.describe import describe, format_description
    from iqt.planning.plan import Plan
    from iqt.terminal import Bar

    settings = read_config(config)
    plan = Plan(settings)
    names = plan.models() if method is None else [method]
    texts = []
    with Bar(looking_at_networks=1) as bar:
        bar.phase("looking_at_networks")
        for number, name in enumerate(names, start=1):
            if settings.methods.get(name) is None or plan.model_of(name) is None:
                raise UserError(f"--method {name}: {config} trains no such method; it has {', '.join(plan.models())}")
            texts.append(format_description(name, describe(parse_method(plan.trained_by(name)), depth)))
            bar.within(number, len(names))
    print(*texts, sep="\n\n", end="\n\n")
