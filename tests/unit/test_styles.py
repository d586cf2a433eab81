"""Methods can be told apart in every figure, with and without colour vision."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from skimage.color import deltaE_ciede2000, rgb2lab

from iqt.io.files import write_table
from iqt.report.figures import published, sampling, scores
from iqt.report.figures import structures as structure_figure
from iqt.report.figures.styles import COLOURS, styles_of
from iqt.report.metrics import FACTS, FURTHER_METRICS, METRICS
from iqt.report.tables import structures as structure_table
from synthetic import PUBLISHED

VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
"""Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB."""


@pytest.mark.parametrize("vision", VISION)
def test_twelve_colours_differ_for_everybody(vision: str) -> None:
    """By CIEDE2000, of which about 2 is the least that is noticed side by side."""
    rgb = np.array([to_rgb(colour) for colour in (*COLOURS, "white")])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(VISION[vision]), 0, 1)
    lab = rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)[None])[0]
    assert len(COLOURS) == 12
    apart = {(a, b): float(deltaE_ciede2000(lab[a], lab[b])) for a, b in combinations(range(13), 2)}
    assert min(apart.values()) > 10, min(apart, key=apart.get)


def test_more_than_twelve_methods_differ_in_every_kind_of_mark() -> None:
    styles = styles_of([f"m{number}" for number in range(40)])
    assert len(set(styles.values())) == 40
    for number in range(12, 40):
        same = [style for style in list(styles.values())[:number] if style.colour == styles[f"m{number}"].colour]
        own = styles[f"m{number}"]
        assert all(style.marker != own.marker and style.line != own.line and style.hatch != own.hatch for style in same)
    assert list(styles_of(["a", "b"]).values()) == list(styles.values())[:2], "further methods change nobody's"


def test_a_method_looks_the_same_in_every_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fourteenth of fifteen, in the colour of the second and with marks of its own."""
    methods = [f"m{number:02d}" for number in range(15)]
    last, look = "m13", styles_of(methods)["m13"]
    numbers = dict.fromkeys((*METRICS, *FURTHER_METRICS, *FACTS), 0.5)
    key = {"scan": "sub-1", "set": "main", "status": "ok"}
    write_table(tmp_path / "subjects.csv", [{**key, "method": method, **numbers} for method in methods])
    rows = [
        dict(zip(structure_table.NEEDED, ("main", "sub-1", method, 1, "one", 0.5, 0.5, 9, 8), strict=True))
        for method in methods
    ]
    write_table(tmp_path / "parts.csv", rows)
    structure_table.write_structures(tmp_path / "parts.csv", tmp_path, "main", ["sub-1"], methods, 100, 1)
    curve = {"method": last, "bin": 1, "n_voxels": 9, "expected": 0.1, "error": 0.2}
    write_table(tmp_path / "reliability.csv", [curve])
    kept = []
    for module in (scores, published, sampling, structure_figure):
        monkeypatch.setattr(module, "save_figure", lambda figure, _out: kept.append(figure))
    scores.plot_metrics(tmp_path / "subjects.csv", "main", [])
    published.plot_published(tmp_path / "subjects.csv", PUBLISHED, "main", [])
    sampling.plot_reliability(tmp_path / "reliability.csv", methods, [])
    structure_figure.plot_structures(tmp_path / "structures.csv", [])
    metrics, beside, reliability, overlap = kept
    box = metrics.axes[0].patches[13]
    assert box.get_hatch() == look.hatch
    assert box.get_facecolor()[:3] == pytest.approx(to_rgb(look.colour))
    line = reliability.axes[0].lines[0]
    assert (line.get_color(), line.get_marker(), line.get_linestyle()) == (look.colour, look.marker, look.line)
    handle = next(text for text in overlap.legends[0].legend_handles if text.get_label() == last)
    assert (handle.get_color(), handle.get_marker()) == (look.colour, look.marker)
    dots = [one for one in beside.axes[0].collections if np.allclose(one.get_facecolor()[0][:3], to_rgb(look.colour))]
    assert dots
