"""The figure of everybody's scores."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from iqt.io.batch import OK
from iqt.report.data import methods_of, parcellator_of, read_scores
from iqt.report.figures.drawing import STYLE, save_figure
from iqt.report.figures.styles import styles_of
from iqt.report.metrics import measured, named

BOXPLOTS = ("psnr", "msssim", "hfcorr", "miou")


def plot_metrics(subjects_csv: Path, set_name: str, out: list[Path]) -> None:
    """Box plots over scans with every scan as a point; lines join one scan's results; a cross is a failed scan.

    Raises:
        UserError: subjects.csv is absent, not readable or has no row of the set.
    """
    scores = read_scores(subjects_csv, set_name)
    methods, parcellator = methods_of(scores), parcellator_of(scores)
    scans = scores["scan"].unique()
    shift = dict(zip(scans, np.linspace(-0.22, 0.22, len(scans)) if len(scans) > 1 else [0.0], strict=True))
    place = {method: number for number, method in enumerate(methods)}
    scores = scores.assign(height=scores["method"].map(place) + scores["scan"].map(shift))
    measured_on = scores.dropna(subset=[BOXPLOTS[0]]).groupby("method")["scan"].nunique()
    counts = {method: int(measured_on.get(method, 0)) for method in methods}
    labels = [f"{name} [{n} of {len(scans)}]" if n < len(scans) else name for name, n in counts.items()]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 1.2 + 0.5 * len(methods)), layout="constrained")
        names = measured(BOXPLOTS, parcellator)
        for axes, name in zip(figure.subplots(1, len(names), sharey=True), names, strict=True):
            for method, look in styles_of(methods).items():
                own = scores[scores["method"] == method].dropna(subset=[name])
                if len(own):
                    axes.boxplot(
                        [own[name].tolist()],
                        positions=[place[method]],
                        widths=0.62,
                        orientation="horizontal",
                        whis=(0, 100),
                        patch_artist=True,
                        boxprops={"facecolor": look.colour, "alpha": 0.3, "hatch": look.hatch},
                        medianprops={"color": "black"},
                    )
                succeeded = own["status"] == OK
                for some, mark in (
                    (own[succeeded], {"marker": look.marker, "edgecolor": "white"}),
                    (own[~succeeded], {"marker": "x"}),
                ):
                    axes.scatter(some[name], some["height"], s=22, color=look.colour, linewidth=0.8, zorder=3, **mark)
            by_method = scores.sort_values("method", key=lambda column: column.map(place), kind="stable")
            paths = [own[[name, "height"]].to_numpy(float) for _, own in by_method.groupby("scan", sort=False)]
            axes.add_collection(LineCollection(paths, colors="0.75", linewidths=0.6, zorder=1))
            axes.set(xlabel=named(name, parcellator), ylim=(len(methods) - 0.5, -0.5))
            axes.set_yticks(range(len(methods)), labels)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.grid(axis="x", color="0.92")
            axes.set_axisbelow(True)
        save_figure(figure, out)
