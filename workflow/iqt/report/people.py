"""From the values of scans and training seeds to those of people: what is averaged, and over whose scans."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import stdev
from typing import Any

BySeed = Mapping[str, Mapping[str, float]]
"""One method's values of a quantity by training seed and scan; a scan without a value is left out."""


def person_of(scan: str) -> str:
    """The person; one may have several scans."""
    return scan.split("_")[0]


def shared_scans(owners: Mapping[str, Collection[str]]) -> set[str]:
    """The scans that every method, or training seed, has which has any."""
    found = [set(scans) for scans in owners.values() if scans]
    return set.intersection(*found) if found else set()


def mean_by_person(by_scan: Mapping[str, float]) -> dict[str, float]:
    """The mean of each person's scans."""
    values: dict[str, list[float]] = {}
    for scan, value in by_scan.items():
        values.setdefault(person_of(scan), []).append(value)
    return {person: _mean(own) for person, own in values.items()}


def mean_by_scan(by_seed: BySeed) -> dict[str, float]:
    """Each scan's mean over training seeds, of the scans that every seed has: the mean over what is left of a scan that
    one lost would be of other trainings than the rest's."""
    shared = shared_scans(by_seed)
    seeds = [values for values in by_seed.values() if values]
    return {scan: _mean([values[scan] for values in seeds]) for scan in (seeds[0] if seeds else ()) if scan in shared}


def seed_sd(by_seed: BySeed) -> float:
    """Standard deviation of the seeds' means over people, of the scans that every seed has, so that it tells of the
    training and not of who is missing; NaN for fewer than two."""
    shared = shared_scans(by_seed)
    alike = [{scan: value for scan, value in values.items() if scan in shared} for values in by_seed.values()]
    means = [_mean(list(mean_by_person(values).values())) for values in alike if values]
    return stdev(means) if len(means) > 1 else math.nan


def of_every_seed(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of scans that every training seed of their set and method has which has any."""
    rows = list(rows)
    found: dict[tuple[str, str], dict[str, set[str]]] = {}
    for row in rows:
        seeds = found.setdefault((row["set"], row["method"]), {})
        seeds.setdefault(row.get("seed", ""), set()).add(row["scan"])
    kept = {whose: shared_scans(seeds) for whose, seeds in found.items()}
    return [row for row in rows if row["scan"] in kept[row["set"], row["method"]]]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
