"""Whether figures can be redrawn from metrics/ without asking the source for its scans. Read by the Snakefile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from iqt.config import Config
from iqt.io.files import read_table
from iqt.planning.plan import Plan

NEEDED = ("subjects.csv", "structures.csv", "history.csv")


def figures_only(config: Config, results: Path, arguments: Sequence[str]) -> list[str]:
    """The test scans that metrics/ has results of, where `figures` is asked for and metrics/ has all that it needs.

    Nothing otherwise, so that the source is asked as ever: the people of a run may have left the archive that they came
    from, and its index with them. The command line is read because Snakemake names its targets to nobody before it has
    read all rules. The template's people follow from the configuration, so there is nothing to ask.

    Args:
        results: folder of the run.
        arguments: Snakemake's command line.

    Raises:
        UserError: subjects.csv is not readable, or `report.people` names somebody who is not in it.
    """
    metrics = results / "metrics"
    if config.cohort.source == "template" or "figures" not in arguments or not (metrics / NEEDED[0]).is_file():
        return []
    scans = sorted({row["scan"] for row in read_table(metrics / NEEDED[0], required=("scan",))})
    needed = [*NEEDED, *(f"panels/main/{scan}.npz" for scan in config.report.shown(scans))]
    needed += ["reliability/main.csv"] if Plan(config).sampled() else []
    needed += [f"experiments/{name}/{table}.csv" for name in config.experiments for table in ("results", "reliability")]
    return scans if all((metrics / name).is_file() for name in needed) else []
