"""Like with like, from a table's rows: who is best, where methods' people differ, and who failed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from iqt.report.metrics import COMMON, LOWER_IS_BETTER, NAMES, shown

FAILURES_SHOWN = 20
"""Failures that a table names; the page and the tables of metrics/ have all."""
BLIND = 0.999
"""mIoU from which on a parcellator is not believed to look."""


def best_of(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> dict[str, set[str]]:
    """The methods that are best by each metric over the scans that all have, as far as the shown digits tell.

    Nobody where there is only one method to compare, or no scan that all have.
    """
    best: dict[str, set[str]] = {}
    for name in names:
        column = name if name == COMMON else f"{name}_shared"  # that one is over the same scans as it is
        means = {row["method"]: float(row[column]) for row in rows if row[column]}
        choose = min if name in LOWER_IS_BETTER else max
        first = shown(name, choose(means.values(), default=math.nan))
        best[name] = {method for method, mean in means.items() if shown(name, mean) == first and len(means) > 1}
    return best


def count(row: Mapping[str, str], name: str) -> str:
    """`n of N` people where a mean is not over everybody, else nothing."""
    n, everybody = row.get(f"{name}_n", row["n_subjects"]), row["n_subjects"]
    return "" if n == everybody else f"{n} of {everybody}"


def unequal(
    rows: Sequence[Mapping[str, str]], names: Sequence[str], as_shown: Callable[[str, float], str] = shown
) -> dict[str, tuple[int, dict[str, str]]]:
    """For each metric whose means are not over the same scans: the people whose scans all methods have, and each
    method's mean over these, as shown. Empty where all is alike, as it should be.
    """
    found = {}
    for name in names:
        own = [row for row in rows if row[f"{name}_n"] != "0"]
        if any(row[name] != row[f"{name}_shared"] or count(row, name) for row in own):
            n = max(int(row[f"{name}_n_shared"]) for row in own)
            found[name] = n, {row["method"]: as_shown(name, float(row[f"{name}_shared"] or math.nan)) for row in own}
    return found


def differences(
    rows: Sequence[Mapping[str, str]],
    names: Sequence[str],
    labels: Mapping[str, str] = NAMES,
    as_shown: Callable[[str, float], str] = shown,
) -> list[str]:
    """The same as sentences, one for each number of people."""
    by_n: dict[int, list[str]] = {}
    for name, (n, means) in unequal(rows, names, as_shown).items():
        values = ", ".join(f"{method} {mean}" for method, mean in means.items())
        by_n.setdefault(n, []).append(f"{labels[name]} {values}" if n else labels[name])
    return [
        f"Over the {n} {'person' if n == 1 else 'people'} whose scans all methods have: {'; '.join(parts)}."
        if n
        else f"No scan has a result of every method, so that no means compare: {', '.join(parts)}."
        for n, parts in by_n.items()
    ]


def failures(scores: pd.DataFrame) -> list[str]:
    """A sentence that names results that count as failed, and why."""
    failed = scores[scores["failed"]]
    found = [f"{row.scan} {row.method} ({row.reason.rstrip('.')})" for row in failed.itertuples()]
    more = f"; and {len(found) - FAILURES_SHOWN} more" if len(found) > FAILURES_SHOWN else ""
    return [f"Failures: {'; '.join(found[:FAILURES_SHOWN])}{more}."] if found else []


def blind_parcellator(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """A sentence where the parcellator tells no method, interpolations included, from the reference."""
    means = [float(row["miou"]) for row in rows if row["miou"]]
    if len(means) < 2 or min(means) < BLIND:
        return []
    return [
        f"The parcellator reads every method's result like its reference (mIoU of at least {BLIND}), so mIoU and Dice "
        "tell nothing here; a parcellator that the run trained may have been trained too briefly."
    ]
