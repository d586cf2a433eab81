"""What a training step costs: convolutions of the same shapes alone, the forward and backward pass, and the real loop.

    make bench-step
    python tests/measurements/step.py OUT.md --precision float32

Convolutions: each of the network's, forward and backward, with its input's shape and layout, and nothing between them.
Pass: forward, loss and backward of one batch that lies in memory. Loop: `fit` with reading (or painting), gradient
clipping, the moving average, logging and the optimiser, as the difference between a longer and a shorter training, so
that starting up does not count. Medians; nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, get_args

import nibabel as nib
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from iqt.bench.passes import convolution_seconds, pass_seconds
from iqt.compute.devices import best_device, machine, use_bfloat16
from iqt.config import Painting, Training, VolumetricNetwork
from iqt.config.section import Precision
from iqt.io.files import write_text
from iqt.io.labels import read_lut
from iqt.io.shipped import table_file
from iqt.methods import parse_method
from iqt.networks.volumetric import build_volumetric
from iqt.parcellate.paint import PaintedVolumes, read_label_map
from iqt.parcellate.train_volumetric import VolumetricTask, volume_loss
from iqt.training.fit import Task, fit
from iqt.training.patches import RegionDataset
from iqt.training.store import StoredScan

sys.path.insert(0, str(Path(__file__).parents[1]))
from people import person

METHODS = {
    "diffusion_iqt (24 channels)": {"kind": "diffusion_iqt", "network": {"blocks": 1}},
    "unet": {"kind": "unet"},
    "esrgan (generator alone)": {"kind": "esrgan", "adversarial": {"pretrain": 0.999}},
}
TRAINING = {"batch_size": 4, "validation_regions": 1}
PARCELLATOR = {"batch_size": 1, "validation_regions": 1, "workers": 1}
REPEATS = 15
SHORT, LONG = 20, 60
"""Steps of the two trainings."""
STANDARD = {"input_mean": 0.5, "input_sd": 0.3, "target_mean": 0.0, "target_sd": 0.1}


class Subject(NamedTuple):
    """What is timed: a network with its batch and loss, and its training with the items of one."""

    build: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]
    loss: Callable[[Tensor], Tensor]
    task: Callable[[nn.Module], Task]
    items: Dataset
    training: Training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--precision", choices=get_args(Precision), default="auto")
    given = parser.parse_args()
    precision = given.precision
    where = machine()
    lines = [
        "# A training step\n",
        f"`make bench-step`, {datetime.date.today()}, {where['cpu']}, {where['threads']} threads, "
        f"{'bfloat16' if use_bfloat16(precision, best_device()) else 'float32'}, up to "
        f"{torch.backends.cpu.get_cpu_capability()}. Four regions of 32^3 a step, the parcellator one brain of 80 x 96 "
        "x 80; seconds.\n",
        "| network | convolutions alone | pass | pass / convolutions | loop | loop / pass |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name, subject in subjects(Path(folder)).items():
            alone = convolution_seconds(subject.build(), subject.inputs, precision, REPEATS)
            whole = pass_seconds(subject.build(), subject.inputs, subject.loss, precision, REPEATS)
            loop = in_the_loop(subject, Path(folder), precision)
            figures = f"{alone:.3f} | {whole:.3f} | {whole / alone:.2f} | {loop:.3f} | {loop / whole:.2f}"
            lines.append(f"| {name} | {figures} |")
            print(lines[-1], flush=True)
    write_text(given.out, "\n".join(lines) + "\n")


def subjects(folder: Path) -> dict[str, Subject]:
    rng = np.random.default_rng(0)
    scans = [scan(folder, name, rng) for name in ("a", "b")]
    return {name: enhancer(settings, scans) for name, settings in METHODS.items()} | {
        "parcellator (the shipped one's)": parcellator(folder)
    }


def enhancer(settings: dict, scans: list[StoredScan]) -> Subject:
    method = parse_method({**settings, "training": TRAINING})
    torch.manual_seed(0)
    region = torch.randn(TRAINING["batch_size"], 1, *method.patches.region)
    layout = method.memory_layout(best_device())
    return Subject(
        lambda: method.build().to(memory_format=layout),
        tuple(each.contiguous() for each in method.inputs(region)),
        lambda output: output.float().square().mean(),
        lambda network: method.task(network, STANDARD),
        RegionDataset(scans, method.patches, LONG * TRAINING["batch_size"], 1, augment=True),
        method.training,
    )


def parcellator(folder: Path) -> Subject:
    table, made = read_lut(table_file("aseg")), person("sub-01")
    nib.save(nib.Nifti1Image(made.dseg.astype(np.int16), made.affine), folder / "dseg.nii.gz")
    maps, painting = [read_label_map(folder / "dseg.nii.gz", table)], Painting(voxel_size=2.0, region=(80, 96, 80))
    items = PaintedVolumes(maps, table, painting, LONG, 1, augment=True)
    image, target = items[0]["image"][None], items[0]["target"][None]
    return Subject(
        lambda: build_volumetric(VolumetricNetwork(residual_units=1), table.n_classes),
        (image.contiguous(memory_format=torch.channels_last_3d),),
        lambda output: volume_loss(output, target, image[:, 0] > 0),
        VolumetricTask,
        items,
        Training.model_validate(PARCELLATOR),
    )


def in_the_loop(subject: Subject, folder: Path, precision: str) -> float:
    seconds, few = {}, Subset(subject.items, [0])
    for steps in (SHORT, LONG):
        torch.manual_seed(0)
        # One validation each, so that the difference is steps alone.
        settings = subject.training.model_copy(update={"steps": steps, "validate_every": steps})
        with tempfile.TemporaryDirectory(dir=folder) as out:
            start = time.perf_counter()
            fit(subject.task(subject.build()), subject.items, few, settings, Path(out), 1, precision, {})
            seconds[steps] = time.perf_counter() - start
    return (seconds[LONG] - seconds[SHORT]) / (LONG - SHORT)


def scan(folder: Path, name: str, rng: np.random.Generator) -> StoredScan:
    np.save(folder / f"{name}.npy", rng.random((2, 160, 190, 160), dtype=np.float32).astype(np.float16))
    pair = np.load(folder / f"{name}.npy", mmap_mode="r")
    mask = np.ones(pair.shape[1:], np.uint8)
    return StoredScan(name, pair, mask, {"n_brain": mask.size, "left_right_axis": 0})


if __name__ == "__main__":
    main()
