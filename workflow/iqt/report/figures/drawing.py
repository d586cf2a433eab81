"""How every figure is drawn and written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from iqt.errors import UserError
from iqt.io.files import replacing

DPI = 150
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
