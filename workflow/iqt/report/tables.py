"""The benchmark table: one row a method, with 95 % intervals over people, as CSV, Markdown and LaTeX.

Errors and others' definitions have a table of their own (similarity.md, .tex); benchmark.csv holds all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from statistics import stdev

import numpy as np

from iqt.files import read_table, write_table, write_text
from iqt.naming import seed_of
from iqt.report.formats import latex, markdown
from iqt.report.scores import (
    FURTHER_METRICS,
    LOWER_IS_BETTER,
    METRICS,
    Score,
    mean_over_seeds,
    methods_of,
    named,
    parcellator_of,
    people_of,
    read_seeds,
    shown,
)
from iqt.statistics import mean_limits

CONTRACT = (
    "method", "n_subjects", "n_parameters", "nfe", "seconds_per_volume",
    "psnr", "psnr_lo", "psnr_hi", "msssim", "msssim_lo", "msssim_hi", "ssim", "hfcorr",
    "miou", "miou_lo", "miou_hi", "dice",
)  # fmt: skip
"""The stable part of benchmark.csv; columns may be added after it."""
FURTHER = (
    *("set", "n_failed", "samples", "msssim_scales", "miou_common", "parcellator", "msssim_minmax_scales"),
    *(f"{name}{end}" for name in FURTHER_METRICS for end in ("", "_lo", "_hi")),
    "n_seeds",
    *(f"{name}_seed_sd" for name in (*METRICS, *FURTHER_METRICS)),
)
WITH_INTERVAL = ("psnr", "msssim", "miou", *FURTHER_METRICS)

NOTE = (
    "Means over people; in brackets 95 % percentile bootstrap limits (none for a single person). "
    "PSNR in the brain mask with the reference's range. mIoU and Dice compare the same parcellator's reading of the "
    "result and of the reference; a volume on which it fails scores 0. NFE: network calls a volume, all samples "
    "together. Failed: scans on which a stage failed or a similarity could not be measured. Best in bold."
)
FURTHER_NOTE = (
    "Means over people; in brackets 95 % percentile bootstrap limits. NMSE, MAE (in units of the reference's 99.5th "
    "percentile) and HFEN (Ravishankar and Bresler 2011, normalised) are in the brain mask; smaller is better. "
    "The others rescale each volume by its own minimum and maximum and compare with nothing but figures of the same "
    "definition. PSNR and MS-SSIM min-max: the definition of DiffusionIQT's code, on the central 192 voxels a side, "
    "background included. ULF-EnC score: the challenge of 2025, 0.7 SSIM + 0.1 PSNR / 32 dB + 0.1 (1 - MAE) + 0.1 (1 - "
    "NMSE). Best in bold."
)

SEEDS_NOTE = (
    " Networks were trained with {n} seeds: a person's value is its mean over them, and after ± is the standard "
    "deviation of the seeds' means."
)


def write_tables(subjects_csv: Path, out: Path, set_name: str, bootstrap: int, seed: int) -> None:
    """Write benchmark.csv, .md and .tex and similarity.md and .tex of one low-field set into the folder `out`.

    A scan's values are averaged over training seeds first, and the scans of one person then, so that means and limits
    are over people; `n_seeds` and `*_seed_sd` tell of the seeds. `lo` and `hi` are 95 % percentile bootstrap limits
    (Efron and Tibshirani 1993, section 13.3) and stay empty for a single person. A scan whose parcellation failed
    counts with mIoU and Dice 0; one without a similarity is left out of that mean; both count in `n_failed`.
    `miou_common` is the mean over the scans on which every method succeeded, empty where there is none.

    Args:
        bootstrap: resamplings of the people.
        seed: the run's seed; every method is resampled alike.

    Raises:
        UserError: subjects.csv lacks a column or has no row of the set.
    """
    trainings = read_seeds(subjects_csv, set_name)
    scores = mean_over_seeds(trainings)
    common = _common_scans(scores)
    draw = seed_of(seed, "bootstrap", set_name)
    rows = [
        _row(method, scores, set_name, common, bootstrap, draw) | seed_spread(method, trainings)
        for method in methods_of(scores)
    ]
    write_table(out / "benchmark.csv", rows, (*CONTRACT, *FURTHER))
    read_back = read_table(out / "benchmark.csv")
    title = f"Low-field set `{set_name}`."
    n_seeds = max(int(row["n_seeds"]) for row in read_back)
    for name, further, note in (("benchmark", False, NOTE), ("similarity", True, FURTHER_NOTE)):

        def cells(bold: Callable[[str], str], further: bool = further) -> list[list[str]]:
            return _further_cells(read_back, bold) if further else _cells(read_back, bold=bold)

        note += SEEDS_NOTE.format(n=n_seeds) if n_seeds > 1 else ""
        write_text(out / f"{name}.md", markdown(cells, title, note))
        write_text(out / f"{name}.tex", latex(cells, f"low-field set {set_name}", note))


def format_terminal(csv: Path) -> str:
    """benchmark.csv as aligned plain text for a terminal, intervals for PSNR and mIoU only."""
    rows = read_table(csv, (*CONTRACT, *FURTHER))
    lines = [[*line[:-2], line[-1]] for line in _cells(rows, compact=True)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = []
    for line in lines:
        first, *others = zip(line, widths, strict=True)
        text.append("  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]))
    most = max((int(row["n_subjects"]) for row in rows), default=0)
    foot = f"{most} test {'person' if most == 1 else 'people'}; in brackets 95 % limits over people"
    if rows and rows[0]["parcellator"]:
        foot += f"; mIoU by the parcellator {rows[0]['parcellator']}"
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:], foot]) + "\n"


def best_of(rows: list[dict[str, str]]) -> dict[str, str]:
    """The best value of each metric as shown; methods that tie at that precision are all best."""
    best = {}
    for name in (*METRICS, *FURTHER_METRICS):
        values = [float(row[name]) for row in rows if row.get(name)]
        choose = min if name in LOWER_IS_BETTER else max
        best[name] = shown(name, choose(values, default=math.nan))
    return best


def with_interval(name: str, row: dict[str, str]) -> tuple[str, str]:
    """A metric's value and its uncertainty as shown: the spread over training seeds and the interval over people, or
    what there is of them."""
    value = shown(name, float(row[name] or math.nan))
    known = [f"± {shown(name, float(row[f'{name}_seed_sd']))}"] if row.get(f"{name}_seed_sd") else []
    if row.get(f"{name}_lo"):
        known.append(f"{shown(name, float(row[f'{name}_lo']))}–{shown(name, float(row[f'{name}_hi']))}")
    return value, "; ".join(known)


def seed_spread(method: str, trainings: list[Score]) -> dict[str, str | int]:
    """A method's number of training seeds, and the standard deviation of each metric's mean over people by seed; empty
    for a single seed.

    Args:
        trainings: one score a scan, method and seed.
    """
    by_seed: dict[str, list[Score]] = {}
    for score in trainings:
        if score.method == method:
            by_seed.setdefault(score.seed, []).append(score)
    row: dict[str, str | int] = {"n_seeds": len(by_seed)}
    for name in (*METRICS, *FURTHER_METRICS):
        means = [_mean(list(people_of(own, name).values())) for own in by_seed.values()]
        means = [mean for mean in means if not math.isnan(mean)]
        row[f"{name}_seed_sd"] = _number(stdev(means)) if len(means) > 1 else ""
    return row


def _row(
    method: str, scores: list[Score], set_name: str, common: set[str], n_resamples: int, draw: int
) -> dict[str, str | int]:
    own = [score for score in scores if score.method == method]
    row: dict[str, str | int] = {
        "method": method,
        "n_subjects": len({score.subject for score in own}),
        "n_parameters": _whole(own, "n_parameters"),
        "nfe": _whole(own, "nfe"),
        "seconds_per_volume": _number(_mean([score.values["seconds"] for score in own]), digits=4),
        "set": set_name,
        "n_failed": sum(score.failed for score in own),
        "samples": _constant(own, "samples"),
        "msssim_scales": _constant(own, "msssim_scales"),
        "msssim_minmax_scales": _constant(own, "msssim_minmax_scales"),
        "parcellator": parcellator_of(scores),
        "miou_common": _number(_mean([score.values["miou"] for score in own if score.scan in common])),
    }
    for name in (*METRICS, *FURTHER_METRICS):
        people = np.array(list(people_of(own, name).values()))
        row[name] = _number(people.mean() if people.size else math.nan)
        if name in WITH_INTERVAL:
            low, high = mean_limits(people, n_resamples, draw)
            row[f"{name}_lo"], row[f"{name}_hi"] = _number(low), _number(high)
    return row


def _common_scans(scores: list[Score]) -> set[str]:
    methods = set(methods_of(scores))
    succeeded: dict[str, set[str]] = {}
    for score in scores:
        if not score.failed and not math.isnan(score.values["miou"]):
            succeeded.setdefault(score.scan, set()).add(score.method)
    return {scan for scan, found in succeeded.items() if found == methods}


def _mean(values: list[float]) -> float:
    finite = [value for value in values if not math.isnan(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _number(value: float, digits: int = 6) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}g}"


def _constant(scores: list[Score], name: str) -> str:
    """A fact of the method; a range where it differs between scans (a smaller brain allows fewer scales)."""
    values = sorted({score.values[name] for score in scores if not math.isnan(score.values[name])})
    ends = [f"{value:g}" for value in (values[:1] + values[-1:])]
    return "-".join(dict.fromkeys(ends))


def _whole(scores: list[Score], name: str) -> str:
    """A count of the method; the rounded mean where it differs between scans, so that the column stays numeric."""
    mean = _mean([score.values[name] for score in scores])
    return "" if math.isnan(mean) else f"{mean:.0f}"


def _cells(rows: list[dict[str, str]], compact: bool = False, bold: Callable[[str], str] = str) -> list[list[str]]:
    """A heading and one line a method, for people; `compact` leaves out what a terminal has no room for."""
    metrics = [name for name in METRICS if not compact or name not in ("ssim", "dice")]
    judge = rows[0]["parcellator"] if rows and not compact else ""
    lines = [["method", *(named(name, judge) for name in metrics), "parameters", "NFE", "s/volume", "people", "failed"]]
    best = best_of(rows)
    for row in rows:
        line = [row["method"]]
        for name in metrics:
            value, interval = with_interval(name, row)
            value = bold(value) if value == best[name] and len(rows) > 1 else value
            shorten = compact and name == "msssim"
            line.append(f"{value} ({interval})" if interval and not shorten else value)
        parameters = f"{int(row['n_parameters']):,}" if row["n_parameters"].isdigit() else "–"
        seconds = f"{float(row['seconds_per_volume']):.3g}" if row["seconds_per_volume"] else "–"
        lines.append([*line, parameters, row["nfe"] or "–", seconds, row["n_subjects"], row["n_failed"]])
    return lines


def _further_cells(rows: list[dict[str, str]], bold: Callable[[str], str]) -> list[list[str]]:
    best = best_of(rows)
    lines = [["method", *(named(name, "") for name in FURTHER_METRICS), "people", "failed"]]
    for row in rows:
        line = [row["method"]]
        for name in FURTHER_METRICS:
            value, interval = with_interval(name, row)
            value = bold(value) if value == best[name] != "–" and len(rows) > 1 else value
            line.append(f"{value} ({interval})" if interval else value)
        lines.append([*line, row["n_subjects"], row["n_failed"]])
    return lines
