"""The checks of the cohort on any file or folder, for `iqt check`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from iqt.errors import UserError
from iqt.imaging import checks
from iqt.imaging.contrast import contrast_of
from iqt.imaging.kinds import kind_of
from iqt.io.naming import READABLE
from iqt.io.volumes import read_volume
from iqt.terminal import Bar


def inspect(paths: list[Path], lut: str) -> list[dict[str, str]]:
    """One row per volume: file, kind (by its content: image, mask or labels), shape, voxel, axes, contrast (by its name
    or sidecar), what is wrong, and what is only doubtful.

    Each file is judged by itself; that a mask fits its image, and whether the contrast is the wanted one, is checked
    when a cohort is made.

    Raises:
        UserError: a path does not exist, or a folder holds no volume.
    """
    files = [file for path in paths for file in _volumes(path)]
    rows = []
    with Bar(checking=1) as bar:
        bar.phase("checking")
        for path in files:
            rows.append(_row(path, lut))
            bar.within(len(rows), len(files))
    return rows


def format_table(rows: list[dict[str, str]]) -> str:
    """Rows under a heading, columns aligned, the sentences last: problems, then warnings, or `ok`."""
    columns = [name for name in rows[0] if name not in ("problems", "warnings")] + ["result"]
    rows = [row | {"result": _result(row)} for row in rows]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in columns[:-1]}
    lines = [{name: name for name in columns}, *rows]
    return "\n".join(
        "  ".join([*(row[name].ljust(widths[name]) for name in columns[:-1]), row[columns[-1]]]) for row in lines
    )


def _result(row: dict[str, str]) -> str:
    warning = f"warning: {row['warnings']}" if row["warnings"] else ""
    return "; ".join(filter(None, (row["problems"], warning))) or "ok"


def _volumes(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    found = sorted(
        file
        for file in path.rglob("*")
        if file.name.endswith(READABLE) and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not found:
        raise UserError(f"{path}: holds no {', '.join(READABLE)} file")
    return found


def _row(path: Path, lut: str) -> dict[str, str]:
    row = {"file": str(path), "kind": "", "shape": "", "voxel (mm)": "", "axes": "", "contrast": ""}
    try:
        volume = read_volume(path)
        kind = kind_of(volume.data)
        if kind == "labels":
            volume = read_volume(path, np.int32)
    except UserError as error:
        return row | {"problems": str(error).removeprefix(f"{path}: "), "warnings": ""}
    problems = checks.image_problems(volume)
    if kind == "mask":
        problems += checks.mask_problems(volume.data > 0, volume.affine)
    if kind == "labels":
        problems += checks.label_problems(np.unique(volume.data).tolist(), checks.read_labels(lut))
    if kind == "image" and not problems:
        problems += checks.scan_problems(volume)
    return row | {
        "kind": kind,
        "shape": "x".join(map(str, volume.data.shape)),
        "voxel (mm)": "x".join(f"{size:.3g}" for size in volume.voxel_size),
        "axes": checks.axes_of(volume.affine),
        "contrast": (contrast_of(path)[0] or "") if kind == "image" else "",
        "problems": "; ".join(problems),
        "warnings": "; ".join(volume.doubts),
    }
