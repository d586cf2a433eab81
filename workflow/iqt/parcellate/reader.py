"""A trained built-in parcellator of either kind, ready to read."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from iqt.io.volumes import Volume

ENGINE = "builtin"


class Reader(NamedTuple):
    """A trained parcellator of either kind."""

    read: Callable[[Volume, np.ndarray], np.ndarray]
    """Labels (X, Y, Z) int16 of a volume on the intensity scale, within a mask (X, Y, Z)."""
    version: str
    """Of its weights: the first digits of their checksum. The package's is none of it: a release that leaves the
    parcellator alone would make results read before and after it seem read by two."""
    ids: tuple[int, ...]
    """The labels that it knows."""
    suffix: str | None
    """BIDS suffix of the scans that it was trained on."""


def load_reader(model: Path, precision: str) -> Reader:
    """A trained parcellator; UserError where the folder holds none, or a damaged one."""
    from iqt.parcellate.card import LABELLING
    from iqt.training.checkpoints import load_card

    card = load_card(model, LABELLING)
    version = f"weights {card['weights_sha256'][:8]}"
    known = {"ids": tuple(card.get("ids", ())), "suffix": card.get("suffix")}
    if card["kind"] == "volumetric_parcellator":
        from iqt.parcellate.volumetric import load_volumetric, predict_volumetric

        read = functools.partial(predict_volumetric, load_volumetric(model, precision))
        return Reader(read, version, **known)
    from iqt.parcellate.predict import load_parcellator, predict_labels

    return Reader(functools.partial(predict_labels, load_parcellator(model, precision)), version, **known)
