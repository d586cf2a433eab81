"""The page's sections a structure: the methods' overlap, largest effect first, and how well the parcellator reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from iqt.io.batch import OK
from iqt.io.files import read_table
from iqt.report.people import of_every_seed
from iqt.report.scores import shown

JUDGED = ("scan", "status", "name", "dice", "volume_reference_mm3")
NEEDED = ("set", "scan", "method", "name", "iou", "dice", "volume_reference_mm3")


def read_colours(lut: Path | None) -> dict[str, str]:
    """Colour (#rrggbb) by structure's name; nothing without a look-up table."""
    return {} if lut is None else {row["name"]: row["color"] for row in read_table(lut, required=("name", "color"))}


def mean_over_seeds(rows: Sequence[Mapping[str, str]]) -> Sequence[Mapping[str, str]]:
    """One row a set, scan, method and structure: overlap's mean over training seeds where there are several, of the
    scans that every one of them has."""
    grouped: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for row in of_every_seed(rows):
        grouped.setdefault(tuple(row[name] for name in ("set", "scan", "method", "name")), []).append(row)
    means = []
    for own in grouped.values():
        first = dict(own[0])
        for name in ("iou", "dice") if len(own) > 1 else ():
            values = [float(row[name]) for row in own if row[name]]
            first[name] = str(sum(values) / len(values)) if values else ""
        means.append(first)
    return means


def compare_methods(rows: Sequence[Mapping[str, str]], baseline: str | None, colours: Mapping[str, str]) -> dict:
    """One line per structure: mean Dice and IoU of each method, volume, and effect; the largest effect first.

    Scans of one person are averaged first. Each cell has the Dice, the IoU and the scans behind them; `differs` says
    that these are not the same for every method. The effect is the largest mean difference in Dice, scan by scan,
    between a method and `baseline` (the first method where that is None or absent), with its sign. A structure that no
    scan holds has its name and no value.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    against = baseline if baseline in methods else next(iter(methods), None)
    grouped: dict[str, dict[str, dict[str, Mapping[str, str]]]] = {}
    for row in rows:
        by_method = grouped.setdefault(row["name"], {})
        if row["dice"]:
            by_method.setdefault(row["method"], {})[row["scan"]] = row
    lines = []
    for name, by_method in grouped.items():
        effect, best = _effect(by_method, against)
        scans = {method: frozenset(by_method.get(method, ())) for method in methods}
        lines.append(
            {
                "name": name,
                "colour": colours.get(name),
                "volume": _mean(by_method, "volume_reference_mm3") / 1000,
                "effect": effect,
                "best": best,
                "differs": len(set(scans.values())) > 1,
                "cells": [
                    (
                        shown("dice", _mean({method: by_method.get(method, {})}, "dice")),
                        shown("miou", _mean({method: by_method.get(method, {})}, "iou")),
                        len(scans[method]),
                    )
                    for method in methods
                ],
            }
        )
    lines.sort(key=lambda line: (-abs(line["effect"]), line["name"]))
    return {"methods": methods, "lines": lines, "baseline": against}


def judge(metrics: Path, colours: Mapping[str, str]) -> dict[str, Any] | None:
    """How well the parcellator reads the high-quality test scans, from parcellator.csv; None without any.

    The mean Dice is over the structures of a scan, then over scans; lines are sorted from the worst structure.
    `failures` has the scan and the reason where the parcellator or a label map failed: a failed parcellation counts as
    0, a label map that cannot be read in no mean.
    """
    path = metrics / "parcellator.csv"
    rows = read_table(path, required=JUDGED) if path.is_file() else []
    if not rows:
        return None
    failures = {row["scan"]: row["status"] for row in rows if row["status"] != OK}
    by_scan: dict[str, list[float]] = {}
    by_name: dict[str, list[Mapping[str, str]]] = {}
    for row in (row for row in rows if row["dice"]):
        by_scan.setdefault(row["scan"], []).append(float(row["dice"]))
        by_name.setdefault(row["name"], []).append(row)
    lines = []
    for name, own in by_name.items():
        dice = [float(row["dice"]) for row in own]
        volume = np.mean([float(row["volume_reference_mm3"]) for row in own]) / 1000
        lines.append(
            {"name": name, "colour": colours.get(name), "volume": volume, "dice": np.mean(dice), "lowest": min(dice)}
        )
    lines.sort(key=lambda line: line["dice"])
    return {
        "n_scans": len(by_scan),
        "dice": float(np.mean([np.mean(dice) for dice in by_scan.values()])) if by_scan else None,
        "failures": failures,
        "lines": lines,
    }


def _effect(by_method: Mapping[str, Mapping], against: str | None) -> tuple[float, str]:
    """The largest mean paired difference in Dice to a method, and whose it is; 0 and "" where there is none."""
    base = by_method.get(against, {})
    found = {}
    for method, scans in by_method.items():
        pairs = [float(scans[scan]["dice"]) - float(base[scan]["dice"]) for scan in scans if scan in base]
        if method != against and pairs:
            found[method] = sum(pairs) / len(pairs)
    best = max(found, key=lambda method: abs(found[method]), default="")
    return (found[best], best) if best else (0.0, "")


def _mean(by_method: Mapping[str, Mapping], column: str) -> float:
    """Mean over people of a column, the scans of one person averaged first."""
    people: dict[str, list[float]] = {}
    for scans in by_method.values():
        for scan, row in scans.items():
            if row[column] and not math.isnan(float(row[column])):
                people.setdefault(scan.split("_")[0], []).append(float(row[column]))
    return float(np.mean([np.mean(values) for values in people.values()])) if people else math.nan
