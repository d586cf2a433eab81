"""What takes minutes: a real head's brain mask and its registration, and the chain on real label maps.

`make test-archives` runs it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from checkout import PARTS
from iqt.config import Grid, LowField, Mask
from iqt.degrade import apply, draw
from iqt.degrade.register import register
from iqt.imaging import brain_mask, checks, orientation, resample
from iqt.io.files import read_json, read_table
from iqt.io.volumes import Volume, read_volume

pytestmark = pytest.mark.real_data
SNAKEMAKE = Path(sys.executable).with_name("snakemake")


def test_brainextractor_finds_a_real_brain(real: Path) -> None:
    head = read_volume(real / "full_head" / "visualqc_T1w.nii.gz")
    truth = read_volume(real / "hcp_layout/HCP_1200/900002/T1w/brainmask_fs.nii.gz").data > 0
    found = brain_mask.make_mask(head, Mask(engine="brainextractor"))
    assert np.array_equal(found.affine, head.affine)
    dice = 2 * np.count_nonzero((found.data > 0) & truth) / (np.count_nonzero(found.data) + np.count_nonzero(truth))
    print(f"Dice with FreeSurfer's mask: {dice:.3f}")
    assert dice > 0.9
    assert checks.mask_problems(found.data, found.affine) == []


def test_the_chain_trains_on_real_anatomy_from_label_maps_alone(real: Path, tmp_path: Path, repository: Path) -> None:
    """config/smoke.yaml with the people of label_maps: from segmentations to the report, no high-quality scan."""
    for name in ("Snakefile", *PARTS):
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


def test_a_real_head_is_registered_to_its_brain(real: Path) -> None:
    """A whole head with its skull, as thick noisy slices of a scanner in whose world it is turned and moved."""
    wanted = read_volume(real / "hcp_layout/HCP_1200/900002/T1w/T1w_acpc_dc_restore_brain.nii.gz")
    brain = resample.isotropic(orientation.to_ras(wanted), Grid(voxel_size=2), "image")
    mask = brain.data > 0
    head = orientation.to_ras(read_volume(real / "full_head" / "visualqc_T1w.nii.gz"))
    settings = LowField(preset="64mT", contrast="none", noise="none")
    low = apply(head, None, settings, draw(settings, 1, "900002")).thick
    noise = np.random.default_rng(0).standard_normal(low.data.shape, dtype=np.float32)
    turn = Rotation.from_euler("xyz", (8, -5, 6), degrees=True).as_matrix()
    moved = nib.affines.from_matvec(turn, (5, -8, 10))
    scan = Volume(low.data + low.data[low.data > 100].mean() / 15 * noise, moved @ low.affine)
    found = register(scan, brain, mask, "rigid")
    points = nib.affines.apply_affine(brain.affine, np.argwhere(mask)[::500])
    off = nib.affines.apply_affine(found.matrix, points) - nib.affines.apply_affine(moved, points)
    errors = np.linalg.norm(off, axis=1)
    print(f"error {errors.mean():.2f} mm, at most {errors.max():.2f} mm; told {np.median(found.residual):.2f} mm")
    assert errors.max() < 1.6, "a voxel in plane"
    assert max(found.residual) < 2.5
