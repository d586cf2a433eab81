"""What ships with the package, in a checkout and installed alike: look-up tables and trained models."""

from __future__ import annotations

from pathlib import Path

RESOURCES = Path(__file__).resolve().parents[1] / "resources"
"""A link to the checkout's `resources/`; a folder where the package is installed."""
PARCELLATOR = RESOURCES / "models" / "parcellator"
"""The 3D parcellator of T1w scans."""
PARCELLATOR_TABLE = "aseg"
"""Name of the look-up table of its labels."""


def table_file(name: str) -> Path:
    """A look-up table: `resources/<name>_dseg.tsv`, or a user's own file where the name ends in .tsv."""
    return Path(name) if name.endswith(".tsv") else RESOURCES / f"{name}_dseg.tsv"
