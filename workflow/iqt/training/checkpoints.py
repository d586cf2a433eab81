"""Trained models on disk: `model.safetensors` and its card `model.json`. Loading never unpickles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from iqt import __version__
from iqt.compute.devices import machine
from iqt.errors import UserError
from iqt.io.files import checksum, read_json, replacing, write_json
from iqt.networks.size import count_parameters
from iqt.training.card import FORMAT, Card, check_card


def save_model(out: Path, network: nn.Module, card: dict) -> None:
    """Write the weights and then the card, which says what they are (kind, settings, tensors, training data, figures)
    and by a hash which weights it belongs to."""
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    path = out / "model.safetensors"
    with replacing(path) as temporary:
        save_file(weights, temporary)
    common = {"format": FORMAT, "n_parameters": count_parameters(network), "weights_sha256": checksum(path)}
    versions = {"iqt": __version__, "torch": torch.__version__}
    write_json(out / "model.json", {**common, **card, "versions": versions, "machine": machine()})


def load_card(folder: Path, models: Mapping[str, type[Card]] | None = None) -> dict:
    """The card of a trained model, of the kinds in `models` or else of one that enhances; UserError where it is absent,
    unreadable, of another format or kind, or not sound."""
    path = folder / "model.json"
    card = read_json(path)
    check_card(path, card, models)
    return card


def load_weights(folder: Path, network: nn.Module) -> None:
    """Fill a network with a model's weights; UserError where the file is damaged, of another network, or not the one
    that the card was written for."""
    path = folder / "model.safetensors"
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; train the model first") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged ({error}); delete it and train again") from None
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(f"{path}: does not fit the network its card describes ({reason})") from None
    if read_json(folder / "model.json").get("weights_sha256") != checksum(path):
        raise UserError(f"{path}: is not the file that model.json beside it describes; restore it or train again")
