"""A model for tests that need one: random weights, with the files of a trained one."""

from __future__ import annotations

from pathlib import Path

import torch

from iqt.methods.diffusion_iqt import DiffusionIQTMethod
from iqt.training.checkpoints import save_model


def save_stand_in(
    folder: Path,
    objective: str = "x0",
    spread: float = 0.3,
    grid: dict | None = None,
    patches: tuple[int, int, int] = (2, 2, 2),
) -> Path:
    """A small DiffusionIQT with random weights; with `spread` 0 its output is 0, so that it returns its input."""
    network = {
        "channels": 8,
        "multipliers": (1, 2),
        "blocks": 1,
        "heads": 2,
        "head_dim": 4,
        "stem": 1,
        "tokens": (2, 2),
    }
    method = DiffusionIQTMethod(
        network=network, patches={"patch": 4, "grid": patches}, diffusion={"objective": objective}
    )
    torch.manual_seed(0)
    net = method.build()
    torch.nn.init.normal_(net.head.weight, std=spread)
    settings = method.model_dump(mode="json", include={"kind", "network", "diffusion", "target", "patches", "training"})
    standard = {"input_mean": 0.5, "input_sd": 0.3, "target_mean": 0.02, "target_sd": 0.1}
    card = {"kind": "diffusion_iqt", "settings": settings, "standardisation": standard, "grid": grid or {}}
    save_model(folder, net, card)
    return folder
