"""The table of structures: overlap and volumetry of each structure and method, with intervals over people."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from iqt.io.files import write_table, write_text
from iqt.io.naming import seed_of
from iqt.report.data import as_rows, in_every, people_of, read_frame, with_text
from iqt.report.metrics import shown
from iqt.report.significance import agreement, mean_limits
from iqt.report.tables.formats import bracketed, latex, markdown

TEXT = ("set", "scan", "method", "index", "name")
NUMBERS = ("iou", "dice", "volume_reference_mm3", "volume_mm3")
NEEDED = (*TEXT, *NUMBERS)
COLUMNS = (
    *("set", "index", "name", "method", "n", "n_absent", "n_missing", "iou", "iou_lo", "iou_hi", "dice", "dice_lo"),
    *("dice_hi", "volume_reference_mm3", "n_volumes", "bias_mm3", "bias_lo", "bias_hi", "loa_lower", "loa_upper"),
    *("icc", "icc_lo", "icc_hi", "n_people", "n_scans", "dice_shared", "n_shared", "n_scans_shared"),
    *("loa_lower_lo", "loa_lower_hi", "loa_upper_lo", "loa_upper_hi"),
)
NOTE = (
    "Means over people; in brackets 95 % percentile bootstrap limits. People: those behind the means, of all, with "
    "their scans where these are more. Absent: people in whom neither reading holds the structure. Missing: people "
    "whose result or reference was not read; a result on which the parcellator fails scores 0 and has no volume. Bias: "
    "volume in the result minus volume in the reference, with Bland and Altman's 95 % limits of agreement and, in "
    "brackets, their exact 95 % intervals for normal differences (Carkeet 2015). ICC: ICC(2,1), absolute agreement of "
    "the two volumes. Volumes are those of the first training seed, overlap is a mean over seeds; a scan that one of "
    "them lost is missing. Best Dice in bold, by the mean over the scans that all methods have."
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

    One row per structure of the look-up table and method, also where no scan holds it (`n` 0). Scans of one person are
    averaged first. `n_scans` is how many scans are behind the overlap, `dice_shared` the mean over the `n_shared`
    people's `n_scans_shared` scans for which every method has a value: it decides what is best, and the tables name
    the structures where methods' scans differ.

    Args:
        people: everybody who was to be scored.
        methods: in the order of the tables.
        bootstrap: resamplings of the people.

    Raises:
        UserError: structures.csv is absent or lacks a column.
    """
    found = read_structures(structures_csv, set_name)
    draw = seed_of(seed, "bootstrap", set_name)
    made = []
    for (index, name), held in found.astype({"index": int}).groupby(["index", "name"]):
        shared = in_every(held.dropna(subset=["dice"]).groupby("method")["scan"])
        made += [
            {"set": set_name, "index": index, "name": name, "method": method}
            | _row(held[held["method"] == method], people, shared, bootstrap, draw)
            for method in methods
        ]
    rows = as_rows(made)
    write_table(out / "structures.csv", rows, COLUMNS)
    title = f"Every structure, low-field set {set_name}."

    def cells(bold: Callable[[str], str]) -> list[list[str]]:
        return structure_cells(rows, bold)

    note = " ".join([NOTE, *structure_differences(rows)])
    write_text(out / "structures.md", markdown(cells, title, note, n_text=2))
    write_text(out / "structures.tex", latex(cells, title, note, n_text=2, long=True))
    return rows


def read_structures(structures_csv: Path, set_name: str | None = None) -> pd.DataFrame:
    """The overlap and volumes of metrics/structures.csv, one row per scan, method, training seed and structure, of the
    scans that every seed of a method has.

    Raises:
        UserError: the table is absent, lacks a column, or a value is not a number.
    """
    where = {} if set_name is None else {"set": set_name}
    frame = with_text(read_frame(structures_csv, TEXT, NUMBERS, where), "seed")
    whose = ["set", "method"]
    seeds = frame.groupby(whose)["seed"].transform("nunique")
    own = frame.drop_duplicates([*whose, "seed", "scan"]).groupby([*whose, "scan"])["seed"].nunique().rename("held")
    held = frame.join(own, on=[*whose, "scan"])["held"]
    return frame[held == seeds] if len(frame) else frame


def structure_cells(rows: Sequence[Mapping[str, str]], bold: Callable[[str], str] = str) -> list[list[str]]:
    """A heading and one line per structure and method, for people."""
    head = ["structure", "method", "people", "Dice (95 %)", "IoU (95 %)", "volume (cm³)", "bias (cm³, 95 %)"]
    lines = [[*head, "limits of agreement (cm³, 95 %)", "ICC (95 %)"]]
    best: dict[str, list[float]] = {}
    for row in rows:
        best.setdefault(row["index"], []).extend([float(row["dice_shared"])] if row["dice_shared"] else [])
    for row in rows:
        dice, iou, icc = (_with_limits(row, name, shown_as) for name, shown_as in OVERLAPS)
        others = best[row["index"]]
        if row["dice_shared"] and len(others) > 1 and _dice(row["dice_shared"]) == _dice(max(others)):
            dice = bold(dice)
        reasons = [f"{row[f'n_{why}']} {why}" for why in ("absent", "missing") if row[f"n_{why}"] != "0"]
        reasons = ([f"{row['n_scans']} scans"] if row["n_scans"] != row["n"] else []) + reasons
        people = f"{row['n']} of {row['n_people']}" + (f" ({', '.join(reasons)})" if reasons else "")
        bias = bracketed(_cm3(row["bias_mm3"], "+"), (_cm3(row["bias_lo"], "+"), _cm3(row["bias_hi"], "+")))
        if row["n_volumes"] not in ("0", row["n"]):  # of those whom the parcellator read, by the first training
            bias += f" [{row['n_volumes']} of {row['n']}]"
        limits = " to ".join(_limit(row, name) for name in ("loa_lower", "loa_upper")) if row["loa_lower"] else "–"
        lines.append(
            [row["name"], row["method"], people, dice, iou, _cm3(row["volume_reference_mm3"]), bias, limits, icc]
        )
    return lines


def structure_differences(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """A sentence about the structures whose methods' means are over different scans; none where all are alike."""
    grouped: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for row in rows:
        grouped.setdefault((row["index"], row["name"]), []).append(row)
    found: dict[str, list[str]] = {}
    for (_, name), own in grouped.items():
        # A method without any, as `n_scans_shared` does not count it.
        sizes = {row["method"]: row["n_scans"] for row in own if row["n_scans"] != "0"}
        shared = max((row["n_scans_shared"] for row in own), key=int)
        if set(sizes.values()) - {shared}:
            counts = ", ".join(f"{method} {size}" for method, size in sizes.items())
            found.setdefault(f"{counts} (all methods have {shared})", []).append(name)
    sentences = []
    for counts, names in found.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        sentences.append(
            f"Scans behind the means differ between methods: {counts} in {', '.join(names[:NAMED])}{more}."
        )
    return sentences


NAMED = 10
"""Structures that such a sentence names."""
OVERLAPS = (("dice", "dice"), ("iou", "miou"), ("icc", "dice"))
"""Columns, and the metric as which each is shown."""


def _row(own: pd.DataFrame, people: Sequence[str], shared: set[str], bootstrap: int, draw: int) -> dict[str, Any]:
    whose = own["person"].unique()

    def values(column: str, rows: pd.DataFrame = own) -> np.ndarray:
        """One value per person, NaN where there is none."""
        return people_of(rows, column).reindex(whose).to_numpy(dtype=float)

    dice, iou = values("dice"), values("iou")
    held = ~np.isnan(dice)
    alike = people_of(own[own["scan"].isin(shared)], "dice")
    made: dict[str, Any] = {
        "n": int(held.sum()),
        "n_absent": int((~held).sum()),
        "n_missing": len(set(people) - set(whose)),
        "n_people": len(set(people)),
        "n_scans": own.dropna(subset=["dice"])["scan"].nunique(),
        "n_shared": len(alike),
        "n_scans_shared": len(shared) if len(alike) else 0,
        "dice_shared": alike.mean(),
    }
    for name, column in (("dice", dice[held]), ("iou", iou[held])):
        made[name] = float(column.mean()) if column.size else math.nan
        made[f"{name}_lo"], made[f"{name}_hi"] = mean_limits(column, bootstrap, draw)
    truth = np.where(held, values("volume_reference_mm3"), np.nan)
    made["volume_reference_mm3"] = float(truth[held].mean()) if held.any() else math.nan
    # A mean over training seeds would agree better than any training does, the more so the more seeds there are.
    first = own[own["seed"] == own["seed"].iloc[0]] if len(own) else own
    # A scan without a reading of the result has no part in the reference's volume either.
    paired = first.dropna(subset=["dice", "volume_mm3", "volume_reference_mm3"])
    pair = (values(name, paired) for name in ("volume_mm3", "volume_reference_mm3"))
    volumes = agreement(*pair, bootstrap, draw)._asdict()
    return made | {"n_volumes": volumes.pop("n"), "bias_mm3": volumes.pop("bias")} | volumes


def _with_limits(row: Mapping[str, str], name: str, shown_as: str) -> str:
    value, low, high = (shown(shown_as, float(row[f"{name}{end}"] or math.nan)) for end in ("", "_lo", "_hi"))
    return bracketed(value, (low, high))


def _limit(row: Mapping[str, str], name: str) -> str:
    ends = [_cm3(row[f"{name}{end}"], "+") for end in ("", "_lo", "_hi")]
    return bracketed(ends[0], ends[1:])


def _dice(value: str | float) -> str:
    return shown("dice", float(value))


def _cm3(mm3: str, sign: str = "") -> str:
    return f"{float(mm3) / 1000:{sign}.2f}" if mm3 else "–"
