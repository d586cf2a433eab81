"""The one fit loop: every network of the project is trained through it, with Lightning."""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
import signal
import sys
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from iqt.compute.devices import best_device, training_guard, use_bfloat16
from iqt.compute.free import out_of_memory
from iqt.compute.gpus import claim_gpus
from iqt.config import Training
from iqt.errors import MemoryShortError, UserError
from iqt.io.files import read_json, write_json
from iqt.io.naming import seed_of
from iqt.terminal import note
from iqt.training.callbacks import AtomicCheckpointIO, Averages, Checkpoint, History, Losses, Patience


class Task(pl.LightningModule):
    """What a network is trained for. Subclasses set `network` and say what the loss and the validation are.

    Random numbers come from `rand` and `randn_like`. Each item of a batch that has an `index` draws its own, from the
    run's seed and that index, so that a resumed run draws what an uninterrupted one would have drawn, and several
    processes what a single one would.
    """

    network: nn.Module
    monitor: str
    """The validation figure that is best when it is largest."""
    smaller = "lower training.batch_size or patches.grid, or share each batch out with compute.gpus"
    """What needs less memory."""
    phase = 0
    """Changes where the loss changes its meaning, so that losses before and after are not compared."""

    @property
    def first_kept(self) -> int:
        """Steps after which weights may be the best ones, and after which training may stop early."""
        return 0

    def loss(self, batch: dict) -> Tensor:
        """The training loss of a batch."""
        raise NotImplementedError

    def validate(self, batch: dict) -> dict[str, Tensor]:
        """Metrics of a validation batch by name; `val_loss` and `monitor` are among them."""
        raise NotImplementedError

    def parts(self) -> list[nn.Module]:
        """Modules that are optimised, each with a gradient norm of its own."""
        return [self.network]

    def rand(self) -> Tensor:
        """(B,) numbers uniform in [0, 1)."""
        return torch.stack([torch.rand((), generator=each, device=self.device) for each in self._generators])

    def randn_like(self, values: Tensor) -> Tensor:
        """Standard normal numbers of the shape of `values` (B, ...)."""
        shape, device = values.shape[1:], self.device
        return torch.stack([torch.randn(shape, generator=each, device=device) for each in self._generators])

    def prepare(self, settings: Training, seed: int) -> None:
        """Set what `fit` trains with."""
        self.settings, self.seed = settings, seed

    def training_step(self, batch: dict, _index: int) -> Tensor:
        self._seed_items("train", batch)
        return self.loss(batch)

    def transfer_batch_to_device(self, batch: dict, device: torch.device, dataloader_idx: int) -> dict:
        """All but the items' indices, which seed random numbers: reading them would make a GPU wait."""
        index = {"index": batch["index"]} if "index" in batch else {}
        rest = {name: values for name, values in batch.items() if name != "index"}
        return super().transfer_batch_to_device(rest, device, dataloader_idx) | index

    def validation_step(self, batch: dict, _index: int) -> None:
        self._seed_items("validation", batch)
        for name, value in self.validate(batch).items():
            self.log(name, value, on_step=False, on_epoch=True, batch_size=len(next(iter(batch.values()))))

    def configure_optimizers(self) -> dict:
        settings = self.settings
        optimizer = torch.optim.AdamW(
            [{"params": list(part.parameters())} for part in self.parts()],
            settings.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=settings.weight_decay,
            fused=self.device.type == "cuda",
        )

        warmup = min(settings.warmup, settings.steps // 4)

        def factor(step: int) -> float:
            rise = min(1.0, (step + 1) / max(1, warmup))
            done = min(1.0, max(0, step - warmup) / max(1, settings.steps - warmup))
            return rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], gradient_clip_val)

    def _seed_items(self, purpose: str, batch: dict) -> None:
        self._generators = [
            torch.Generator(self.device).manual_seed(seed_of(self.seed, purpose, index))
            for index in batch.get("index", torch.empty(0)).tolist()
        ]


def fit(
    task: Task,
    train: Dataset,
    val: Dataset,
    settings: Training,
    out: Path,
    seed: int,
    precision: str,
    identity: dict,
    devices: int = 1,
) -> dict | None:
    """Train `task.network`, which afterwards holds the averaged weights that `settings.keep` names; returns the figures
    of their validation, or None in a process that is not the first of several.

    Item i of `train` is the i-th item of the whole run, and a batch is `settings.batch_size` items whatever the number
    of `devices`, so that a run on several gives the results of a run on one (but for ESRGAN's means over a batch, and
    on CPUs the U-Net's batch statistics, which are a share's own); the training loss that is told is that of the first
    one's share. `out` gets `history.csv`, `tensorboard/`, and `checkpoints/` with the state by which the same call goes
    on. That state outlives the call, so that nothing is lost before the caller has saved the weights and called
    `clear_state`. `identity` is what the state depends on.

    Raises:
        UserError: the state in `out` belongs to another configuration, the batch cannot be shared out, the loss is not
            finite or diverges, or memory runs out.
        KeyboardInterrupt: on Ctrl-C, once Lightning has ended its processes.
        SystemExit: with 143, as a shell calls an end by SIGTERM.
    """
    claim_gpus(devices)  # all of them: `best_device` alone would claim one
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if torch.cuda.is_available() and torch.cuda.device_count() < devices:
        raise UserError(f"compute.gpus {devices}: this job has {torch.cuda.device_count()}; lower it")
    if settings.batch_size % devices:
        raise UserError(f"training.batch_size {settings.batch_size} is not a multiple of compute.gpus {devices}")
    out.mkdir(parents=True, exist_ok=True)
    folder = _state(out)
    last = folder / "last.ckpt"
    bfloat16 = use_bfloat16(precision, best_device())
    _check_identity(folder / "identity.json", {**identity, "bfloat16": bfloat16}, last)
    pl.seed_everything(seed_of(seed, "fit") % 2**32, verbose=False)
    task.prepare(settings, seed)
    if settings.compile:
        task.network.compile()
    # Lightning's advertisements and notes on its own internals would bury the progress.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")

    trainer, history = _trainer(task, settings, out, bfloat16, devices)
    # An epoch lasts from one validation to the next, so that a checkpoint never falls inside one.
    loader = DataLoader(
        train,
        batch_size=settings.batch_size // devices,
        sampler=RunSampler(trainer, settings.validate_every, settings.batch_size),
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
        # Workers that are forked share the memory maps; any other way would copy every volume into each of them.
        multiprocessing_context="fork" if settings.workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    validation = DataLoader(val, batch_size=max(1, settings.batch_size // devices))
    with training_guard(bfloat16, best_device()), _ended(trainer, task, last):
        trainer.fit(task, loader, validation, ckpt_path=last if last.exists() else None)
    if not trainer.is_global_zero:
        return None
    # Also where nothing was left to train: Snakemake removes its outputs before it runs a job again.
    history.write()
    # A checkpoint's weights are the averaged ones, also where there was nothing left to train.
    state = torch.load(folder / f"{settings.keep}.ckpt", map_location="cpu", weights_only=True)
    task.load_state_dict(state["state_dict"])
    kept = state["global_step"]
    row = next(row for row in history.rows if row["step"] == kept)
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    return {
        "steps": trainer.global_step,
        "kept_step": kept,
        "seconds": history.seconds,
        "bfloat16": bfloat16,
        "gpu_gib": peak,
        "row": row,
    }


@contextmanager
def _ended(trainer: pl.Trainer, task: Task, last: Path) -> Iterator[None]:
    """Says how a training ended, where Lightning does not: it leaves with status 0 on SIGTERM and 1 on Ctrl-C."""
    try:
        yield
    except SystemExit:
        if not trainer.is_global_zero:
            raise  # with another status Lightning would kill the first process at its end
        done = f"the same command goes on from step {_reached(last)}" if last.exists() else "no checkpoint yet"
        note(f"the training was interrupted at step {trainer.global_step}; {done}")
        if trainer.received_sigterm:
            sys.exit(128 + signal.SIGTERM)
        raise KeyboardInterrupt from None
    except (MemoryError, RuntimeError) as error:
        if trainer.received_sigterm:  # which also went to the processes that read, before Lightning looked
            sys.exit(128 + signal.SIGTERM)
        if not out_of_memory(error) and "killed by signal: Killed" not in str(error):
            raise
        raise MemoryShortError(
            f"memory ran out in training ({' '.join(str(error).split())[:200]}); {task.smaller}, or give the job more "
            "(mem_mb)"
        ) from None


def _reached(checkpoint: Path) -> int:
    return torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"]


def clear_state(out: Path) -> None:
    """Remove what an interrupted training would go on from, once its weights are saved."""
    # Nothing goes on from a state without its last checkpoint, so a kill amid this leaves none that is half there.
    (_state(out) / "last.ckpt").unlink()
    shutil.rmtree(_state(out))


def summary(result: dict) -> dict:
    """What `fit` returned, as a model's card holds it."""
    metrics = {name: value for name, value in result["row"].items() if name.endswith("_loss") or "val_" in name}
    facts = {name: result[name] for name in ("steps", "kept_step", "bfloat16", "gpu_gib")}
    return {**facts, "seconds": round(result["seconds"], 1), "metrics": metrics}


def _state(out: Path) -> Path:
    return out / "checkpoints"


def _trainer(task: Task, settings: Training, out: Path, bfloat16: bool, devices: int) -> tuple[pl.Trainer, History]:
    gpu, terminal = best_device().type == "cuda", sys.stderr.isatty()
    history = History(out / "history.csv", settings.steps)
    callbacks = [
        # On the network's device: it would otherwise average on the CPU, where the network still is at that point.
        Averages(device=best_device(), decay=settings.ema_decay),
        Losses(history),
        history,
        LearningRateMonitor("step"),
        # After the history, whose rows a checkpoint carries, and the best before the last, which carries its score.
        Checkpoint(_state(out), "best", task.monitor),
        Checkpoint(_state(out), "last"),
    ]
    if settings.patience:
        callbacks.insert(0, Patience(task.monitor, settings.patience))
    if terminal:
        callbacks.insert(0, TQDMProgressBar())
    trainer = pl.Trainer(
        max_steps=settings.steps,
        accelerator="gpu" if gpu else "cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        # One node, whose processes Lightning starts itself: inside a Slurm job it would count Slurm's tasks instead.
        plugins=[LightningEnvironment(), AtomicCheckpointIO()],
        sync_batchnorm=gpu and devices > 1,
        precision="bf16-mixed" if bfloat16 else "32-true",
        # On a CPU everything repeats to the bit anyway.
        deterministic="warn" if gpu and settings.deterministic else None,
        gradient_clip_val=settings.gradient_clip,
        callbacks=callbacks,
        enable_progress_bar=terminal,
        enable_model_summary=False,
        logger=TensorBoardLogger(out, name=None, version="tensorboard", default_hp_metric=False),
        log_every_n_steps=min(50, settings.validate_every),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=out,
    )
    return trainer, history


class RunSampler(Sampler[int]):
    """Items of the whole run in order, one validation interval per epoch, from the step that training has reached; of
    several processes each takes its equal share of every batch.

    The step is asked for, not the epoch, since after a resume the epoch's number is Lightning's affair.
    """

    def __init__(self, trainer: pl.Trainer, validation_interval: int, batch_size: int) -> None:
        self.trainer, self.validation_interval, self.batch_size = trainer, validation_interval, batch_size

    def __iter__(self) -> Iterator[int]:
        start = self.trainer.global_step * self.batch_size
        first, each = self.trainer.global_rank, self.trainer.world_size
        return iter(range(start + first, start + self.validation_interval * self.batch_size, each))

    def __len__(self) -> int:
        return self.validation_interval * self.batch_size // self.trainer.world_size


def digest_of(arrays: Iterable[np.ndarray]) -> str:
    """For the identity of a training: by which it notices, resumed, that it would read other data."""
    digest = hashlib.sha256()
    for values in arrays:
        digest.update(repr(values.shape).encode() + np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _check_identity(path: Path, identity: dict, last: Path) -> None:
    if last.exists():
        if not zipfile.is_zipfile(last):  # which is what torch writes; a part of one is none
            raise UserError(f"{last}: damaged; delete {path.parent} to start afresh")
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
