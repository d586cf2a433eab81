"""The rows of metrics/subjects.csv, read once for the tables and the figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from iqt.errors import UserError
from iqt.io.batch import OK
from iqt.io.files import read_table
from iqt.report.people import mean_by_person, mean_by_scan, person_of

IMAGE_METRICS = ("psnr", "msssim", "ssim", "hfcorr")
OVERLAPS = ("miou", "dice")
METRICS = (*IMAGE_METRICS, *OVERLAPS)
"""What the benchmark table shows."""
UNREAD = "none"
"""The parcellator of scores where nothing was parcellated: there is neither mIoU nor Dice."""
COMMON = "miou_common"
"""A column of the tables: mIoU over the scans on which every method succeeded."""
FURTHER_METRICS = ("nmse", "mae", "hfen", "lpips", "psnr_minmax", "msssim_minmax", "ulfenc")
"""What a table of its own shows: other errors, and others' definitions."""
OPTIONAL = ("lpips",)
"""Measured only where the configuration asks for it: shown where some method has it, and no failure where it lacks."""
LOWER_IS_BETTER = ("nmse", "mae", "hfen", "lpips")
FACTS = ("msssim_scales", "msssim_minmax_scales", "seconds", "nfe", "samples", "n_parameters")
COLUMNS = ("scan", "set", "method", "status", *METRICS, *FURTHER_METRICS, *FACTS)

NAMES = {
    "psnr": "PSNR (dB)",
    "msssim": "MS-SSIM",
    "ssim": "SSIM",
    "hfcorr": "hfcorr",
    "miou": "mIoU",
    "dice": "Dice",
    "miou_common": "mIoU common",
    "nmse": "NMSE",
    "mae": "MAE",
    "hfen": "HFEN",
    "lpips": "LPIPS",
    "psnr_minmax": "PSNR min-max (dB)",
    "msssim_minmax": "MS-SSIM min-max",
    "ulfenc": "ULF-EnC score",
}
DECIMALS = {"psnr": 2, "msssim": 4, "ssim": 4, "hfcorr": 3, "miou": 3, "dice": 3, "miou_common": 3}
DECIMALS |= {"nmse": 4, "mae": 4, "hfen": 3, "lpips": 4, "psnr_minmax": 2, "msssim_minmax": 4, "ulfenc": 4}
"""Digits after the point wherever a person reads the number."""

NO_ROW = "not evaluated: subjects.csv has no row for it"


class Score(NamedTuple):
    """One scan's result by one method; `values` holds NaN where the table is empty."""

    scan: str
    method: str
    status: str
    values: dict[str, float]
    parcellator: str = ""
    """Engine and version behind its mIoU and Dice."""
    seed: str = ""
    """Seed of the training; empty where nothing is trained, and for a mean over seeds."""
    machine: str = ""
    """Where it was trained, as experiments record it."""

    @property
    def subject(self) -> str:
        """The person; one may have several scans."""
        return person_of(self.scan)

    @property
    def failed(self) -> bool:
        """Whether a stage did not succeed, or a similarity could not be measured."""
        return self.status != OK or bool(self._unmeasured)

    @property
    def reason(self) -> str:
        """Why it counts as failed."""
        unmeasured = ", ".join(NAMES[name] for name in self._unmeasured)
        return self.status if self.status != OK else f"could not be measured: {unmeasured}"

    @property
    def _unmeasured(self) -> list[str]:
        needed = [name for name in (*IMAGE_METRICS, *FURTHER_METRICS) if name not in OPTIONAL]
        return [name for name in needed if math.isnan(self.values.get(name, 0))]


def scored_scans(metrics: Path) -> list[str]:
    """The scans of metrics/subjects.csv in the order of their names, each once."""
    return sorted({row["scan"] for row in read_table(metrics / "subjects.csv", required=("scan",))})


def read_scores(subjects_csv: str | Path, set_name: str) -> list[Score]:
    """One score a scan and method of one low-field set, in the table's order: the mean over training seeds where there
    are several. A scan that a method has no row for is a failure of its own.

    Raises:
        UserError: a column is missing, a value is not a number, or the set has no row.
    """
    return mean_over_seeds(read_seeds(subjects_csv, set_name))


def read_seeds(subjects_csv: str | Path, set_name: str) -> list[Score]:
    """The same with one score a scan, method and training seed."""
    scores = []
    for row in read_table(subjects_csv, required=COLUMNS):
        if row["set"] != set_name:
            continue
        values = numbers_of(row, (*METRICS, *FURTHER_METRICS, *FACTS), subjects_csv)
        who = row["scan"], row["method"], row["status"]
        scores.append(Score(*who, values, row.get("parcellator", ""), row.get("seed", "")))
    if not scores:
        raise UserError(f"{subjects_csv}: no row of the low-field set {set_name!r}; run the evaluate stage for it")
    return _completed(scores)


def numbers_of(row: Mapping[str, str], names: Iterable[str], table: str | Path) -> dict[str, float]:
    """A scan's numbers by column, NaN where there is none.

    Raises:
        UserError: a value is not a number.
    """
    values = {}
    for name in names:
        try:
            values[name] = float(row[name]) if row[name].strip() else math.nan
        except ValueError:
            raise UserError(f"{table}: {name} of {row['scan']} is {row[name]!r}, not a number") from None
    return values


def mean_over_seeds(scores: list[Score]) -> list[Score]:
    """One score a scan and method. Each value is the mean over the method's training seeds, NaN on a scan that one of
    them has no value of (a seed without any value counts in none); it failed where one of them did."""
    by_method: dict[str, list[Score]] = {}
    grouped: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        by_method.setdefault(score.method, []).append(score)
        grouped.setdefault((score.scan, score.method), []).append(score)
    found = {
        method: {name: mean_by_scan(by_seed(own, name)) for name in own[0].values} for method, own in by_method.items()
    }
    means = []
    for (scan, method), own in grouped.items():
        if len(own) == 1:
            means.append(own[0])
            continue
        values = {name: by_scan.get(scan, math.nan) for name, by_scan in found[method].items()}
        failures = [f"seed {score.seed}: {score.reason}" for score in own if score.failed]
        means.append(own[0]._replace(values=values, status="; ".join(failures) or OK, seed=""))
    return means


def by_seed(scores: Iterable[Score], name: str) -> dict[str, dict[str, float]]:
    """One method's values of a metric by training seed and scan."""
    found: dict[str, dict[str, float]] = {}
    for score in scores:
        values = found.setdefault(score.seed, {})
        if not math.isnan(score.values[name]):
            values[score.scan] = score.values[name]
    return found


def people_of(scores: list[Score], name: str) -> dict[str, float]:
    """A metric's mean over each person's scans, by person; people without a value are left out.

    Args:
        scores: of one method, one per scan.
    """
    return mean_by_person({score.scan: score.values[name] for score in scores if not math.isnan(score.values[name])})


def parcellator_of(scores: list[Score]) -> str:
    """Engine and version of the parcellator behind the scores; empty where none is recorded."""
    return ", ".join(sorted({score.parcellator for score in scores if score.parcellator}))


def measured(names: Iterable[str], parcellator: str) -> list[str]:
    """The metrics less those that need a parcellator, where there was none."""
    return [name for name in names if parcellator != UNREAD or name not in (*OVERLAPS, COMMON)]


def named(name: str, parcellator: str) -> str:
    """A metric's name as a person reads it, with the parcellator that it depends on."""
    return f"{NAMES[name]} ({parcellator})" if name in OVERLAPS and parcellator not in ("", UNREAD) else NAMES[name]


def further_metrics(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """`FURTHER_METRICS` less those that were not asked for: optional ones that no row has."""
    return [name for name in FURTHER_METRICS if name not in OPTIONAL or any(row[name] for row in rows)]


def methods_of(scores: list[Score]) -> list[str]:
    """Methods in the order in which they first appear."""
    return list(dict.fromkeys(score.method for score in scores))


def shown(name: str, value: float) -> str:
    """A metric as a person reads it; a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.{DECIMALS[name]}f}"


def signed(name: str, difference: str) -> str:
    """A difference of a metric, as a table holds it, for a person; a dash where there is none."""
    return f"{float(difference):+.{DECIMALS[name]}f}" if difference else "–"


def _completed(scores: list[Score]) -> list[Score]:
    """The scores with one more for each scan and training of a method that has none, after the others."""
    found = {(score.method, score.seed, score.scan) for score in scores}
    trainings = dict.fromkeys((score.method, score.seed) for score in scores)
    scans = dict.fromkeys(score.scan for score in scores)
    nothing = dict.fromkeys(scores[0].values, math.nan)
    lacking = [
        Score(scan, method, NO_ROW, dict(nothing), seed=seed)
        for method, seed in trainings
        for scan in scans
        if (method, seed, scan) not in found
    ]
    return scores + lacking
