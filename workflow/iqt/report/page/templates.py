"""Templates of pages: HTML that opens offline, with the style and the scripts of this folder in it."""

from __future__ import annotations

from pathlib import Path

import jinja2


def templates(*folders: Path) -> jinja2.Environment:
    """The templates of some folders, and those here; a name that is not given is an error, and text is escaped."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
