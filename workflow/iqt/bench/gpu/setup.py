"""What a session on a GPU works with: the networks at full or toy size, a volume, and a store to train from."""

from __future__ import annotations

import functools
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from iqt.config import Config, parse_config, read_config
from iqt.errors import UserError
from iqt.methods.diffusion_iqt import DiffusionIQTMethod
from iqt.planning.plan import Plan

DIFFUSION, REGRESSION = "diffusion_iqt", "unet"
"""Entries of the configuration that are measured; the second has about as many parameters as the first."""
STANDARD = {"input_mean": 0.0, "input_sd": 1.0, "target_mean": 0.0, "target_sd": 1.0}
"""Standardisation of networks that nobody trained."""
TOY: dict[str, Any] = {
    "name": "toy",
    "patches": {"patch": 8, "grid": [2, 2, 2]},
    "training": {"batch_size": 2, "learning_rate": 1e-3},
    "methods": {
        "cubic": {"kind": "cubic"},
        DIFFUSION: {
            "kind": "diffusion_iqt",
            "network": {"channels": 8, "multipliers": [1, 2], "blocks": 1, "stem": 1, "heads": 1, "head_dim": 4,
                        "tokens": [4, 2], "groups": 4},
            "sampling": {"sampler": "ddim", "steps": 2},
        },
        REGRESSION: {"kind": "unet", "network": {"channels": [4, 8]}},
    },
}  # fmt: skip
"""The configuration by which a session is tried without a GPU."""


@dataclass(frozen=True)
class Setup:
    """What every step is given. `toy` stands for small sizes, on whatever device there is.

    Args:
        out: folder of the session's results.
        config: a configuration with the entries `diffusion_iqt` and `unet`; its sampling is the recommended one.
        volume: NPZ with `data` (X, Y, Z), standardised, and `mask`, (X, Y, Z) bool.
        store: folder of a patch store.
        participants: the table of its people.
    """

    out: Path
    config: Path
    volume: Path
    store: Path
    participants: Path
    toy: bool = False

    @functools.cached_property
    def settings(self) -> Config:
        """What is measured; UserError where the configuration lacks an entry or cannot be read."""
        if self.toy:
            return parse_config(TOY, "the toy configuration")
        settings = read_config(self.config)
        for name in (DIFFUSION, REGRESSION):
            if name not in settings.methods or settings.methods[name].kind != name:
                raise UserError(f"{self.config}: has no entry methods.{name} of that kind, which is measured")
            if settings.methods[name].starts_from:
                raise UserError(f"{self.config}: methods.{name} starts from another model, which is not measured")
        return settings

    def trained_by(self, name: str) -> dict[str, Any]:
        """What the weights of an entry depend on, as training takes it."""
        return Plan(self.settings).trained_by(name)

    @property
    def diffusion(self) -> DiffusionIQTMethod:
        return self.settings.methods[DIFFUSION]

    def read_volume(self) -> tuple[Tensor, np.ndarray]:
        """The standardised volume, and where it is brain."""
        data, mask = read_volume(self.volume)
        return torch.from_numpy(data.astype(np.float32)), mask


def read_volume(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values and mask of a volume's NPZ; UserError where it is damaged."""
    try:
        with np.load(path) as held:
            return held["data"], held["mask"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: no volume of a bundle ({error}); leave --volume out, or pack it again") from None


def with_random_weights(network: nn.Module, seed: int) -> nn.Module:
    """The network with no weight left at zero, as the last layer of a fresh diffusion model is: its output would not
    depend on anything before."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.dim() > 1 and not weight.any():
                weight.copy_(torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5)
    return network
