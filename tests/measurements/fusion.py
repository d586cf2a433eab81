"""What combining orthogonal stacks of one session brings: registration error, and PSNR before and after enhancing.

    python tests/measurements/fusion.py RUN OUT.md [--split val] [--people 3] [--smooth 0.02 0.05]

RUN is a benchmark's folder of results with cohort and tissues of people of ds002748 (CC0). Each head is scanned three
times, along S, A and R, moved by 2 to 5 mm and 2 to 5 degrees in a random direction before the second and the third.
The reference is the high-quality scan, where the first stack lies.
"""

from __future__ import annotations

import argparse
import datetime
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from scipy.spatial.transform import Rotation

from iqt.compute.devices import machine
from iqt.config import LowField
from iqt.degrade import simulator, tissues
from iqt.degrade.register import center, on_grid
from iqt.enhance.run import enhance_volume, load_method
from iqt.evaluate.similarity import masked_psnr
from iqt.imaging.resample import linear, over_field
from iqt.io.files import read_table, write_text
from iqt.io.naming import anat, seed_of
from iqt.io.shipped import find_model
from iqt.io.volumes import Volume, intensity_scale, read_on_grid, read_volume
from iqt.study import fusion
from iqt.study.fusion import Stack
from iqt.training.checkpoints import load_card

SETS = {
    "5 mm": {"unit": "mm", "thickness": 5.0, "gap": 0, "in_plane": 1.5},
    "64mT": {"preset": "64mT"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=2, help="people at once")
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    parser.add_argument("--smooth", type=float, nargs="*", default=[fusion.SMOOTH])
    parser.add_argument("--iterations", type=int, nargs="*", default=[fusion.ITERATIONS])
    parser.add_argument("--no-enhance", action="store_true")
    given = parser.parse_args()
    rows = read_table(given.run / "cohort/participants.tsv", required=("scan", "split"))
    people = [row["scan"] for row in rows if row["split"] == given.split][: given.people]
    card = load_card(find_model(None, "T1w"))
    tasks = [(given, name, scan) for name in given.sets for scan in people]
    found = []
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        for rows in pool.map(work, tasks):
            found += rows
            print(pd.DataFrame(rows).to_string(), flush=True)
    write_text(given.out, table(pd.DataFrame(found), given, card["name"]))


def work(task: tuple[argparse.Namespace, str, str]) -> list[dict]:
    given, name, scan = task
    torch.set_num_threads(1)
    model = find_model(None, "T1w")
    card = load_card(model)
    enhance = load_method(model, {"kind": card["kind"]}, "auto")
    return [{"set": name, "scan": scan, **row} for row in measure(given, scan, SETS[name], enhance)]


def measure(given: argparse.Namespace, scan: str, settings: dict, enhance) -> list[dict]:
    high = read_volume(anat(given.run / "cohort", scan, "T1w.nii.gz"))
    mask = read_on_grid(anat(given.run / "cohort", scan, "desc-brain_mask.nii.gz"), high, np.uint8) > 0
    maps = {tissue: read_on_grid(path, high) for tissue, path in tissues.probseg(given.run / "tissues", scan).items()}
    middle = center(mask, high.affine)
    rng = np.random.default_rng(seed_of(1, "motion", scan))
    moves, stacks, singles = [], [], {}
    for number, axis in enumerate("SAR"):
        move = np.eye(4) if number == 0 else _motion(rng, middle)
        moves.append(move)
        head = Volume(high.data, move @ high.affine)  # where the head lies now, seen on the scanner's own grid
        now = Volume(on_grid(head, high), high.affine)
        there = on_grid(Volume(mask.astype(np.float32), head.affine), high) >= 0.5
        own = {tissue: linear(Volume(each, head.affine), high).data for tissue, each in maps.items()}
        lowfield = LowField.model_validate({**settings, "axis": axis})
        drawn = simulator.draw(lowfield, 1, scan, number=number + 1)
        thick = simulator.apply(now, own, lowfield, drawn).thick
        inside = on_grid(Volume(there.astype(np.float32), high.affine), thick) >= 0.5
        stacks.append(Stack(axis, Volume(thick.data * inside, thick.affine), inside))
        truth = np.where(there, now.data, 0) / intensity_scale(now.data, there)
        singles[axis] = _scores(stacks[-1].scan, there, truth, high, enhance, given.no_enhance)
    rows = [{"volume": f"single, {axis}", **scores} for axis, scores in singles.items()]
    start = time.monotonic()
    combined = fusion.combine(stacks)
    seconds = time.monotonic() - start
    truth = np.where(mask, high.data, 0) / intensity_scale(high.data, mask)
    points = nib.affines.apply_affine(high.affine, np.argwhere(mask)[::50])
    placed, errors = [stacks[0].scan], []
    for axis, move, stack in zip("AR", moves[1:], stacks[1:], strict=True):
        told = next(one for one in combined.stacks if one["name"] == axis)
        matrix = np.array(told["matrix"])
        apart = nib.affines.apply_affine(matrix, points) - nib.affines.apply_affine(move, points)
        errors.append(float(np.linalg.norm(apart, axis=1).mean()))
        placed.append(Volume(stack.scan.data, np.linalg.inv(matrix) @ stack.scan.affine))
    about = {"error_mm": max(errors), "mean_error_mm": float(np.mean(errors)), "seconds": seconds}
    rows.append(
        {"volume": "combined", **_scores(combined.volume, mask, truth, high, enhance, given.no_enhance), **about}
    )
    boxed = [fusion._brain_alone(stack._replace(scan=volume)) for stack, volume in zip(stacks, placed, strict=True)]
    volumes = [stack.scan for stack in boxed]
    mean = fusion.average(volumes, combined.volume)
    rows.append(
        {
            "volume": "mean of the stacks",
            **_scores(Volume(mean, combined.volume.affine), mask, truth, high, enhance, given.no_enhance),
        }
    )
    for smooth in given.smooth:
        for iterations in given.iterations:
            if (smooth, iterations) == (fusion.SMOOTH, fusion.ITERATIONS):
                continue
            data = fusion.reconstruct(volumes, combined.volume, smooth, iterations)
            scores = _scores(Volume(data, combined.volume.affine), mask, truth, high, enhance, True)
            rows.append({"volume": f"combined, smooth {smooth:g}, {iterations} steps", **scores})
    return rows


def _motion(rng: np.random.Generator, middle: np.ndarray) -> np.ndarray:
    """A rigid motion about the brain's centre, 2 to 5 degrees and 2 to 5 mm."""
    directions = rng.normal(size=(2, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    turn = Rotation.from_rotvec(directions[0] * np.deg2rad(rng.uniform(2, 5))).as_matrix()
    to_middle = nib.affines.from_matvec(np.eye(3), middle)
    return nib.affines.from_matvec(np.eye(3), directions[1] * rng.uniform(2, 5)) @ (
        to_middle @ nib.affines.from_matvec(turn, (0, 0, 0)) @ np.linalg.inv(to_middle)
    )


def _scores(low: Volume, mask: np.ndarray, truth: np.ndarray, high: Volume, enhance, plain: bool) -> dict[str, float]:
    """PSNR of a scan on the high-quality grid, and of what the shipped model makes of it at 1 mm."""
    upsampled = on_grid(low, high)
    scores = {"psnr": masked_psnr(truth, np.where(mask, upsampled, 0) / intensity_scale(upsampled, mask), mask)}
    if not plain:
        scan = over_field(low, (1.0,) * 3)
        inside = on_grid(Volume(mask.astype(np.float32), high.affine), scan) >= 0.5
        result = enhance_volume(enhance, scan.data, inside, 1).mean
        there = on_grid(Volume(result, scan.affine), high)
        scores["psnr_enhanced"] = masked_psnr(truth, np.where(mask, there, 0), mask)
    return scores


def table(rows: pd.DataFrame, given: argparse.Namespace, model: str) -> str:
    where = machine()
    lines = [
        "# Stacks of one session combined\n",
        f"`tests/measurements/fusion.py`, {datetime.date.today()}, {where['cpu']}, {where['threads']} threads. Means "
        f"over {rows['scan'].nunique()} people of ds002748 ({given.split}); PSNR in dB in the brain; enhanced by "
        f"`{model}`; error: mean displacement over the brain of the moved stacks.\n",
        "| acquisition | volume | PSNR | enhanced | error (mm) | largest | seconds |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (name, volume), own in rows.groupby(["set", "volume"], sort=False):
        mean = own.mean(numeric_only=True)
        cells = [
            f"{mean[key]:.2f}" if np.isfinite(mean.get(key, np.nan)) else "–"
            for key in ("psnr", "psnr_enhanced", "mean_error_mm")
        ]
        largest = own["error_mm"].max() if "error_mm" in own else np.nan
        cells.append(f"{largest:.2f}" if np.isfinite(largest) else "–")
        cells.append(f"{mean['seconds']:.0f}" if np.isfinite(mean.get("seconds", np.nan)) else "–")
        lines.append(f"| {name} | {volume} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
