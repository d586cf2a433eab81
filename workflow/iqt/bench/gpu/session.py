"""All that a first session on a GPU should tell, within minutes: each step in a process of its own with a limit of its
own, so that one that fails, hangs or breaks the card's context costs the others nothing."""

from __future__ import annotations

import datetime
import math
import multiprocessing
import platform
import shutil
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from iqt import __version__
from iqt.bench.gpu.bars import BARS
from iqt.bench.gpu.data import (
    PARTICIPANTS,
    shrink_volume,
    store_of,
    template_store,
    unpack_store,
    write_template_volume,
)
from iqt.bench.gpu.page import write_page
from iqt.bench.gpu.setup import REGRESSION, Setup
from iqt.errors import UserError
from iqt.io.files import read_json, write_json
from iqt.terminal import note
from iqt.training.patches import RegionDataset
from iqt.training.store import open_store

RESULTS, PAGE = "gpu.json", "gpu.md"
LEAST_SECONDS = 15
"""A step with less than this left is not begun, and none is given less."""


class Step(NamedTuple):
    """A part of a session: what it measures, and the share of the minutes that it may take at most; None for what is
    left."""

    name: str
    told: str
    share: float | None


STEPS = (
    Step("machine", "card and versions", 0.06),
    Step("agreement", "GPU against CPU, bfloat16, repeats, resuming", 0.16),
    Step("step", "training steps, eager", 0.14),
    Step("volume", "whole volumes", 0.14),
    Step("compiled", "a training step, compiled", 0.22),
    Step("training", "a short training against a U-Net", None),
)


def run_session(
    out: Path,
    config: Path,
    minutes: float,
    toy: bool,
    volume: Path | None = None,
    run: Path | None = None,
    packed: Path | None = None,
) -> dict[str, Any]:
    """Run every step within `minutes`, write `gpu.json` and `gpu.md` into `out`, and return what the former holds.

    Args:
        config: a configuration with the entries `diffusion_iqt` and `unet`.
        toy: run on whatever device there is, at toy size.
        volume: as `Setup.volume`; the template brain where it is left out.
        run: a finished run, whose scans the short training sees; copies of the template without one.
        packed: scans of a run as `pack_store` wrote them, instead.
    """
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    setup, data = prepare(out, config, toy, volume, run, packed)
    given = {"--check": toy, "--run": run, "--packed": packed, "--volume": volume}
    results: dict[str, Any] = {
        "date": str(datetime.date.today()),
        "iqt": __version__,
        "command": " ".join(
            ["iqt bench gpu", f"--minutes {minutes:g}", *(name for name, value in given.items() if value)]
        ),
        "toy": toy,
        "trained_on": data,
        "steps": {},
    }
    for number, step in enumerate(STEPS, start=1):
        left = 60 * minutes - (time.monotonic() - began)
        limit = left if step.share is None else min(left, max(LEAST_SECONDS, 60 * minutes * step.share))
        note(f"[{number}/{len(STEPS)}] {step.told}, {max(0, limit):.0f} s at most")
        results["steps"][step.name] = run_step(step.name, setup, limit)
        results["seconds"] = round(time.monotonic() - began, 1)
        write_json(out / RESULTS, results)
        write_page(out / PAGE, results)
    return results


def prepare(
    out: Path, config: Path, toy: bool, volume: Path | None, run: Path | None, packed: Path | None
) -> tuple[Setup, str]:
    """The setup of a session, and in words what it trains on."""
    if volume is None:
        volume = out / "volume.npz"
        write_template_volume(volume)
    if toy:
        shrink_volume(volume, out / "toy-volume.npz")
        volume = out / "toy-volume.npz"
    told = "real scans"
    if packed is not None:
        store = unpack_store(packed, out / "store")
        participants = store / PARTICIPANTS
    elif run is not None:
        store, participants = store_of(run)
    else:
        told = "copies of the template brain with noise, which tell speed and no quality"
        store = template_store(volume, out / "template")
        participants = store / PARTICIPANTS
    setup = Setup(*(path.resolve() for path in (out, config, volume, store, participants)), toy)
    for split in ("train", "val"):  # what only the last step would find
        RegionDataset(open_store(store, participants, split), setup.settings.methods[REGRESSION].patches, 1, 1)
    return setup, told


def run_step(name: str, setup: Setup, seconds: float) -> dict[str, Any]:
    """What a step measured before its end or its limit, with `status` (ok, or what went wrong) and `seconds`."""
    path = setup.out / "steps" / f"{name}.json"
    path.unlink(missing_ok=True)
    if seconds < LEAST_SECONDS:
        return {"status": "not begun: no time was left"}
    began = time.monotonic()
    arguments = (name, setup, path, began + seconds)  # the system's clock, the same for every process
    process = multiprocessing.get_context("spawn").Process(target=_work, args=arguments)
    process.start()
    process.join(seconds)
    status = "ok"
    if process.is_alive():
        status = f"stopped after {seconds:.0f} s"
        process.kill()
        process.join()
    elif process.exitcode:
        status = f"ended with exit status {process.exitcode}"
    measured = read_json(path) if path.exists() else {}
    return {"status": status, **measured, "seconds": round(time.monotonic() - began, 1)}


def _work(name: str, setup: Setup, path: Path, deadline: float) -> None:
    """Run a step in this process, and write what it has measured whenever there is more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    measured: dict[str, Any] = {}
    try:
        for part in WORK[name](setup, deadline):
            measured |= finite(part)
            write_json(path, measured)
    except Exception as error:
        if not isinstance(error, UserError):
            traceback.print_exc()
        told = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        write_json(path, {**measured, "status": told})


def finite(values: Any) -> Any:
    """The same with None for numbers that are not finite, which JSON has no name for."""
    if isinstance(values, dict):
        return {key: finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _machine(setup: Setup, _deadline: float) -> Iterator[dict[str, Any]]:
    import torch

    yield {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in ("torch", "numpy", "lightning", "triton", "monai", "pydantic")},
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "cpus": multiprocessing.cpu_count(),
    }
    from iqt.compute.devices import best_device, machine, use_bfloat16

    device = best_device()
    yield {**machine(), "device": device.type, "precision": "bfloat16" if use_bfloat16("auto", device) else "float32"}
    if device.type != "cuda" and not setup.toy:
        raise UserError(f"torch {torch.__version__} sees no GPU; install a build for CUDA that the driver supports")
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        yield {"gpu_gib": card.total_memory / 2**30, "capability": f"{card.major}.{card.minor}"}
    if shutil.which("nvidia-smi"):
        asked = "driver_version,clocks.sm,clocks.mem,power.limit,persistence_mode"
        command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
        yield {"nvidia_smi": subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _agreement(setup: Setup, _deadline: float) -> Iterator[dict[str, Any]]:
    from iqt.bench.gpu.agreement import agreement

    yield from agreement(setup)


def _step(setup: Setup, _deadline: float) -> Iterator[dict[str, Any]]:
    from iqt.bench.gpu.speed import step_times

    yield from step_times(setup)


def _compiled(setup: Setup, _deadline: float) -> Iterator[dict[str, Any]]:
    from iqt.bench.gpu.speed import compiled_step

    yield from compiled_step(setup)


def _volume(setup: Setup, _deadline: float) -> Iterator[dict[str, Any]]:
    from iqt.bench.gpu.speed import volume_times

    yield from volume_times(setup)


def _training(setup: Setup, deadline: float) -> Iterator[dict[str, Any]]:
    from iqt.bench.gpu.training import short_trainings

    yield from short_trainings(setup, deadline)


WORK: dict[str, Callable[[Setup, float], Iterator[dict[str, Any]]]] = {
    "machine": _machine,
    "agreement": _agreement,
    "step": _step,
    "volume": _volume,
    "compiled": _compiled,
    "training": _training,
}


def require_gpu() -> None:
    """UserError where torch can use no GPU."""
    import torch

    from iqt.compute.gpus import visible_gpus

    if not torch.cuda.is_available():
        why = "torch cannot use the GPU that is there" if visible_gpus() else "no GPU is visible here"
        raise UserError(f"{why}; --check runs everything at toy size on the CPU")


def problems(results: dict[str, Any]) -> list[str]:
    """What went wrong in a session, which figures are outside their bars or missing, and which steps had no time."""
    states = {name: step["status"] for name, step in results["steps"].items()}
    faults = ("failed", "ended", "not begun")
    found = [f"{name}: {state}" for name, state in states.items() if state.startswith(faults)]
    for name, step in results["steps"].items():
        found += [f"{name}: {row['batch']} regions: {row['failed']}" for row in step.get("rows", []) if "failed" in row]
    measured = results["steps"].get("agreement", {})
    for name, bar in BARS.items():
        if name not in measured:
            found.append(f"not measured: {bar.told}")
        elif not bar.met(measured[name]):
            shown = "not finite" if measured[name] is None else f"{measured[name]:.3g}"
            found.append(f"{bar.told}: {shown}, and {bar.limit:g} is the bar")
    return found
