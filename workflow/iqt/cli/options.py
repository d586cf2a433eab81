"""The application, its groups, and the options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqt.errors import UserError

app = typer.Typer(
    name="iqt",
    help="Image quality transfer for low-field brain MRI. The benchmark itself is run by Snakemake: see the README.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
plot = typer.Typer(help="Draw one figure, as every given --out (.png, .svg or .pdf).", no_args_is_help=True)
config_app = typer.Typer(help="Check a configuration, or write its schema and its manual.", no_args_is_help=True)
stage = typer.Typer(help="What the workflow's rules call: a stage on the scans of a list.", no_args_is_help=True)
SCAN, TRAINING, BENCHMARK, HELP = "A scan of your own", "Networks", "A benchmark", "When something is wrong"
"""Panels of the help."""
app.add_typer(stage, name="stage", hidden=True)
app.add_typer(plot, name="plot", hidden=True)
app.add_typer(config_app, name="config", rich_help_panel=BENCHMARK)

ListOption = Annotated[Path, typer.Option("--list", help="TSV with columns scan and split.")]
RunOption = Annotated[Path, typer.Option(help="Folder of the run.")]
BatchesOption = Annotated[str, typer.Option(help="Numbers of the batches with test scans, separated by commas.")]
CohortOption = Annotated[Path, typer.Option(help="Folder of the high-quality scans.")]
OutOption = Annotated[Path, typer.Option(help="Folder to write to.")]
SuffixOption = Annotated[str, typer.Option(help="BIDS suffix: T1w, T2w or FLAIR.")]
SeedOption = Annotated[int, typer.Option(help="Seed of every random draw.")]
SettingsOption = Annotated[
    str | None, typer.Option(help="This stage's section of the configuration: JSON text, or a YAML or JSON file.")
]
WorkersOption = Annotated[int, typer.Option(min=0, help="Processes that read; 0 reads in the training's own.")]
PrecisionOption = Annotated[str, typer.Option(help="auto (bfloat16 on a GPU, float32 on a CPU), float32 or bfloat16.")]
FilesOption = Annotated[list[Path], typer.Option("--out", help="Files to write, by ending; may be repeated.")]
SetOption = Annotated[str, typer.Option("--set", help="Low-field set.")]


def needed(value: Path | None, name: str) -> Path:
    if value is None:
        raise UserError(f"{name} is missing; see --help")
    return value


def asked(context: typer.Context, *names: str) -> bool:
    """Whether any of these options was given."""
    return any(context.get_parameter_source(name).name == "COMMANDLINE" for name in names)


def refuse(context: typer.Context, options: dict[str, str], why: str) -> None:
    """UserError where an option was given that would have no effect."""
    given = [word for name, word in options.items() if asked(context, name)]
    if given:
        raise UserError(f"{', '.join(given)}: {why}; leave it out")
