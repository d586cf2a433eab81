"""Commands that score results and gather the scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import CohortOption, ListOption, OutOption, SetOption, SettingsOption, SuffixOption, app

ResultsOption = Annotated[
    str, typer.Option(help="Folders of the results, each with =SEED where it was trained, separated by commas.")
]


@app.command()
def evaluate(
    scans: ListOption,
    cohort: CohortOption,
    enhanced: Annotated[Path, typer.Option(help="Folder of the set's results, one folder a method.")],
    parcellation: Annotated[Path, typer.Option(help="Folder of the parcellations.")],
    results: ResultsOption,
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
        results.split(","),
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
def score_parcellator(
    participants: Annotated[Path, typer.Option(help="participants.tsv of the cohort.")],
    cohort: CohortOption,
    parcellation: Annotated[Path, typer.Option(help="Folder of the parcellations of the high-quality scans.")],
    lut: Annotated[Path, typer.Option(help="Look-up table of the labels.")],
    out: Annotated[Path, typer.Option(help="CSV to write: a row a scan and structure.")],
    suffix: SuffixOption = "T1w",
) -> None:
    """Compare the parcellator's reading of the test people's high-quality scans with their own label maps."""
    from iqt.evaluate.judge import score_parcellator

    score_parcellator(participants, cohort, parcellation, suffix, lut, out)


@app.command()
def gather(
    results: Annotated[Path, typer.Option(help="Folder of the run.")],
    subjects: Annotated[list[Path], typer.Option(help="A batch's scores; may be repeated.")],
    structures: Annotated[list[Path], typer.Option(help="A batch's structures; may be repeated.")],
    history: Annotated[list[str], typer.Option(help="MODEL=history.csv; may be repeated.")],
    settings: Annotated[str, typer.Option(help="Facts of the configuration, as JSON text.")],
    lut: Annotated[Path, typer.Option(help="Look-up table of the parcellator's labels.")],
    out: OutOption,
) -> None:
    """Gather scores, training curves and the facts of the run in one folder."""
    from iqt.config import parse_section
    from iqt.evaluate.gather import RunFacts, gather
    from iqt.provenance.collect import git_state

    histories = {name: Path(path) for name, path in (item.split("=", 1) for item in history)}
    gather(
        results,
        subjects,
        structures,
        histories,
        parse_section(RunFacts, settings),
        lut,
        out,
        git_state(Path(__file__).parent),
    )


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
def assess(
    scans: Annotated[list[Path], typer.Option("--list", help="TSV with columns scan and split; may be repeated.")],
    cohort: CohortOption,
    enhanced: Annotated[Path, typer.Option(help="Folder of the set's results, one folder a method.")],
    results: ResultsOption,
    calibration: Annotated[Path, typer.Option(help="CSV to write: a row a scan and method with several samples.")],
    reliability: Annotated[Path, typer.Option(help="CSV to write: the reliability curve of each of them.")],
    seams: Annotated[Path, typer.Option(help="CSV to write: a row a scan and trained method.")],
    suffix: SuffixOption = "T1w",
    set_name: SetOption = "main",
) -> None:
    """Measure whether the samples' spread is calibrated, and whether tiles and patches show."""
    from iqt.batch import read_list
    from iqt.evaluate.assess import assess_scans

    names = [scan for path in scans for scan in read_list(path)]
    assess_scans(names, set_name, results.split(","), suffix, cohort, enhanced, calibration, reliability, seams)
