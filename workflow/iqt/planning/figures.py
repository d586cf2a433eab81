"""What each kind of figure is drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class FigureOf(NamedTuple):
    """One kind of figure: its files by the option that names them, those of metrics/ (`gathered`, relative to it) and
    `other`; further options; the module of report/figures/ that draws it; and its place in Snakemake's report."""

    gathered: Mapping[str, str]
    drawn_by: str
    category: str
    other: Mapping[str, list[str] | str] = {}
    options: Mapping[str, str] = {}
    of_scan: bool = False
    """Whether there is one for each scan that the report shows, whose name its own ends in."""
