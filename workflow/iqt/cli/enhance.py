"""The command that enhances scans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import CohortOption, ListOption, OutOption, PrecisionOption, SeedOption, SuffixOption, app


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
