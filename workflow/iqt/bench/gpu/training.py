"""A short training of the full-size network and of a U-Net of its size, for equally many seconds, through the real loop
on a patch store."""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from iqt.bench.gpu.setup import DIFFUSION, REGRESSION, Setup
from iqt.io.files import read_json, read_table
from iqt.training.enhancement import train_model
from iqt.training.patches import RegionDataset
from iqt.training.store import open_store

SHORT, LONG, ENOUGH = 4, 12, 3.0
"""Steps of two trainings, whose difference tells what one takes in the loop; the second is made longer until it takes
so many seconds more than the first."""
VALIDATION_REGIONS = 8
READ = 24
"""Regions that each process reads to tell how fast the store gives them."""
OVERHEAD = 0.75
"""Of the seconds that are left, what is trained; the rest is starting up and validating."""
TOY_SECONDS = 5


def short_trainings(setup: Setup, deadline: float) -> Iterator[dict[str, Any]]:
    """Train both before `deadline` (of `time.monotonic`), the U-Net for as many seconds as the diffusion model took.

    `val_psnr` is their PSNR on validation regions, of the diffusion model in four DDIM steps from pure noise, and
    `val_psnr_first` in one.
    """
    yield {"batch_size": setup.diffusion.training.batch_size}
    pace: dict[str, float] = {}
    for name in (DIFFUSION, REGRESSION):
        _train(setup, name, SHORT)  # what a process does once: the card's context, choosing kernels, imports
        pace[name] = _step_seconds(setup, name)
        yield {f"{name}_step_seconds": pace[name]}
    left = deadline - time.monotonic()
    wanted = TOY_SECONDS if setup.toy else OVERHEAD * left / 2
    found = _trained(setup, DIFFUSION, wanted, pace[DIFFUSION])
    yield {DIFFUSION: found}
    wanted = min(found["seconds"], OVERHEAD * (deadline - time.monotonic()))
    yield {REGRESSION: _trained(setup, REGRESSION, wanted, pace[REGRESSION])}
    yield reading_rate(setup)


def _trained(setup: Setup, name: str, seconds: float, pace: float) -> dict[str, Any]:
    """What came of a training of about so many seconds."""
    card = _train(setup, name, max(LONG, int(seconds / pace)))
    history = read_table(setup.out / "trained" / name / "history.csv")
    return {
        "parameters": card["n_parameters"],
        "steps": card["steps"],
        "seconds": card["seconds"],
        "data_wait": float(history[-1]["data_wait"]),
        "peak_gib": card["gpu_gib"],
        **{key: value for key, value in card["metrics"].items() if key.startswith("val_psnr")},
    }


def _step_seconds(setup: Setup, name: str) -> float:
    """Seconds of a step in the loop, starting up and validating apart."""

    def seconds(steps: int) -> float:
        began = time.perf_counter()
        _train(setup, name, steps)
        return time.perf_counter() - began

    short, steps = seconds(SHORT), LONG
    while (longer := seconds(steps)) - short < ENOUGH:
        steps *= 4
    return (longer - short) / (steps - SHORT)


def _train(setup: Setup, name: str, steps: int) -> dict[str, Any]:
    """The card of a training of so many steps with one validation at its end."""
    settings = setup.trained_by(name)
    settings["training"] = {
        **settings["training"],
        "steps": steps,
        "validate_every": steps,
        "validation_regions": VALIDATION_REGIONS,
        "warmup": min(settings["training"]["warmup"], steps // 5),
        "keep": "last",
    }
    out = setup.out / "trained" / name
    shutil.rmtree(out, ignore_errors=True)
    workers = setup.settings.methods[name].training.workers
    train_model(settings, setup.participants, setup.store, out, 1, "auto", name, workers=workers)
    gc.collect()  # the trainer before holds the average and the optimiser in cycles
    return read_json(out / "model.json")


def reading_rate(setup: Setup) -> dict[str, float]:
    """Training regions a second that the store gives to as many processes as the configuration has, starting them
    apart."""
    method = setup.settings.methods[REGRESSION]
    scans = open_store(setup.store, setup.participants, "train")
    workers, batch = method.training.workers, method.training.batch_size
    regions = RegionDataset(scans, method.patches, READ * max(1, workers), 1, augment=True)
    loader = iter(DataLoader(regions, batch, num_workers=workers, multiprocessing_context="fork" if workers else None))
    for _ in range(max(1, workers)):  # which each process has begun before the clock starts
        next(loader)
    began = time.perf_counter()
    count = sum(len(each["index"]) for each in loader)
    return {"regions_a_second": count / (time.perf_counter() - began), "workers": workers}
