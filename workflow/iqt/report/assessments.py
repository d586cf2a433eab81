"""The page's sections on the samples' spread and on seams, from metrics/calibration/ and metrics/seams/."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from iqt.batch import OK
from iqt.files import read_table

LEVELS = ("50", "68", "90", "95")
"""Of the coverage columns, in per cent."""


def calibration_table(metrics: Path, set_name: str, sampled: Sequence[str], n_people: int) -> dict[str, Any] | None:
    """A heading and a line a method that draws several samples: means over people; None where no such method is.

    Args:
        metrics: folder with calibration/<set>.csv.
        sampled: methods that draw several samples, and those of which nothing is known since they always failed.
        n_people: everybody who was to be scored.

    Raises:
        UserError: a table lacks a column.
    """
    columns = ("samples", "correlation", "ratio", *(f"coverage_{level}" for level in LEVELS))
    rows = _read(metrics / "calibration" / f"{set_name}.csv", columns)
    head = ["method", "people", "samples", "rank correlation", "spread / error", *(f"in {one} %" for one in LEVELS)]
    lines = []
    for method in sampled:
        own = [row for row in rows if row["method"] == method]
        if not own:
            continue
        cells = [_mean(own, name, lambda value: f"{value:.2f}") for name in ("correlation", "ratio")]
        cells += [_mean(own, f"coverage_{level}", lambda value: f"{100 * value:.0f} %") for level in LEVELS]
        samples = "–".join(sorted({row["samples"] for row in own if row["samples"]}, key=int)) or "–"
        lines.append([method, f"{len(_people(own, 'ratio'))} of {n_people}", samples, *cells])
    return {"head": head, "lines": lines, "failures": _failures(rows, sampled)} if lines else None


def seam_table(metrics: Path, set_name: str, trained: Sequence[str], n_people: int) -> dict[str, Any] | None:
    """A heading and a line a trained method and kind of border: mean and largest ratio over people.

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
    for method in trained:
        own = [row for row in rows if row["method"] == method]
        tiles = "–".join(dict.fromkeys(sorted((row["tiles"] for row in own if row["tiles"]), key=int))) or "–"
        for kind, borders in (("tile", "tiles"), ("patch", "patches")) if own else ():
            found = [row for row in own if row[f"{kind}_seam"]]
            ratios = _people(found, f"{kind}_seam")
            beyond = {
                row["scan"].split("_")[0]
                for row in found
                if row[f"{kind}_seam_sd"] and float(row[f"{kind}_seam"]) > 1 + 2 * float(row[f"{kind}_seam_sd"])
            }
            largest = f"{max(float(row[f'{kind}_seam']) for row in found):.2f}" if found else "–"
            mean = _mean(found, f"{kind}_seam", lambda value: f"{value:.2f}")
            above = f"{len(beyond)} of {len(ratios)}" if found else "–"
            lines.append([method, borders, f"{len(ratios)} of {n_people}", tiles, mean, largest, above])
    return {"head": head, "lines": lines, "failures": _failures(rows, trained)} if lines else None


def _read(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    return read_table(path, required=("scan", "method", "status", *columns)) if path.is_file() else []


def _people(rows: Sequence[Mapping[str, str]], name: str) -> list[float]:
    """A value a person that has one, its scans averaged."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row[name]:
            values.setdefault(row["scan"].split("_")[0], []).append(float(row[name]))
    return [float(np.mean(scans)) for scans in values.values()]


def _mean(rows: Sequence[Mapping[str, str]], name: str, form: Callable[[float], str]) -> str:
    people = _people(rows, name)
    return form(float(np.mean(people))) if people else "–"


def _failures(rows: Sequence[Mapping[str, str]], methods: Sequence[str]) -> list[str]:
    failed = [row for row in rows if row["status"] != OK and row["method"] in methods]
    return [f"{row['scan']} {row['method']}: {row['status']}" for row in failed]
