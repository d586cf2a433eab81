"""The one fit loop: every network of the project is trained through it, with Lightning."""

from __future__ import annotations

import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from iqt.config import Training
from iqt.devices import best_device, use_bfloat16
from iqt.errors import UserError
from iqt.files import read_json, write_json, write_table
from iqt.naming import seed_of
from iqt.training.checkpoint_io import AtomicCheckpointIO


class Task(pl.LightningModule):
    """What a network is trained for. Subclasses set `network` and say what the loss and the validation are.

    Random numbers come from `self.noise`, seeded by the run's seed and the step, so that a resumed run draws what an
    uninterrupted one would have drawn.
    """

    network: nn.Module

    def loss(self, batch: dict) -> Tensor:
        """The training loss of a batch."""
        raise NotImplementedError

    def validate(self, batch: dict) -> dict[str, Tensor]:
        """Metrics of a validation batch by name; `val_loss` is one of them."""
        raise NotImplementedError

    def prepare(self, settings: Training, seed: int) -> None:
        self.settings, self.seed = settings, seed

    def training_step(self, batch: dict, _index: int) -> Tensor:
        self.noise = self._generator("train", self.global_step)
        loss = self.loss(batch)
        if not torch.isfinite(loss):
            rate = self.optimizers().param_groups[0]["lr"]
            raise UserError(
                f"the training loss is {loss.item()} at step {self.global_step} with learning rate {rate:.2g}; "
                "lower training.learning_rate or training.gradient_clip"
            )
        return loss

    def validation_step(self, batch: dict, index: int) -> None:
        self.noise = self._generator("validation", index)
        for name, value in self.validate(batch).items():
            self.log(name, value, on_step=False, on_epoch=True, batch_size=len(next(iter(batch.values()))))

    def configure_optimizers(self) -> dict:
        settings = self.settings
        optimizer = torch.optim.AdamW(
            self.parameters(), settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay
        )

        def factor(step: int) -> float:
            rise = min(1.0, (step + 1) / max(1, settings.warmup))
            done = min(1.0, max(0, step - settings.warmup) / max(1, settings.steps - settings.warmup))
            return rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _generator(self, purpose: str, index: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(seed_of(self.seed, purpose, index))


def fit(
    task: Task,
    train: Dataset,
    val: Dataset,
    settings: Training,
    out: Path,
    seed: int,
    precision: str,
    identity: dict,
) -> dict:
    """Train `task.network`, which afterwards holds the averaged weights; returns the last validation's figures.

    Item i of `train` is the i-th item of the whole run. `out` gets `history.csv`, and `checkpoints/` while training is
    under way: the same call goes on from there. `identity` is what the state depends on.

    Raises:
        UserError: the state in `out` belongs to another configuration, or the loss is not finite.
    """
    out.mkdir(parents=True, exist_ok=True)
    folder = out / "checkpoints"
    last = folder / "last.ckpt"
    _check_identity(folder / "identity.json", identity, last)
    pl.seed_everything(seed_of(seed, "fit") % 2**32, verbose=False)
    task.prepare(settings, seed)
    # Lightning's advertisements and notes on its own internals would bury the progress.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")

    history = History(out / "history.csv", settings.steps)
    trainer = pl.Trainer(
        max_steps=settings.steps,
        accelerator="auto",
        devices=1,
        precision="bf16-mixed" if use_bfloat16(precision, best_device()) else "32-true",
        gradient_clip_val=settings.gradient_clip,
        callbacks=[
            EMAWeightAveraging(decay=settings.ema_decay),
            history,
            # After the history, whose rows a checkpoint carries.
            ModelCheckpoint(folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False),
            *([TQDMProgressBar()] if sys.stderr.isatty() else []),
        ],
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
        plugins=[AtomicCheckpointIO()],
        logger=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=out,
    )
    # An epoch is the stretch between two validations, so that a checkpoint never falls inside one.
    loader = DataLoader(
        train,
        batch_size=settings.batch_size,
        sampler=RunSampler(lambda: trainer.global_step, settings.validate_every, settings.batch_size),
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
    )
    validation = DataLoader(val, batch_size=settings.batch_size)
    trainer.fit(task, loader, validation, ckpt_path=last if last.exists() else None)
    if trainer.interrupted:
        raise KeyboardInterrupt
    for path in (last, folder / "identity.json"):
        path.unlink(missing_ok=True)
    folder.rmdir()
    return {"steps": trainer.global_step, **history.rows[-1]}


def summary(result: dict) -> dict:
    """What `fit` returned, as a model's card holds it: `steps`, `seconds` and the last `metrics`."""
    steps, seconds = result["steps"], result["seconds"]
    metrics = {key: value for key, value in result.items() if key not in ("step", "steps", "seconds")}
    return {"steps": steps, "seconds": seconds, "metrics": metrics}


class RunSampler(Sampler[int]):
    """Items of the whole run in order, one stretch an epoch, from the step that training has reached.

    The step is asked for, not the epoch, since after a resume the epoch's number is Lightning's affair.
    """

    def __init__(self, step: Callable[[], int], stretch: int, batch_size: int) -> None:
        self.step, self.stretch, self.batch_size = step, stretch, batch_size

    def __iter__(self) -> Iterator[int]:
        start = self.step() * self.batch_size
        return iter(range(start, start + len(self)))

    def __len__(self) -> int:
        return self.stretch * self.batch_size


class History(pl.Callback):
    """A row a validation: step, seconds of training, learning rate, mean training loss since the last, validation."""

    def __init__(self, path: Path, steps: int) -> None:
        self.path, self.steps = path, steps
        self.rows: list[dict] = []
        self.losses: list[float] = []
        self.seconds = 0.0

    def on_train_start(self, trainer: pl.Trainer, _task: pl.LightningModule) -> None:
        self.before, self.since = self.seconds, time.monotonic()
        if trainer.global_step:
            print(f"resumed at step {trainer.global_step}/{self.steps}", file=sys.stderr, flush=True)

    def on_train_batch_end(self, _trainer, _task, outputs: dict, _batch, _index: int) -> None:
        self.losses.append(float(outputs["loss"]))

    def on_validation_epoch_end(self, trainer: pl.Trainer, _task: pl.LightningModule) -> None:
        self.seconds = self.before + time.monotonic() - self.since
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val_")}
        row = {
            "step": trainer.global_step,
            "seconds": round(self.seconds, 1),
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "train_loss": sum(self.losses) / max(1, len(self.losses)),
            **values,
        }
        self.rows.append(row)
        self.losses = []
        self.write()
        left = self.seconds / trainer.global_step * (self.steps - trainer.global_step)
        figures = ", ".join(
            f"{name} {value:.4g}" for name, value in row.items() if name.endswith("loss") or name in values
        )
        print(f"step {row['step']}/{self.steps}: {figures}; {left:.0f} s left", file=sys.stderr, flush=True)

    def write(self) -> None:
        write_table(self.path, self.rows)

    def state_dict(self) -> dict:
        return {"rows": self.rows, "seconds": self.seconds}

    def load_state_dict(self, state: dict) -> None:
        self.rows, self.seconds = state["rows"], state["seconds"]


def _check_identity(path: Path, identity: dict, last: Path) -> None:
    if last.exists() and path.exists():
        before = read_json(path)
        changed = sorted(_differences(before, identity))
        if changed:
            raise UserError(
                f"{path.parent}: an unfinished training with other settings lies here (differing: "
                f"{', '.join(changed)}); delete that folder to start afresh, or restore the settings to go on"
            )
    write_json(path, identity)


def _differences(before: dict, after: dict, prefix: str = "") -> set[str]:
    found = set()
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found |= _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.add(f"{prefix}{key}")
    return found
