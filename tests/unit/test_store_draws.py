"""Several low-field acquisitions of a training person, from the simulator to what training reads."""

from __future__ import annotations

import numpy as np
import pytest
from phantoms import phantom

from iqt.config import LowField, Patches
from iqt.degrade.run import degrade_scans
from iqt.io.files import read_json, write_json, write_table
from iqt.io.naming import anat, flat
from iqt.io.volumes import intensity_scale, read_volume, save_volume
from iqt.training.patches import RegionDataset
from iqt.training.store import build_store, open_store, standardisation

PEOPLE = {"sub-a": "train", "sub-b": "train", "sub-v": "val"}


@pytest.fixture
def store(tmp_path):
    """A function that simulates, stores and opens with a number of draws."""
    volume, tissues = phantom()
    for scan in PEOPLE:
        save_volume(anat(tmp_path / "cohort", scan, "T1w.nii.gz"), volume.data, volume.affine)
        save_volume(anat(tmp_path / "cohort", scan, "desc-brain_mask.nii.gz"), volume.data > 0, volume.affine)
        for name, data in tissues.items():
            save_volume(anat(tmp_path / "cohort", scan, f"label-{name}_probseg.nii.gz"), data, volume.affine)
        write_json(anat(tmp_path / "cohort", scan, "T1w.json"), {"status": "ok"})
    write_table(tmp_path / "participants.tsv", [{"scan": scan, "split": split} for scan, split in PEOPLE.items()])

    def make(draws):
        training = [scan for scan, split in PEOPLE.items() if split == "train"]
        arguments = (tmp_path / "cohort", tmp_path / "low", "T1w", 1, LowField(draws=draws), "main", None, training)
        degrade_scans(PEOPLE, *arguments)
        build_store(PEOPLE, tmp_path / "cohort", tmp_path / "low", tmp_path / "store", "T1w")
        return {
            split: open_store(tmp_path / "store", tmp_path / "participants.tsv", split) for split in ("train", "val")
        }

    return make


def test_training_reads_every_acquisition_and_validation_one(store, tmp_path):
    scans = store(3)
    assert [scan.scan for scan in scans["train"]] == ["sub-a"] * 3 + ["sub-b"] * 3
    assert len(scans["val"]) == 1
    mask = read_volume(anat(tmp_path / "cohort", "sub-a", "T1w.nii.gz")).data > 0
    for number, scan in enumerate(scans["train"][:3], start=1):
        entity = "" if number == 1 else f"draw-{number}_"
        low = read_volume(anat(tmp_path / "low", "sub-a", f"{entity}space-HQ_T1w.nii.gz")).data * mask
        scale = intensity_scale(low, mask)
        assert scan.record["scale_lowfield"] == pytest.approx(scale)
        box = tuple(slice(max(0, axis.min() - 8), axis.max() + 9) for axis in np.nonzero(mask))
        np.testing.assert_allclose(scan.pair[0], (low / scale)[box], atol=2e-3)
        np.testing.assert_array_equal(scan.pair[1], scans["train"][0].pair[1])
    means = {scan.record["moments"]["lowfield"]["mean"] for scan in scans["train"]}
    assert len(means) == 6, "every acquisition has moments of its own"
    used = standardisation(scans["train"], "image")["input_mean"]
    assert used == pytest.approx(np.mean(list(means)), rel=1e-6)


def test_regions_come_from_every_acquisition(store):
    regions = RegionDataset(store(2)["train"], Patches(patch=8, grid=(2, 2, 2)), 60, seed=1)
    assert len({scan.pair.filename for scan in regions.scans}) == 4
    values = [round(float(regions[item]["lowfield"].max()), 6) for item in range(60)]
    assert len(set(values)) > 30


def test_fewer_draws_leave_nothing_behind_and_one_is_as_before(store, tmp_path):
    store(3)
    scans = store(1)
    assert [scan.scan for scan in scans["train"]] == ["sub-a", "sub-b"]
    assert not list((tmp_path / "store").glob("*draw*"))
    assert "further_draws" not in read_json(flat(tmp_path / "store", "sub-a", "pair.json"))
