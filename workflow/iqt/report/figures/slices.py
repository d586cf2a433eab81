"""The figures of one person: slices of every result with its errors, and the parcellator's labels."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from iqt.errors import UserError
from iqt.io.labels import GREY, Shown, read_shown
from iqt.report.data import read_trainings
from iqt.report.figures.drawing import STYLE, save_figure
from iqt.report.figures.sheet import Sheet
from iqt.report.metrics import NAMES, shown
from iqt.report.panels import PLANES, WINDOW, Panel

DIFFERS = (1.0, 0.25, 0.1)


def plot_slices(
    panel: Path, subjects_csv: Path, set_name: str, out: list[Path], methods: Sequence[str] | None = None
) -> None:
    """One scan's low-field volume, each method's result and the reference in three planes, and each result's error.

    Every image has the same grey window and every error the same symmetric one, whose end is the 99th percentile of all
    absolute errors shown. A method's spread over samples, where it has one, is drawn with a scale of its own.

    Args:
        methods: those to show, in this order; all of them by default.

    Raises:
        UserError: the panel or subjects.csv is absent or not readable, or the panel lacks a method.
    """
    found = Panel(panel)
    if methods:
        unknown = [method for method in methods if method not in found.methods]
        if unknown:
            raise UserError(f"--method {unknown[0]}: {panel} has {', '.join(found.methods)}")
        found.methods = list(methods)
    scores = _scores(subjects_csv, set_name, found.scan)
    results = [method for method in found.methods if method in found]
    spreads = [method for method in results if f"sd-{method}" in found]
    errors = {
        (method, plane): found.slice(method, plane) - found.slice("hq", plane) for method in results for plane in PLANES
    }
    limit = _limit([error[found.slice("hq", plane) > 0] for (_, plane), error in errors.items()])
    rows = ["lowfield", *found.methods, "hq", *spreads[1:]]

    with matplotlib.rc_context(STYLE):
        sheet = Sheet(found, len(rows), gap_before=len(rows) - max(1, len(spreads)) if spreads else None)
        if "hq" not in found:
            return save_figure(sheet.apologise(found.missing.get("hq", "no reference")), out)

        def grey(what: str) -> Callable[[str], np.ndarray]:
            return lambda plane: np.clip(found.slice(what, plane) / WINDOW, 0, 1)

        sheet.head(0, "image", f"grey window 0 to {WINDOW}; 1 is the 99.5th percentile in the brain mask")
        sheet.label(0, "low-field", ["thick slices,", "as acquired"])
        _planes_or_reason(sheet, 0, found, "lowfield", grey("lowfield"))
        for row, method in enumerate(found.methods, start=1):
            sheet.label(row, method, _measures(scores.get(method), ("psnr", "msssim"), found.missing.get(method)))
            _planes_or_reason(sheet, row, found, method, grey(method))
            if method in found:
                shades = sheet.planes(row, 1, lambda plane, name=method: errors[name, plane], "RdBu_r", -limit, limit)
        if results:
            sheet.bar_above(1, shades, "result − reference, in the same units")
        last = len(found.methods) + 1
        sheet.label(last, "reference", [])
        sheet.planes(last, 0, grey("hq"))
        for row, method in enumerate(spreads, start=last):
            spread = {plane: found.slice(f"sd-{method}", plane) for plane in PLANES}
            shades = sheet.planes(row, 1, spread.__getitem__, "cividis", 0, _limit(list(spread.values())))
            sheet.caption_above(row, f"{method}: standard deviation of its samples")
            sheet.bar_beside(row, shades)
        save_figure(sheet.figure, out)


def plot_parcellation(panel: Path, lut_tsv: Path, subjects_csv: Path, set_name: str, out: list[Path]) -> None:
    """The parcellator's labels on the reference and on each result, and where the two readings differ.

    Args:
        lut_tsv: the cohort's look-up table with `index`, `name` and `color` (#rrggbb).

    Raises:
        UserError: a file is absent or not readable.
    """
    found = Panel(panel)
    scores = _scores(subjects_csv, set_name, found.scan)
    table = read_shown(lut_tsv)
    rows = ["hq", *found.methods]
    with matplotlib.rc_context(STYLE):
        seen = {
            int(index)
            for what in rows
            if f"seg-{what}" in found
            for plane in PLANES
            for index in np.unique(found.slice(f"seg-{what}", plane))
        } - {0}
        names = _legend(table, seen)
        sheet = Sheet(found, len(rows), footer=24 * math.ceil(len(names) / 5) + 20)
        if "hq" not in found or "seg-hq" not in found:
            reason = found.missing.get("hq") or found.missing.get("seg-hq", "no parcellation")
            return save_figure(sheet.apologise(reason), out)
        reader = ", ".join(sorted({row["parcellator"] for row in scores.values()} - {""})) or "the parcellator"
        sheet.head(0, f"labels of {reader}", "on the volume that it read")
        for row, what in enumerate(rows):
            notes = [] if what == "hq" else _measures(scores.get(what), ("miou", "dice"), found.missing.get(what))
            sheet.label(row, "reference" if what == "hq" else what, notes)
            if what in found and f"seg-{what}" in found:
                sheet.planes(row, 0, lambda plane, name=what: _overlay(found, name, plane, table))
                if what != "hq":
                    sheet.planes(row, 1, lambda plane, name=what: _differences(found, name, plane))
            else:
                sheet.note(row, found.missing.get(what) or found.missing.get(f"seg-{what}", "not parcellated"))
        sheet.caption_above(1, "voxels that it labels differently on the reference (orange)")
        handles = [Patch(color=colour, label=name) for name, colour in names.items()]
        if handles:
            sheet.figure.legend(handles=handles, loc="lower center", ncols=5, frameon=False, fontsize=8)
        save_figure(sheet.figure, out)


def _planes_or_reason(sheet: Sheet, row: int, panel: Panel, what: str, image: Callable) -> None:
    if what in panel:
        sheet.planes(row, 0, image)
    else:
        sheet.note(row, panel.missing.get(what, "not made"))


def _scores(subjects_csv: Path, set_name: str, scan: str) -> dict[str, dict[str, Any]]:
    """A scan's scores by method: those of the first training seed, whose result is shown."""
    scores = read_trainings(subjects_csv, set_name)
    first = scores["seed"] == scores.groupby("method")["seed"].transform("first")
    return {row["method"]: row for row in scores[first & (scores["scan"] == scan)].to_dict("records")}


def _measures(score: Mapping[str, Any] | None, names: Sequence[str], reason: str | None) -> list[str]:
    if reason is not None:
        return []
    if score is None:
        return ["not scored"]
    return [f"{NAMES[name].removesuffix(' (dB)')} {shown(name, score[name])}" for name in names]


def _limit(values: list[np.ndarray]) -> float:
    """The 99th percentile of absolute values, rounded up to two hundredths; a hundredth where all are 0."""
    inside = np.abs(np.concatenate([part.ravel() for part in values])) if values else np.zeros(1)
    return max(0.02 * math.ceil(float(np.percentile(inside, 99)) / 0.02), 0.01) if inside.size else 0.01


def _overlay(panel: Panel, what: str, plane: str, table: dict[int, Shown]) -> np.ndarray:
    grey = np.clip(panel.slice(what, plane) / WINDOW, 0, 1)[..., None].repeat(3, axis=2)
    labels = panel.slice(f"seg-{what}", plane)
    for index in np.unique(labels[labels > 0]).tolist():
        colour = np.array(to_rgb(table[index].colour if index in table else GREY))
        grey[labels == index] = 0.45 * grey[labels == index] + 0.55 * colour
    return grey


def _differences(panel: Panel, what: str, plane: str) -> np.ndarray:
    grey = np.clip(panel.slice("hq", plane) / WINDOW, 0, 1)[..., None].repeat(3, axis=2)
    differs = panel.slice(f"seg-{what}", plane) != panel.slice("seg-hq", plane)
    grey[differs] = DIFFERS
    return grey


def _legend(table: dict[int, Shown], seen: set[int]) -> dict[str, str]:
    """Name and colour of the structures seen; left and right are one entry where they share a colour."""
    side = re.compile(r"(?i)^(ctx-)?(left|right|lh|rh|l|r)[-_ ]+|[-_ ,]*\(?\b(left|right)\)?$")
    chosen: dict[tuple[str, str], str] = {}
    for index in sorted(seen):
        one = table.get(index, Shown(f"label {index}", GREY))
        chosen.setdefault((side.sub("", one.name), one.colour), one.name)
    plain = [name for name, _ in chosen]
    return {(short if plain.count(short) == 1 else full): colour for (short, colour), full in chosen.items()}
