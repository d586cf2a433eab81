"""Checkpoints that are whole or absent, wherever the temporary folder is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from iqt.files import replacing, sweep


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the checkpoint and renames.

    Lightning's own writes to the system's temporary folder and moves, which is a copy where that is another file
    system: a job killed during the copy would leave half a checkpoint in the place of the last good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        sweep([path])
        with replacing(path) as temporary:
            torch.save(checkpoint, temporary)
