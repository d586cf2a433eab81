"""Everything that was measured of the results of one experiment in one table: scores, seams, calibration and cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from iqt.evaluate.gather import gather_parts
from iqt.evaluate.run import CALIBRATION_COLUMNS, RELIABILITY_COLUMNS, SEAM_COLUMNS, SUBJECT_COLUMNS
from iqt.io.batch import OK
from iqt.io.files import read_json, read_table, write_table
from iqt.io.naming import Result

IDENTITY = ("set", "method", "seed", "scan")
JOINED = ("subjects", "seams", "calibration")
"""The parts with one row per scan."""
COSTS = ("enhance_mb", "train_seconds", "train_mb", "train_gpu_gib", "machine")
COLUMNS = (
    *IDENTITY,
    *(
        name
        for name in dict.fromkeys((*SUBJECT_COLUMNS, *SEAM_COLUMNS, *CALIBRATION_COLUMNS, *COSTS))
        if name not in IDENTITY
    ),
)


def gather_experiment(
    root: Path,
    sets: Iterable[str],
    results: Sequence[Result],
    models: Mapping[str, str],
    batches: Sequence[int],
    scans: Sequence[str],
    out: Path,
) -> None:
    """Write `results.csv` (one row per set, result and scan) and `reliability.csv` into the folder `out`.

    A quantity that a result has not (seams of an interpolation, the spread of a single sample) is empty. Costs are
    measured: seconds of the training by itself, the largest resident set of its job and of the jobs that enhanced
    (Snakemake's benchmarks, empty where they are gone), and the machine that trained.

    Args:
        root: folder of the run, with metrics/parts/, models/ and benchmarks/.
        models: the trained model of each method that has one.
        batches: those that hold a test scan.
        scans: the test scans, in the order of the rows.

    Raises:
        UserError: a part or a model's card is missing or not readable.
    """
    rows, curves = [], []
    for set_name in sets:
        for result in results:
            tables = gather_parts(root, set_name, [result], batches, scans, (*JOINED, "reliability"))
            found: dict[str, dict[str, str]] = {}
            for row in (row for name in JOINED for row in tables[name]):
                one = found.setdefault(row["scan"], {})
                # The first reason: a failed result has the same everywhere, a spread that cannot be judged its own.
                reason = row["status"] if one.get("status", OK) == OK else one["status"]
                one.update({**row, "status": reason})
            cost = cost_of(root, set_name, result, models.get(result.method), batches)
            rows += [row | cost for row in found.values()]
            curves += tables["reliability"]
    write_table(out / "results.csv", rows, COLUMNS)
    write_table(out / "reliability.csv", curves, RELIABILITY_COLUMNS)


def cost_of(root: Path, set_name: str, result: Result, model: str | None, batches: Iterable[int]) -> dict[str, object]:
    """What training and enhancing cost; empty where there was no training, or a job too short to be measured."""
    enhanced = root / "benchmarks/enhance" / set_name / result.folder
    cost: dict[str, object] = {"enhance_mb": _largest(enhanced / f"batch-{batch}.tsv" for batch in batches)}
    if model is None:
        return cost
    card = read_json(root / "models" / model / f"seed-{result.seed}" / "model.json")
    where = card.get("machine", {})
    cost["machine"] = where.get("gpu") or f"{where.get('cpu')}, {where.get('threads')} threads"
    cost |= {"train_seconds": card.get("seconds"), "train_gpu_gib": card.get("gpu_gib")}
    return cost | {"train_mb": _largest([root / f"benchmarks/train/{model}/seed-{result.seed}.tsv"])}


def _largest(benchmarks: Iterable[Path]) -> float | str:
    """The largest resident set, in MB, of the jobs behind those of these files that are there."""
    there = [path for path in benchmarks if path.exists()]
    found = [row["max_rss"] for path in there for row in read_table(path, required=("max_rss",))]
    sizes = [float(text) for text in found if text not in ("NA", "-")]
    return max((size for size in sizes if not math.isnan(size)), default="")
