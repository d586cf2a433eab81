"""The patch store, the regions drawn from it, and the fit loop."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from iqt.config import DiffusionIQTMethod, Patches, Training
from iqt.errors import UserError
from iqt.files import read_json, read_table, write_json, write_table
from iqt.naming import anat, flat
from iqt.networks.build import build_network
from iqt.training.checkpoints import load_card, load_weights
from iqt.training.enhancement import train_model
from iqt.training.patches import RegionDataset
from iqt.training.store import build_store, open_store, standardisation
from iqt.volumes import intensity_scale, save_volume

SHAPE = (20, 22, 18)
PATCHES = Patches(patch=4, grid=(2, 2, 2))
SETTINGS = DiffusionIQTMethod(
    network={"channels": 8, "multipliers": (1, 2), "blocks": 1, "heads": 2, "head_dim": 4, "stem": 1, "tokens": (2, 2)},
    patches=PATCHES,
    training=Training(steps=6, batch_size=2, validate_every=2, validation_regions=2, warmup=1),
).model_dump(mode="json", include={"kind", "network", "diffusion", "target", "patches", "training"})


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


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of three training scans (one failed) and a validation scan."""
    folder = tmp_path_factory.mktemp("run")
    people = {"sub-a": "train", "sub-b": "train", "sub-lost": "train", "sub-v": "val"}
    for scan in people:
        write_scan(folder, scan)
    write_json(anat(folder / "lowfield", "sub-lost", "T1w.json"), {"status": "too few slices"})
    write_table(folder / "participants.tsv", [{"scan": scan, "split": split} for scan, split in people.items()])
    build_store(people, folder / "cohort", folder / "lowfield", folder / "store", "T1w")
    return folder


def train(run: Path, out: Path, settings: dict = SETTINGS, seed: int = 1) -> None:
    train_model(settings, run / "participants.tsv", run / "store", out, seed, "float32", "diffusion_iqt")


def test_the_store_holds_both_volumes_on_their_scales(run: Path) -> None:
    (scan,) = open_store(run / "store", run / "participants.tsv", "val")
    from iqt.volumes import read_volume

    high = read_volume(anat(run / "cohort", "sub-v", "T1w.nii.gz")).data
    mask = read_volume(anat(run / "cohort", "sub-v", "desc-brain_mask.nii.gz")).data > 0
    low = read_volume(anat(run / "lowfield", "sub-v", "space-HQ_T1w.nii.gz")).data * mask
    assert isinstance(scan.pair, np.memmap)
    assert scan.pair.dtype == np.float16
    for stored, volume in zip(scan.pair, (low, high), strict=True):
        np.testing.assert_allclose(stored, volume / intensity_scale(volume, mask), atol=1e-3)
    np.testing.assert_array_equal(scan.mask, mask)


def test_a_scan_that_failed_is_left_out_and_none_at_all_is_an_error(run: Path, tmp_path: Path) -> None:
    assert [scan.scan for scan in open_store(run / "store", run / "participants.tsv", "train")] == ["sub-a", "sub-b"]
    assert read_json(flat(run / "store", "sub-lost", "pair.json"))["status"] == "lowfield: too few slices"
    write_table(tmp_path / "participants.tsv", [{"scan": "sub-lost", "split": "train"}])
    with pytest.raises(UserError, match=r"no usable scan in the train split.*too few slices"):
        open_store(run / "store", tmp_path / "participants.tsv", "train")


def test_standardisation_is_over_all_brain_voxels(run: Path) -> None:
    scans = open_store(run / "store", run / "participants.tsv", "train")
    voxels = np.concatenate([np.float64(scan.pair[:, scan.mask > 0]) for scan in scans], axis=1)
    found = standardisation(scans, "residual")
    assert found["input_mean"] == pytest.approx(voxels[0].mean(), abs=1e-4)
    assert found["input_sd"] == pytest.approx(voxels[0].std(), rel=1e-3)
    assert found["target_mean"] == pytest.approx((voxels[1] - voxels[0]).mean(), abs=1e-4)
    assert found["target_sd"] == pytest.approx((voxels[1] - voxels[0]).std(), rel=1e-3)
    assert standardisation(scans, "image")["target_mean"] == pytest.approx(voxels[1].mean(), abs=1e-3)


def test_region_i_follows_from_the_seed_and_i_alone(run: Path) -> None:
    scans = open_store(run / "store", run / "participants.tsv", "train")
    regions = RegionDataset(scans, PATCHES, 50, seed=1, flip=True)
    again = RegionDataset(scans, PATCHES, 80, seed=1, flip=True)
    other = RegionDataset(scans, PATCHES, 50, seed=2, flip=True)
    _ = [again[index] for index in range(7)]
    assert all(torch.equal(regions[index]["hq"], again[index]["hq"]) for index in (0, 7, 49))
    assert not torch.equal(regions[7]["hq"], other[7]["hq"])
    assert not torch.equal(regions[7]["hq"], regions[8]["hq"])
    with pytest.raises(IndexError):
        regions[50]


def test_regions_are_cut_from_both_volumes_at_one_place(run: Path) -> None:
    scans = open_store(run / "store", run / "participants.tsv", "train")
    regions = RegionDataset(scans, Patches(patch=4, grid=(2, 2, 2), foreground=1), 40, seed=1, flip=True)
    for index in range(40):
        item = regions[index]
        assert item["hq"].shape == item["lowfield"].shape == (1, 8, 8, 8)
        assert item["hq"].max() > 0, "foreground regions hold brain"
        inside = item["hq"] > 0
        # The low field is a line of the high quality in these scans, so together they show any misplacement.
        low, high = item["lowfield"][inside].double(), item["hq"][inside].double()
        assert np.corrcoef(low, high)[0, 1] > 0.9999


def test_a_region_larger_than_a_scan_is_refused(run: Path) -> None:
    scans = open_store(run / "store", run / "participants.tsv", "val")
    with pytest.raises(UserError, match=r"sub-v.*smaller than the training region.*patches\.patch"):
        RegionDataset(scans, Patches(patch=16, grid=(2, 1, 1)), 5, seed=1)


@pytest.fixture(scope="module")
def trained(run: Path) -> Path:
    out = run / "trained"
    train(run, out)
    return out


def test_training_writes_weights_card_and_history(run: Path, trained: Path) -> None:
    assert sorted(path.name for path in trained.iterdir()) == ["history.csv", "model.json", "model.safetensors"]
    card = load_card(trained)
    assert (card["kind"], card["steps"], card["data"]["n_train"], card["seed"]) == ("diffusion_iqt", 6, 2, 1)
    network = build_network(DiffusionIQTMethod.model_validate(card["settings"]))
    assert card["n_parameters"] == sum(value.numel() for value in network.parameters())
    before = network.head.weight.clone()
    load_weights(trained, network)
    assert not torch.equal(network.head.weight, before)
    rows = read_table(
        trained / "history.csv", ("step", "train_loss", "val_loss", "val_psnr", "learning_rate", "seconds")
    )
    assert [row["step"] for row in rows] == ["2", "4", "6"]


def test_training_repeats_and_another_seed_differs(run: Path, trained: Path, tmp_path: Path) -> None:
    train(run, tmp_path / "again")
    train(run, tmp_path / "other", seed=2)
    first, again, other = (
        load_file(folder / "model.safetensors") for folder in (trained, tmp_path / "again", tmp_path / "other")
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_an_interrupted_training_goes_on_to_the_same_weights(
    run: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from iqt.training.enhancement import DiffusionTask

    whole = DiffusionTask.loss

    def failing(self, batch):
        if self.global_step == 5:
            raise RuntimeError("killed")
        return whole(self, batch)

    out = tmp_path / "interrupted"
    monkeypatch.setattr(DiffusionTask, "loss", failing)
    with pytest.raises(RuntimeError, match="killed"):
        train(run, out)
    monkeypatch.setattr(DiffusionTask, "loss", whole)
    assert not (out / "model.json").exists()
    assert (out / "checkpoints" / "last.ckpt").exists()

    changed = {**SETTINGS, "training": {**SETTINGS["training"], "learning_rate": 0.5}}
    with pytest.raises(UserError, match=r"settings\.training\.learning_rate"):
        train(run, out, changed)

    train(run, out)
    first, resumed = load_file(trained / "model.safetensors"), load_file(out / "model.safetensors")
    for name in first:
        torch.testing.assert_close(resumed[name], first[name], rtol=0, atol=1e-6)
    steps = [row["step"] for row in read_table(out / "history.csv")]
    assert steps == ["2", "4", "6"]
    assert not (out / "checkpoints").exists()


def test_a_loss_that_is_not_finite_names_the_step_and_the_learning_rate(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from iqt.training.enhancement import DiffusionTask

    monkeypatch.setattr(DiffusionTask, "loss", lambda self, batch: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(UserError, match=r"nan at step 0 with learning rate .*learning_rate"):
        train(run, tmp_path / "nan")


def test_a_damaged_or_foreign_model_is_refused(trained: Path, tmp_path: Path) -> None:
    network = build_network(DiffusionIQTMethod.model_validate(load_card(trained)["settings"]))
    damaged = tmp_path / "damaged"
    shutil.copytree(trained, damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match=r"model\.safetensors: damaged"):
        load_weights(damaged, network)
    wider = build_network(DiffusionIQTMethod(network={**SETTINGS["network"], "channels": 16}, patches=PATCHES))
    with pytest.raises(UserError, match="does not fit"):
        load_weights(trained, wider)
    write_json(damaged / "model.json", {**load_card(trained), "format": 99})
    with pytest.raises(UserError, match="format 99"):
        load_card(damaged)
    with pytest.raises(UserError, match="no such file"):
        load_weights(tmp_path, network)
