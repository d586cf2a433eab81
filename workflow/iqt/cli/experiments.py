"""Commands of the experiments: one gathers an experiment's results, the other shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import BatchesOption, FilesOption, OutOption, RunOption, SeedOption, plot, stage


@stage.command()
def gather_experiment(
    scans: Annotated[list[Path], typer.Option("--list", help="TSV with columns scan and split; may be repeated.")],
    run: RunOption,
    batches: BatchesOption,
    sets: Annotated[list[str], typer.Option("--set", help="Low-field set; may be repeated.")],
    results: Annotated[
        str, typer.Option(help="Folders of the results, each with =SEED where it was trained, separated by commas.")
    ],
    models: Annotated[str, typer.Option(help="The trained model of each method that has one, as JSON text.")],
    out: OutOption,
) -> None:
    """Gather an experiment's scores, and what its results cost."""
    from iqt.evaluate.experiment import gather_experiment
    from iqt.io.batch import read_list
    from iqt.io.naming import Result

    gather_experiment(
        run,
        sets,
        [Result.parse(text) for text in results.split(",")],
        json.loads(models),
        [int(batch) for batch in batches.split(",")],
        [scan for path in scans for scan in read_list(path)],
        out,
    )


@plot.command("experiment")
def plot_experiment(
    results: Annotated[Path, typer.Option(help="results.csv of `iqt stage gather-experiment`.")],
    reliability: Annotated[Path, typer.Option(help="reliability.csv of the same.")],
    settings: Annotated[str, typer.Option(help="The experiment, its sets by name: JSON text, or a YAML or JSON file.")],
    keys: Annotated[str, typer.Option(help="What each method's entry says under the keys shown, as JSON text.")],
    methods: Annotated[str, typer.Option(help="All the run's methods, in the order of the tables, with commas.")],
    table: Annotated[Path, typer.Option(help="CSV to write; .md and .tex are written beside it.")],
    out: FilesOption,
    bootstrap: Annotated[int, typer.Option(help="Resamplings behind the intervals.")] = 2000,
    seed: SeedOption = 1,
) -> None:
    """An experiment's table and figure."""
    from iqt.config import Experiment, parse_section
    from iqt.report.figures.experiments import plot_experiment
    from iqt.report.tables.experiments import write_experiment

    experiment, values = parse_section(Experiment, settings), json.loads(keys)
    rows = write_experiment(results, experiment, values, table, bootstrap, seed)
    plot_experiment(results, reliability, experiment, values, rows, methods.split(","), out)
