"""Studies of DICOM folders: which series are taken, under what names, and that voxels keep their place."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dicoms import write_series
from iqt.config.study import Study, parse_study
from iqt.errors import UserError
from iqt.io.volumes import read_volume
from iqt.study import dicom
from iqt.study.scans import find_scans

SHAPE = (20, 24, 9)


def study(root: Path, **changes: object) -> Study:
    return parse_study({"dataset": str(root), "out": str(root.parent / "out"), **changes})


def slab(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, SHAPE)


def oblique() -> np.ndarray:
    """Coronal slices 5 mm apart, a little turned about the first axis."""
    turn = np.array([[1, 0, 0], [0, 0.05, 0.998749], [0, -0.998749, 0.05]])
    return nib.affines.from_matvec(turn @ np.diag([1.6, 1.6, 5.0]), (-10.0, 20.0, 30.0))


def test_series_are_chosen_by_what_the_operator_called_them(tmp_path: Path) -> None:
    root, affine = tmp_path / "exam", np.diag([1.6, 1.6, 5.0, 1])
    write_series(root / "all", slab(), affine, "T1 (AXI) Gray/White", number=3)
    write_series(root / "all", slab(), affine, "T1 (COR)", number=4)
    write_series(root / "all", slab(), affine, "T2 (AXI)", number=5)
    write_series(root / "all", slab(), affine, "Map Scan", number=1)
    write_series(root / "all", slab(), affine, "T1 MPR", number=6, image_type=("DERIVED", "SECONDARY", "MPR"))
    write_series(root / "ct", slab(), affine, "T1 head", patient="CT 2", modality="CT")
    write_series(root / "later", slab(), affine, "T1 (AXI) Gray/White", date="20260401", study="1.2.826.0.1.2")
    write_series(root / "other", slab(), affine, "T1 (COR)", patient="7", study="1.2.826.0.1.3", number=1)
    write_series(root / "other", slab(), affine, "T1 (COR)", patient="7", study="1.2.826.0.1.3", number=2)
    (root / "all" / "notes.txt").write_text("not an image")
    (root / "all" / "broken").write_bytes(b"\0" * 128 + b"DICM" + b"\1\2\3")
    scans, left_out = find_scans(study(root))
    assert [scan.name for scan in scans] == [
        "sub-7_ses-20260301_acq-T1COR",
        "sub-7_ses-20260301_acq-T1COR_run-2",
        "sub-P01_ses-20260301_acq-T1AXIGrayWhite",
        "sub-P01_ses-20260301_acq-T1COR",
        "sub-P01_ses-20260401_acq-T1AXIGrayWhite",
    ]
    assert {len(scan.series) for scan in scans} == {SHAPE[2]}
    reasons = sorted(one.reason for one in left_out)
    assert reasons == [
        "a DICOM file whose header cannot be read",
        "a series of 9 files: a T2w, called 'T2 (AXI)', and T1w is enhanced",
        "a series of 9 files: a series of modality CT",
        "a series of 9 files: called 'Map Scan', which names no contrast; study.series (--series) chooses by a pattern",
        "a series of 9 files: no scan as it was acquired, by its image type (MPR)",
    ]
    chosen, _ = find_scans(study(root, series="^map"))
    assert [scan.name for scan in chosen] == ["sub-P01_ses-20260301_acq-MapScan"]
    assert [scan.name for scan in find_scans(study(root, fuse=True))[0]] == [
        "sub-7_ses-20260301_rec-fused",
        "sub-P01_ses-20260301_rec-fused",
        "sub-P01_ses-20260401_acq-T1AXIGrayWhite",
    ]


def test_a_header_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, known = tmp_path / "exam", tmp_path / "out" / "code" / "dicom.json"
    write_series(root, slab(), np.diag([1.6, 1.6, 5.0, 1]), "T1")
    (root / "notes.txt").write_text("not an image")
    assert len(dicom.read_series(root, root.iterdir(), None)[0]) == 1
    find_scans(study(root))
    assert not known.parent.exists(), "nothing is written into a folder that is no study's"
    first = dicom.read_series(root, sorted(root.iterdir()), known)
    for name in ("_header", "is_dicom"):
        monkeypatch.setattr(dicom, name, lambda path: pytest.fail(f"{path} is opened again"))
    assert dicom.read_series(root, sorted(root.iterdir()), known) == first
    text = known.read_text()
    for private in ("Somebody", "1.2.826", "101500"):
        assert private not in text


def test_no_two_patients_become_one_and_no_two_visits(tmp_path: Path) -> None:
    root, affine = tmp_path / "export", np.diag([1.6, 1.6, 5.0, 1])
    write_series(root / "one", slab(), affine, "T1", patient="P-01", study="1.2.826.0.1.1")
    write_series(root / "two", slab(), affine, "T1", patient="P_01", study="1.2.826.0.1.2")
    write_series(root / "two", slab(), affine, "T1", patient="P_01", study="1.2.826.0.1.3", number=2)
    write_series(root / "three", slab(), affine, "T1", patient="sub-07", study="1.2.826.0.1.4", date="")
    for name in ("a", "b"):
        write_series(root / name / "T1", slab(), affine, "T1", patient="", study=f"1.2.826.0.2.{ord(name)}", date="")
    scans, _ = find_scans(study(root, fuse=True))
    assert sorted(scan.name for scan in scans) == [
        "sub-07_acq-T1",
        "sub-P01_ses-20260301_acq-T1",
        "sub-P01x2_ses-20260301_acq-T1",
        "sub-P01x2_ses-20260301x2_acq-T1",
        "sub-a_acq-T1",
        "sub-b_acq-T1",
    ]


def test_voxels_keep_their_place_and_names_stay_behind(tmp_path: Path) -> None:
    data, affine = slab(), oblique()
    write_series(tmp_path / "exam", data, affine, "T1 (COR)")
    ((series,), _) = dicom.read_series(tmp_path / "exam", sorted((tmp_path / "exam").iterdir()), None)
    out = tmp_path / "sub-01_T1w.nii.gz"
    dicom.to_nifti(series.files, out)
    found = read_volume(out)
    # At the same places of the world lie the same values, in whatever order dcm2niix stores them.
    places = nib.affines.apply_affine(affine, np.argwhere(np.ones(SHAPE)))
    there = nib.affines.apply_affine(np.linalg.inv(found.affine), places)
    assert np.abs(there - np.rint(there)).max() < 1e-2
    index = np.rint(there).astype(int)
    wanted = np.rint(1000 * data / data.max()).ravel()
    assert np.array_equal(found.data[tuple(index.T)], wanted)
    told = out.with_name("sub-01_T1w.json").read_text()
    assert json.loads(told)["MagneticFieldStrength"] == pytest.approx(0.064)
    assert "Somebody" not in told
    assert "20260301" not in told
    assert "101500" not in told
    header = nib.load(out).header
    assert not bytes(header["descrip"]).strip(b"\0")
    assert not bytes(header["aux_file"]).strip(b"\0")


def test_what_cannot_be_converted_is_said(tmp_path: Path) -> None:
    write_series(tmp_path / "exam", slab(), np.diag([1.6, 1.6, 5.0, 1]), "T1")
    ((series,), _) = dicom.read_series(tmp_path / "exam", sorted((tmp_path / "exam").iterdir()), None)
    for path in series.files:
        path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(UserError, match=r"exam: dcm2niix makes 0 volumes of these 9 DICOM files"):
        dicom.to_nifti(series.files, tmp_path / "out.nii.gz")
    assert not (tmp_path / "out.nii.gz").exists()


def bids(folder: Path) -> Path:
    path = folder / "bids" / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    path.touch()
    return folder / "bids"


def test_a_pattern_or_a_file_that_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"study\.series: .*is no regular expression"):
        study(tmp_path, series="T1 (AXI")
    write_series(tmp_path / "exam", slab(), np.diag([1.6, 1.6, 5.0, 1]), "T1")
    with pytest.raises(UserError, match="no series here is taken by it"):
        find_scans(study(bids(tmp_path), series="T1"))
    with pytest.raises(UserError, match="one file of a series of DICOM files; name their folder"):
        find_scans(study(next((tmp_path / "exam").iterdir())))


def test_dicom_beside_other_images_is_said_to_be_left_out(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / "one_T1w.nii.gz").touch()
    for name in ("0001", "0002"):
        (root / name).write_bytes(b"\0" * 128 + b"DICM")
    (root / "sourcedata").mkdir()
    (root / "sourcedata" / "0000").write_bytes(b"\0" * 128 + b"DICM")
    scans, (left_out,) = find_scans(study(root))
    assert [scan.name for scan in scans] == ["sub-oneT1w"]
    assert left_out.file == root / "0001"
    assert left_out.reason.startswith("DICOM files beside NIfTI")
