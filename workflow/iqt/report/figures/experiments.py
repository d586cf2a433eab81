"""Figures of experiments: everybody's values by method, means over a series, and reliability of the samples' spread."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from iqt.config.experiments import COVERAGES, Experiment
from iqt.report.data import mean_over_seeds, people_of
from iqt.report.figures.drawing import STYLE, save_figure
from iqt.report.figures.sampling import read_curves, reliability_curve
from iqt.report.figures.styles import LINES, MethodStyle, styles_of
from iqt.report.tables.experiments import LABELS, OF_PEOPLE, read_results, written

COLUMNS = 4
"""Panels of dots beside each other."""
LINE_COLUMNS = 3
"""Panels of lines, which are wider."""
TICKS_WIDTH = 45
"""Letters that fit below a panel of lines; longer words are slanted."""
WIDE = 8
"""A series that spans more than this factor has a logarithmic axis."""

LEVELS = (":", "--", "-.")
"""Line styles of methods that have no place in a series."""

Grouped = Mapping[tuple[str, str], pd.DataFrame]
Styles = Mapping[str, MethodStyle]


def plot_experiment(
    results_csv: Path,
    reliability_csv: Path,
    experiment: Experiment,
    keys: Mapping[str, Mapping[str, Any]],
    table: Sequence[Mapping[str, str]],
    methods: Sequence[str],
    out: list[Path],
) -> None:
    """Draw an experiment's figure.

    Args:
        experiment: with its sets by name.
        keys: what each method's entry says under the experiment's `keys`.
        table: the rows of its table, with means and limits.
        methods: all methods of the run in the order of the tables, so that one looks the same in every figure.

    Raises:
        UserError: a table is absent or not valid.
    """
    looks = styles_of(methods)
    scores = {where: mean_over_seeds(own) for where, own in read_results(results_csv, experiment).items()}
    with matplotlib.rc_context(STYLE):
        if experiment.figure == "dots":
            figure = _dots(experiment, scores, table, looks)
        elif experiment.figure == "lines":
            figure = _lines(experiment, keys, table, looks)
        else:
            figure = _reliability(experiment, read_curves(reliability_csv, "set"), scores, looks)
        save_figure(figure, out)


def _dots(experiment: Experiment, scores: Grouped, table: Sequence[Mapping[str, str]], looks: Styles) -> Figure:
    """One row per set and method, one panel per metric: a mean with its limits, and everybody's value, which thin lines
    join."""
    several = len(experiment.sets) > 1
    names = [f"{row['method']}, {row['set']}" if several else row["method"] for row in table]
    columns = min(COLUMNS, len(experiment.metrics))
    height = 0.9 + 0.27 * len(names)
    figure, panels = _panels(len(experiment.metrics), columns, 2.6 + 2.3 * columns, height, sharey=True)
    for axes, metric in zip(panels, experiment.metrics, strict=False):
        for set_name in experiment.sets:
            paths: dict[str, list[tuple[float, int]]] = {}
            for place, row in enumerate(table):
                if row["set"] == set_name and metric in OF_PEOPLE:
                    for person, value in people_of(scores[set_name, row["method"]], metric).items():
                        paths.setdefault(person, []).append((value, place))
            for points in paths.values():
                axes.plot(*zip(*points, strict=True), "o-", color="0.78", linewidth=0.6, markersize=2.5, zorder=1)
        for place, row in enumerate(table):
            _mean_with_limits(axes, row, metric, place, looks[row["method"]])
        axes.set(xlabel=LABELS[metric], ylim=(len(names) - 0.5, -0.5))
        axes.xaxis.set_major_locator(MaxNLocator(4) if any(row[metric] for row in table) else NullLocator())
        axes.set_yticks(range(len(names)), names)
        axes.grid(axis="x", color="0.92")
        axes.set_axisbelow(True)
    return figure


def _panels(number: int, columns: int, width: float, height: float, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """So many panels, `columns` beside each other; the rest of the last band stays empty. The width is the figure's,
    the height a band's, in inches."""
    bands = math.ceil(number / columns)
    figure = Figure(figsize=(width, bands * height), layout="constrained")
    panels = list(figure.subplots(bands, columns, sharey=sharey, squeeze=False).flat)
    for axes in panels[number:]:
        axes.set_axis_off()
    return figure, panels


def _mean_with_limits(axes: Axes, row: Mapping[str, str], metric: str, place: int, look: MethodStyle) -> None:
    if not row[metric]:
        # Between the axis and its data, so that it says nothing about size.
        axes.text(0.02, place, "–", transform=axes.get_yaxis_transform(), va="center")
        return
    middle = float(row[metric])
    ends = None
    if row[f"{metric}_lo"]:
        low, high = float(row[f"{metric}_lo"]), float(row[f"{metric}_hi"])
        ends = [[max(middle - low, 0)], [max(high - middle, 0)]]
    style = {"fmt": look.marker, "color": look.colour, "markersize": 5, "linewidth": 1.4}
    axes.errorbar(middle, place, xerr=ends, zorder=3, **style)


def _lines(
    experiment: Experiment,
    keys: Mapping[str, Mapping[str, Any]],
    table: Sequence[Mapping[str, str]],
    looks: Styles,
) -> Figure:
    """Means over the series, one panel per metric; a method without a place in it is a level line.

    A line that is a method's has its colour, and dashes of its own on each set; one that stands for a value of a key
    has a colour that counts from the figure's first.
    """
    by_set = experiment.x == "set"
    axis = [_place(row, experiment, keys) for row in table]
    numeric = all(isinstance(value, int | float) for value in axis if value is not None)
    if not numeric:
        axis = [None if value is None else written(value) for value in axis]  # `auto` beside numbers
    known = dict.fromkeys(value for value in axis if value is not None)
    ticks = sorted(known) if numeric else list(known)
    lines: dict[str, list[tuple[Any, Mapping[str, str]]]] = {}
    levels: list[Mapping[str, str]] = []
    of_methods = experiment.lines == "method"
    for row, value in zip(table, axis, strict=True):
        if value is None:
            levels.append(row)
            continue
        label = row["method"]
        if not of_methods:
            label = f"{experiment.lines.rpartition('.')[2]} {written(keys[row['method']][experiment.lines]) or '–'}"
        if len(experiment.sets) > 1 and not by_set:
            label += f", {row['set']}"
        lines.setdefault(label, []).append((value if numeric else ticks.index(value), row))
    styles = styles_of(lines)
    for label, members in lines.items() if of_methods else ():
        styles[label] = looks[members[0][1]["method"]]
        if len(experiment.sets) > 1 and not by_set:
            place = experiment.sets.index(members[0][1]["set"])
            styles[label] = styles[label]._replace(line=LINES[place % len(LINES)])
    columns = min(LINE_COLUMNS, len(experiment.metrics)) if len(experiment.metrics) != 4 else 2
    figure, panels = _panels(len(experiment.metrics), columns, 4.5 * columns, 3.2)
    for axes, metric in zip(panels, experiment.metrics, strict=False):
        for label, members in lines.items():
            points = sorted(((x, row) for x, row in members if row[metric]), key=lambda point: point[0])
            values = [float(row[metric]) for _, row in points]
            colour, marker, line, _ = styles[label]
            look = {"color": colour, "marker": marker, "linestyle": line, "markersize": 4}
            axes.plot([x for x, _ in points], values, label=label, **look)
            for x, row in points:
                if row[f"{metric}_lo"]:
                    axes.vlines(x, float(row[f"{metric}_lo"]), float(row[f"{metric}_hi"]), color=colour, alpha=0.35)
        for number, row in enumerate(levels):
            if row[metric]:
                label = f"{row['method']}, {row['set']}" if len(experiment.sets) > 1 else row["method"]
                # Among lines that stand for a key's values, a method's colour would be taken for one of theirs.
                colour = looks[row["method"]].colour if of_methods else "0.35"
                axes.axhline(float(row[metric]), color=colour, linestyle=LEVELS[number % len(LEVELS)], label=label)
        _series_axis(axes, experiment, ticks, numeric)
        axes.set_ylabel(LABELS[metric])
        if not any(row[metric] for row in table):
            axes.text(0.5, 0.5, "–", transform=axes.transAxes, ha="center")
    _legend(figure, panels)
    return figure


def _place(row: Mapping[str, str], experiment: Experiment, keys: Mapping[str, Mapping[str, Any]]) -> Any:
    """A row's place on the horizontal axis; None where it has none."""
    if experiment.x == "set":
        return row["set"]
    if experiment.x in experiment.keys:
        value = keys[row["method"]][experiment.x]
        return value if isinstance(value, int | float) and not isinstance(value, bool) else written(value) or None
    return float(row[experiment.x]) if row[experiment.x] else None


def _series_axis(axes: Axes, experiment: Experiment, ticks: list, numeric: bool) -> None:
    name = LABELS.get(experiment.x, experiment.x.rpartition(".")[2])
    axes.set_xlabel({"set": "low-field set"}.get(experiment.x, name))
    if not numeric:
        slanted = len(ticks) * max(map(len, ticks), default=0) > TICKS_WIDTH
        axes.set_xticks(range(len(ticks)), ticks, **({"rotation": 25, "ha": "right"} if slanted else {}))
        return
    if ticks and min(ticks) > 0 and max(ticks) > WIDE * min(ticks):
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [f"{value:g}" for value in ticks])


def _reliability(experiment: Experiment, curves: pd.DataFrame, scores: Grouped, looks: Styles) -> Figure:
    """One row per low-field set: true error over the expected one, and coverage over its nominal value."""
    figure = Figure(figsize=(8.5, 3.8 * len(experiment.sets)), layout="constrained")
    grid = figure.subplots(len(experiment.sets), 2, squeeze=False)
    for (left, right), set_name in zip(grid, experiment.sets, strict=True):
        top = 0.0
        for method in experiment.methods:
            colour, marker, line, _ = looks[method]
            style = {"color": colour, "marker": marker, "linestyle": line, "markersize": 4, "label": method}
            own = curves[(curves["set"] == set_name) & (curves["method"] == method)]
            expected, error = reliability_curve(own)
            people = [people_of(scores[set_name, method], name).mean() for name in COVERAGES]
            if own.empty or any(map(math.isnan, people)):
                left.plot([], [], " ", label=f"{method}: –")
                continue
            left.plot(expected, error, **style)
            right.plot(list(COVERAGES.values()), people, **style)
            top = max(top, *expected, *error)
        left.plot([0, top], [0, top], color="0.6", linestyle=":")
        right.plot([0.4, 1], [0.4, 1], color="0.6", linestyle=":")
        left.set(xlabel="expected error (samples' spread)", ylabel="true error")
        right.set(xlabel="nominal coverage", ylabel="share of voxels inside")
        if len(experiment.sets) > 1:
            left.set_title(set_name)
    _legend(figure, grid.flat)
    return figure


def _legend(figure: Figure, panels: Iterable[Axes]) -> None:
    """Each label once, below the panels."""
    handles: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        place = {"loc": "outside lower center", "ncols": min(4, len(handles)), "frameon": False}
        figure.legend(list(handles.values()), list(handles), **place)
