"""Trained models on disk: `model.safetensors` and its card `model.json`. Loading never unpickles."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from iqt import __version__
from iqt.devices import machine
from iqt.errors import UserError
from iqt.files import read_json, replacing, write_json
from iqt.networks.build import count_parameters

FORMAT = 1


def save_model(out: Path, network: nn.Module, card: dict) -> None:
    """Write the weights and then the card, which says what they are (kind, settings, training data, figures)."""
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with replacing(out / "model.safetensors") as temporary:
        save_file(weights, temporary)
    common = {"format": FORMAT, "n_parameters": count_parameters(network)}
    versions = {"iqt": __version__, "torch": torch.__version__}
    write_json(out / "model.json", {**common, **card, "versions": versions, "machine": machine()})


def load_card(folder: Path) -> dict:
    """The card of a trained model; UserError where it is absent, unreadable or of another format."""
    card = read_json(folder / "model.json")
    if card.get("format") != FORMAT:
        raise UserError(f"{folder / 'model.json'}: format {card.get('format')!r}, but this version reads {FORMAT}")
    return card


def load_weights(folder: Path, network: nn.Module) -> None:
    """Fill a network with a model's weights; UserError where the file is damaged or of another network."""
    path = folder / "model.safetensors"
    try:
        network.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; train the model first") from None
    except SafetensorError as error:
        raise UserError(f"{path}: damaged ({error}); delete it and train again") from None
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(f"{path}: does not fit the network its card describes ({reason})") from None
