"""How a method looks in every figure: colours that people with colour blindness can tell apart, then other marks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000"),
    *("#8A1400", "#3B4E4E", "#3B00C4", "#F0E442", "#000062"),
)
"""Okabe and Ito's palette without its grey, and colours chosen to lie as far as possible from these in CIEDE2000 for
normal vision, protanopia and deuteranopia alike; yellow, faint on paper, comes late."""
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
HATCHES = ("", "///", "xxx", "...", "\\\\\\", "+++")


class MethodStyle(NamedTuple):
    """Colour, marker of a point, dashes of a line and hatching of an area, as matplotlib takes them."""

    colour: str
    marker: str
    line: str | tuple
    hatch: str


def styles_of(methods: Iterable[str]) -> dict[str, MethodStyle]:
    """Each method's style by its place in the order of the tables: twelve colours, then the same with other marks."""
    styles = {}
    for place, method in enumerate(methods):
        again, colour = divmod(place, len(COLOURS))
        again %= len(MARKERS)
        styles[method] = MethodStyle(COLOURS[colour], MARKERS[again], LINES[again], HATCHES[again])
    return styles
