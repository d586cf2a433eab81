"""The figures, drawn from metrics/ alone: slices, label maps, scores and training curves."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from iqt.batch import OK
from iqt.files import read_table, replacing
from iqt.report.panels import PLANES, Panel
from iqt.report.scores import NAMES, Score, colour_of, methods_of, read_scores, shown

DPI = 150
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that text measures the same everywhere
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "svg.fonttype": "path",
    "svg.hashsalt": "iqt",  # ids in the file then repeat
}
METADATA = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
BOXPLOTS = ("psnr", "msssim", "hfcorr", "miou")
WINDOW = 1.1
"""Upper end of the grey window in units of the 99.5th percentile."""
DIFFERS = (1.0, 0.25, 0.1)
RIGHT_OF = {"sagittal": ("P", "A"), "coronal": ("L", "R"), "axial": ("L", "R")}


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
        sheet = _Sheet(found, len(rows))
        if "hq" not in found:
            return _save(sheet.apologise(found.missing.get("hq", "no reference")), out)

        def grey(what: str) -> Callable[[str], np.ndarray]:
            return lambda plane: np.clip(found.slice(what, plane) / WINDOW, 0, 1)

        sheet.head(0, "image", f"grey window 0 to {WINDOW} × 99.5th percentile of the reference")
        sheet.label(0, "low-field", ["as acquired"])
        _planes_or_reason(sheet, 0, found, "lowfield", grey("lowfield"))
        for row, method in enumerate(found.methods, start=1):
            sheet.label(row, method, _measures(scores.get(method), ("psnr", "msssim"), found.missing.get(method)))
            _planes_or_reason(sheet, row, found, method, grey(method))
            if method in found:
                shades = sheet.planes(row, 1, lambda plane, name=method: errors[name, plane], "RdBu_r", -limit, limit)
        if results:
            label = "result − reference, same units (blue: too dark, red: too bright)"
            sheet.bar_above(1, shades, label)
        last = len(found.methods) + 1
        sheet.label(last, "reference", [])
        sheet.planes(last, 0, grey("hq"))
        for row, method in enumerate(spreads, start=last):
            end = _limit([found.slice(f"sd-{method}", plane) for plane in PLANES])
            shades = sheet.planes(row, 1, lambda plane, name=method: found.slice(f"sd-{name}", plane), "cividis", 0, end)
            sheet.bar_beside(row, shades, f"{method}:\nstandard deviation\nof its samples")
        _save(sheet.figure, out)


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
        sheet = _Sheet(found, len(rows), footer=24 * math.ceil(len(names) / 5) + 20)
        if "hq" not in found or "seg-hq" not in found:
            reason = found.missing.get("hq") or found.missing.get("seg-hq", "no parcellation")
            return _save(sheet.apologise(reason), out)
        sheet.head(0, "labels of the parcellator", "on the volume that it read")
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
        _save(sheet.figure, out)


def draw_metrics(subjects_csv: Path, set_name: str, out: list[Path]) -> None:
    """Box plots over scans with every scan as a point; lines join one scan's results; a cross is a failed scan.

    Raises:
        UserError: subjects.csv is absent, not readable or has no row of the set.
    """
    scores = read_scores(subjects_csv, set_name)
    methods, colours = methods_of(scores), colour_of(scores)
    scans = list(dict.fromkeys(score.scan for score in scores))
    shift = dict(zip(scans, np.linspace(-0.22, 0.22, len(scans)) if len(scans) > 1 else [0.0], strict=True))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 1.2 + 0.5 * len(methods)), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(BOXPLOTS), sharey=True), BOXPLOTS, strict=True):
            for place, method in enumerate(methods):
                own = [s for s in scores if s.method == method and not math.isnan(s.values[name])]
                values = [score.values[name] for score in own]
                if values:
                    axes.boxplot(
                        [values],
                        positions=[place],
                        widths=0.62,
                        orientation="horizontal",
                        whis=(0, 100),
                        patch_artist=True,
                        boxprops={"facecolor": colours[method], "alpha": 0.3},
                        medianprops={"color": "black"},
                    )
                for score in own:
                    mark = {"marker": "o", "edgecolor": "white"} if score.status == OK else {"marker": "x"}
                    height = place + shift[score.scan]
                    axes.scatter(score.values[name], height, s=22, color=colours[method], linewidth=0.8, zorder=3, **mark)
            for scan in scans:
                path = {s.method: s.values[name] for s in scores if s.scan == scan}
                heights = [place + shift[scan] for place, method in enumerate(methods) if method in path]
                axes.plot([path[m] for m in methods if m in path], heights, color="0.75", linewidth=0.6, zorder=1)
            axes.set(xlabel=NAMES[name], ylim=(len(methods) - 0.5, -0.5))
            axes.set_yticks(range(len(methods)), methods)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.grid(axis="x", color="0.92")
            axes.set_axisbelow(True)
        _save(figure, out)


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
            upper.set_ylabel("loss")
            upper.legend(frameon=False, fontsize=8)
            for name, label in (("val_psnr", "validation PSNR (dB)"), ("val_dice", "validation Dice")):
                steps, values = _curve(rows, name)
                if values:
                    lower.set_axis_on()
                    lower.plot(steps, values, "o-", color="black", markersize=3, linewidth=1.2)
                    lower.set(xlabel="step", ylabel=label, xlim=upper.get_xlim())
        _save(figure, out)


class _Sheet:
    """A page of rows; a row has a label and two blocks of the three planes, every voxel a whole number of pixels."""

    LEFT, RIGHT, TOP, GAP, BLOCK_GAP = 230, 190, 70, 4, 40

    def __init__(self, panel: Panel, rows: int, footer: int = 10) -> None:
        self.panel = panel
        finest = float(np.nanmin(panel.voxel_size)) if np.isfinite(panel.voxel_size).any() else 1.0
        self.scale = max(1, round(1.45 * finest)) / finest  # pixels a mm
        sizes = {plane: self._size(plane) for plane in PLANES} if "hq" in panel else dict.fromkeys(PLANES, (200, 200))
        self.cell_height = max(height for height, _ in sizes.values()) + 8
        self.widths = [width + 8 for _, width in sizes.values()]
        self.block = sum(self.widths) + self.GAP * 2
        self.width = self.LEFT + 2 * self.block + self.BLOCK_GAP + self.RIGHT
        self.height = self.TOP + rows * (self.cell_height + self.GAP) + footer
        self.figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI)

    def _size(self, plane: str) -> tuple[int, int]:
        rows, columns = self.panel.slice("hq", plane).shape
        tall, wide = self.panel.pixel(plane)
        return round(rows * tall * self.scale), round(columns * wide * self.scale)

    def _axes(self, left: float, top: float, width: float, height: float):
        place = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(place)

    def _text(self, left: float, top: float, text: str, **style) -> None:
        style = {"va": "top", "ha": "left", **style}
        self.figure.text(left / self.width, 1 - top / self.height, text, **style)

    def _row_top(self, row: int) -> float:
        return self.TOP + row * (self.cell_height + self.GAP)

    def _block_left(self, block: int) -> float:
        return self.LEFT + block * (self.block + self.BLOCK_GAP)

    def head(self, block: int, title: str, detail: str) -> None:
        self._text(self.LEFT - 14, 8, self.panel.scan, weight="bold", ha="right")
        self._text(self._block_left(block), 8, f"{title}: {detail}")
        self._plane_names(block, self.TOP)

    def _plane_names(self, block: int, top: float) -> None:
        left = self._block_left(block)
        for plane, width in zip(PLANES, self.widths, strict=True):
            self._text(left + width / 2, top - 4, plane, ha="center", va="bottom", fontsize=8)
            left += width + self.GAP

    def label(self, row: int, name: str, notes: Sequence[str]) -> None:
        middle = self._row_top(row) + self.cell_height / 2
        lines = textwrap.wrap(name.replace("_", "_ "), 18)
        name = "\n".join(line.replace("_ ", "_") for line in lines)
        self._text(self.LEFT - 14, middle, name, ha="right", va="bottom", weight="bold")
        self._text(self.LEFT - 14, middle + 6, "\n".join(notes), ha="right", fontsize=8)

    def planes(self, row: int, block: int, image: Callable[[str], np.ndarray], colours="gray", low=0.0, high=1.0):
        """Draw the three planes; returns what a colour bar needs."""
        left, shades = self._block_left(block), None
        for plane, width in zip(PLANES, self.widths, strict=True):
            axes = self._axes(left, self._row_top(row), width, self.cell_height)
            axes.set(xlim=(0, width), ylim=(0, self.cell_height), xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_facecolor("black" if colours == "gray" else "white" if colours == "RdBu_r" else "#00224e")
            tall, wide = self._size(plane)
            x, y = (width - wide) // 2, (self.cell_height - tall) // 2
            shades = axes.imshow(
                image(plane),
                colours,
                vmin=low,
                vmax=high,
                extent=(x, x + wide, y, y + tall),
                aspect="auto",
                interpolation="nearest",
            )
            axes.set(xlim=(0, width), ylim=(0, self.cell_height))
            if row == 0:
                for at, align, letter in zip((5, width - 5), ("left", "right"), RIGHT_OF[plane], strict=True):
                    axes.text(at, 5, letter, color="white", fontsize=7, ha=align, va="bottom")
            left += width + self.GAP
        return shades

    def note(self, row: int, reason: str) -> None:
        middle = self._row_top(row) + self.cell_height / 2
        self._text(self._block_left(0), middle, textwrap.fill(f"no result: {reason}", 90), va="center", color="0.25")

    def caption_above(self, row: int, text: str) -> None:
        self._text(self._block_left(1), self._row_top(row) - 24, text, va="bottom")
        self._plane_names(1, self._row_top(row))

    def bar_above(self, row: int, shades, label: str) -> None:
        self.caption_above(row, label)
        axes = self._axes(self._block_left(1), self._row_top(row) - 100, self.block * 0.6, 14)
        self.figure.colorbar(shades, cax=axes, orientation="horizontal").ax.tick_params(labelsize=8)

    def bar_beside(self, row: int, shades, label: str) -> None:
        left, tall = self._block_left(1) + self.block + 14, self.cell_height
        axes = self._axes(left, self._row_top(row) + 0.4 * tall, 14, 0.55 * tall)
        self.figure.colorbar(shades, cax=axes).ax.tick_params(labelsize=8)
        self._text(left, self._row_top(row), label.replace("_", "_\u200b"), fontsize=8)

    def apologise(self, reason: str) -> Figure:
        """A sheet that only says why there is nothing to see."""
        figure = Figure(figsize=(8, 1.2))
        figure.text(0.02, 0.5, textwrap.fill(f"{self.panel.scan}: {reason}", 100), va="center")
        return figure


def _planes_or_reason(sheet: _Sheet, row: int, panel: Panel, what: str, image: Callable) -> None:
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


def _save(figure: Figure, out: list[Path]) -> None:
    for path in map(Path, out):
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=DPI, metadata=METADATA.get(path.suffix))
