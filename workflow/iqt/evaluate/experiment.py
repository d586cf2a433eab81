"""Every figure of the results of one experiment in one table: scores, seams, calibration and cost."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from iqt.batch import OK
from iqt.config import Evaluate
from iqt.evaluate.assess import CALIBRATION_COLUMNS, RELIABILITY_COLUMNS, SEAM_COLUMNS, assess_scans
from iqt.evaluate.run import SUBJECT_COLUMNS, evaluate_scans
from iqt.files import read_json, read_table, write_table
from iqt.naming import Result

IDENTITY = ("set", "method", "seed", "scan")
COSTS = ("enhance_mb", "train_seconds", "train_mb", "train_gpu_gib", "machine")
COLUMNS = (
    *IDENTITY,
    *(
        name
        for name in dict.fromkeys((*SUBJECT_COLUMNS, *SEAM_COLUMNS, *CALIBRATION_COLUMNS, *COSTS))
        if name not in IDENTITY
    ),
)


def score_experiment(
    scans: Iterable[str],
    sets: Iterable[str],
    results: Iterable[str],
    models: Mapping[str, str],
    suffix: str,
    root: Path,
    lut: Path,
    settings: Evaluate,
    out: Path,
) -> None:
    """Write `results.csv` (a row a set, result and scan) and `reliability.csv` into the folder `out`.

    A quantity that a result has not (seams of an interpolation, the spread of a single sample) is empty. Costs are
    measured: seconds of the training by itself, the largest resident set of its job and of the jobs that enhanced
    (Snakemake's benchmarks), and the machine that trained.

    Args:
        results: as `naming.Result` writes them, `unet=1` or `unet/seed-2=2`.
        models: the trained model of each method that has one.
        root: folder of the run.
        lut: look-up table of the parcellator's labels.

    Raises:
        UserError: a table or a model's card is missing or not readable.
    """
    scans, results = list(scans), list(results)
    rows, curves = [], []
    for set_name in sets:
        enhanced = root / "enhanced" / set_name
        with tempfile.TemporaryDirectory() as folder:
            parts = {
                name: Path(folder, f"{name}.csv")
                for name in ("subjects", "structures", "calibration", "reliability", "seams")
            }
            evaluate_scans(
                *(scans, set_name, results, suffix, root / "cohort", enhanced, root / "parcellation", lut, settings),
                *(parts["subjects"], parts["structures"]),
            )
            assess_scans(
                *(scans, set_name, results, suffix, root / "cohort", enhanced),
                *(parts["calibration"], parts["reliability"], parts["seams"]),
            )
            found: dict[tuple[str, ...], dict[str, str]] = {}
            for name in ("subjects", "seams", "calibration"):
                for row in read_table(parts[name]):
                    one = found.setdefault(tuple(row[key] for key in IDENTITY), {})
                    # The first reason: a failed result has the same everywhere, a spread that cannot be judged its own.
                    reason = row["status"] if one.get("status", OK) == OK else one["status"]
                    one.update({**row, "status": reason})
            curves += read_table(parts["reliability"])
        for text in results:
            result = Result.parse(text)
            cost = cost_of(root, set_name, result, models.get(result.method))
            rows += [row | cost for row in found.values() if _is_of(row, result)]
    write_table(out / "results.csv", rows, COLUMNS)
    write_table(out / "reliability.csv", curves, RELIABILITY_COLUMNS)


def _is_of(row: Mapping[str, str], result: Result) -> bool:
    return row["method"] == result.method and row["seed"] == ("" if result.seed is None else str(result.seed))


def cost_of(root: Path, set_name: str, result: Result, model: str | None) -> dict[str, object]:
    """What training and enhancing cost; empty where there was no training, or a job too short to be measured."""
    jobs = sorted((root / "benchmarks/enhance" / set_name / result.folder).glob("batch-*.tsv"))
    cost: dict[str, object] = {"enhance_mb": _largest(jobs)}
    if model is None:
        return cost
    card = read_json(root / "models" / model / f"seed-{result.seed}" / "model.json")
    where = card.get("machine", {})
    cost["machine"] = where.get("gpu") or f"{where.get('cpu')}, {where.get('threads')} threads"
    cost |= {"train_seconds": card.get("seconds"), "train_gpu_gib": card.get("gpu_gib")}
    return cost | {"train_mb": _largest([root / f"benchmarks/train/{model}/seed-{result.seed}.tsv"])}


def _largest(benchmarks: Iterable[Path]) -> float | str:
    """The largest resident set, in MB, of the jobs behind these files."""
    found = [row["max_rss"] for path in benchmarks for row in read_table(path, required=("max_rss",))]
    sizes = [float(text) for text in found if text not in ("NA", "-")]
    return max((size for size in sizes if not math.isnan(size)), default="")
