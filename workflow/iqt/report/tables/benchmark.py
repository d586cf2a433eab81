"""The benchmark table: one row a method, with 95 % intervals over people, as CSV, Markdown and LaTeX.

Errors and others' definitions have a table of their own (similarity.md, .tex); benchmark.csv holds all of them.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from iqt.io.files import read_table, write_table, write_text
from iqt.io.naming import seed_of
from iqt.report.data import (
    as_rows,
    in_every,
    mean_over_seeds,
    means_of,
    methods_of,
    number,
    parcellator_of,
    people_of,
    read_trainings,
    scans_all_have,
    seed_sd,
)
from iqt.report.metrics import (
    COMMON,
    FURTHER_METRICS,
    METRICS,
    SCALES,
    UNREAD,
    further_metrics,
    measured,
    named,
    shown,
)
from iqt.report.tables.comparable import best_of, blind_parcellator, count, differences, failures
from iqt.report.tables.formats import latex, markdown

CONTRACT = (
    "method", "n_subjects", "n_parameters", "nfe", "seconds_per_volume",
    "psnr", "psnr_lo", "psnr_hi", "msssim", "msssim_lo", "msssim_hi", "ssim", "hfcorr",
    "miou", "miou_lo", "miou_hi", "dice",
)  # fmt: skip
"""The stable part of benchmark.csv; columns may be added after it."""
FURTHER = (
    *("set", "n_failed", "samples", "msssim_scales", "miou_common", "parcellator", "msssim_minmax_scales"),
    *(f"{name}{end}" for name in FURTHER_METRICS for end in ("", "_lo", "_hi")),
    *(f"{name}{end}" for name in (*METRICS, *FURTHER_METRICS) for end in ("_n", "_shared", "_n_shared")),
    "miou_common_n",
    "n_seeds",
    *(f"{name}_seed_sd" for name in (*METRICS, *FURTHER_METRICS)),
)
WITH_INTERVAL = ("psnr", "msssim", "miou", *FURTHER_METRICS)

OVERLAP_NOTE = (
    "mIoU and Dice compare the same parcellator's reading of the result and of the reference; a volume on which it "
    "fails scores 0, and mIoU common is over the scans on which every method that ever succeeded did."
)
UNREAD_NOTE = "Nothing was parcellated (parcellate.engine: none), so there is neither mIoU nor Dice."
NOTE = (
    "Means over people; in brackets 95 % percentile bootstrap limits (none for a single person). "
    "PSNR in the brain mask with the reference's range. {overlap} NFE: network calls a volume, all samples together. "
    "People: those with a result, of all; "
    "where a mean is over fewer, it says so in square brackets. Failed: scans on which a stage failed or a similarity "
    "could not be measured. Best in bold, by the mean over the scans that all methods have."
)
FURTHER_NOTE = (
    "Means over people; in brackets 95 % percentile bootstrap limits. NMSE, MAE (in units of the reference's 99.5th "
    "percentile) and HFEN (Ravishankar and Bresler 2011, normalised) are in the brain mask; smaller is better. "
    "Min-max and ULF-EnC rescale each volume by its own minimum and maximum and compare with nothing but figures of "
    "the same definition. PSNR and MS-SSIM min-max: the definition of DiffusionIQT's code, on the central 192 voxels a "
    "side, background included. ULF-EnC score: the challenge of 2025, 0.7 SSIM + 0.1 PSNR / 32 dB + 0.1 (1 - MAE) + "
    "0.1 (1 - NMSE). Best in bold, by the mean over the scans that all methods have."
)
LPIPS_NOTE = (
    "LPIPS: the perceptual distance of Zhang et al. 2018 (version 0.1, AlexNet), mean over the slices of three planes; "
    "smaller is better."
)

SEEDS_NOTE = (
    "Networks were trained with {n} seeds: a scan's value is its mean over them, and left out where one of them lost "
    "it; after ± is the standard deviation of the seeds' means, all over the same scans."
)


def write_tables(subjects_csv: Path, out: Path, set_name: str, bootstrap: int, seed: int) -> None:
    """Write benchmark.csv, .md and .tex and similarity.md and .tex of one low-field set into the folder `out`.

    A scan's values are averaged over training seeds first, and the scans of one person then, so that means and limits
    are over people; a scan that one seed has no value of is left out. `n_seeds` and `*_seed_sd` tell of the seeds. `lo`
    and `hi` are 95 % percentile bootstrap limits (Efron and Tibshirani 1993, section 13.3) and stay empty for a single
    person. A scan whose parcellation failed counts with mIoU and Dice 0; one without a similarity is left out of that
    mean; both count in `n_failed`. `miou_common` is the mean over people (`miou_common_n`) of the scans on which every
    method that ever succeeded did, empty where there is none. Of each metric, `_n` is the people behind the mean,
    `_shared` the mean over the `_n_shared` people's scans for which every method has a value: it decides what is best.

    Args:
        bootstrap: resamplings of the people.
        seed: the run's seed; every method is resampled alike.

    Raises:
        UserError: subjects.csv lacks a column or has no row of the set.
    """
    trainings = read_trainings(subjects_csv, set_name)
    scores = mean_over_seeds(trainings)
    common = _common(trainings)
    shared = {name: scans_all_have(scores, name) for name in (*METRICS, *FURTHER_METRICS)}
    limits = bootstrap, seed_of(seed, "bootstrap", set_name)
    rows = [
        {"method": method, "set": set_name, "parcellator": parcellator_of(scores)}
        | _row(*(frame[frame["method"] == method] for frame in (scores, common)), shared, limits)
        | seed_spread(trainings[trainings["method"] == method])
        for method in methods_of(scores)
    ]
    write_table(out / "benchmark.csv", as_rows(rows), (*CONTRACT, *FURTHER))
    read_back = read_table(out / "benchmark.csv")
    title = f"Low-field set {set_name}."
    failed = failures(scores)
    n_seeds = max(int(row["n_seeds"]) for row in read_back)
    seeds = [SEEDS_NOTE.format(n=n_seeds)] if n_seeds > 1 else []
    judge = parcellator_of(scores)
    own_note = NOTE.format(overlap=UNREAD_NOTE if judge == UNREAD else OVERLAP_NOTE)
    for name, further, text in (("benchmark", False, own_note), ("similarity", True, FURTHER_NOTE)):
        unequal = differences(read_back, FURTHER_METRICS if further else measured(METRICS, judge))
        blind = [] if further else blind_parcellator(read_back)
        optional = [LPIPS_NOTE] if further and "lpips" in further_metrics(read_back) else []
        scales = _scales(read_back, "msssim_minmax" if further else "msssim")
        note = " ".join([text, *scales, *optional, *blind, *seeds, *unequal, *failed])

        def cells(bold: Callable[[str], str], further: bool = further) -> list[list[str]]:
            return _further_cells(read_back, bold) if further else _cells(read_back, bold=bold)

        write_text(out / f"{name}.md", markdown(cells, title, note))
        write_text(out / f"{name}.tex", latex(cells, f"low-field set {set_name}", note))


def format_terminal(csv: Path) -> str:
    """benchmark.csv as aligned plain text for a terminal, intervals for PSNR and mIoU only."""
    rows = read_table(csv, (*CONTRACT, *FURTHER))
    lines = [[*line[:-2], line[-1]] for line in _cells(rows, compact=True)]
    unequal = [
        f"{textwrap.fill(sentence, 118, subsequent_indent='  ')}\n"
        for sentence in [
            *blind_parcellator(rows),
            *differences(rows, measured(METRICS, rows[0]["parcellator"] if rows else "")),
        ]
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = []
    for line in lines:
        first, *others = zip(line, widths, strict=True)
        text.append("  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]))
    most = max((int(row["n_subjects"]) for row in rows), default=0)
    foot = f"{most} test {'person' if most == 1 else 'people'}; in brackets 95 % limits over people"
    if rows and rows[0]["parcellator"] == UNREAD:
        foot += f". {UNREAD_NOTE.removesuffix('.')}"
    elif rows and rows[0]["parcellator"]:
        foot += f"; mIoU by the parcellator {rows[0]['parcellator']}"
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:], foot]) + "\n" + "".join(unequal)


def with_interval(name: str, row: dict[str, str]) -> tuple[str, str]:
    """A metric's value and its uncertainty as shown: the spread over training seeds and the interval over people, or
    what there is of them."""
    value = shown(name, float(row[name] or math.nan))
    known = [f"± {shown(name, float(row[f'{name}_seed_sd']))}"] if row.get(f"{name}_seed_sd") else []
    if row.get(f"{name}_lo"):
        known.append(f"{shown(name, float(row[f'{name}_lo']))}–{shown(name, float(row[f'{name}_hi']))}")
    return value, "; ".join(known)


def seed_spread(trainings: pd.DataFrame) -> dict[str, float | int]:
    """One method's number of training seeds, and the standard deviation of each metric's mean over people by seed, NaN
    for a single seed."""
    spreads = {f"{name}_seed_sd": seed_sd(trainings, name) for name in (*METRICS, *FURTHER_METRICS)}
    return {"n_seeds": trainings["seed"].nunique(), **spreads}


def _row(
    own: pd.DataFrame, common: pd.DataFrame, shared: Mapping[str, set[str]], limits: tuple[int, int]
) -> dict[str, float | int | str]:
    succeeded = people_of(common, "miou")
    row: dict[str, float | int | str] = {
        "n_subjects": own["person"].nunique(),
        "n_parameters": _whole(own["n_parameters"]),
        "nfe": _whole(own["nfe"]),
        "seconds_per_volume": number(own["seconds"].mean(), digits=4),
        "n_failed": int(own["failed"].sum()),
        **{name: _constant(own[name]) for name in ("samples", "msssim_scales", "msssim_minmax_scales")},
        "miou_common": succeeded.mean(),
        "miou_common_n": len(succeeded),
    }
    for name in (*METRICS, *FURTHER_METRICS):
        row |= means_of(own, name, shared[name], limits if name in WITH_INTERVAL else None)
    return row


def _common(trainings: pd.DataFrame) -> pd.DataFrame:
    """Means over training seeds on the scans on which every training succeeded. One that never did is left out, and
    takes nothing from the others."""
    succeeded = ~trainings["failed"] & trainings["miou"].notna()
    ever = succeeded.groupby([trainings["method"], trainings["seed"]]).transform("any")
    scans = in_every(trainings[succeeded].groupby(["method", "seed"])["scan"])
    return mean_over_seeds(trainings[ever & trainings["scan"].isin(scans)])


def _scales(rows: list[dict[str, str]], name: str) -> list[str]:
    """A sentence where volumes are too small for the five scales of the standard measure."""
    used = sorted({row[f"{name}_scales"] for row in rows} - {""})
    if used in ([], [f"{SCALES}"]):
        return []
    return [f"{named(name, '')}: {', '.join(used)} of the usual {SCALES} scales, weights renormalised."]


def _constant(values: pd.Series) -> str:
    """A fact of the method; a range where it differs between scans (a smaller brain allows fewer scales)."""
    known = values.dropna()
    return "-".join(dict.fromkeys(f"{value:g}" for value in (known.min(), known.max()))) if len(known) else ""


def _whole(values: pd.Series) -> str:
    """A count of the method; the rounded mean where it differs between scans, so that the column stays numeric."""
    return "" if values.isna().all() else f"{values.mean():.0f}"


def _cells(rows: list[dict[str, str]], compact: bool = False, bold: Callable[[str], str] = str) -> list[list[str]]:
    """A heading and one line a method, for people; `compact` leaves out what a terminal has no room for."""
    judge = rows[0]["parcellator"] if rows else ""
    metrics = measured(["psnr", "msssim", "hfcorr", "miou"] if compact else [*METRICS, COMMON], judge)
    head = ["method", *(named(name, "" if compact else judge) for name in metrics)]
    lines = [[*head, "parameters", "NFE", "s/volume", "people", "failed"]]
    best = best_of(rows, metrics)
    for row in rows:
        line = [row["method"], *(_cell(row, name, best[name], bold, compact) for name in metrics)]
        parameters = f"{int(row['n_parameters']):,}" if row["n_parameters"].isdigit() else "–"
        seconds = f"{float(row['seconds_per_volume']):.3g}" if row["seconds_per_volume"] else "–"
        people = f"{row['psnr_n']} of {row['n_subjects']}"
        lines.append([*line, parameters, row["nfe"] or "–", seconds, people, row["n_failed"]])
    return lines


def _further_cells(rows: list[dict[str, str]], bold: Callable[[str], str]) -> list[list[str]]:
    names = further_metrics(rows)
    best = best_of(rows, names)
    lines = [["method", *(named(name, "") for name in names), "people", "failed"]]
    for row in rows:
        line = [row["method"], *(_cell(row, name, best[name], bold) for name in names)]
        lines.append([*line, f"{row['psnr_n']} of {row['n_subjects']}", row["n_failed"]])
    return lines


def _cell(row: dict[str, str], name: str, best: set[str], bold: Callable[[str], str], compact: bool = False) -> str:
    """`value (low–high) [n of N]`, the interval and the people where there is something to say."""
    value, interval = with_interval(name, row)
    value = bold(value) if row["method"] in best else value
    if interval and not (compact and name == "msssim"):
        value += f" ({interval})"
    return f"{value} [{count(row, name)}]" if count(row, name) and not compact else value
