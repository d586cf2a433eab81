"""The figure of structures: overlap and volume bias of every method, from the table of structures."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iqt.io.files import read_table
from iqt.report.figures.drawing import STYLE, save_figure
from iqt.report.figures.styles import styles_of
from iqt.report.tables.structures import COLUMNS


def plot_structures(structures_csv: Path, out: list[Path]) -> None:
    """Mean Dice with its 95 % limits, and volume bias with the limits of agreement, in per cent of the mean volume.

    One line per structure, the largest first, and one colour per method, the same as in the other figures. A structure
    that nobody has is named without a mark.

    Args:
        structures_csv: tables/structures.csv of one low-field set.

    Raises:
        UserError: the table is absent or lacks a column.
    """
    rows = read_table(structures_csv, required=COLUMNS)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    styles = styles_of(methods)
    size = {row["index"]: 0.0 for row in rows}
    for row in rows:
        size[row["index"]] = max(size[row["index"]], float(row["volume_reference_mm3"] or 0))
    order = sorted(size, key=lambda index: (-size[index], int(index)))
    names = {row["index"]: row["name"] for row in rows}
    shift = dict(zip(methods, np.linspace(-0.3, 0.3, len(methods)) if len(methods) != 1 else [0.0], strict=True))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 1.3 + len(order) * (0.12 + 0.07 * len(methods))), layout="constrained")
        if not rows:
            figure.text(0.02, 0.5, "No result was parcellated.", va="center")
            return save_figure(figure, out)
        overlap, volume = figure.subplots(1, 2, sharey=True)
        for row in rows:
            look = styles[row["method"]]
            style = {"color": look.colour, "markersize": 3.5, "linewidth": 1.1, "fmt": look.marker}
            height = order.index(row["index"]) + shift[row["method"]]
            if row["dice"]:
                _bar(overlap, row, ("dice", "dice_lo", "dice_hi"), height, 1.0, style)
            if row["bias_mm3"] and size[row["index"]]:
                reference = float(row["volume_reference_mm3"] or 0)
                scale = 100 / (reference or math.inf)  # nobody's reference holds what this method found
                _bar(volume, row, ("bias_mm3", "loa_lower", "loa_upper"), height, scale, style)
        overlap.set(xlabel="Dice, 95 % limits of the mean", ylim=(len(order) - 0.4, -0.6))
        volume.set(xlabel="volume bias with limits of agreement (% of the mean volume)")
        volume.axvline(0, color="0.5", linewidth=0.8, zorder=0)
        overlap.set_yticks(range(len(order)), [names[index] for index in order], fontsize=7)
        for axes in (overlap, volume):
            axes.grid(axis="x", color="0.92")
            axes.set_axisbelow(True)
        handles = [
            overlap.plot([], [], look.marker, color=look.colour, label=method)[0] for method, look in styles.items()
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=min(6, len(methods)), frameon=False)
        save_figure(figure, out)


def _bar(
    axes: Axes, row: dict[str, str], names: tuple[str, str, str], height: float, scale: float, style: dict
) -> None:
    middle, low, high = (scale * float(row[name] or math.nan) for name in names)
    ends = None if math.isnan(low) else [[max(middle - low, 0)], [max(high - middle, 0)]]
    axes.errorbar(middle, height, xerr=ends, **style)
