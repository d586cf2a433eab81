"""A run of a few small scans made up of noise, and a network that trains on it in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from iqt.config import Patches, Training
from iqt.io.files import write_json, write_table
from iqt.io.naming import anat
from iqt.io.volumes import save_volume
from iqt.methods.diffusion_iqt import DiffusionIQTMethod
from iqt.training.enhancement import train_model
from iqt.training.store import build_store

SHAPE = (20, 22, 18)
PATCHES = Patches(patch=4, grid=(2, 2, 2))
SETTINGS = DiffusionIQTMethod(
    network={"channels": 8, "multipliers": (1, 2), "blocks": 1, "heads": 2, "head_dim": 4, "stem": 1, "tokens": (2, 2)},
    patches=PATCHES,
    training=Training(steps=6, batch_size=2, validate_every=2, validation_regions=2, warmup=1),
).trained_by()


def write_scan(folder: Path, scan: str, shape: tuple[int, int, int] = SHAPE) -> None:
    """A small scan made up of noise: cohort and low-field files with sidecars."""
    rng = np.random.default_rng(int.from_bytes(scan.encode(), "big"))
    high = rng.random(shape, dtype=np.float32) * 500 + 100
    mask = np.zeros(shape, np.uint8)
    mask[3:-3, 4:-4, 2:-2] = 1
    write_json(anat(folder / "cohort", scan, "T1w.json"), {"status": "ok"})
    write_json(anat(folder / "lowfield", scan, "T1w.json"), {"status": "ok"})
    save_volume(anat(folder / "cohort", scan, "T1w.nii.gz"), high * mask, np.eye(4))
    save_volume(anat(folder / "cohort", scan, "desc-brain_mask.nii.gz"), mask, np.eye(4))
    save_volume(anat(folder / "lowfield", scan, "space-HQ_T1w.nii.gz"), high * 0.5 + 20, np.eye(4))


def write_noise_run(folder: Path) -> Path:
    """In `folder`, a store of three training scans (one failed) and a validation scan."""
    people = {"sub-a": "train", "sub-b": "train", "sub-lost": "train", "sub-v": "val"}
    for scan in people:
        write_scan(folder, scan)
    write_json(anat(folder / "lowfield", "sub-lost", "T1w.json"), {"status": "too few slices"})
    write_table(folder / "participants.tsv", [{"scan": scan, "split": split} for scan, split in people.items()])
    build_store(people, folder / "cohort", folder / "lowfield", folder / "store", "T1w")
    return folder


def train(run: Path, out: Path, settings: dict = SETTINGS, seed: int = 1, workers: int = 0) -> None:
    files = (run / "participants.tsv", run / "store", out)
    train_model(settings, *files, seed, "float32", "diffusion_iqt", workers=workers)
