"""The command line: one subcommand a rule. A subcommand imports its own stage only when it is called, so that help and
cheap stages start at once."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from iqt import __version__
from iqt.errors import UserError

app = typer.Typer(
    name="iqt",
    help="Image quality transfer for low-field brain MRI: the stages of the workflow, one command each.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
draw = typer.Typer(help="Draw one figure, as every given --out (.png, .svg or .pdf).", no_args_is_help=True)
config_app = typer.Typer(help="Check a configuration, or write its schema and its manual.", no_args_is_help=True)
app.add_typer(draw, name="draw")
app.add_typer(config_app, name="config")

ListOption = Annotated[Path, typer.Option("--list", help="TSV with columns scan and split.")]
CohortOption = Annotated[Path, typer.Option(help="Folder of the high-quality scans.")]
OutOption = Annotated[Path, typer.Option(help="Folder to write to.")]
SuffixOption = Annotated[str, typer.Option(help="BIDS suffix: T1w, T2w or FLAIR.")]
SeedOption = Annotated[int, typer.Option(help="Seed of every random draw.")]
SettingsOption = Annotated[
    str | None, typer.Option(help="This stage's section of the configuration: JSON text, or a YAML or JSON file.")
]
PrecisionOption = Annotated[str, typer.Option(help="auto, float32 or bfloat16.")]
FilesOption = Annotated[list[Path], typer.Option("--out", help="Files to write, by ending; may be repeated.")]
SetOption = Annotated[str, typer.Option("--set", help="Low-field set.")]


def main() -> None:
    """Run the command line; a UserError ends in its message and exit status 1, Ctrl-C in 130."""
    try:
        app()
    except UserError as error:
        sys.exit(f"iqt: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


@app.callback()
def common(
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores by default.")] = None,
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"iqt {__version__}")
        raise typer.Exit
    if threads is not None:  # read by numerical libraries when they are first imported, which is later
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(threads)


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


@app.command()
def degrade(
    image: Annotated[Path | None, typer.Argument(help="A high-quality volume.")] = None,
    output: Annotated[Path | None, typer.Argument(help="The thick-slice volume to write.")] = None,
    wm: Annotated[Path | None, typer.Option(help="White matter posterior of IMAGE.")] = None,
    gm: Annotated[Path | None, typer.Option(help="Grey matter posterior of IMAGE.")] = None,
    csf: Annotated[Path | None, typer.Option(help="CSF posterior of IMAGE.")] = None,
    space_hq: Annotated[Path | None, typer.Option(help="Also write the volume on IMAGE's grid.")] = None,
    scans: Annotated[
        Path | None, typer.Option("--list", help="Instead of IMAGE: TSV with columns scan, split.")
    ] = None,
    cohort: Annotated[Path | None, typer.Option(help="With --list: folder of the high-quality scans.")] = None,
    out: Annotated[Path | None, typer.Option(help="With --list: folder to write to.")] = None,
    suffix: SuffixOption = "T1w",
    seed: SeedOption = 1,
    set_name: SetOption = "main",
    settings: SettingsOption = None,
) -> None:
    """Simulate low-field scans: of one volume (IMAGE OUTPUT), or of a list."""
    from iqt.batch import read_list
    from iqt.config import LowField, parse_section
    from iqt.degrade.run import degrade_file, degrade_scans

    section = parse_section(LowField, settings)
    if scans is not None:
        cohort, out = _needed(cohort, "--cohort"), _needed(out, "--out")
        degrade_scans(read_list(scans), cohort, out, suffix, seed, section, set_name)
    else:
        posteriors = {"WM": _needed(wm, "--wm"), "GM": _needed(gm, "--gm"), "CSF": _needed(csf, "--csf")}
        degrade_file(_needed(image, "IMAGE"), _needed(output, "OUTPUT"), posteriors, seed, section, space_hq)


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
def enhance(
    scans: ListOption,
    cohort: CohortOption,
    lowfield: Annotated[Path, typer.Option(help="Folder of the low-field set.")],
    out: OutOption,
    settings: Annotated[str, typer.Option(help="How the method uses its weights, as JSON text.")],
    model: Annotated[Path | None, typer.Option(help="Folder of the trained model.")] = None,
    suffix: SuffixOption = "T1w",
    seed: SeedOption = 1,
    precision: PrecisionOption = "auto",
) -> None:
    """Enhance the scans of a list with one method."""
    from iqt.batch import read_list
    from iqt.enhance.run import enhance_scans

    enhance_scans(read_list(scans), cohort, lowfield, model, out, suffix, json.loads(settings), seed, precision)


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


@app.command()
def evaluate(
    scans: ListOption,
    cohort: CohortOption,
    enhanced: Annotated[Path, typer.Option(help="Folder of the set's results, one folder a method.")],
    parcellation: Annotated[Path, typer.Option(help="Folder of the parcellations.")],
    methods: Annotated[str, typer.Option(help="Methods, separated by commas.")],
    lut: Annotated[Path, typer.Option(help="Look-up table of the labels.")],
    subjects: Annotated[Path, typer.Option(help="CSV to write: a row a scan and method.")],
    structures: Annotated[Path, typer.Option(help="CSV to write: a row a scan, method and structure.")],
    suffix: SuffixOption = "T1w",
    set_name: SetOption = "main",
    settings: SettingsOption = None,
) -> None:
    """Score the results of a list against the high-quality scans."""
    from iqt.batch import read_list
    from iqt.config import Evaluate, parse_section
    from iqt.evaluate.run import evaluate_scans

    evaluate_scans(
        read_list(scans),
        set_name,
        methods.split(","),
        suffix,
        cohort,
        enhanced,
        parcellation,
        lut,
        parse_section(Evaluate, settings),
        subjects,
        structures,
    )


@app.command()
def gather(
    results: Annotated[Path, typer.Option(help="Folder of the run.")],
    subjects: Annotated[list[Path], typer.Option(help="A batch's scores; may be repeated.")],
    structures: Annotated[list[Path], typer.Option(help="A batch's structures; may be repeated.")],
    history: Annotated[list[str], typer.Option(help="MODEL=history.csv; may be repeated.")],
    settings: Annotated[str, typer.Option(help="Facts of the configuration, as JSON text.")],
    out: OutOption,
) -> None:
    """Gather scores, training curves and the facts of the run in one folder."""
    from iqt.config import parse_section
    from iqt.evaluate.gather import RunFacts, gather

    histories = {name: Path(path) for name, path in (item.split("=", 1) for item in history)}
    gather(results, subjects, structures, histories, parse_section(RunFacts, settings), out)


@app.command()
def panels(
    scan: Annotated[str, typer.Option(help="Scan to cut slices from.")],
    results: Annotated[Path, typer.Option(help="Folder of the run.")],
    methods: Annotated[str, typer.Option(help="Methods, separated by commas.")],
    out: Annotated[Path, typer.Option(help="NPZ to write.")],
    suffix: SuffixOption = "T1w",
    set_name: SetOption = "main",
) -> None:
    """Cut the slices that figures show out of a scan's volumes."""
    from iqt.report.panels import extract_panels

    names = methods.split(",")
    parcellation = {name: results / "parcellation" / set_name / name for name in names}
    extract_panels(
        scan,
        suffix,
        results / "cohort",
        results / "lowfield" / set_name,
        {name: results / "enhanced" / set_name / name for name in names},
        {"hq": results / "parcellation" / "hq", **parcellation},
        out,
    )


@app.command()
def tables(
    subjects: Annotated[Path, typer.Option(help="subjects.csv.")],
    out: OutOption,
    set_name: SetOption = "main",
    bootstrap: Annotated[int, typer.Option(help="Resamplings behind the intervals.")] = 2000,
    seed: SeedOption = 1,
) -> None:
    """Write the benchmark table as CSV, Markdown and LaTeX."""
    from iqt.report.tables import write_tables

    write_tables(subjects, out, set_name, bootstrap, seed)


@draw.command("slices")
def draw_slices(
    panel: Annotated[Path, typer.Option(help="NPZ of `iqt panels`.")],
    subjects: Annotated[Path, typer.Option(help="subjects.csv.")],
    out: FilesOption,
    set_name: SetOption = "main",
) -> None:
    """A person's low-field scan, every method, the reference and the errors."""
    from iqt.report.figures import draw_slices

    draw_slices(panel, subjects, set_name, out)


@draw.command("parcellation")
def draw_parcellation(
    panel: Annotated[Path, typer.Option(help="NPZ of `iqt panels`.")],
    lut: Annotated[Path, typer.Option(help="Look-up table of the labels.")],
    subjects: Annotated[Path, typer.Option(help="subjects.csv.")],
    out: FilesOption,
    set_name: SetOption = "main",
) -> None:
    """The parcellator's labels over a person's reference and results."""
    from iqt.report.figures import draw_parcellation

    draw_parcellation(panel, lut, subjects, set_name, out)


@draw.command("metrics")
def draw_metrics(
    subjects: Annotated[Path, typer.Option(help="subjects.csv.")], out: FilesOption, set_name: SetOption = "main"
) -> None:
    """The spread of each metric over the test people."""
    from iqt.report.figures import draw_metrics

    draw_metrics(subjects, set_name, out)


@draw.command("training")
def draw_training(history: Annotated[Path, typer.Option(help="history.csv of all models.")], out: FilesOption) -> None:
    """The training curves of every network."""
    from iqt.report.figures import draw_training

    draw_training(history, out)


@app.command()
def page(
    metrics: Annotated[Path, typer.Option(help="Folder of the gathered metrics.")],
    tables: Annotated[Path, typer.Option(help="Folder of the tables.")],
    figure: Annotated[list[Path], typer.Option(help="A figure (PNG); may be repeated.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
) -> None:
    """Write the page that a person opens: one file, without a network."""
    from iqt.report.page import write_page

    write_page(metrics, tables, figure, out)


@app.command()
def show(results: Annotated[Path, typer.Argument(help="Folder of a finished run, such as results/demo.")]) -> None:
    """Print a run's benchmark table and where its page is."""
    from iqt.report.tables import format_terminal

    print(format_terminal(results / "tables" / "benchmark.csv"))
    print(f"\nThe report: {results / 'report.html'}")


@config_app.command("check")
def config_check(path: Annotated[Path, typer.Argument(help="A configuration file.")]) -> None:
    """Validate a configuration file and print it with every default filled in."""
    import yaml

    from iqt.config import parse_config

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable as YAML ({error})") from None
    print(yaml.safe_dump(parse_config(raw, str(path)).model_dump(mode="json"), sort_keys=False), end="")


@config_app.command("schema")
def config_schema(out: Annotated[Path, typer.Argument(help="JSON file to write.")]) -> None:
    """Write the JSON schema, which editors check configuration files against."""
    from iqt.config_docs import json_schema
    from iqt.files import write_text

    write_text(out, json_schema())


@config_app.command("readme")
def config_readme(out: Annotated[Path, typer.Argument(help="Markdown file to write.")]) -> None:
    """Write the manual of every key."""
    from iqt.config_docs import readme
    from iqt.files import write_text

    write_text(out, readme())


def _needed(value: Path | None, name: str) -> Path:
    if value is None:
        raise UserError(f"{name} is missing; see --help")
    return value
