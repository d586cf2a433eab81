"""What the card of a parcellator must hold, of either kind."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from iqt.config import Parcellator, VolumetricNetwork
from iqt.training.card import Card, Sizes

MOST_CLASSES = 4096
Label = Annotated[int, Field(ge=0, le=32767)]


class LabellingCard(Card):
    """The card of a network that labels structures."""

    ids: Annotated[list[Label], Field(min_length=2, max_length=MOST_CLASSES)]
    mirrors: Annotated[list[Label], Field(min_length=2, max_length=MOST_CLASSES)]
    voxel_size: Sizes | None = None

    @model_validator(mode="after")
    def _pairs(self) -> LabellingCard:
        n = len(self.ids)
        if self.ids != sorted(set(self.ids)) or self.ids[0] != 0:
            raise ValueError("ids must ascend from 0")
        if len(self.mirrors) != n or any(not 0 <= m < n or self.mirrors[m] != k for k, m in enumerate(self.mirrors)):
            raise ValueError("mirrors must name a class for each of ids, whose own mirror is that one")
        return self


class ParcellatorCard(LabellingCard):
    """The card of a multi-view parcellator."""

    settings: Parcellator


class VolumetricCard(LabellingCard):
    """The card of a 3D parcellator."""

    settings: VolumetricNetwork
    voxel_size: Sizes


LABELLING = {"parcellator": ParcellatorCard, "volumetric_parcellator": VolumetricCard}
"""Cards of the kinds that are no methods of the configuration."""
