"""The page's tables of methods: benchmark, further similarity, like with like, and who scores how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from iqt.config.experiments import Experiment
from iqt.report.data import methods_of, people_of
from iqt.report.metrics import (
    COMMON,
    FURTHER_METRICS,
    LOWER_IS_BETTER,
    METRICS,
    further_metrics,
    measured,
    named,
    shown,
)
from iqt.report.tables.benchmark import with_interval
from iqt.report.tables.comparable import best_of, count, unequal

SHOWN = (*METRICS, COMMON)
"""Columns of the benchmark table that methods are ranked by."""


def benchmark_lines(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """One line per method: its row of benchmark.csv, and the cells that methods are ranked by."""
    lines = _metric_cells(rows, measured(SHOWN, rows[0]["parcellator"]))
    return [{**row, "cells": cells} for row, cells in zip(rows, lines, strict=True)]


def left_out(rows: list[dict[str, str]], methods: Iterable[str], experiments: Mapping[str, Experiment]) -> str:
    """A sentence that names the run's methods that were not run on a low-field set, and why; empty where all were.

    Args:
        rows: the set's benchmark.csv.
        experiments: with their sets by name.
    """
    set_name, found = rows[0]["set"], {row["method"] for row in rows}
    lacking = [method for method in methods if method not in found]
    asking = [f"“{one.title}”" for one in experiments.values() if set_name in one.sets]
    why = f", which was made for the methods of {' and '.join(asking)} and for the reference alone" if asking else ""
    return f"Not run on this low-field set{why}: {', '.join(lacking)}." if lacking else ""


def further_lines(rows: list[dict[str, str]]) -> dict[str, Any]:
    """Errors and others' definitions."""
    names = further_metrics(rows)
    lines = _metric_cells(rows, names)
    lines = [{"method": row["method"], "cells": cells} for row, cells in zip(rows, lines, strict=True)]
    return {"head": [named(name, "") for name in names], "lines": lines}


def _metric_cells(rows: list[dict[str, str]], names: Sequence[str]) -> list[list[dict[str, Any]]]:
    """A row's cells: value, interval, `n of N` where that is not everybody, and whether it is best."""
    best = best_of(rows, names)
    return [
        [
            dict(zip(("value", "interval"), with_interval(name, row), strict=True))
            | {"count": count(row, name), "best": row["method"] in best[name]}
            for name in names
        ]
        for row in rows
    ]


def shared_lines(rows: list[dict[str, str]]) -> dict[str, Any]:
    """Means over the scans that all methods have, one line per metric of which some method lacks some."""
    methods = [row["method"] for row in rows]
    lines = [
        [named(name, ""), str(n), *(means.get(method, "–") for method in methods)]
        for name, (n, means) in unequal(rows, measured((*METRICS, *FURTHER_METRICS), rows[0]["parcellator"])).items()
    ]
    return {"head": ["metric", "people", *methods], "lines": lines}


def extremes_lines(scores: pd.DataFrame, names: Sequence[str]) -> list[dict[str, Any]]:
    """The best, the median and the worst person of each method by each metric; of an even number the better median."""
    lines = []
    for name in names:
        for method in methods_of(scores):
            people = people_of(scores[scores["method"] == method], name).sort_index()
            ranked = people.sort_values(ascending=name in LOWER_IS_BETTER, kind="stable")
            chosen = ranked.iloc[[0, (len(ranked) - 1) // 2, -1]] if len(ranked) else ranked
            cells = [(person, shown(name, value)) for person, value in chosen.items()] or [("", "–")] * 3
            lines.append({"metric": named(name, ""), "method": method, "cells": cells})
    return lines
