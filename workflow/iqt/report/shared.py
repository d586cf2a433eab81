"""Like with like: means over the scans that every method has, and where methods' people differ."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from iqt.report.scores import COMMON, LOWER_IS_BETTER, Score, named, shown


def scans_all_have(scores: Sequence[Score], name: str) -> set[str]:
    """The scans on which every method has a value of a metric; a method that has none at all does not count."""
    values: dict[str, set[str]] = {}
    for score in scores:
        if not math.isnan(score.values[name]):
            values.setdefault(score.method, set()).add(score.scan)
    return shared_scans(values)


def shared_scans(by_method: Mapping[str, Collection[str]]) -> set[str]:
    """The scans that every method has which has any."""
    found = [set(scans) for scans in by_method.values() if scans]
    return set.intersection(*found) if found else set()


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


def unequal(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> dict[str, tuple[int, dict[str, str]]]:
    """For each metric whose means are not over the same scans: the people whose scans all methods have, and each
    method's mean over these, as shown. Empty where all is alike, as it should be.
    """
    found = {}
    for name in names:
        own = [row for row in rows if row[f"{name}_n"] != "0"]
        if any(row[name] != row[f"{name}_shared"] or count(row, name) for row in own):
            n = max(int(row[f"{name}_n_shared"]) for row in own)
            found[name] = n, {row["method"]: shown(name, float(row[f"{name}_shared"] or math.nan)) for row in own}
    return found


def differences(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> list[str]:
    """The same as sentences, one for each number of people."""
    by_n: dict[int, list[str]] = {}
    for name, (n, means) in unequal(rows, names).items():
        values = ", ".join(f"{method} {mean}" for method, mean in means.items())
        by_n.setdefault(n, []).append(f"{named(name, '')} {values}" if n else named(name, ""))
    return [
        f"Over the {n} {'person' if n == 1 else 'people'} whose scans all methods have: {'; '.join(parts)}."
        if n
        else f"No scan has a result of every method, so none is bold: {', '.join(parts)}."
        for n, parts in by_n.items()
    ]
