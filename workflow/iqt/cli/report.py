"""Commands that write tables, figures and the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import BENCHMARK, FilesOption, OutOption, SeedOption, SetOption, app, plot, stage


@stage.command()
def tables(
    subjects: Annotated[Path, typer.Option(help="subjects.csv.")],
    structures: Annotated[Path, typer.Option(help="structures.csv.")],
    out: OutOption,
    reference: Annotated[
        str | None, typer.Option(help="Method that every other is compared with; the first one, and said so, if none.")
    ] = None,
    set_name: SetOption = "main",
    bootstrap: Annotated[int, typer.Option(help="Resamplings behind the intervals.")] = 2000,
    seed: SeedOption = 1,
) -> None:
    """Write the tables (benchmark, similarity, statistics, structures) as CSV, Markdown and LaTeX."""
    from iqt.report.data import methods_of, read_scores
    from iqt.report.tables.benchmark import write_tables
    from iqt.report.tables.comparisons import write_statistics
    from iqt.report.tables.structures import write_structures

    write_tables(subjects, out, set_name, bootstrap, seed)
    write_statistics(subjects, out, set_name, reference, bootstrap, seed)
    scores = read_scores(subjects, set_name)
    people = sorted(scores["person"].unique())
    write_structures(structures, out, set_name, people, methods_of(scores), bootstrap, seed)


@plot.command("slices")
def plot_slices(
    panel: Annotated[Path, typer.Option(help="NPZ of `iqt stage panels`.")],
    subjects: Annotated[Path, typer.Option(help="subjects.csv.")],
    out: FilesOption,
    set_name: SetOption = "main",
    methods: Annotated[
        list[str] | None, typer.Option("--method", help="A method to show; may be repeated, all by default.")
    ] = None,
) -> None:
    """A person's low-field scan, every method, the reference and the errors."""
    from iqt.report.figures.slices import plot_slices

    plot_slices(panel, subjects, set_name, out, methods)


@plot.command("parcellation")
def plot_parcellation(
    panel: Annotated[Path, typer.Option(help="NPZ of `iqt stage panels`.")],
    lut: Annotated[Path, typer.Option(help="Look-up table of the labels.")],
    subjects: Annotated[Path, typer.Option(help="subjects.csv.")],
    out: FilesOption,
    set_name: SetOption = "main",
) -> None:
    """The parcellator's labels over a person's reference and results."""
    from iqt.report.figures.slices import plot_parcellation

    plot_parcellation(panel, lut, subjects, set_name, out)


@plot.command("metrics")
def plot_metrics(
    subjects: Annotated[Path, typer.Option(help="subjects.csv.")], out: FilesOption, set_name: SetOption = "main"
) -> None:
    """The spread of each metric over the test people."""
    from iqt.report.figures.scores import plot_metrics

    plot_metrics(subjects, set_name, out)


@plot.command("training")
def plot_training(history: Annotated[Path, typer.Option(help="history.csv of all models.")], out: FilesOption) -> None:
    """The training curves of every network."""
    from iqt.report.figures.training import plot_training

    plot_training(history, out)


@plot.command("overlap")
def plot_overlap(
    structures: Annotated[Path, typer.Option(help="structures.csv of the tables.")], out: FilesOption
) -> None:
    """Overlap and volume bias of every structure and method."""
    from iqt.report.figures.structures import plot_structures

    plot_structures(structures, out)


@plot.command("published")
def plot_published(
    subjects: Annotated[Path, typer.Option(help="subjects.csv.")],
    published: Annotated[Path, typer.Option(help="Published figures, such as resources/published.csv.")],
    out: FilesOption,
    set_name: SetOption = "main",
) -> None:
    """Published reference figures beside ours, definition by definition."""
    from iqt.report.figures.published import plot_published

    plot_published(subjects, published, set_name, out)


@stage.command()
def page(
    metrics: Annotated[Path, typer.Option(help="Folder of the gathered metrics.")],
    tables: Annotated[Path, typer.Option(help="Folder of the tables.")],
    figure: Annotated[list[Path], typer.Option(help="A figure (PNG); may be repeated.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
    lut: Annotated[Path | None, typer.Option(help="Look-up table, for the structures' colours.")] = None,
    panel: Annotated[
        list[Path] | None, typer.Option(help="NPZ of `iqt stage panels` for the viewer; may be repeated.")
    ] = None,
    people_named: Annotated[
        bool, typer.Option("--people-named", help="The viewer's people are named in the configuration.")
    ] = False,
    experiments: Annotated[str, typer.Option(help="The experiments by name, as JSON text.")] = "{}",
) -> None:
    """Write the page that a person opens: one file, without a network."""
    from iqt.config import Experiment
    from iqt.report.page.write import write_page

    asked = {name: Experiment.model_validate(section) for name, section in json.loads(experiments).items()}
    write_page(metrics, tables, figure, out, lut, panel or [], people_named, asked)


@app.command(rich_help_panel=BENCHMARK)
def show(results: Annotated[Path, typer.Argument(help="Folder of a finished run, such as results/demo.")]) -> None:
    """Print a run's benchmark table and where its page is."""
    from iqt.report.tables.benchmark import format_terminal

    print(format_terminal(results / "tables" / "benchmark.csv"))
    print(f"\nThe report: {results / 'report.html'}")


@plot.command("sampling_sweep")
def plot_sweep(
    benchmark: Annotated[Path, typer.Option(help="tables/benchmark.csv.")],
    series: Annotated[str, typer.Option(help="Line that each method is a point of, as JSON text.")],
    out: FilesOption,
) -> None:
    """Quality of samplers over their network calls."""
    from iqt.report.figures.sampling import plot_sweep

    plot_sweep(benchmark, json.loads(series), out)


@plot.command("reliability")
def plot_reliability(
    reliability: Annotated[Path, typer.Option(help="metrics/reliability/<set>.csv.")],
    methods: Annotated[str, typer.Option(help="All methods, in the order of the tables, separated by commas.")],
    out: FilesOption,
) -> None:
    """True error over the error that the samples' spread makes one expect."""
    from iqt.report.figures.sampling import plot_reliability

    plot_reliability(reliability, methods.split(","), out)
