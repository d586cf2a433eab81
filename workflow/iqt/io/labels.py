"""The look-up table of a label map, and classes: the consecutive numbers that a network predicts.

Class 0 is the background, label 0. A sagittal slice shows no side, so the sagittal network has *merged* classes: a
structure and its mirror image in the other hemisphere are one.

A table's column `merges` lists other labels that are read as a structure, so that one table reads several kinds of
label map. Labels listed under more than one structure are shared: each of their voxels goes to the nearest of these.
That is how FastSurfer's classes (DKT atlas) take in what the Desikan-Killiany atlas has besides (banks of the superior
temporal sulcus, frontal and temporal pole; Klein and Tourville, Frontiers in Neuroscience 6, 2012), cortex without a
name, and the corpus callosum, which belongs to the white matter of the nearer side.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from iqt.errors import UserError
from iqt.io.files import read_table
from iqt.terminal import warn

GREY = "#808080"
LARGEST_LABEL = np.iinfo(np.int16).max
COLUMNS = ("index", "name", "abbreviation", "color", "hemisphere", "mirror", "merges")
"""Columns of the tables in resources/; `color` is #rrggbb, `hemisphere` L, R or n/a."""


@dataclass(frozen=True)
class LabelTable:
    """`ids[c]` is the label of class c, ascending; `mirrors[c]` the class of its mirror image (c on the midline).

    `merges` maps each further label to the classes that it is read as: one, or several that share it.
    """

    ids: tuple[int, ...]
    mirrors: tuple[int, ...]
    merges: dict[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def n_classes(self) -> int:
        return len(self.ids)

    @property
    def merged(self) -> np.ndarray:
        """The merged class of each class, numbered in the order of the first of each pair; 0 stays 0."""
        first = np.minimum(np.arange(self.n_classes), self.mirrors)
        return np.unique(first, return_inverse=True)[1]

    @property
    def n_merged(self) -> int:
        return int(self.merged.max()) + 1

    def to_classes(self, labels: np.ndarray, source: str | Path, voxel_size: Sequence[float] = (1, 1, 1)) -> np.ndarray:
        """Classes (int16) of a label map (X, Y, Z) with voxels of `voxel_size` (mm), which decides what is nearest.

        Labels that the table does not know become background, and a warning on stderr lists them with `source`; so do
        shared labels where none of the structures that share them is present.
        """
        present, where = np.unique(labels, return_inverse=True)
        targets = [self._targets(int(label)) for label in present]
        classes = np.array([found[0] if len(found) == 1 else 0 for found in targets], np.int16)[where]
        classes = classes.reshape(labels.shape)
        lost = [int(label) for label, found in zip(present, targets, strict=True) if not found]
        shared = [(int(label), found) for label, found in zip(present, targets, strict=True) if len(found) > 1]
        nearest = [(label, _nearest(classes, labels == label, found, voxel_size)) for label, found in shared]
        for label, found in nearest:
            if found is None:
                lost.append(label)
            else:
                classes[labels == label] = found
        if lost:
            listed = ", ".join(map(str, sorted(lost)))
            voxels = np.count_nonzero(np.isin(labels, lost))
            warn(
                f"{source}: labels {listed} ({voxels} voxels) are not in the look-up table and count as "
                "background; list them in its column merges to keep them"
            )
        return classes

    def to_labels(self, classes: np.ndarray) -> np.ndarray:
        """The labels (int16) of classes."""
        return np.asarray(self.ids, np.int16)[classes]

    def _targets(self, label: int) -> tuple[int, ...]:
        return (self.ids.index(label),) if label in self.ids else self.merges.get(label, ())


def read_rows(path: str | Path, required: Sequence[str] = ("index", "mirror")) -> dict[int, dict[str, str]]:
    """The rows of a look-up table by label.

    Raises:
        UserError: no such table, a column is missing, an index or mirror is no number, out of range, or listed twice.
    """
    rows: dict[int, dict[str, str]] = {}
    for row in read_table(path, required=required):
        try:
            index, _ = int(row["index"]), int(row["mirror"])
        except (TypeError, ValueError):
            raise UserError(f"{path}: index {row['index']!r}, mirror {row['mirror']!r}: both must be numbers") from None
        if not 0 <= index <= LARGEST_LABEL:
            raise UserError(f"{path}: index {index} is outside 0 to {LARGEST_LABEL}, which a label map can hold")
        if index in rows:
            raise UserError(f"{path}: index {index} is listed twice; keep one row a structure")
        rows[index] = row
    return rows


class Shown(NamedTuple):
    """What a reader sees of a structure; `colour` is #rrggbb."""

    name: str
    colour: str


def read_shown(path: str | Path) -> dict[int, Shown]:
    """Names and colours of a look-up table by label; grey where the colour is empty or n/a.

    Raises:
        UserError: no such table, a column is missing, an index is no number, a colour is none, or two structures have
            one name, by which tables tell them apart.
    """
    found: dict[int, Shown] = {}
    for row in read_table(path, required=("index", "name", "color")):
        try:
            index = int(row["index"])
        except (TypeError, ValueError):
            raise UserError(f"{path}: index {row['index']!r} must be a number") from None
        colour = (row["color"] or "n/a").strip()
        if colour != "n/a" and not re.fullmatch(r"#[0-9A-Fa-f]{6}", colour):
            raise UserError(f"{path}: color {colour!r} of index {index} is not like #f5f5f5; write n/a for grey")
        if any(row["name"] == one.name for one in found.values()):
            raise UserError(f"{path}: the name {row['name']!r} is listed twice; name left and right apart")
        found[index] = Shown(row["name"], GREY if colour == "n/a" else colour)
    return found


def read_lut(path: str | Path) -> LabelTable:
    """The classes of a look-up table (TSV with `index`, `mirror` and perhaps `merges`), in the order of their labels.

    `merges` holds labels and ranges such as `30 251-255`. A row of index 0 may list what is background.

    Raises:
        UserError: no such table, a column or number is missing, a label is repeated, a mirror does not point back, or
            a merged label is a structure itself.
    """
    rows = read_rows(path)
    mirror_of = {0: 0, **{index: int(row["mirror"]) for index, row in rows.items()}}
    merges_of = {index: _merged_labels(path, index, row.get("merges") or "") for index, row in rows.items()}
    for index, mirror in mirror_of.items():
        if mirror_of.get(mirror) != index:
            raise UserError(
                f"{path}: index {index} has mirror {mirror}, whose own mirror is not {index}; correct the pair"
            )
    if len(mirror_of) == 1:
        raise UserError(f"{path}: lists no structure besides the background")
    ids = sorted(mirror_of)
    merges: dict[int, tuple[int, ...]] = {}
    for number, index in enumerate(ids):
        for label in merges_of.get(index, ()):
            if label in mirror_of:
                raise UserError(
                    f"{path}: index {index} merges {label}, which has a row of its own; keep one of the two"
                )
            merges[label] = (*merges.get(label, ()), number)
    return LabelTable(tuple(ids), tuple(ids.index(mirror_of[label]) for label in ids), merges)


def _merged_labels(path: str | Path, index: int, text: str) -> list[int]:
    """The labels of a field like `30 251-255`."""
    labels: list[int] = []
    for word in text.replace("n/a", "").replace(",", " ").split():
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
        if not found:
            raise UserError(f"{path}: index {index} merges {word!r}, but labels or ranges like 251-255 are needed")
        first = int(found[1])
        labels += range(first, int(found[2] or first) + 1)
    return labels


def _nearest(
    classes: np.ndarray, voxels: np.ndarray, sharing: tuple[int, ...], voxel_size: Sequence[float]
) -> np.ndarray | None:
    """For each of `voxels`, the class among those `sharing` whose voxel is nearest; None where there is none."""
    where = np.argwhere(np.isin(classes, sharing))
    if not len(where):
        return None
    _, nearest = cKDTree(where * voxel_size).query(np.argwhere(voxels) * voxel_size)
    return classes[tuple(where[nearest].T)]
