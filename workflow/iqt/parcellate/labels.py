"""The look-up table of a label map, and classes: the consecutive numbers that a network predicts.

Class 0 is the background, label 0. A sagittal slice shows no side, so the sagittal network has *merged* classes: a
structure and its mirror image in the other hemisphere are one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iqt.errors import UserError
from iqt.files import read_table

LARGEST_LABEL = np.iinfo(np.int16).max


@dataclass(frozen=True)
class LabelTable:
    """`ids[c]` is the label of class c, ascending; `mirrors[c]` the class of its mirror image (c on the midline)."""

    ids: tuple[int, ...]
    mirrors: tuple[int, ...]

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

    def to_classes(self, labels: np.ndarray, source: str | Path) -> np.ndarray:
        """Classes (int16) of a label map; `source` names it in the UserError for labels that the table lacks."""
        present = np.unique(labels)
        unknown = [int(label) for label in present if label not in self.ids]
        if unknown:
            listed = ", ".join(map(str, unknown[:20])) + (", ..." if len(unknown) > 20 else "")
            raise UserError(
                f"{source}: labels {listed} are not in the look-up table; add them to it or correct the scan"
            )
        return np.searchsorted(self.ids, labels).astype(np.int16)


def read_lut(path: str | Path) -> LabelTable:
    """The classes of a look-up table (TSV with at least `index` and `mirror`), in the order of their labels.

    Raises:
        UserError: no such table, a column or number is missing, a label is repeated, or a mirror does not point back.
    """
    mirror_of = {0: 0}
    for row in read_table(path, required=("index", "mirror")):
        try:
            index, mirror = int(row["index"]), int(row["mirror"])
        except (TypeError, ValueError):
            raise UserError(f"{path}: index {row['index']!r}, mirror {row['mirror']!r}: both must be numbers") from None
        if not 0 <= index <= LARGEST_LABEL:
            raise UserError(f"{path}: index {index} is outside 0 to {LARGEST_LABEL}, which a label map can hold")
        if index and index in mirror_of:
            raise UserError(f"{path}: index {index} is listed twice; keep one row a structure")
        mirror_of[index] = mirror
    for index, mirror in mirror_of.items():
        if mirror_of.get(mirror) != index:
            raise UserError(
                f"{path}: index {index} has mirror {mirror}, whose own mirror is not {index}; correct the pair"
            )
    if len(mirror_of) == 1:
        raise UserError(f"{path}: lists no structure besides the background")
    ids = sorted(mirror_of)
    return LabelTable(tuple(ids), tuple(ids.index(mirror_of[label]) for label in ids))
