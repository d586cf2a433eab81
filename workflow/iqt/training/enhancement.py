"""Training a method's network on the stored scans, and the model that comes of it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iqt.config import Learned, LowField
from iqt.devices import best_device
from iqt.errors import UserError
from iqt.files import read_json
from iqt.naming import seed_of
from iqt.networks.build import build_network, memory_layout, parse_method
from iqt.training.checkpoints import load_card, load_weights, save_model
from iqt.training.fit import clear_state, fit, summary
from iqt.training.patches import RegionDataset
from iqt.training.store import StoredScan, open_store, standardisation
from iqt.training.tasks import build_task
from iqt.volumes import SCALE_PERCENTILE


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
) -> None:
    """Train a method's network on the stored training scans and write the model folder `out`.

    `settings` is the part of a method's entry that weights depend on (`Config.trained_by`); `start` the folder of the
    trained regression that a flow starts from.

    Raises:
        UserError: fewer than two training people, no validation scan, a scan smaller than a region or without a brain,
            a loss that is not finite or diverges, or unfinished training with other settings in `out`.
    """
    beginning = _read_start(settings, start)
    method = parse_method({**settings, **({"start": beginning["settings"]} if beginning else {})})
    training = method.training
    scans = {split: open_store(store, participants, split) for split in ("train", "val")}
    if len({scan.scan.split("_")[0] for scan in scans["train"]}) < 2:
        raise UserError(
            f"{participants}: a single usable training person is not enough to train on; "
            "give cohort.split.train at least 2"
        )
    standard = standardisation(scans["train"], method.target)
    if beginning:
        _require_same_scales(start, beginning["standardisation"], standard)
    # The same regions for every method: their draw knows nothing of the method's name.
    train = RegionDataset(
        scans["train"], method.patches, training.steps * training.batch_size, seed_of(seed, "train"), augment=True
    )
    val = RegionDataset(scans["val"], method.patches, training.validation_regions, seed_of(seed, "val"))
    # Networks are built before the fit seeds everything, so their first weights need the seed too.
    torch.manual_seed(seed_of(seed, "weights", name))
    network = build_network(method).to(memory_format=memory_layout(method, best_device()))
    if beginning:
        load_weights(start, network.start)
    task = build_task(method, network, standard)
    data = _describe(scans, participants)
    identity = {"settings": settings, "seed": seed, "data": data["sha256"]}
    if beginning:
        identity["start"] = beginning["weights_sha256"]
    result = fit(task, train, val, training, out, seed_of(seed, name), precision, identity, devices)
    if result is None:
        return
    if beginning:
        load_weights(start, network.start)  # the moving average of what never moved has rounding errors
    card = {
        "kind": method.kind,
        "name": name,
        "settings": {key: value for key, value in settings.items() if key != "size_like"}
        | {"network": method.network.model_dump(mode="json")}
        | ({"start": beginning["settings"]} if beginning else {}),
        "suffix": scans["train"][0].record["suffix"],
        "seed": seed,
        "tensors": _tensors(method),
        "grid": _grid(scans["train"]),
        "intensity_scale": f"each volume divided by its own {SCALE_PERCENTILE}th percentile inside the brain mask",
        "standardisation": standard,
        **({"start": {key: beginning[key] for key in ("name", "weights_sha256")}} if beginning else {}),
        "data": data,
        **summary(result),
    }
    save_model(out, network, card)
    clear_state(out)


def _read_start(settings: dict[str, Any], folder: Path | None) -> dict | None:
    """The card of the regression that a flow starts from; None for every other kind.

    Raises:
        UserError: there is no such folder, or it holds a model of other settings.
    """
    if settings["kind"] != "flow":
        if folder is not None:
            raise UserError(f"--start {folder}: a method of kind {settings['kind']} starts from no other model")
        return None
    if folder is None:
        raise UserError("a method of kind flow needs --start, the folder of the trained regression it starts from")
    card, wanted = load_card(folder), settings["start"]
    if card["kind"] != wanted["kind"] or card["settings"]["target"] != wanted["target"]:
        raise UserError(
            f"{folder}: holds a model of kind {card['kind']} for target {card['settings'].get('target')}, but the flow "
            f"starts from {wanted['kind']} for target {wanted['target']}; give that model's folder"
        )
    return card


def _require_same_scales(start: Path, theirs: dict[str, float], ours: dict[str, float]) -> None:
    """UserError where a regression was trained on data of other means and standard deviations than the flow's."""
    differing = [name for name, value in ours.items() if not np.isclose(theirs[name], value, rtol=1e-3, atol=1e-4)]
    if differing:
        name = differing[0]
        raise UserError(
            f"{start}: was trained on other data: its {name} is {theirs[name]:.4g}, but that of these scans is "
            f"{ours[name]:.4g}; train the regression on these scans first"
        )


def _tensors(method: Learned) -> dict[str, dict]:
    """What goes in and comes out, as the network sees it."""
    unit = list(method.patches.region)
    shape = {"shape": ["batch", 1, "X", "Y", "Z"], "multiples": unit, "dtype": "float32"}
    standardised = "mean 0 and standard deviation 1 over the training brains (see standardisation)"
    wanted = "high-quality minus low-field volume" if method.target == "residual" else "high-quality volume"
    lowfield = {**shape, "content": "low-field volume on the high-quality grid", "range": standardised}
    if method.kind == "flow":
        return {
            "current": {**shape, "content": f"point on the way to the {wanted}", "range": standardised},
            **({"lowfield": lowfield} if method.conditional else {}),
            "time": {"shape": ["batch"], "dtype": "float32", "range": [0, 1]},
            "output": {**shape, "content": "velocity", "range": standardised},
        }
    if method.kind != "diffusion_iqt":
        return {"lowfield": lowfield, "output": {**shape, "content": wanted, "range": standardised}}
    bound = method.diffusion.logsnr_max
    return {
        "noisy": {**shape, "content": f"noisy {wanted}", "range": "as the output's, with noise of variance 1 at most"},
        "lowfield": lowfield,
        "logsnr": {"shape": ["batch"], "dtype": "float32", "range": [-bound, bound]},
        "output": {**shape, "content": f"{method.diffusion.objective} of the {wanted}", "range": standardised},
    }


def _grid(scans: list[StoredScan]) -> dict[str, Any]:
    """Axes and voxels (mm, along these axes) of the grid that the network works on, the median over training scans, and
    the voxels in which the low-field scans were acquired: slice spacing along the sliced axis."""
    size = np.median([scan.record["voxel_size"] for scan in scans], axis=0)
    grid = {"axes": "RAS", "voxel_size_mm": [round(float(each), 4) for each in size]}
    settings = scans[0].record.get("acquisition")
    if settings is None:
        return grid
    acquisition = LowField.model_validate(settings)
    sliced = "RAS".index(acquisition.axis)
    unit = np.ones(3) if acquisition.unit == "mm" else size
    acquired = np.maximum(size, acquisition.in_plane * unit)
    acquired[sliced] = (acquisition.thickness + acquisition.gap) * unit[sliced] if acquisition.slices else size[sliced]
    return grid | {
        "acquired_voxel_size_mm": [round(float(each), 4) for each in acquired],
        "slice_axis": acquisition.axis,
        "slice_thickness_mm": round(float(acquisition.thickness * unit[sliced]), 4),
    }


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
