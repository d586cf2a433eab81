"""Commands of the experiments: one scores an experiment's results, the other shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import FilesOption, OutOption, SeedOption, SettingsOption, SuffixOption, app, draw


@app.command()
def score_experiment(
    scans: Annotated[list[Path], typer.Option("--list", help="TSV with columns scan and split; may be repeated.")],
    sets: Annotated[list[str], typer.Option("--set", help="Low-field set; may be repeated.")],
    run: Annotated[Path, typer.Option(help="Folder of the run.")],
    results: Annotated[str, typer.Option(help="Folders of the results, as `iqt evaluate` takes them.")],
    models: Annotated[str, typer.Option(help="The trained model of each method that has one, as JSON text.")],
    lut: Annotated[Path, typer.Option(help="Look-up table of the labels.")],
    out: OutOption,
    suffix: SuffixOption = "T1w",
    settings: SettingsOption = None,
) -> None:
    """Score an experiment's results and gather what they cost."""
    from iqt.batch import read_list
    from iqt.config import Evaluate, parse_section
    from iqt.evaluate.experiment import score_experiment

    score_experiment(
        [scan for path in scans for scan in read_list(path)],
        sets,
        results.split(","),
        json.loads(models),
        suffix,
        run,
        lut,
        parse_section(Evaluate, settings),
        out,
    )


@draw.command("experiment")
def draw_experiment(
    results: Annotated[Path, typer.Option(help="results.csv of `iqt score-experiment`.")],
    reliability: Annotated[Path, typer.Option(help="reliability.csv of the same.")],
    settings: Annotated[str, typer.Option(help="The experiment, its sets by name: JSON text, or a YAML or JSON file.")],
    keys: Annotated[str, typer.Option(help="What each method's entry says under the keys shown, as JSON text.")],
    table: Annotated[Path, typer.Option(help="CSV to write; .md and .tex are written beside it.")],
    out: FilesOption,
    bootstrap: Annotated[int, typer.Option(help="Resamplings behind the intervals.")] = 2000,
    seed: SeedOption = 1,
) -> None:
    """An experiment's table and figure."""
    from iqt.config import Experiment, parse_section
    from iqt.report.experiment_figures import draw_experiment
    from iqt.report.experiments import write_experiment

    experiment, values = parse_section(Experiment, settings), json.loads(keys)
    rows = write_experiment(results, experiment, values, table, bootstrap, seed)
    draw_experiment(results, reliability, experiment, values, rows, out)
