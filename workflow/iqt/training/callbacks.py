"""What watches a training run: its history, and a loss that runs away."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.plugins.io import TorchCheckpointIO

from iqt.errors import UserError
from iqt.io.files import replacing, write_table

WINDOW = 20
"""Steps over which losses are averaged before they are compared."""
DIVERGED = 10.0
"""A mean loss this many times the first one is no noise: a network that learns nothing stays at the first."""


class History(pl.Callback):
    """A row a validation, written to history.csv: step, seconds of training, learning rate, mean training loss since
    the last, share of the time spent waiting for data, and the validation's figures. A checkpoint carries the rows."""

    def __init__(self, path: Path, steps: int) -> None:
        self.path, self.steps = path, steps
        self.rows: list[dict] = []
        self.losses: list[float] = []
        self.seconds = 0.0

    def on_train_start(self, trainer: pl.Trainer, _task: pl.LightningModule) -> None:
        self.before, self.since = self.seconds, time.monotonic()
        if trainer.global_step and trainer.is_global_zero:
            print(f"resumed at step {trainer.global_step}/{self.steps}", file=sys.stderr, flush=True)

    def on_train_epoch_start(self, _trainer, _task) -> None:
        self.began = self.ended = time.monotonic()
        self.waited = 0.0

    def on_train_batch_start(self, _trainer, _task, _batch, _index: int) -> None:
        self.waited += time.monotonic() - self.ended

    def on_train_batch_end(self, _trainer, _task, outputs: dict, _batch, _index: int) -> None:
        self.losses.append(float(outputs["loss"]))
        self.ended = time.monotonic()

    def on_validation_epoch_end(self, trainer: pl.Trainer, _task: pl.LightningModule) -> None:
        self.seconds = self.before + time.monotonic() - self.since
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val_")}
        row = {
            "step": trainer.global_step,
            "seconds": round(self.seconds, 1),
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "train_loss": sum(self.losses) / max(1, len(self.losses)),
            "data_wait": round(self.waited / max(1e-9, self.ended - self.began), 4),
            **values,
        }
        self.rows.append(row)
        self.losses = []
        if not trainer.is_global_zero:
            return
        self.write()
        wrong = [name for name, value in values.items() if not math.isfinite(value)]
        if wrong:  # before a checkpoint is written, which nothing could go on from
            raise UserError(
                f"{', '.join(wrong)} of the validation is not finite at step {row['step']} with learning rate "
                f"{row['learning_rate']:.2g}; lower training.learning_rate or training.gradient_clip"
            )
        left = self.seconds / trainer.global_step * (self.steps - trainer.global_step)
        figures = ", ".join(
            f"{name} {value:.4g}" for name, value in row.items() if name.endswith("loss") or name in values
        )
        print(f"step {row['step']}/{self.steps}: {figures}; {left:.0f} s left", file=sys.stderr, flush=True)

    def write(self) -> None:
        """Write the rows so far."""
        write_table(self.path, self.rows)

    def state_dict(self) -> dict:
        return {"rows": self.rows, "seconds": self.seconds}

    def load_state_dict(self, state: dict) -> None:
        self.rows, self.seconds = state["rows"], state["seconds"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it. Lightning's own way writes to the system's temporary folder,
    from where a move to another file system is a copy that a kill leaves half done."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        with replacing(path) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)


class LossGuard(pl.Callback):
    """Stops a training whose loss diverges; what it compares travels with a checkpoint. It starts anew where the task's
    loss changes its meaning (`Task.phase`)."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.last: list[float] = []
        self.phase = 0

    def on_train_batch_end(self, trainer: pl.Trainer, task: Any, outputs: dict, _batch, _index: int) -> None:
        loss = float(outputs["loss"])
        if task.phase != self.phase:
            self.first, self.last, self.phase = [], [], task.phase
        if len(self.first) < WINDOW:
            self.first.append(loss)
            return
        self.last = [*self.last, loss][-WINDOW:]
        before, now = sum(self.first) / WINDOW, sum(self.last) / WINDOW
        if len(self.last) == WINDOW and now > DIVERGED * before:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            raise UserError(
                f"the training diverges: the mean loss of the last {WINDOW} steps is {now:.4g} at step "
                f"{trainer.global_step} with learning rate {rate:.2g}, but was {before:.4g} at first; lower "
                "training.learning_rate or training.gradient_clip"
            )

    def state_dict(self) -> dict:
        return {"first": self.first, "last": self.last, "phase": self.phase}

    def load_state_dict(self, state: dict) -> None:
        self.first, self.last, self.phase = state["first"], state["last"], state["phase"]
