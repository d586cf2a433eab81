"""Commands that score results and gather the scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import (
    BatchesOption,
    CohortOption,
    ListOption,
    OutOption,
    RunOption,
    SetOption,
    SettingsOption,
    SuffixOption,
    stage,
)


@stage.command()
def evaluate(
    scans: ListOption,
    run: RunOption,
    result: Annotated[str, typer.Option(help="Folder of the result, with =SEED where it was trained.")],
    out: OutOption,
    lut: Annotated[
        Path | None, typer.Option(help="Look-up table of the labels; without it nothing was parcellated.")
    ] = None,
    suffix: SuffixOption = "T1w",
    set_name: SetOption = "main",
    settings: SettingsOption = None,
    spread: Annotated[
        Path | None, typer.Option(help="What validation people told of the samples' spread (stage calibrate).")
    ] = None,
) -> None:
    """Score a result of the scans of a list: similarity, structures, calibration of its spread, and seams."""
    from iqt.config import Evaluate, parse_section
    from iqt.evaluate.run import evaluate_result
    from iqt.io.batch import read_list
    from iqt.io.naming import Result

    section = parse_section(Evaluate, settings)
    evaluate_result(read_list(scans), set_name, Result.parse(result), suffix, run, lut, section, out, spread)


@stage.command()
def score_parcellator(
    participants: Annotated[Path, typer.Option(help="participants.tsv of the cohort.")],
    cohort: CohortOption,
    parcellation: Annotated[Path, typer.Option(help="Folder of the parcellations of the high-quality scans.")],
    lut: Annotated[Path, typer.Option(help="Look-up table of the labels.")],
    out: Annotated[Path, typer.Option(help="CSV to write: one row per scan and structure.")],
    suffix: SuffixOption = "T1w",
) -> None:
    """Compare the parcellator's reading of the test people's high-quality scans with their own label maps."""
    from iqt.evaluate.parcellator_qc import score_parcellator

    score_parcellator(participants, cohort, parcellation, suffix, lut, out)


@stage.command()
def gather(
    run: RunOption,
    batches: BatchesOption,
    settings: Annotated[str, typer.Option(help="Facts of the configuration, as JSON text.")],
    out: OutOption,
    history: Annotated[list[str] | None, typer.Option(help="MODEL=history.csv; may be repeated.")] = None,
    lut: Annotated[
        Path | None, typer.Option(help="Look-up table of the parcellator's labels, if there is one.")
    ] = None,
) -> None:
    """Gather scores, training curves and the facts of the run in one folder."""
    from iqt.config import parse_section
    from iqt.config.facts import RunFacts
    from iqt.evaluate.gather import gather
    from iqt.provenance.collect import git_state

    histories = {name: Path(path) for name, path in (item.split("=", 1) for item in history or [])}
    numbers = [int(batch) for batch in batches.split(",")]
    code = git_state(Path(__file__).parent)
    gather(run, numbers, histories, parse_section(RunFacts, settings), lut, out, code)


@stage.command()
def panels(
    scan: Annotated[str, typer.Option(help="Scan to cut slices from.")],
    results: Annotated[Path, typer.Option(help="Folder of the run.")],
    methods: Annotated[str, typer.Option(help="Methods, separated by commas.")],
    out: Annotated[Path, typer.Option(help="NPZ to write.")],
    suffix: SuffixOption = "T1w",
    set_name: SetOption = "main",
    unread: Annotated[bool, typer.Option("--unread", help="Nothing was parcellated.")] = False,
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
        {} if unread else {"hq": results / "parcellation" / "hq", **parcellation},
        out,
    )
