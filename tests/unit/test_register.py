"""Real low-field scans: registered to the high-quality ones, and how far off they still are."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from scipy import ndimage
from scipy.spatial.transform import Rotation

from iqt.config import LowField
from iqt.degrade import apply, draw
from iqt.degrade.register import center, describe, on_grid, register, register_scans
from iqt.io.files import read_json, write_json
from iqt.io.naming import anat
from iqt.io.volumes import Volume, read_volume, save_volume

pytestmark = pytest.mark.slow

HALF_A_VOXEL = 2.5
"""Of the low-field scans made here, in mm."""


@pytest.fixture(scope="module")
def high() -> tuple[Volume, np.ndarray]:
    """The MNI152 brain at 3 mm without its skull, and its mask."""
    image = load_mni152_template(resolution=3)
    mask = np.asarray(load_mni152_brain_mask(resolution=3).dataobj) > 0
    return Volume((image.get_fdata() * mask).astype(np.float32), image.affine), mask


def pose(degrees: tuple[float, ...] = (6, -4, 5), mm: tuple[float, ...] = (7, -9, 12)) -> np.ndarray:
    return nib.affines.from_matvec(Rotation.from_euler("xyz", degrees, degrees=True).as_matrix(), mm)


def partner(high: Volume, moved: np.ndarray) -> Volume:
    """Thick noisy slices of the same head, of inverted contrast, in a scanner whose world is moved."""
    inverted = np.where(high.data > 0, 1.3 * high.data.max() - high.data, 0).astype(np.float32)
    settings = LowField(contrast="none", noise="none", unit="mm", thickness=5, gap=0)
    thick = apply(Volume(inverted, high.affine), None, settings, draw(settings, 1, "sub-01")).thick
    noise = np.random.default_rng(0).standard_normal(thick.data.shape, dtype=np.float32)
    return Volume(thick.data + inverted.max() / 20 * noise, moved @ thick.affine)


def errors(found: np.ndarray, moved: np.ndarray, high: Volume, mask: np.ndarray) -> np.ndarray:
    """Distances in mm between where the brain's points are put and where they are."""
    points = nib.affines.apply_affine(high.affine, np.argwhere(mask)[::20])
    return np.linalg.norm(nib.affines.apply_affine(found, points) - nib.affines.apply_affine(moved, points), axis=1)


def test_a_pair_is_found_across_contrasts_and_slices(high: tuple[Volume, np.ndarray]) -> None:
    volume, mask = high
    moved = pose()
    found = register(partner(volume, moved), volume, mask, "rigid")
    assert errors(found.matrix, moved, volume, mask).max() < HALF_A_VOXEL
    assert len(found.residual) == 8
    assert np.median(found.residual) < 1
    assert max(found.residual) < HALF_A_VOXEL
    np.testing.assert_allclose(found.matrix[:3, :3] @ found.matrix[:3, :3].T, np.eye(3), atol=1e-6)


def test_what_a_rigid_registration_leaves_is_measured(high: tuple[Volume, np.ndarray]) -> None:
    """A head whose left half is pushed 6 mm forwards; a scan that is 8 % larger is only right by 12 parameters."""
    volume, mask = high
    left = nib.affines.apply_affine(volume.affine, np.argwhere(np.ones(mask.shape)))[:, 0].reshape(mask.shape) < 0
    at = np.array(np.meshgrid(*map(np.arange, mask.shape), indexing="ij"), float)
    at[1] -= left * 2.0  # voxels of 3 mm
    bent = Volume(ndimage.map_coordinates(volume.data, at, order=1), volume.affine)
    found = register(partner(bent, np.eye(4)), volume, mask, "rigid")
    assert max(found.residual) > HALF_A_VOXEL

    larger = np.diag([1.08, 1.08, 1.08, 1])
    low = partner(volume, larger)
    affine = register(low, volume, mask, "affine")
    assert errors(affine.matrix, larger, volume, mask).max() < HALF_A_VOXEL / 2
    assert describe(affine.matrix, center(mask, volume.affine))["volume_ratio"] == pytest.approx(1.08**3, rel=0.02)


def test_a_scan_of_half_a_head_is_no_partner(high: tuple[Volume, np.ndarray], tmp_path: Path) -> None:
    volume, mask = high
    whole = partner(volume, np.eye(4))
    kept = whole.data.shape[2] // 2
    affine = whole.affine @ nib.affines.from_matvec(np.eye(3), (0, 0, kept))
    half = Volume(np.ascontiguousarray(whole.data[:, :, kept:]), affine)
    shown = on_grid(half, volume)
    assert not shown[:, :, : volume.data.shape[2] // 3].any(), "nothing is made up where nothing was scanned"
    path, cohort, out = tmp_path / "half.nii.gz", tmp_path / "cohort", tmp_path / "low"
    save_volume(path, half.data, half.affine)
    save_volume(anat(cohort, "sub-1", "T1w.nii.gz"), volume.data, volume.affine)
    save_volume(anat(cohort, "sub-1", "desc-brain_mask.nii.gz"), mask, volume.affine)
    record = {"lowfield": {"source": str(path), "path": str(path), "bytes": 1, "sha256": "0"}}
    write_json(anat(cohort, "sub-1", "T1w.json"), {"status": "ok", "files": record})
    register_scans(["sub-1"], cohort, out, "T1w", LowField(registration="rigid"), "main")
    status = read_json(anat(out, "sub-1", "T1w.json"))["status"]
    assert "half.nii.gz" in status
    assert "% of the brain" in status or "from its place" in status
    assert not list(out.rglob("*.nii.gz"))


def test_a_scan_that_lacks_a_part_of_the_brain_says_so_and_a_finer_one_is_blurred(
    high: tuple[Volume, np.ndarray], tmp_path: Path
) -> None:
    volume, mask = high
    inverted = np.where(volume.data > 0, 1.3 * volume.data.max() - volume.data, 0)
    noise = np.random.default_rng(0).standard_normal([2 * side for side in volume.data.shape], dtype=np.float32)
    finer = volume.affine @ nib.affines.from_matvec(np.eye(3) / 2, (-0.25,) * 3)
    low = ndimage.zoom(inverted, 2, order=1, grid_mode=True, mode="nearest") + volume.data.max() / 15 * noise
    z = np.flatnonzero(mask.any(axis=(0, 1)))
    first = 2 * int(z[0] + 0.2 * np.ptp(z))  # the lowest fifth, a small part of the volume
    cut = Volume(np.ascontiguousarray(low[:, :, first:]), finer @ nib.affines.from_matvec(np.eye(3), (0, 0, first)))
    path, cohort, out = tmp_path / "low.nii.gz", tmp_path / "cohort", tmp_path / "low"
    save_volume(path, cut.data.astype(np.float32), cut.affine)
    save_volume(anat(cohort, "sub-1", "T1w.nii.gz"), volume.data, volume.affine)
    save_volume(anat(cohort, "sub-1", "desc-brain_mask.nii.gz"), mask, volume.affine)
    record = {"lowfield": {"source": str(path), "path": str(path), "bytes": 1, "sha256": "0"}}
    write_json(anat(cohort, "sub-1", "T1w.json"), {"status": "ok", "files": record})
    register_scans(["sub-1"], cohort, out, "T1w", LowField(registration="rigid"), "main")
    told = read_json(anat(out, "sub-1", "T1w.json"))
    assert told["status"] == "ok", told["status"]
    lost = 1 - told["covered"]
    assert 0.02 < lost < 0.2
    assert any(f"lacks {100 * lost:.0f} % of the brain" in text for text in told["warnings"])
    grid = read_volume(anat(out, "sub-1", "space-HQ_T1w.nii.gz"))
    shown = ndimage.binary_erosion((grid.data != 0) & ~ndimage.binary_dilation(volume.data > 0, iterations=2))
    assert shown.sum() > 1000
    left = grid.data[shown].std() / (volume.data.max() / 15)
    assert left < 0.4, "of the noise, which splines alone would keep more than half of"


def test_what_is_told_of_a_registration_is_what_it_is() -> None:
    told = describe(pose((10, 0, 0), (1, 2, 3)), np.zeros(3))
    assert told == {"rotation_deg": [10.0, 0.0, 0.0], "translation_mm": [1.0, 2.0, 3.0], "volume_ratio": 1.0}


def test_slices_come_back_to_the_grid_as_simulated_ones_do(high: tuple[Volume, np.ndarray]) -> None:
    volume, _ = high
    settings = LowField(contrast="none", noise="none", unit="mm", thickness=6, gap=0)
    result = apply(volume, None, settings, draw(settings, 1, "sub-01"))
    moved = pose()
    again = on_grid(Volume(result.thick.data, moved @ result.thick.affine), Volume(volume.data, moved @ volume.affine))
    # Beyond the last slices' centres the two go on differently.
    inner = np.s_[:, :, 8:-8]
    np.testing.assert_allclose(again[inner], result.upsampled[inner], atol=0.01 * volume.data.max())


def test_a_cohorts_scans_become_a_low_field_set(
    high: tuple[Volume, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    volume, mask = high
    moved = pose()
    low = partner(volume, moved)
    files = {}
    for name, data in {"whole": low.data, "few": low.data[:, :, :4]}.items():
        path = tmp_path / f"{name}.nii.gz"
        save_volume(path, data, low.affine)
        files[name] = {"lowfield": {"source": str(path), "path": str(path), "bytes": 1, "sha256": "0"}}
    cohort, out = tmp_path / "cohort", tmp_path / "low"
    for scan, record in {"sub-1": files["whole"], "sub-2": {}, "sub-3": files["few"]}.items():
        save_volume(anat(cohort, scan, "T1w.nii.gz"), volume.data, volume.affine)
        save_volume(anat(cohort, scan, "desc-brain_mask.nii.gz"), mask, volume.affine)
        write_json(anat(cohort, scan, "T1w.json"), {"status": "ok", "files": record})
    scans = ["sub-1", "sub-2", "sub-3"]
    register_scans(scans, cohort, out, "T1w", LowField(registration="rigid"), "main")
    records = {scan: read_json(anat(out, scan, "T1w.json")) for scan in scans}
    assert records["sub-2"]["status"] == "the source has no low-field scan of it"
    assert "few.nii.gz" in records["sub-3"]["status"]
    assert "x 4 voxels, and at least 8" in records["sub-3"]["status"]
    assert records["sub-1"]["status"] == "ok"
    assert records["sub-1"]["warnings"] == []
    assert records["sub-1"]["residual_mm"] < 1
    thick, grid = (read_volume(anat(out, "sub-1", name)) for name in ("T1w.nii.gz", "space-HQ_T1w.nii.gz"))
    np.testing.assert_array_equal(thick.data, low.data)
    back = np.array(records["sub-1"]["matrix"]) @ thick.affine
    np.testing.assert_allclose(back, low.affine, atol=1e-3)
    assert grid.data.shape == volume.data.shape
    np.testing.assert_allclose(grid.affine, volume.affine, atol=1e-4)
    assert not list((out / "sub-2").rglob("*.nii.gz")) + list((out / "sub-3").rglob("*.nii.gz"))
