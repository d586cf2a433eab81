"""A short training of the full-size network and of a U-Net of its size, for equally many seconds, through the real loop
on a real store."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from iqt.bench.gpu.setup import DIFFUSION, REGRESSION, Setup
from iqt.io.files import read_json
from iqt.methods import parse_method
from iqt.training.enhancement import train_model
from iqt.training.patches import RegionDataset
from iqt.training.store import open_store

SHORT, LONG, ENOUGH = 4, 12, 3.0
"""Steps of two trainings, whose difference tells what one takes in the loop; the second is made longer until it takes
so many seconds more than the first."""
VALIDATION_REGIONS = 8
READ = 24
"""Regions that are read to tell how fast the store gives them."""
TOY_SECONDS = 5
OVERHEAD = 0.8
"""Of the seconds that are left, what is trained; the rest is starting up and validating."""


def short_trainings(setup: Setup, seconds: float) -> Iterator[dict[str, Any]]:
    """Train both within `seconds` in all, each for as many steps as fill its half, and give their PSNR on the
    validation regions: of the diffusion model in four DDIM steps from pure noise (`val_psnr`) and in one
    (`val_psnr_first`)."""
    deadline = time.monotonic() + seconds
    yield {"regions_a_second": reading_rate(setup), "batch_size": setup.diffusion.training.batch_size}
    pace: dict[str, float] = {}
    for name in (DIFFUSION, REGRESSION):
        pace[name] = _step_seconds(setup, name)
        yield {f"{name}_step_seconds": pace[name]}
    each = min(OVERHEAD * max(0.0, deadline - time.monotonic()) / 2, TOY_SECONDS if setup.toy else math.inf)
    for name, step in pace.items():
        card = _train(setup, name, max(LONG, int(each / step)))
        yield {
            name: {
                "parameters": card["n_parameters"],
                "steps": card["steps"],
                "seconds": card["seconds"],
                **{key: value for key, value in card["metrics"].items() if key.startswith("val_psnr")},
                "peak_gib": card["gpu_gib"],
            }
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
    """The card of a training of so many steps."""
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
    train_model(settings, setup.participants, setup.store, out, 1, "auto", name)
    return read_json(out / "model.json")


def reading_rate(setup: Setup) -> float:
    """Training regions a second that the store gives to as many processes as the configuration has."""
    method = parse_method(setup.trained_by(REGRESSION))
    scans = open_store(setup.store, setup.participants, "train")
    workers = method.training.workers
    regions = RegionDataset(scans, method.patches, READ * max(1, workers), 1, augment=True)
    began = time.perf_counter()
    for _ in DataLoader(regions, method.training.batch_size, num_workers=workers):
        pass
    return len(regions) / (time.perf_counter() - began)
