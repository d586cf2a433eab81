"""Which people a template cohort has. Read by the Snakefile, so nothing heavy is imported here."""

from __future__ import annotations

from iqt.config import Split


def template_scans(split: Split) -> dict[str, list[str]]:
    """Scan names of each split: `{"train": ["sub-train001", ...], "val": [...], "test": [...]}`.

    A name says its split and its number in it, so that more people in one split change nobody.
    """
    return {
        name: [f"sub-{name}{number:03d}" for number in range(1, getattr(split, name) + 1)]
        for name in ("train", "val", "test")
    }
