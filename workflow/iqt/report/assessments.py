"""The page's sections on the samples' spread and on seams, from metrics/calibration/ and metrics/seams/."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from iqt.config.experiments import COVERAGES
from iqt.io.batch import OK
from iqt.io.files import read_table
from iqt.report.people import mean_by_person, mean_by_scan, person_of


def calibration_table(metrics: Path, set_name: str, sampled: Sequence[str], n_people: int) -> dict[str, Any] | None:
    """A heading and one line per method that draws several samples: means over people; None where no such method is.

    Args:
        metrics: folder with calibration/<set>.csv.
        sampled: methods that draw several samples, and those of which nothing is known since they always failed.
        n_people: everybody who was to be scored.

    Raises:
        UserError: a table lacks a column.
    """
    columns = ("samples", "correlation", "ratio", *COVERAGES)
    rows = _read(metrics / "calibration" / f"{set_name}.csv", columns)
    head = ["method", "people", "samples", "rank correlation", "spread / error"]
    head += [f"in {100 * level:.0f} %" for level in COVERAGES.values()]
    lines = []
    for method in sampled:
        own = [row for row in rows if row["method"] == method]
        if not own:
            continue
        cells = [_mean(own, name, lambda value: f"{value:.2f}") for name in ("correlation", "ratio")]
        cells += [_mean(own, name, lambda value: f"{100 * value:.0f} %") for name in COVERAGES]
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
                person_of(row["scan"])
                for row in found
                if row[f"{kind}_seam_sd"] and float(row[f"{kind}_seam"]) > 1 + 2 * float(row[f"{kind}_seam_sd"])
            } & ratios.keys()
            largest = f"{max(float(row[f'{kind}_seam']) for row in found):.2f}" if found else "–"
            mean = _mean(found, f"{kind}_seam", lambda value: f"{value:.2f}")
            above = f"{len(beyond)} of {len(ratios)}" if found else "–"
            lines.append([method, borders, f"{len(ratios)} of {n_people}", tiles, mean, largest, above])
    return {"head": head, "lines": lines, "failures": _failures(rows, trained)} if lines else None


def _read(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    return read_table(path, required=("scan", "method", "status", *columns)) if path.is_file() else []


def _people(rows: Sequence[Mapping[str, str]], name: str) -> dict[str, float]:
    """One value per person that has one, the mean over training seeds and scans."""
    by_seed: dict[str, dict[str, float]] = {}
    for row in rows:
        if row[name]:
            by_seed.setdefault(row.get("seed", ""), {})[row["scan"]] = float(row[name])
    return mean_by_person(mean_by_scan(by_seed))


def _mean(rows: Sequence[Mapping[str, str]], name: str, form: Callable[[float], str]) -> str:
    people = _people(rows, name)
    return form(sum(people.values()) / len(people)) if people else "–"


def _failures(rows: Sequence[Mapping[str, str]], methods: Sequence[str]) -> list[str]:
    failed = [row for row in rows if row["status"] != OK and row["method"] in methods]
    return [f"{row['scan']} {row['method']}: {row['status']}" for row in failed]
