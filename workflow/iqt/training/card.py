"""What a model's card (`model.json`) must hold: a model folder is data from anywhere, so this comes before all else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import nn

from iqt.errors import UserError
from iqt.methods import kinds, parse_method
from iqt.methods.base import Learned
from iqt.networks.size import count_parameters, network_size

FORMAT = 3

Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]
Spread = Annotated[float, Field(allow_inf_nan=False, ge=1e-6, le=1e6)]
Millimetres = Annotated[float, Field(allow_inf_nan=False, ge=0.1, le=20)]
Sizes = tuple[Millimetres, Millimetres, Millimetres]


class Standardisation(BaseModel):
    """Mean and standard deviation of a network's inputs and targets."""

    input_mean: Finite
    input_sd: Spread
    target_mean: Finite
    target_sd: Spread


Distance = Annotated[float, Field(allow_inf_nan=False, ge=0.1, le=100)]
Between = tuple[Distance, Distance]


class Acquired(BaseModel):
    """The low-field scans before they were brought to the grid: axes that were sliced, and lowest and highest distance
    and thickness of slices and edge of a voxel within one, in mm."""

    slice_axes: Annotated[list[Literal["R", "A", "S"]], Field(min_length=1, max_length=3)]
    slice_spacing_mm: Between
    slice_thickness_mm: Between
    in_plane_mm: Between


class TrainedGrid(BaseModel):
    """The grid that a network was trained on, and how the scans that it saw on it were acquired."""

    axes: Literal["RAS"]
    voxel_size_mm: Sizes
    acquired: Acquired | None = None


class Agreement(BaseModel):
    """How much of a scan a result may leave unexplained (`iqt.enhance.consistency`) before it is worth a warning: what
    the worst of the scans left that the model was measured on."""

    limit: Annotated[float, Field(allow_inf_nan=False, ge=0, le=1)]


class Card(BaseModel):
    """What every card has; further keys are for people."""

    format: Literal[FORMAT]
    kind: str
    settings: dict[str, Any]
    n_parameters: Annotated[int, Field(ge=1, le=10**10)]
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    suffix: Literal["T1w", "T2w", "FLAIR"] | None = None
    name: Annotated[str, Field(max_length=200)] | None = None


class Drawn(BaseModel):
    """Keys of the kind's `sampling`, which `method_of` checks."""

    samples: Annotated[int, Field(ge=1, le=1000)] = 1


class EnhancementCard(Card):
    """The card of a network that enhances."""

    standardisation: Standardisation
    grid: TrainedGrid | None = None
    consistency: Agreement | None = None
    sampling: Drawn | None = None
    """How its samples are drawn where a user says nothing else."""


def check_card(path: Path, card: Any, models: Mapping[str, type[Card]] | None = None) -> None:
    """UserError where a card is no sound one of its kind; the message names the file, the key and its value.

    Args:
        models: the kinds that can be used, and what their cards must hold; None for those that enhance.
    """
    if models is None:
        models = {name: EnhancementCard for name, method in kinds().items() if method.trained}
    if not isinstance(card, dict):
        raise UserError(f"{path}: holds no model card; delete it and train again")
    if card.get("format") != FORMAT:
        raise UserError(
            f"{path}: format {card.get('format')!r}, but this version reads {FORMAT}; delete it and train again"
        )
    kind = card.get("kind")
    if not isinstance(kind, str) or kind not in models:
        raise UserError(f"{path}: holds a model of kind {_shown(kind)}, but one of {', '.join(models)} is needed")
    try:
        # Strict, since the card itself is used and not what pydantic makes of it; from JSON, which has lists alone.
        text = json.dumps({key: value for key, value in card.items() if key != "grid" or value})
        models[kind].model_validate_json(text, strict=True)
    except (ValidationError, RecursionError) as error:
        raise _unsound(path, error) from None


def method_of(folder: Path, card: dict, usage: dict | None = None) -> Learned:
    """The method that a checked card describes, used as the card's `sampling` and, before it, `usage` say.

    Raises:
        UserError: its settings are none of a network, or of one with more or fewer parameters than the card and the
            weights' file have, which is found before anything is built.
    """
    path = folder / "model.json"
    try:
        drawn = {"sampling": card["sampling"]} if card.get("sampling") else {}
        method = parse_method({**card["settings"], "kind": card["kind"], **drawn, **(usage or {})})
        size = network_size(method)
    except ValidationError as error:
        raise _unsound(path, error) from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, RuntimeError) as error:
        raise UserError(f"{path}: settings describe no network ({type(error).__name__}: {error})") from None
    if size != card["n_parameters"]:
        raise UserError(
            f"{path}: settings describe a network of {size:,} parameters, but n_parameters is "
            f"{card['n_parameters']:,}; restore the card that was written with the weights"
        )
    require_weights(folder, size)
    return method


def require_size(folder: Path, card: dict, build: Callable[[], nn.Module]) -> None:
    """UserError where a card's number of parameters is not that of the network that `build` makes, or more than its
    weights' file holds: counted without making it."""
    with torch.device("meta"):
        size = count_parameters(build())
    if size != card["n_parameters"]:
        raise UserError(f"{folder / 'model.json'}: n_parameters is {card['n_parameters']:,}, not {size:,}")
    require_weights(folder, size)


def require_weights(folder: Path, n_parameters: int) -> None:
    """UserError where the file of the weights, by its header alone, holds fewer numbers than a network has."""
    path = folder / "model.safetensors"
    if not path.is_file():
        raise UserError(f"{path}: {'is no file' if path.exists() else 'no such file'}; train the model first")
    try:
        with safe_open(path, framework="pt") as weights:
            shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged ({error}); delete it and train again") from None
    held = sum(_product(shape) for shape in shapes)
    if held < n_parameters:
        raise UserError(f"{path}: holds {held:,} numbers, but the network its card describes has {n_parameters:,}")


def _product(shape: list[int]) -> int:
    total = 1
    for edge in shape:
        total *= edge
    return total


def _unsound(path: Path, error: Exception) -> UserError:
    if not isinstance(error, ValidationError):
        return UserError(f"{path}: is nested too deeply to be a model card")
    missing = [".".join(map(str, each["loc"])) for each in error.errors() if each["type"] == "missing"]
    if missing:
        return UserError(
            f"{path}: {', '.join(missing)} is missing from it; restore the card, or delete it and train again"
        )
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"]) or "(the whole card)"
    return UserError(
        f"{path}: {key} = {_shown(problem.get('input'))}: {problem['msg'].removeprefix('Value error, ')}; restore the "
        "card, or delete it and train again"
    )


def _shown(value: Any) -> str:
    text = "a section" if isinstance(value, dict) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
