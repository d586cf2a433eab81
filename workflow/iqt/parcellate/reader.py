"""A trained built-in parcellator of either kind, ready to read."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from iqt import __version__
from iqt.io.volumes import Volume

ENGINE = "builtin"


class Reader(NamedTuple):
    """A trained parcellator of either kind."""

    read: Callable[[Volume, np.ndarray], np.ndarray]
    """Labels (X, Y, Z) int16 of a volume on the intensity scale, within a mask (X, Y, Z)."""
    version: str
    """Of the package, and for weights that are no run's own the first digits of their checksum."""
    ids: tuple[int, ...]
    """The labels that it knows."""
    suffix: str | None
    """BIDS suffix of the scans that it was trained on."""


def load_reader(model: Path, precision: str) -> Reader:
    """A trained parcellator; UserError where the folder holds none, or a damaged one."""
    from iqt.parcellate.card import LABELLING
    from iqt.training.checkpoints import load_card

    card = load_card(model, LABELLING)
    known = {"ids": tuple(card.get("ids", ())), "suffix": card.get("suffix")}
    if card["kind"] == "volumetric_parcellator":
        from iqt.parcellate.volumetric import load_volumetric, predict_volumetric

        read = functools.partial(predict_volumetric, load_volumetric(model, precision))
        return Reader(read, f"{__version__}+{card['weights_sha256'][:8]}", **known)
    from iqt.parcellate.predict import load_parcellator, predict_labels

    return Reader(functools.partial(predict_labels, load_parcellator(model, precision)), __version__, **known)
