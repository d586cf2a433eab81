"""The figure of training curves."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from iqt.report.data import read_frame
from iqt.report.figures.drawing import STYLE, save_figure

LOSSES = ("train_loss", "val_loss")
SCORES = {"val_psnr": "validation PSNR (dB)", "val_dice": "validation Dice"}
FIRST = "val_psnr_first"
"""Of the first estimate on the way to a sample, in one step from pure noise."""


def plot_training(history_csv: Path, out: list[Path]) -> None:
    """Loss and validation score over steps, one column per model; losses of different models have different scales.

    Raises:
        UserError: history.csv is absent, lacks a column, or a value is not a number.
    """
    history = read_frame(history_csv, ("model",), ("step", "seconds", *LOSSES, *SCORES, FIRST))
    models = list(history.groupby("model", sort=False))
    with matplotlib.rc_context(STYLE):
        columns = min(4, max(1, len(models)))
        bands = math.ceil(len(models) / columns) or 1
        figure = Figure(figsize=(11 * columns / 4 if columns > 2 else 7, 4.4 * bands), layout="constrained")
        grid = figure.subplots(2 * bands, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        if not models:
            grid[0, 0].text(0, 0.5, "No model was trained.")
        for place, (model, rows) in enumerate(models):
            band, column = divmod(place, columns)
            upper, lower = grid[2 * band, column], grid[2 * band + 1, column]
            upper.set_axis_on()
            upper.plot(*_curve(rows, "train_loss"), color="0.6", linewidth=1, label="training")
            upper.plot(*_curve(rows, "val_loss"), "o-", color="black", markersize=3, linewidth=1.2, label="validation")
            upper.set(title=f"{model} ({rows['seconds'].max():,.0f} s)", xlabel="step")
            if (rows["train_loss"].dropna() > 0).all():
                upper.set_yscale("log")
                upper.yaxis.set(major_locator=LogLocator(subs=(1, 1.5, 2, 3, 5, 7)), minor_locator=NullLocator())
                upper.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            upper.set_ylabel("loss")
            upper.legend(frameon=False, fontsize=8)
            for name, label in SCORES.items():
                steps, values = _curve(rows, name)
                if len(values):
                    lower.set_axis_on()
                    lower.plot(steps, values, "o-", color="black", markersize=3, linewidth=1.2)
                    lower.set(xlabel="step", ylabel=label, xlim=upper.get_xlim())
            steps, values = _curve(rows, FIRST)
            if len(values):
                lower.lines[-1].set_label("sample")
                lower.plot(steps, values, "o--", color="0.5", markersize=3, linewidth=1, label="first estimate")
                lower.legend(frameon=False, fontsize=8)
        save_figure(figure, out)


def _curve(rows: pd.DataFrame, name: str) -> tuple[pd.Series, pd.Series]:
    kept = rows.dropna(subset=[name])
    return kept["step"], kept[name]
