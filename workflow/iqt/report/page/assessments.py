"""The page's sections on the samples' spread and on seams, from metrics/calibration/ and metrics/seams/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from iqt.config.experiments import CALIBRATED, COVERAGES
from iqt.io.batch import OK
from iqt.report.data import of_every_seed, person_of, read_frame, with_text


def calibration_table(metrics: Path, set_name: str, sampled: Sequence[str], n_people: int) -> dict[str, Any] | None:
    """A heading and two lines per method that draws several samples, of their spread as it is and as the validation
    people calibrated it: means over people; None where no such method is.

    Args:
        metrics: folder with calibration/<set>.csv.
        sampled: methods that draw several samples, and those of which nothing is known since they always failed.
        n_people: everybody who was to be scored.

    Raises:
        UserError: a table lacks a column.
    """
    kinds = {
        "": ("correlation", "ratio", *COVERAGES),
        ", calibrated": ("calibrated_correlation", "calibrated_ratio", *CALIBRATED),
    }
    names = [name for group in kinds.values() for name in group]
    rows = _read(metrics / "calibration" / f"{set_name}.csv", ("samples", *names))
    head = ["method", "people", "samples", "rank correlation", "spread / error"]
    head += [f"in {100 * level:.0f} %" for level in COVERAGES.values()]
    lines = []
    for method, own in ((method, rows[rows["method"] == method]) for method in sampled):
        if own.empty:
            continue
        people = {name: _people(own, name) for name in names}
        for kind, (correlation, ratio, *levels) in kinds.items():
            if len(people[ratio]) or not kind:
                cells = [_mean(people[correlation], "{:.2f}"), _mean(people[ratio], "{:.2f}")]
                cells += [_mean(100 * people[name], "{:.0f} %") for name in levels]
                lines.append([f"{method}{kind}", f"{len(people[ratio])} of {n_people}", _span(own["samples"]), *cells])
    return {"head": head, "lines": lines, "failures": _failures(rows, sampled)} if lines else None


def seam_table(metrics: Path, set_name: str, trained: Sequence[str], n_people: int) -> dict[str, Any] | None:
    """A heading and one line per trained method and kind of border: mean and largest ratio over people.

    `beyond chance` counts the people whose ratio is more than two of its own standard deviations above 1. None where
    nothing was assessed.

    Args:
        metrics: folder with seams/<set>.csv.
        trained: methods with a network, in the order of the tables.
        n_people: everybody who was to be scored.

    Raises:
        UserError: the table lacks a column.
    """
    columns = ("tiles", *(f"{kind}_seam{end}" for kind in ("tile", "patch") for end in ("", "_sd")))
    rows = _read(metrics / "seams" / f"{set_name}.csv", columns)
    head = ["method", "borders of", "people", "tiles", "seam ratio", "largest", "beyond chance"]
    lines = []
    for method, own in ((method, rows[rows["method"] == method]) for method in trained):
        for kind, borders in (("tile", "tiles"), ("patch", "patches")) if len(own) else ():
            seam, people = own[f"{kind}_seam"], _people(own, f"{kind}_seam")
            beyond = set(own.loc[seam > 1 + 2 * own[f"{kind}_seam_sd"], "person"]) & set(people.index)
            found = seam.notna().any()
            largest, above = (f"{seam.max():.2f}", f"{len(beyond)} of {len(people)}") if found else ("–", "–")
            mean = _mean(people, "{:.2f}")
            lines.append([method, borders, f"{len(people)} of {n_people}", _span(own["tiles"]), mean, largest, above])
    return {"head": head, "lines": lines, "failures": _failures(rows, trained)} if lines else None


def _read(path: Path, numbers: Sequence[str]) -> pd.DataFrame:
    text = ("scan", "method", "status")
    frame = read_frame(path, text, numbers) if path.is_file() else pd.DataFrame(columns=[*text, *numbers, "person"])
    return with_text(frame, "seed")


def _people(own: pd.DataFrame, name: str) -> pd.Series:
    """One value per person that has one, the mean over training seeds and scans."""
    by_scan = of_every_seed(own, name).mean(axis=1)
    return by_scan.groupby(person_of(by_scan.index), sort=False).mean()


def _mean(people: pd.Series, form: str) -> str:
    return form.format(people.mean()) if len(people) else "–"


def _span(counts: pd.Series) -> str:
    """The counts that there are, the smallest first."""
    return "–".join(f"{count:.0f}" for count in sorted(counts.dropna().unique())) or "–"


def _failures(rows: pd.DataFrame, methods: Sequence[str]) -> list[str]:
    failed = rows[(rows["status"] != OK) & rows["method"].isin(methods)]
    return [f"{row.scan} {row.method}: {row.status}" for row in failed.itertuples()]
