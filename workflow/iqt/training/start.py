"""The trained regression that a method's training starts from: a flow's, or a diffusion model's that has a `start`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from iqt.errors import UserError
from iqt.training.checkpoints import load_card, load_weights


class Start(NamedTuple):
    """A model's folder and card; both None where training starts from none, and then nothing below does anything."""

    folder: Path | None
    model: dict | None

    @classmethod
    def read(cls, settings: Mapping[str, Any], folder: Path | None) -> Start:
        """What the settings (`Plan.trained_by`) start from.

        Raises:
            UserError: there is no such folder, it holds a model of another kind, target or network, or nothing starts
                from it.
        """
        wanted = settings.get("start")
        if wanted is None:
            if folder is not None:
                raise UserError(f"--start {folder}: a method of kind {settings['kind']} starts from no other model")
            return cls(None, None)
        if folder is None:
            raise UserError(
                f"a method of kind {settings['kind']} needs --start, the folder of the trained regression that it "
                "starts from"
            )
        card = load_card(folder)
        if card["kind"] != wanted["kind"] or card["settings"]["target"] != wanted["target"]:
            raise UserError(
                f"{folder}: holds a model of kind {card['kind']} for target {card['settings'].get('target')}, but "
                f"the {settings['kind']} starts from {wanted['kind']} for target {wanted['target']}; give that model's "
                "folder"
            )
        return cls(folder, card)

    @property
    def settings(self) -> dict[str, Any]:
        """What the method's settings hold of it: the whole model's, resized where it was."""
        return {} if self.model is None else {"start": self.model["settings"]}

    @property
    def identity(self) -> dict[str, str]:
        """What a resumed training must find unchanged."""
        return {} if self.model is None else {"start": self.model["weights_sha256"]}

    @property
    def card(self) -> dict[str, dict]:
        """What the trained model's card says of it."""
        return {} if self.model is None else {"start": {key: self.model[key] for key in ("name", "weights_sha256")}}

    def load(self, network: nn.Module) -> None:
        """Fill the part `start` of a network with its weights."""
        if self.folder is not None:
            load_weights(self.folder, network.start)

    def require_same_scales(self, ours: dict[str, float]) -> None:
        """UserError where it was trained on data of other means and standard deviations than these."""
        theirs = ours if self.model is None else self.model["standardisation"]
        differing = [name for name, value in ours.items() if not np.isclose(theirs[name], value, rtol=1e-3, atol=1e-4)]
        if differing:
            name = differing[0]
            raise UserError(
                f"{self.folder}: was trained on other data: its {name} is {theirs[name]:.4g}, but that of these scans "
                f"is {ours[name]:.4g}; train the regression on these scans first"
            )
