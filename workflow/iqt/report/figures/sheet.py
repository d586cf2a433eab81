"""The sheet that slices are laid out on: rows of planes, each voxel a whole number of pixels."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from iqt.report.figures.drawing import DPI
from iqt.report.panels import PLANES, Panel

PIXELS_A_MM = 1.45
"""Wanted size of a slice; rounded so that a voxel is a whole number of pixels and nothing is resampled."""
ENDS = {"sagittal": ("P", "A"), "coronal": ("L", "R"), "axial": ("L", "R")}


class Sheet:
    """A page of rows; a row has a label and two blocks of the three planes, every voxel a whole number of pixels."""

    LEFT, RIGHT, TOP, GAP, BLOCK_GAP, CAPTION = 230, 90, 70, 4, 40, 64

    def __init__(self, panel: Panel, rows: int, footer: int = 10, gap_before: int | None = None) -> None:
        self.panel, self.rows = panel, rows
        self.gap_before = rows if gap_before is None else gap_before  # from this row on, room for a caption above
        finest = float(np.nanmin(panel.voxel_size)) if np.isfinite(panel.voxel_size).any() else 1.0
        self.scale = max(1, round(PIXELS_A_MM * finest)) / finest  # pixels a mm
        sizes = {plane: self._size(plane) for plane in PLANES} if "hq" in panel else dict.fromkeys(PLANES, (200, 200))
        self.cell_height = max(height for height, _ in sizes.values()) + 8
        self.widths = [width + 8 for _, width in sizes.values()]
        self.block = sum(self.widths) + self.GAP * 2
        self.width = self.LEFT + 2 * self.block + self.BLOCK_GAP + self.RIGHT
        self.height = self._row_top(rows) + footer
        self.figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI)

    def _size(self, plane: str) -> tuple[int, int]:
        rows, columns = self.panel.slice("hq", plane).shape
        tall, wide = self.panel.pixel(plane)
        return round(rows * tall * self.scale), round(columns * wide * self.scale)

    def _axes(self, left: float, top: float, width: float, height: float) -> Axes:
        place = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(place)

    def _text(self, left: float, top: float, text: str, **style: object) -> None:
        style = {"va": "top", "ha": "left", **style}
        self.figure.text(left / self.width, 1 - top / self.height, text, **style)

    def _row_top(self, row: int) -> float:
        captions = max(0, min(row, self.rows) - self.gap_before + (row < self.rows))
        return self.TOP + row * (self.cell_height + self.GAP) + self.CAPTION * captions

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

    def planes(
        self,
        row: int,
        block: int,
        image: Callable[[str], np.ndarray],
        colours: str = "gray",
        low: float = 0.0,
        high: float = 1.0,
    ) -> ScalarMappable:
        """Draw the three planes; returns what a colour bar needs."""
        left, shades = self._block_left(block), None
        for plane, width in zip(PLANES, self.widths, strict=True):
            axes = self._axes(left, self._row_top(row), width, self.cell_height)
            axes.set(xlim=(0, width), ylim=(0, self.cell_height), xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_facecolor(matplotlib.colormaps[colours](-low / (high - low)))  # that of 0, as outside the brain
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
                for at, align, letter in zip((5, width - 5), ("left", "right"), ENDS[plane], strict=True):
                    axes.text(at, 5, letter, color="white", fontsize=7, ha=align, va="bottom")
            left += width + self.GAP
        return shades

    def note(self, row: int, reason: str) -> None:
        middle = self._row_top(row) + self.cell_height / 2
        self._text(self._block_left(0), middle, textwrap.fill(f"no result: {reason}", 90), va="center", color="0.25")

    def caption_above(self, row: int, text: str) -> None:
        self._text(self._block_left(1), self._row_top(row) - 24, text, va="bottom")
        self._plane_names(1, self._row_top(row))

    def bar_above(self, row: int, shades: ScalarMappable, label: str) -> None:
        self.caption_above(row, label)
        axes = self._axes(self._block_left(1), self._row_top(row) - 100, self.block * 0.6, 14)
        self.figure.colorbar(shades, cax=axes, orientation="horizontal").ax.tick_params(labelsize=8)

    def bar_beside(self, row: int, shades: ScalarMappable) -> None:
        left, tall = self._block_left(1) + self.block + 14, self.cell_height
        axes = self._axes(left, self._row_top(row) + 0.05 * tall, 14, 0.9 * tall)
        self.figure.colorbar(shades, cax=axes).ax.tick_params(labelsize=8)

    def apologise(self, reason: str) -> Figure:
        """A sheet that only says why there is nothing to see."""
        figure = Figure(figsize=(8, 1.2))
        figure.text(0.02, 0.5, textwrap.fill(f"{self.panel.scan}: {reason}", 100), va="center")
        return figure
