"""The store that training reads, and the regions that are cut from it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from noise_run import PATCHES, write_noise_run

from iqt.config import Patches
from iqt.errors import UserError
from iqt.io.files import read_json, write_table
from iqt.io.naming import anat, flat
from iqt.io.volumes import intensity_scale
from iqt.training.patches import RegionDataset
from iqt.training.store import open_store, standardisation


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise_run(tmp_path_factory.mktemp("run"))


def test_the_store_holds_both_volumes_on_their_scales(run: Path) -> None:
    (scan,) = open_store(run / "store", run / "participants.tsv", "val")
    from iqt.io.volumes import read_volume

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


def test_an_array_that_was_deleted_is_named_with_what_makes_it_again(run: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(run / "store", store)
    flat(store, "sub-v", "pair.npy").unlink()
    with pytest.raises(UserError, match=r"sub-v_pair\.npy: was deleted; .*--forcerun .*sub-v_pair\.json"):
        open_store(store, run / "participants.tsv", "val")


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
    regions = RegionDataset(scans, PATCHES, 50, seed=1, augment=True)
    again = RegionDataset(scans, PATCHES, 80, seed=1, augment=True)
    other = RegionDataset(scans, PATCHES, 50, seed=2, augment=True)
    _ = [again[index] for index in range(7)]
    assert all(torch.equal(regions[index]["hq"], again[index]["hq"]) for index in (0, 7, 49))
    assert not torch.equal(regions[7]["hq"], other[7]["hq"])
    assert not torch.equal(regions[7]["hq"], regions[8]["hq"])
    with pytest.raises(IndexError):
        regions[50]


def test_regions_are_cut_from_both_volumes_at_one_place(run: Path) -> None:
    scans = open_store(run / "store", run / "participants.tsv", "train")
    regions = RegionDataset(scans, PATCHES.model_copy(update={"foreground": 1}), 40, seed=1, augment=True)
    for index in range(40):
        item = regions[index]
        assert item["hq"].shape == item["lowfield"].shape == (1, 8, 8, 8)
        assert item["hq"].max() > 0, "foreground regions hold brain"
        inside = item["hq"] > 0
        # The low field is a line of the high quality in these scans, so together they show any misplacement.
        low, high = item["lowfield"][inside].double(), item["hq"][inside].double()
        assert np.corrcoef(low, high)[0, 1] > 0.9999


def test_augmentation_mirrors_left_and_right_and_changes_both_volumes_alike(run: Path) -> None:
    (scan,) = open_store(run / "store", run / "participants.tsv", "val")
    # A scan whose third axis runs from left to right.
    scan = scan._replace(record=scan.record | {"left_right_axis": 2})

    def items(**patches: object) -> list[dict]:
        settings = PATCHES.model_copy(update=patches)
        dataset = RegionDataset([scan], settings, 30, seed=1, augment=True)
        return [dataset[index] for index in range(30)]

    plain, flipped = items(flip=False), items(flip=True)
    mirrored = [torch.equal(a["hq"].flip(3), b["hq"]) for a, b in zip(plain, flipped, strict=True)]
    assert 5 < sum(mirrored) < 25
    assert all(
        torch.equal(a["lowfield"].flip(3) if mirror else a["lowfield"], b["lowfield"])
        for a, b, mirror in zip(plain, flipped, mirrored, strict=True)
    )
    gains, powers = [], []
    for original, gained, raised in zip(plain, items(flip=False, gain=0.2), items(flip=False, gamma=0.3), strict=True):
        inside = original["hq"] > 0.05
        for name in ("hq", "lowfield"):
            ratio = gained[name][inside] / original[name][inside]
            power = raised[name][inside].log() / original[name][inside].log()
            assert ratio.std() < 1e-4
            assert 0.8 <= ratio.mean() <= 1.2
            assert torch.nanmedian(power).item() == pytest.approx(
                torch.nanmedian(raised["hq"][inside].log() / original["hq"][inside].log()).item(), abs=1e-3
            )
        gains.append(ratio.mean().item())
        powers.append(torch.nanmedian(power).item())
    for drawn, lowest, highest in ((gains, 0.8, 1.2), (powers, np.exp(-0.3), np.exp(0.3))):
        assert lowest - 1e-3 <= min(drawn) < 0.97
        assert 1.03 < max(drawn) <= highest + 1e-3
        assert len({round(value, 6) for value in drawn}) == 30, "each region has its own"
    # What is validated on is never augmented.
    fixed = RegionDataset([scan], PATCHES.model_copy(update={"gain": 0.2}), 30, seed=1)
    assert all(torch.equal(fixed[index]["hq"], plain[index]["hq"]) for index in range(30))


def test_a_region_larger_than_a_scan_is_refused(run: Path) -> None:
    scans = open_store(run / "store", run / "participants.tsv", "val")
    with pytest.raises(UserError, match=r"sub-v.*smaller than the training region.*patches\.patch"):
        RegionDataset(scans, Patches(patch=16, grid=(2, 1, 1)), 5, seed=1)
    without_brain = [scans[0]._replace(record=scans[0].record | {"n_brain": 0})]
    with pytest.raises(UserError, match=r"sub-v: its brain mask is empty"):
        RegionDataset(without_brain, PATCHES, 5, seed=1)
