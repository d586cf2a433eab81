"""Published reference figures beside ours: one panel per definition of a measure, and never two definitions in one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iqt.errors import UserError
from iqt.io.files import read_table
from iqt.report.data import methods_of, people_of, read_scores
from iqt.report.figures.drawing import STYLE, save_figure
from iqt.report.figures.styles import MethodStyle, styles_of
from iqt.report.metrics import SCALES

COLUMNS = ("method", "data", "metric", "value", "definition", "confirmed", "source")


class Definition(NamedTuple):
    """How a figure was computed, and the column of subjects.csv that is computed in the same way, if any."""

    name: str
    detail: str
    column: str | None
    parcellator: str | None = None
    """Engine that must have read ours, for measures that depend on it."""


DEFINITIONS = {
    "psnr_minmax": Definition("PSNR min-max (dB)", "each volume by its own minimum and maximum", "psnr_minmax"),
    "msssim_minmax": Definition("MS-SSIM min-max", "each volume by its own minimum and maximum", "msssim_minmax"),
    "miou_fastsurfer": Definition("mIoU, FastSurfer", "its labels on result and reference", "miou", "fastsurfer"),
    "psnr_lin": Definition("PSNR, Lin et al. (dB)", "their own masked measure, not computed here", None),
    "ssim_lin": Definition("SSIM, Lin et al.", "their own masked measure, not computed here", None),
}


def read_published(path: Path) -> list[dict[str, str]]:
    """The published figures, in the table's order.

    Raises:
        UserError: the table is absent, lacks a column, has a value that is not a number, or an unknown definition.
    """
    rows = read_table(path, required=COLUMNS)
    for row in rows:
        if row["definition"] not in DEFINITIONS:
            raise UserError(
                f"{path}: definition {row['definition']!r} of {row['method']} is unknown; "
                f"it must be one of {', '.join(DEFINITIONS)}"
            )
        try:
            float(row["value"])
        except ValueError:
            raise UserError(f"{path}: value {row['value']!r} of {row['method']} is not a number") from None
    return rows


def ours(subjects_csv: Path, set_name: str, definition: str) -> dict[str, list[float]]:
    """Our methods' values, one per person, where they are of the same definition; nothing where they are not."""
    wanted = DEFINITIONS[definition]
    if wanted.column is None:
        return {}
    scores = read_scores(subjects_csv, set_name)
    if wanted.parcellator:
        scores = scores[scores["parcellator"].str.split(" ").str[0] == wanted.parcellator]
    if wanted.column == "msssim_minmax":  # small volumes have fewer scales, which is another measure
        scores = scores[scores["msssim_minmax_scales"] == SCALES]
    values = {
        method: people_of(scores[scores["method"] == method], wanted.column).tolist() for method in methods_of(scores)
    }
    return {method: people for method, people in values.items() if people}


def why_not(subjects_csv: Path, set_name: str, definition: str) -> str:
    """Why no value of ours is of a definition that we measure, where `ours` gives none."""
    wanted, scores = DEFINITIONS[definition], read_scores(subjects_csv, set_name)
    if scores[wanted.column].isna().all():
        return "nothing was parcellated" if wanted.parcellator else "no result has a value"
    return "it was read by another parcellator" if wanted.parcellator else f"it has fewer than {SCALES} scales"


def plot_published(subjects_csv: Path, published_csv: Path, set_name: str, out: list[Path]) -> None:
    """Published values as diamonds, ours as dots (people) and bars (their mean), one panel per definition.

    Raises:
        UserError: a table is absent or not valid.
    """
    rows = read_published(published_csv)
    styles = styles_of(methods_of(read_scores(subjects_csv, set_name)))
    panels = list(dict.fromkeys(row["definition"] for row in rows))
    own = {one: ours(subjects_csv, set_name, one) for one in panels}
    with matplotlib.rc_context(STYLE):
        lines = [len([row for row in rows if row["definition"] == one]) + len(own[one]) for one in panels]
        figure = Figure(figsize=(9, 0.8 * len(panels) + 0.27 * sum(lines)), layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[n + 1.2 for n in lines])
        for axes, one in zip(grid[:, 0], panels, strict=True):
            published = [row for row in rows if row["definition"] == one]
            _panel(axes, DEFINITIONS[one], published, own[one], styles)
            if DEFINITIONS[one].column and not own[one]:
                why = why_not(subjects_csv, set_name, one)
                axes.set_xlabel(f"nothing of ours is drawn: {why}", fontsize=7)
        save_figure(figure, out)


def _panel(
    axes: Axes,
    definition: Definition,
    published: Sequence[Mapping[str, str]],
    own: Mapping[str, Sequence[float]],
    styles: Mapping[str, MethodStyle],
) -> None:
    names = []
    for row in published:
        doubt = "" if row["confirmed"] == "yes" else " [definition not confirmed]"
        axes.scatter(float(row["value"]), len(names), marker="D", s=34, color="black", zorder=3)
        _value(axes, float(row["value"]), len(names), row["value"])
        names.append(f"{row['method']}, {row['data']}{doubt}\n{row['source']}")
    for method, people in own.items():
        colour, marker = styles[method].colour, styles[method].marker
        axes.scatter(people, [len(names)] * len(people), s=12, color=colour, marker=marker, alpha=0.6, zorder=2)
        mean = float(np.mean(people))
        axes.scatter(mean, len(names), marker="|", s=160, linewidth=2.5, color=colour, zorder=3)
        _value(axes, max(people), len(names), f"{mean:.4g}")
        names.append(f"{method} (here, n = {len(people)})")
    axes.set_title(f"{definition.name}: {definition.detail}", loc="left")
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)


def _value(axes: Axes, x: float, y: int, text: str) -> None:
    if math.isfinite(x):
        axes.annotate(text, (x, y), (9, 0), textcoords="offset points", va="center", fontsize=7)
