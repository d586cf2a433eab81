"""What the page's viewer shows: small whole volumes of the people drawn, as images that a browser can read offline."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from iqt.report.panels import Panel

BUDGET = 6_000_000
"""Characters of the page that volumes may take; who does not fit in is left out, and named."""
QUALITY = 85
"""JPEG quality: errors of about one grey level in a hundred, a fifth of PNG's size."""


def collect(panels: Sequence[Path]) -> dict[str, Any]:
    """The volumes of every panel that fits into `BUDGET`, in the order given.

    `people` has what `person_of` says of each scan;
    `left_out` names the scans that did not fit or have no volume.

    Raises:
        UserError: a panel is absent or not readable.
    """
    people: list[dict[str, Any]] = []
    left_out: list[str] = []
    used = 0
    for path in panels:
        panel = Panel(path)
        names = [name for name in ("lowfield", "hq", *panel.methods) if panel.volume(name) is not None]
        if "hq" not in names:
            left_out.append(panel.scan)
            continue
        person = person_of(panel.scan, {_shown(name): panel.volume(name) for name in names}, panel.volume_voxel_size)
        size = sum(len(volume["data"]) for volume in person["volumes"])
        if used + size > BUDGET:
            left_out.append(panel.scan)
            continue
        used += size
        people.append(person)
    return {"people": people, "left_out": left_out}


def person_of(
    name: str, volumes: Mapping[str, np.ndarray], voxel_size: np.ndarray, quality: int = QUALITY
) -> dict[str, Any]:
    """A scan as the viewer reads it: its `name`, `shape` (X, Y, Z), `voxel` sizes in mm, `columns` of its mosaic, and
    `volumes`: name and JPEG (base64) of each. A mosaic holds the axial slices from below, row by row, anterior up.

    Args:
        volumes: (X, Y, Z) uint8 along R, A, S, all of one shape.
        quality: of the JPEGs.
    """
    shape = next(iter(volumes.values())).shape
    return {
        "name": name,
        "shape": list(shape),
        "voxel": [round(float(edge), 4) for edge in voxel_size],
        "columns": mosaic_columns(shape[2]),
        "volumes": [{"name": label, "data": mosaic(volume, quality)} for label, volume in volumes.items()],
    }


def mosaic(volume: np.ndarray, quality: int = QUALITY) -> str:
    """A volume (X, Y, Z; uint8) as one JPEG of its axial slices, in base64."""
    width, height, depth = volume.shape
    columns = mosaic_columns(depth)
    sheet = np.zeros((math.ceil(depth / columns) * height, columns * width), np.uint8)
    for place in range(depth):
        row, column = divmod(place, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = volume[:, ::-1, place].T
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "JPEG", quality=quality, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def mosaic_columns(depth: int) -> int:
    """Slices a row of a mosaic of `depth` slices."""
    return math.ceil(math.sqrt(depth))


def _shown(name: str) -> str:
    return {"hq": "reference", "lowfield": "low-field"}.get(name, name)
