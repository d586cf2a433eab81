"""Training a method's network on the stored scans, and the model that comes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iqt.compute.devices import best_device
from iqt.compute.gpus import claim_gpus
from iqt.config import LowField
from iqt.errors import UserError
from iqt.io.files import read_json
from iqt.io.naming import seed_of
from iqt.io.volumes import SCALE_PERCENTILE
from iqt.methods import parse_method
from iqt.training.checkpoints import save_model
from iqt.training.fit import clear_state, fit, summary
from iqt.training.patches import RegionDataset
from iqt.training.start import Start
from iqt.training.store import StoredScan, open_store, standardisation


def train_model(
    settings: dict[str, Any],
    participants: Path,
    store: Path,
    out: Path,
    seed: int,
    precision: str,
    name: str,
    devices: int = 1,
    start: Path | None = None,
    workers: int = 0,
) -> None:
    """Train a method's network on the stored training scans and write the model folder `out`.

    `settings` is the part of a method's entry that weights depend on (`Plan.trained_by`); `start` the folder of the
    trained regression that it starts from, if it does; `workers` read the regions, which are the same however many.

    Raises:
        UserError: fewer than two training people, no validation scan, a scan smaller than a region or without a brain,
            a loss that is not finite or diverges, or unfinished training with other settings in `out`.
    """
    claim_gpus(devices)  # before anything asks for the one that computes
    beginning = Start.read(settings, start)
    method = parse_method({**settings, **beginning.settings})
    training = method.training.model_copy(update={"workers": workers})
    scans = {split: open_store(store, participants, split) for split in ("train", "val")}
    if len({scan.scan.split("_")[0] for scan in scans["train"]}) < 2:
        raise UserError(
            f"{participants}: a single usable training person is not enough to train on; "
            "give cohort.split.train at least 2"
        )
    standard = standardisation(scans["train"], method.target)
    beginning.require_same_scales(standard)
    # The same regions for every method: their draw knows nothing of the method's name.
    train = RegionDataset(
        scans["train"], method.patches, training.steps * training.batch_size, seed_of(seed, "train"), augment=True
    )
    val = RegionDataset(scans["val"], method.patches, training.validation_regions, seed_of(seed, "val"))
    # Networks are built before the fit seeds everything, so their first weights need the seed too.
    torch.manual_seed(seed_of(seed, "weights", name))
    network = method.build().to(memory_format=method.memory_layout(best_device()))
    beginning.load(network)
    task = method.task(network, standard)
    data = _describe(scans, participants)
    identity = {"settings": settings, "seed": seed, "data": data["sha256"], **beginning.identity}
    result = fit(task, train, val, training, out, seed_of(seed, name), precision, identity, devices)
    if result is None:
        return
    beginning.load(network)  # the moving average of what never moved has rounding errors
    card = {
        "kind": method.kind,
        "name": name,
        "settings": {**method.trained_by(), **beginning.settings},
        "suffix": scans["train"][0].record["suffix"],
        "seed": seed,
        "tensors": method.tensors(),
        "grid": _grid(scans["train"]),
        "intensity_scale": f"each volume divided by its own {SCALE_PERCENTILE}th percentile inside the brain mask",
        "standardisation": standard,
        **beginning.card,
        "data": data,
        **summary(result),
    }
    save_model(out, network, card)
    clear_state(out)


def _grid(scans: list[StoredScan]) -> dict[str, Any]:
    """Axes and voxels (mm, along these axes) of the grid that the network works on, the median over training scans, and
    what the settings allow the low-field acquisitions to have been."""
    size = np.median([scan.record["voxel_size"] for scan in scans], axis=0)
    grid = {"axes": "RAS", "voxel_size_mm": [round(float(each), 4) for each in size]}
    settings = scans[0].record.get("acquisition")
    if settings is None or settings.get("registration"):
        return grid
    acquisition = LowField.model_validate(settings)
    axes = acquisition.choices("axis")
    unit = size if acquisition.unit == "voxel" else np.ones(3)
    thickness, gap, in_plane = (
        np.array(value if isinstance(value, tuple) else (value, value))
        for value in (acquisition.thickness, acquisition.gap, acquisition.in_plane)
    )
    sliced = ["RAS".index(axis) for axis in axes]
    others = sorted({other for axis in sliced for other in range(3) if other != axis})

    def between(values: Iterable[np.ndarray]) -> list[float]:
        """Lowest and highest over axes."""
        every = np.stack(list(values))
        return [round(float(every.min()), 4), round(float(every.max()), 4)]

    own = [np.full(2, size[axis]) for axis in sliced]
    acquired = {
        "slice_axes": list(axes),
        "slice_spacing_mm": between([(thickness + gap) * unit[axis] for axis in sliced] if acquisition.slices else own),
        "slice_thickness_mm": between([thickness * unit[axis] for axis in sliced] if acquisition.slices else own),
        "in_plane_mm": between(np.maximum(in_plane * unit[other], size[other]) for other in others),
    }
    return grid | {"acquired": acquired}


def _describe(scans: dict[str, list[StoredScan]], participants: Path) -> dict[str, Any]:
    """What was trained on, without naming anybody, and a hash by which a resumed run notices other data."""
    digest = hashlib.sha256()
    for split, members in scans.items():
        for scan in members:
            digest.update(f"{split} {scan.scan} {scan.record}".encode())
    dataset = participants.with_name("dataset_description.json")
    records = [scan.record for members in scans.values() for scan in members]
    return {
        **{f"n_{split}": len({scan.scan for scan in members}) for split, members in scans.items()},
        "source": read_json(dataset).get("Name") if dataset.exists() else None,
        "voxel_sizes_mm": sorted({tuple(record["voxel_size"]) for record in records}),
        "acquisition": records[0]["acquisition"],
        "sha256": digest.hexdigest(),
    }
