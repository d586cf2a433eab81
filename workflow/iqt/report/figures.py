"""The figures, drawn from metrics/ alone: slices, label maps, scores and training curves."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from iqt.errors import UserError
from iqt.io.batch import OK
from iqt.io.files import read_table, replacing
from iqt.report.panels import PLANES, WINDOW, Panel
from iqt.report.scores import NAMES, Score, measured, methods_of, named, parcellator_of, read_scores, shown
from iqt.report.sheet import DPI, Sheet
from iqt.report.styles import styles_of

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that text measures the same everywhere
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "svg.fonttype": "path",  # text as outlines, so that no reader needs the font
    "pdf.fonttype": 42,  # TrueType, embedded: journals refuse matplotlib's Type 3
    "svg.hashsalt": "iqt",  # ids in the file then repeat
}
METADATA = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
BOXPLOTS = ("psnr", "msssim", "hfcorr", "miou")
DIFFERS = (1.0, 0.25, 0.1)


def draw_slices(panel: Path, subjects_csv: Path, set_name: str, out: list[Path]) -> None:
    """One scan's low-field volume, each method's result and the reference in three planes, and each result's error.

    Every image has the same grey window and every error the same symmetric one, whose end is the 99th percentile of all
    absolute errors shown. A method's spread over samples, where it has one, is drawn with a scale of its own.

    Raises:
        UserError: the panel or subjects.csv is absent or not readable.
    """
    found = Panel(panel)
    scores = {score.method: score for score in read_scores(subjects_csv, set_name) if score.scan == found.scan}
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


def draw_parcellation(panel: Path, lut_tsv: Path, subjects_csv: Path, set_name: str, out: list[Path]) -> None:
    """The parcellator's labels on the reference and on each result, and where the two readings differ.

    Args:
        lut_tsv: the cohort's look-up table with `index`, `name` and `color` (#rrggbb).

    Raises:
        UserError: a file is absent or not readable.
    """
    found = Panel(panel)
    scores = {score.method: score for score in read_scores(subjects_csv, set_name) if score.scan == found.scan}
    table = {int(row["index"]): row for row in read_table(lut_tsv, required=("index", "name", "color"))}
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
        reader = parcellator_of(list(scores.values())) or "the parcellator"
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


def draw_metrics(subjects_csv: Path, set_name: str, out: list[Path]) -> None:
    """Box plots over scans with every scan as a point; lines join one scan's results; a cross is a failed scan.

    Raises:
        UserError: subjects.csv is absent, not readable or has no row of the set.
    """
    scores = read_scores(subjects_csv, set_name)
    methods = methods_of(scores)
    styles = styles_of(methods)
    by_method = {method: [score for score in scores if score.method == method] for method in methods}
    scans = list(dict.fromkeys(score.scan for score in scores))
    shift = dict(zip(scans, np.linspace(-0.22, 0.22, len(scans)) if len(scans) > 1 else [0.0], strict=True))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 1.2 + 0.5 * len(methods)), layout="constrained")
        names = measured(BOXPLOTS, parcellator_of(scores))
        for axes, name in zip(figure.subplots(1, len(names), sharey=True), names, strict=True):
            for place, (method, look) in enumerate(styles.items()):
                own = [score for score in by_method[method] if not math.isnan(score.values[name])]
                values = [score.values[name] for score in own]
                if values:
                    axes.boxplot(
                        [values],
                        positions=[place],
                        widths=0.62,
                        orientation="horizontal",
                        whis=(0, 100),
                        patch_artist=True,
                        boxprops={"facecolor": look.colour, "alpha": 0.3, "hatch": look.hatch},
                        medianprops={"color": "black"},
                    )
                for mark, some in (
                    (
                        {"marker": look.marker, "edgecolor": "white"},
                        [score for score in own if score.status == OK],
                    ),
                    ({"marker": "x"}, [score for score in own if score.status != OK]),
                ):
                    heights = [place + shift[score.scan] for score in some]
                    axes.scatter(
                        [score.values[name] for score in some],
                        heights,
                        s=22,
                        color=look.colour,
                        linewidth=0.8,
                        zorder=3,
                        **mark,
                    )
            paths: dict[str, list[tuple[float, float]]] = {scan: [] for scan in scans}
            for place, method in enumerate(methods):
                for score in by_method[method]:
                    paths[score.scan].append((score.values[name], place + shift[score.scan]))
            axes.add_collection(LineCollection(list(paths.values()), colors="0.75", linewidths=0.6, zorder=1))
            axes.set(xlabel=named(name, parcellator_of(scores)), ylim=(len(methods) - 0.5, -0.5))
            axes.set_yticks(range(len(methods)), methods)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.grid(axis="x", color="0.92")
            axes.set_axisbelow(True)
        save_figure(figure, out)


def draw_training(history_csv: Path, out: list[Path]) -> None:
    """Loss and validation score over steps, a column a model; losses of different models have different scales.

    Raises:
        UserError: history.csv is absent or lacks a column.
    """
    needed = ("model", "step", "seconds", "train_loss", "val_loss", "val_psnr", "val_dice")
    history = read_table(history_csv, required=needed)
    models = list(dict.fromkeys(row["model"] for row in history))
    with matplotlib.rc_context(STYLE):
        columns = min(4, max(1, len(models)))
        bands = math.ceil(len(models) / columns) or 1
        figure = Figure(figsize=(11 * columns / 4 if columns > 2 else 7, 4.4 * bands), layout="constrained")
        grid = figure.subplots(2 * bands, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        if not models:
            grid[0, 0].text(0, 0.5, "No model was trained.")
        for place, model in enumerate(models):
            band, column = divmod(place, columns)
            rows = [row for row in history if row["model"] == model]
            upper, lower = grid[2 * band, column], grid[2 * band + 1, column]
            upper.set_axis_on()
            upper.plot(*_curve(rows, "train_loss"), color="0.6", linewidth=1, label="training")
            upper.plot(*_curve(rows, "val_loss"), "o-", color="black", markersize=3, linewidth=1.2, label="validation")
            seconds = max((float(row["seconds"]) for row in rows if row["seconds"]), default=math.nan)
            upper.set(title=f"{model} ({seconds:,.0f} s)", xlabel="step")
            if all(float(row["train_loss"]) > 0 for row in rows if row["train_loss"]):
                upper.set_yscale("log")
                upper.yaxis.set(major_locator=LogLocator(subs=(1, 1.5, 2, 3, 5, 7)), minor_locator=NullLocator())
                upper.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            upper.set_ylabel("loss")
            upper.legend(frameon=False, fontsize=8)
            for name, label in (("val_psnr", "validation PSNR (dB)"), ("val_dice", "validation Dice")):
                steps, values = _curve(rows, name)
                if values:
                    lower.set_axis_on()
                    lower.plot(steps, values, "o-", color="black", markersize=3, linewidth=1.2)
                    lower.set(xlabel="step", ylabel=label, xlim=upper.get_xlim())
        save_figure(figure, out)


def _planes_or_reason(sheet: Sheet, row: int, panel: Panel, what: str, image: Callable) -> None:
    if what in panel:
        sheet.planes(row, 0, image)
    else:
        sheet.note(row, panel.missing.get(what, "not made"))


def _measures(score: Score | None, names: Sequence[str], reason: str | None) -> list[str]:
    if reason is not None:
        return []
    if score is None:
        return ["not scored"]
    return [f"{NAMES[name].removesuffix(' (dB)')} {shown(name, score.values[name])}" for name in names]


def _limit(values: list[np.ndarray]) -> float:
    """The 99th percentile of absolute values, rounded up to two hundredths; a hundredth where all are 0."""
    inside = np.abs(np.concatenate([part.ravel() for part in values])) if values else np.zeros(1)
    return max(0.02 * math.ceil(float(np.percentile(inside, 99)) / 0.02), 0.01) if inside.size else 0.01


def _overlay(panel: Panel, what: str, plane: str, table: dict[int, dict]) -> np.ndarray:
    grey = np.clip(panel.slice(what, plane) / WINDOW, 0, 1)[..., None].repeat(3, axis=2)
    labels = panel.slice(f"seg-{what}", plane)
    for index in np.unique(labels[labels > 0]).tolist():
        colour = np.array(to_rgb(table[index]["color"] if index in table else "#808080"))
        grey[labels == index] = 0.45 * grey[labels == index] + 0.55 * colour
    return grey


def _differences(panel: Panel, what: str, plane: str) -> np.ndarray:
    grey = np.clip(panel.slice("hq", plane) / WINDOW, 0, 1)[..., None].repeat(3, axis=2)
    differs = panel.slice(f"seg-{what}", plane) != panel.slice("seg-hq", plane)
    grey[differs] = DIFFERS
    return grey


def _legend(table: dict[int, dict], seen: set[int]) -> dict[str, str]:
    """Name and colour of the structures seen; left and right are one entry where they share a colour."""
    side = re.compile(r"(?i)^(ctx-)?(left|right|lh|rh|l|r)[-_ ]+|[-_ ,]*\(?\b(left|right)\)?$")
    chosen: dict[tuple[str, str], str] = {}
    for index in sorted(seen):
        row = table.get(index, {"name": f"label {index}", "color": "#808080"})
        chosen.setdefault((side.sub("", row["name"]), row["color"]), row["name"])
    plain = [name for name, _ in chosen]
    return {(short if plain.count(short) == 1 else full): colour for (short, colour), full in chosen.items()}


def _curve(rows: list[dict[str, str]], name: str) -> tuple[list[float], list[float]]:
    kept = [row for row in rows if row[name].strip()]
    return [float(row["step"]) for row in kept], [float(row[name]) for row in kept]


def save_figure(figure: Figure, out: list[Path]) -> None:
    """Write a figure as every file of `out`, by ending; the same figure gives the same bytes.

    Raises:
        UserError: a name ends in none of `METADATA`.
    """
    for path in map(Path, out):
        if path.suffix not in METADATA:
            raise UserError(f"{path}: a figure's name must end in {', '.join(METADATA)}")
    if figure.get_layout_engine() is not None:
        # The solver of the layout ends now here, now there in the last of sixteen digits, and an SVG's ids tell.
        figure.set_dpi(DPI)  # texts are as wide as when they are saved
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for axes in figure.axes:
            axes.set_position(np.round(axes.get_position(original=True).bounds, 6))
    for path in map(Path, out):
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=DPI, metadata=METADATA[path.suffix])
