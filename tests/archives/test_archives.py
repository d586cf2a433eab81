"""What takes minutes: a real head's brain mask, and the chain on real label maps. `make test-archives` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from iqt.config import Mask
from iqt.files import read_json, read_table
from iqt.scans import brain_mask, checks
from iqt.volumes import read_volume
from people import real_data

pytestmark = pytest.mark.real_data
SNAKEMAKE = Path(sys.executable).with_name("snakemake")


@pytest.fixture(scope="module")
def real() -> Path:
    folder = real_data()
    if folder is None:
        pytest.skip("IQT_REAL_DATA names no folder of real scans")
    return folder


def test_brainextractor_finds_a_real_brain(real: Path) -> None:
    head = read_volume(real / "full_head" / "visualqc_T1w.nii.gz")
    truth = read_volume(real / "hcp_layout/HCP_1200/900002/T1w/brainmask_fs.nii.gz").data > 0
    found = brain_mask.make_mask(head, Mask())
    assert np.array_equal(found.affine, head.affine)
    dice = 2 * np.count_nonzero((found.data > 0) & truth) / (np.count_nonzero(found.data) + np.count_nonzero(truth))
    print(f"Dice with FreeSurfer's mask: {dice:.3f}")
    assert dice > 0.9
    assert checks.mask_problems(found.data, found.affine) == []


def test_the_chain_trains_on_real_anatomy_from_label_maps_alone(real: Path, tmp_path: Path, repository: Path) -> None:
    """config/smoke.yaml with the people of label_maps: from segmentations to the report, no high-quality scan."""
    for name in ("Snakefile", "workflow", "config", "envs", "profiles", "resources"):
        (tmp_path / name).symlink_to(repository / name)
    config = yaml.safe_load((repository / "config" / "smoke.yaml").read_text())
    config["name"] = "labelmaps"
    config["cohort"] = {
        "source": "labelmaps",
        "split": {"train": 2, "val": 1, "test": 2},
        "grid": {"voxel_size": 4},
        "labelmaps": {"path": str(real / "label_maps")},
    }
    (tmp_path / "labelmaps.yaml").write_text(yaml.safe_dump(config))
    command = [str(SNAKEMAKE), "--cores", "2", "--configfile", "labelmaps.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    results = tmp_path / "results" / "labelmaps"
    rows = read_table(results / "tables" / "benchmark.csv")
    assert [row["n_subjects"] for row in rows] == ["2"] * len(rows)
    assert all(float(row["miou"]) >= 0 for row in rows)
    assert read_json(results / "metrics" / "run.json")["cohort"]["source"] == "labelmaps"
    assert "synthesised from label maps" in (results / "report.html").read_text()
