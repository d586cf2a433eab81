"""What the ways that `bench` counts give: PSNR of a trained network on the test people of its run, whole volumes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iqt.bench.authors import SAMPLING, STEPS, enhance_as_authors
from iqt.config.diffusion import Sampling
from iqt.enhance.models import Enhancer
from iqt.enhance.run import MARGIN
from iqt.errors import UserError
from iqt.evaluate.similarity import masked_psnr
from iqt.io.files import read_json, read_table
from iqt.io.naming import anat, seed_of
from iqt.io.volumes import bounding_box, intensity_scale, read_on_grid, read_volume


class Quality(NamedTuple):
    """One way on one person: PSNR (dB) in the brain, seconds of the whole volume, network calls on a voxel."""

    name: str
    scan: str
    psnr: float
    seconds: float
    calls: int


def measure_quality(run: Path, model: Path, recommended: Sampling, suffix: str, precision: str) -> list[Quality]:
    """PSNR and seconds of each way on the test people of a finished run.

    Args:
        run: folder of the run.
        model: folder of a diffusion model that was trained in it.
        recommended: how we recommend to sample it.

    Raises:
        UserError: the run has no test person with usable volumes.
    """
    samplings = {
        "ours, equal steps": SAMPLING,
        "ours, recommended": recommended,
        "ours, recommended, mean of 4": recommended.model_copy(update={"samples": 4}),
    }
    ways = {"authors' protocol": (_authors(Enhancer(model, {"sampling": SAMPLING.model_dump()}, "float32")), STEPS)}
    for name, sampling in samplings.items():
        enhancer = Enhancer(model, {"sampling": sampling.model_dump()}, precision)
        ways[name] = (_ours(enhancer), sampling.steps * sampling.samples)
    found = []
    for scan, data, reference, mask in _test_people(run, suffix):
        for name, (enhance, calls) in ways.items():
            began = time.perf_counter()
            result = enhance(data, mask, seed_of(1, "enhance", scan))
            seconds = time.perf_counter() - began
            psnr = masked_psnr(reference, result.numpy(), mask)
            print(f"{scan}, {name}: {psnr:.2f} dB in {seconds:.1f} s", file=sys.stderr, flush=True)
            found.append(Quality(name, scan, psnr, seconds, calls))
    if not found:
        raise UserError(f"{run}: no test person with usable volumes; run it first (make bench-speed does)")
    return found


Way = Callable[[Tensor, np.ndarray, int], Tensor]
"""(low-field volume on its intensity scale, brain mask, seed) to the enhanced volume, all (X, Y, Z)."""


def _authors(enhancer: Enhancer) -> Way:
    standard = enhancer.standard

    def enhance(data: Tensor, mask: np.ndarray, seed: int) -> Tensor:
        inputs = ((data - standard["input_mean"]) / standard["input_sd"]).to(enhancer.device)
        with torch.inference_mode():
            made = enhance_as_authors(enhancer.network, enhancer.method, inputs, mask, seed).cpu()
        made = made * standard["target_sd"] + standard["target_mean"]
        return made + data if enhancer.method.target == "residual" else made

    return enhance


def _ours(enhancer: Enhancer) -> Way:
    def enhance(data: Tensor, mask: np.ndarray, seed: int) -> Tensor:
        box, whole = bounding_box(mask, MARGIN), torch.zeros_like(data)
        whole[box] = enhancer(data[box].contiguous(), seed, torch.from_numpy(mask[box])).mean
        return whole

    return enhance


def _test_people(run: Path, suffix: str) -> Iterator[tuple[str, Tensor, np.ndarray, np.ndarray]]:
    """Name, low-field volume, reference and mask of each, the volumes on their intensity scales."""
    table = run / "cohort" / "participants.tsv"
    for row in read_table(table) if table.exists() else []:
        scan, lowfield = row["scan"], run / "lowfield" / "main"
        record = anat(lowfield, scan, f"{suffix}.json")
        if row["split"] != "test" or not record.exists() or read_json(record)["status"] != "ok":
            continue
        low = read_volume(anat(lowfield, scan, f"space-HQ_{suffix}.nii.gz"))
        high = read_on_grid(anat(run / "cohort", scan, f"{suffix}.nii.gz"), low)
        mask = read_on_grid(anat(run / "cohort", scan, "desc-brain_mask.nii.gz"), low, np.uint8) > 0
        data = torch.from_numpy(low.data * mask / intensity_scale(low.data, mask))
        yield scan, data, high / intensity_scale(high, mask), mask
