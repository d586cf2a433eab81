"""The table of structures: overlap and volumetry of each structure and method, with intervals over people."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from iqt.files import read_table, write_table, write_text
from iqt.naming import seed_of
from iqt.report.formats import bracketed, latex, markdown
from iqt.report.scores import shown
from iqt.statistics import agreement, mean_limits

NEEDED = ("set", "scan", "method", "index", "name", "iou", "dice", "volume_reference_mm3", "volume_mm3")
COLUMNS = (
    *("set", "index", "name", "method", "n", "n_absent", "n_missing", "iou", "iou_lo", "iou_hi", "dice", "dice_lo"),
    *("dice_hi", "volume_reference_mm3", "n_volumes", "bias_mm3", "bias_lo", "bias_hi", "loa_lower", "loa_upper"),
    *("icc", "icc_lo", "icc_hi"),
)
NOTE = (
    "Means over people; in brackets 95 % percentile bootstrap limits. Absent: people in whom neither reading holds the "
    "structure. Missing: people whose result or reference was not read; a result on which the parcellator fails scores "
    "0 and has no volume. Bias: volume in the result minus volume in the reference, with Bland and Altman's 95 % "
    "limits of agreement. ICC: ICC(2,1), absolute agreement of the two volumes. Best Dice in bold."
)


def write_structures(
    structures_csv: Path,
    out: Path,
    set_name: str,
    people: Sequence[str],
    methods: Sequence[str],
    bootstrap: int,
    seed: int,
) -> list[dict[str, str]]:
    """Write structures.csv, .md and .tex of one low-field set into the folder `out`; the rows.

    A row a structure of the look-up table and method, also where no scan holds it (`n` 0). Scans of one person are
    averaged first.

    Args:
        people: everybody who was to be scored.
        methods: in the order of the tables.
        bootstrap: resamplings of the people.

    Raises:
        UserError: structures.csv is absent or lacks a column.
    """
    grouped: dict[tuple[int, str], dict[str, list[Mapping[str, str]]]] = {}
    for row in read_table(structures_csv, required=NEEDED):
        if row["set"] == set_name:
            grouped.setdefault((int(row["index"]), row["name"]), {}).setdefault(row["method"], []).append(row)
    draw = seed_of(seed, "bootstrap", set_name)
    rows = [
        {"set": set_name, "index": str(index), "name": name, "method": method}
        | _tidy(_row(by_method.get(method, []), people, bootstrap, draw))
        for (index, name), by_method in sorted(grouped.items())
        for method in methods
    ]
    write_table(out / "structures.csv", rows, COLUMNS)
    title = f"Every structure, low-field set `{set_name}`."

    def cells(bold: Callable[[str], str]) -> list[list[str]]:
        return structure_cells(rows, bold)

    write_text(out / "structures.md", markdown(cells, title, NOTE, n_text=2))
    write_text(out / "structures.tex", latex(cells, title.replace("`", ""), NOTE, n_text=2, long=True))
    return rows


def structure_cells(rows: Sequence[Mapping[str, str]], bold: Callable[[str], str] = str) -> list[list[str]]:
    """A heading and a line a structure and method, for people."""
    head = ["structure", "method", "people", "Dice (95 %)", "IoU (95 %)", "volume (cm³)", "bias (cm³, 95 %)"]
    lines = [[*head, "limits of agreement (cm³)", "ICC (95 %)"]]
    best: dict[str, float] = {}
    for row in rows:
        best[row["index"]] = max(best.get(row["index"], 0.0), float(row["dice"] or 0))
    for row in rows:
        dice, iou, icc = (_with_limits(row, name, shown_as) for name, shown_as in OVERLAPS)
        if row["dice"] and shown("dice", float(row["dice"])) == shown("dice", best[row["index"]]):
            dice = bold(dice)
        reasons = [f"{row[f'n_{why}']} {why}" for why in ("absent", "missing") if row[f"n_{why}"] != "0"]
        people = row["n"] + (f" ({', '.join(reasons)})" if reasons else "")
        bias = bracketed(_cm3(row["bias_mm3"], "+"), (_cm3(row["bias_lo"], "+"), _cm3(row["bias_hi"], "+")))
        limits = f"{_cm3(row['loa_lower'], '+')} to {_cm3(row['loa_upper'], '+')}" if row["loa_lower"] else "–"
        lines.append(
            [row["name"], row["method"], people, dice, iou, _cm3(row["volume_reference_mm3"]), bias, limits, icc]
        )
    return lines


OVERLAPS = (("dice", "dice"), ("iou", "miou"), ("icc", "dice"))
"""Columns, and the metric as which each is shown."""


def _row(rows: Sequence[Mapping[str, str]], people: Sequence[str], bootstrap: int, draw: int) -> dict[str, Any]:
    by_person: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        by_person.setdefault(row["scan"].split("_")[0], []).append(row)

    def values(column: str) -> np.ndarray:
        """A value a person, NaN where there is none."""
        found = []
        for scans in by_person.values():
            numbers = [float(row[column]) for row in scans if row[column]]
            found.append(sum(numbers) / len(numbers) if numbers else math.nan)
        return np.array(found)

    dice, iou = values("dice"), values("iou")
    held = ~np.isnan(dice)
    made: dict[str, Any] = {
        "n": int(held.sum()),
        "n_absent": int((~held).sum()),
        "n_missing": len(set(people) - by_person.keys()),
    }
    for name, column in (("dice", dice[held]), ("iou", iou[held])):
        made[name] = float(column.mean()) if column.size else math.nan
        made[f"{name}_lo"], made[f"{name}_hi"] = mean_limits(column, bootstrap, draw)
    truth = np.where(held, values("volume_reference_mm3"), np.nan)
    made["volume_reference_mm3"] = float(truth[held].mean()) if held.any() else math.nan
    volumes = agreement(values("volume_mm3"), truth, bootstrap, draw)._asdict()
    return made | {"n_volumes": volumes.pop("n"), "bias_mm3": volumes.pop("bias")} | volumes


def _tidy(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: str(value) if isinstance(value, int) else "" if math.isnan(value) else f"{value:.6g}"
        for name, value in row.items()
    }


def _with_limits(row: Mapping[str, str], name: str, shown_as: str) -> str:
    value, low, high = (shown(shown_as, float(row[f"{name}{end}"] or math.nan)) for end in ("", "_lo", "_hi"))
    return bracketed(value, (low, high))


def _cm3(mm3: str, sign: str = "") -> str:
    return f"{float(mm3) / 1000:{sign}.2f}" if mm3 else "–"
