"""The page's sections a structure: the methods' overlap, largest effect first, and how well the parcellator reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from iqt.io.batch import OK
from iqt.io.labels import read_shown
from iqt.report.data import methods_of, people_of, person_of, read_frame
from iqt.report.metrics import shown

JUDGED = ("scan", "status", "name"), ("dice", "volume_reference_mm3")
"""Columns of parcellator.csv: text, and numbers."""


def read_colours(lut: Path | None) -> dict[str, str]:
    """Colour (#rrggbb) by structure's name; nothing without a look-up table."""
    return {} if lut is None else {shown.name: shown.colour for shown in read_shown(lut).values()}


def mean_over_seeds(structures: pd.DataFrame) -> pd.DataFrame:
    """One row per set, scan, method and structure: overlap's mean over training seeds where there are several, the
    volumes of the first."""
    key = ["set", "scan", "method", "name"]
    means = structures.groupby(key, sort=False)[["iou", "dice"]].mean()
    return structures.drop(columns=["iou", "dice"]).drop_duplicates(key).join(means, on=key)


def compare_methods(structures: pd.DataFrame, baseline: str | None, colours: Mapping[str, str]) -> dict:
    """One line per structure: mean Dice and IoU of each method, volume, and effect; the largest effect first.

    Scans of one person are averaged first. Each cell has the Dice, the IoU and the scans behind them; `differs` says
    that these are not the same for every method. The effect is the largest mean difference in Dice, scan by scan,
    between a method and `baseline` (the first method where that is None or absent), with its sign. A structure that no
    scan holds has its name and no value.

    Args:
        structures: of one low-field set, one row per scan, method and structure.
    """
    methods = methods_of(structures)
    against = baseline if baseline in methods else next(iter(methods), None)
    lines = []
    for name, every in structures.groupby("name", sort=False):
        held = every.dropna(subset=["dice"])
        effect, best = _effect(held, against)
        own = {method: held[held["method"] == method] for method in methods}
        scans = {method: frozenset(rows["scan"]) for method, rows in own.items()}
        lines.append(
            {
                "name": name,
                "colour": colours.get(name),
                "volume": people_of(held, "volume_reference_mm3").mean() / 1000,
                "effect": effect,
                "best": best,
                "differs": len(set(scans.values())) > 1,
                "cells": [
                    (
                        shown("dice", people_of(rows, "dice").mean()),
                        shown("miou", people_of(rows, "iou").mean()),
                        len(scans[method]),
                    )
                    for method, rows in own.items()
                ],
            }
        )
    lines.sort(key=lambda line: (-abs(line["effect"]), line["name"]))
    return {"methods": methods, "lines": lines, "baseline": against}


def judge(metrics: Path, colours: Mapping[str, str]) -> dict[str, Any] | None:
    """How well the parcellator reads the high-quality test scans, from parcellator.csv; None without any.

    The mean Dice is over the structures of a scan, then over a person's scans, then over people; lines are sorted from
    the worst structure.
    `failures` has the scan and the reason where the parcellator or a label map failed: a failed parcellation counts as
    0, a label map that cannot be read in no mean.
    """
    path = metrics / "parcellator.csv"
    rows = read_frame(path, *JUDGED) if path.is_file() else pd.DataFrame()
    if rows.empty:
        return None
    failed, held = rows[rows["status"] != OK], rows.dropna(subset=["dice"])
    lines = [
        {
            "name": name,
            "colour": colours.get(name),
            "volume": own["volume_reference_mm3"].mean() / 1000,
            "dice": own["dice"].mean(),
            "lowest": own["dice"].min(),
        }
        for name, own in held.groupby("name", sort=False)
    ]
    by_scan = held.groupby("scan")["dice"].mean()
    by_person = by_scan.groupby(person_of(by_scan.index)).mean()
    return {
        "n_scans": len(by_scan),
        "dice": float(by_person.mean()) if len(by_person) else None,
        "failures": dict(zip(failed["scan"], failed["status"], strict=True)),
        "lines": sorted(lines, key=lambda line: line["dice"]),
    }


def _effect(held: pd.DataFrame, against: str | None) -> tuple[float, str]:
    """The largest mean paired difference in Dice to a method, and whose it is; 0 and "" where there is none."""
    wide = held.pivot(index="scan", columns="method", values="dice").reindex(columns=methods_of(held))
    if against not in wide:
        return 0.0, ""
    differences = wide.drop(columns=against).sub(wide[against], axis=0)
    found = differences.groupby(person_of(differences.index)).mean().mean().dropna()
    if found.empty:
        return 0.0, ""
    best = found.abs().idxmax()
    return float(found[best]), best
