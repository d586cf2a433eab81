"""Figures about sampling: what quality costs, and whether the samples' spread is to be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from iqt.errors import UserError
from iqt.report.data import read_frame, with_text
from iqt.report.figures.drawing import STYLE, save_figure
from iqt.report.figures.styles import styles_of
from iqt.report.metrics import NAMES, measured

SWEPT = ("psnr", "msssim", "hfcorr", "miou")
COSTS = {"nfe": "network calls a volume", "seconds_per_volume": "seconds a volume"}


def plot_sweep(benchmark_csv: Path, series: Mapping[str, str], out: list[Path]) -> None:
    """Each measure over network calls and over seconds a volume (log scales), one line per series; a dashed line
    and open markers where a series is the mean of several samples (its label ends in `mean`).

    Args:
        series: label of the line that each method is a point of.

    Raises:
        UserError: the table is absent, or no method in it belongs to a series.
    """
    # Over the scans that all methods have: one that lost the hard ones would seem better than it is.
    columns = [f"{name}_shared" for name in SWEPT]
    rows = with_text(read_frame(benchmark_csv, ("method",), (*COSTS, *columns)), "parcellator")
    swept = rows.assign(line=rows["method"].map(dict(series))).dropna(subset=["line"])
    if swept.empty:
        raise UserError(f"{benchmark_csv}: holds no method of a sweep; run the configuration that names them")
    lines = dict(list(swept.groupby("line", sort=False)))
    styles = styles_of(dict.fromkeys(label.removesuffix(" mean") for label in lines))
    with matplotlib.rc_context(STYLE):
        names = measured(SWEPT, rows["parcellator"].iloc[0])
        figure = Figure(figsize=(3 * len(names), 6), layout="constrained")
        for row_of_axes, cost in zip(figure.subplots(len(COSTS), len(names)), COSTS, strict=True):
            for axes, name in zip(row_of_axes, names, strict=True):
                for label, members in lines.items():
                    points = members[[cost, f"{name}_shared"]].dropna().sort_values([cost, f"{name}_shared"])
                    several, style = label.endswith(" mean"), styles[label.removesuffix(" mean")]
                    axes.plot(
                        points[cost],
                        points[f"{name}_shared"],
                        color=style.colour,
                        linestyle="--" if several else "-",
                        marker=style.marker,
                        markersize=4,
                        markerfacecolor="white" if several else None,
                        label=label,
                    )
                axes.set(xscale="log", xlabel=COSTS[cost], ylabel=NAMES[name])
                # The default labels every minor tick of an axis of less than a decade, one over the other.
                axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.xaxis.set_major_formatter("{x:g}")
                axes.xaxis.set_minor_formatter(NullFormatter())
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
        save_figure(figure, out)


def plot_reliability(reliability_csv: Path, methods: Sequence[str], out: list[Path]) -> None:
    """True error over expected error, one line per method: root mean squares over everybody's voxels, tenth by tenth.

    On the diagonal the spread is calibrated; above it the method is too sure of itself.

    Args:
        methods: all methods in the order of the tables, so that one looks the same in every figure.

    Raises:
        UserError: the table is absent.
    """
    rows = read_curves(reliability_csv)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.5, 4.5), layout="constrained")
        axes = figure.subplots()
        top = 0.0
        for method, look in styles_of(methods).items():
            own = rows[rows["method"] == method]
            if own.empty:
                continue
            expected, error = reliability_curve(own)
            top = max([top, *expected, *error])
            axes.plot(expected, error, marker=look.marker, linestyle=look.line, color=look.colour, label=method)
        axes.plot([0, top], [0, top], color="0.6", linestyle=":", label="calibrated")
        axes.set(xlabel="expected error (samples' spread)", ylabel="true error", aspect="equal")
        axes.legend(frameon=False)
        save_figure(figure, out)


def read_curves(reliability_csv: Path, *text: str) -> pd.DataFrame:
    """A table of true and expected error: one row per scan and tenth of its voxels, and columns of `text`."""
    return read_frame(reliability_csv, ("method", *text), ("bin", "n_voxels", "expected", "error"))


def reliability_curve(rows: pd.DataFrame) -> tuple[list[float], list[float]]:
    """Expected and true error of each tenth of the voxels, over all people that one method's rows are of: root mean
    squares, each person with as much weight as voxels."""
    squares = rows[["expected", "error"]].pow(2).mul(rows["n_voxels"], axis=0).groupby(rows["bin"]).sum()
    pooled = np.sqrt(squares.div(rows.groupby("bin")["n_voxels"].sum(), axis=0))
    return pooled["expected"].tolist(), pooled["error"].tolist()
