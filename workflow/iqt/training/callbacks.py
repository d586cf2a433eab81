"""What watches a training run: its history, and a loss that runs away."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from iqt.errors import UserError
from iqt.io.files import replacing, write_table

READ_EVERY = 50
"""Steps whose losses are read at once."""
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
        """Since the last row; `Losses` reads them."""
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

    def on_train_batch_end(self, _trainer, _task, _outputs: dict, _batch, _index: int) -> None:
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


class Checkpoint(ModelCheckpoint):
    """The state after the last validation, or with `monitor` after that with the largest figure, of those that count
    (`Task.first_kept`)."""

    def __init__(self, folder: Path, name: str, monitor: str | None = None) -> None:
        super().__init__(folder, name, monitor, mode="max", save_on_train_epoch_end=True, enable_version_counter=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, task: Any) -> None:
        if self.monitor is None or trainer.global_step > task.first_kept:
            super().on_train_epoch_end(trainer, task)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Also where the run's folder has been moved, or is mounted elsewhere: Lightning would forget the best figure,
        and take the first one after that for the best."""

        def here(path: str) -> str:
            return str(Path(self.dirpath) / Path(path).name) if path else path

        moved = {name: here(state[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {here(path): score for path, score in state["best_k_models"].items()}
        super().load_state_dict({**state, **moved, "best_k_models": best, "dirpath": self.dirpath})


class Patience(EarlyStopping):
    """Ends a training whose figure has not grown for so many of the validations that count (`Task.first_kept`)."""

    def __init__(self, monitor: str, patience: int) -> None:
        super().__init__(monitor, patience=patience, mode="max", check_finite=False, check_on_train_epoch_end=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, task: Any) -> None:
        if trainer.global_step > task.first_kept:
            super().on_train_epoch_end(trainer, task)


class LossGuard:
    """Stops a training whose loss is not finite or diverges; what it compares travels with a checkpoint. It starts anew
    where the task's loss changes its meaning (`Task.phase`)."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.last: list[float] = []
        self.phase = 0

    def look(self, loss: float, step: int, rate: float, phase: int) -> None:
        """UserError where the loss of a step, at a learning rate, shows that the training goes wrong."""
        if not math.isfinite(loss):
            raise UserError(
                f"the training loss is {loss} at step {step} with learning rate {rate:.2g}; "
                "lower training.learning_rate or training.gradient_clip"
            )
        if phase != self.phase:
            self.first, self.last, self.phase = [], [], phase
        if len(self.first) < WINDOW:
            self.first.append(loss)
            return
        self.last = [*self.last, loss][-WINDOW:]
        before, now = sum(self.first) / WINDOW, sum(self.last) / WINDOW
        if len(self.last) == WINDOW and now > DIVERGED * before:
            raise UserError(
                f"the training diverges: the mean loss of the last {WINDOW} steps is {now:.4g} at step {step} with "
                f"learning rate {rate:.2g}, but was {before:.4g} at first; lower training.learning_rate or "
                "training.gradient_clip"
            )


class Losses(pl.Callback):
    """Reads the losses of the last steps all at once, since every reading makes a GPU wait: for the history, for
    TensorBoard, and for the guard, whose state a checkpoint carries."""

    def __init__(self, history: History) -> None:
        self.history, self.guard = history, LossGuard()
        self.unread: list[tuple[Tensor, int, float, int]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, task: Any, outputs: dict, _batch, _index: int) -> None:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.unread.append((outputs["loss"].detach(), trainer.global_step - 1, rate, task.phase))
        if len(self.unread) >= READ_EVERY:
            self._read(trainer)

    def on_validation_start(self, trainer: pl.Trainer, _task: pl.LightningModule) -> None:
        self._read(trainer)

    def _read(self, trainer: pl.Trainer) -> None:
        unread, self.unread = self.unread, []
        if not unread:
            return
        values = torch.stack([loss for loss, *_ in unread]).tolist()
        for value, (_, step, rate, phase) in zip(values, unread, strict=True):
            self.guard.look(value, step, rate, phase)
        self.history.losses += values
        trainer.logger.log_metrics({"train_loss": values[-1]}, unread[-1][1])

    def state_dict(self) -> dict:
        return dict(vars(self.guard))

    def load_state_dict(self, state: dict) -> None:
        vars(self.guard).update(state)


class Averages(EMAWeightAveraging):
    """The moving average of the weights, in a few operations over all of them at once. Lightning's own asks the GPU for
    the number of updates at every step, and then works tensor by tensor."""

    def __init__(self, device: torch.device, decay: float) -> None:
        super().__init__(device=device, decay=decay)
        self.decay = decay

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, task: pl.LightningModule, _outputs: dict, _batch: Any, _index: int
    ) -> None:
        if trainer.global_step <= self._latest_update_step:
            return
        self._latest_update_step = trainer.global_step
        module = self._average_model.module
        averages, weights = ([*each.parameters(), *each.buffers()] for each in (module, task))
        smooth = []
        for average, weight in zip(averages, weights, strict=True):
            # The first weights are the average themselves, and so are counts at any time.
            if trainer.global_step == 1 or not average.is_floating_point():
                average.copy_(weight)
            else:
                smooth.append((average, weight))
        if smooth:
            torch._foreach_lerp_(*map(list, zip(*smooth, strict=True)), 1 - self.decay)
        self._average_model.n_averaged += 1
