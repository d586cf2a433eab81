"""A study: which scans it takes, what it measures, and what it refuses."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from iqt.config.study import Study, parse_study
from iqt.errors import UserError
from iqt.io.claim import CLAIM, claim
from iqt.io.files import PARTIAL, read_json, write_json
from iqt.study.group import far_from_others
from iqt.study.process import outlined
from iqt.study.quality import entropy_focus, quality
from iqt.study.run import _snakemake, run_study
from iqt.study.scans import StudyScan, find_scans

BIN = Path(sys.executable).parent


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def study(root: Path, **changes: object) -> Study:
    return parse_study({"dataset": str(root), "out": str(root.parent / "out"), **changes})


def test_a_bids_dataset_keeps_every_entity_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    root = tmp_path / "data"
    touch(
        root,
        "sub-01/ses-a/anat/sub-01_ses-a_acq-ax_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_acq-cor_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz",
        "sub-02/anat/sub-02_T1w.nii",
        "sub-02/anat/sub-02_desc-enhanced_T1w.nii.gz",
        "sub-02/anat/sub-0-2_T1w.nii.gz",
        "sub-02/func/sub-02_task-rest_bold.nii.gz",
        "derivatives/bet/sub-02/anat/sub-02_desc-brain_mask.nii.gz",
        "derivatives/bet/sub-02/anat/sub-02_space-MNI_T1w.nii.gz",
        "sub-02/anat/._sub-02_T1w.nii.gz",
        "notes.txt",
    )
    scans, left_out = find_scans(study(root))
    assert [scan.name for scan in scans] == ["sub-01_ses-a_acq-ax", "sub-01_ses-a_acq-cor", "sub-02"]
    assert scans[0].folder == "sub-01/ses-a/anat"
    assert scans[2].mask == root / "derivatives/bet/sub-02/anat/sub-02_desc-brain_mask.nii.gz"
    assert scans[0].mask is None
    reasons = {one.file.name: one.reason for one in left_out}
    assert set(reasons) == {"sub-01_ses-a_T2w.nii.gz", "sub-02_desc-enhanced_T1w.nii.gz", "sub-0-2_T1w.nii.gz"}
    assert reasons["sub-01_ses-a_T2w.nii.gz"] == "a T2w, and T1w is enhanced"
    assert "derivative" in reasons["sub-02_desc-enhanced_T1w.nii.gz"]
    assert "no name that BIDS has" in reasons["sub-0-2_T1w.nii.gz"]


def test_a_study_inside_the_dataset_is_no_part_of_it(tmp_path: Path) -> None:
    """Its masks lie on other voxels, and its results are no scans."""
    for kind in ("bids", "folder"):
        root = tmp_path / kind
        scan = "sub-01/anat/sub-01_T1w.nii.gz" if kind == "bids" else "one_T1w.nii.gz"
        out = root / ("derivatives/iqt" if kind == "bids" else "enhanced")
        touch(root, scan)
        touch(out, "sub-01/anat/sub-01_desc-brain_mask.nii.gz", "sub-01/anat/sub-01_desc-enhanced_T1w.nii.gz")
        write_json(out / "code/study.json", {})
        scans, left_out = find_scans(study(root, out=str(out)))
        assert [(one.image, one.mask) for one in scans] == [(root / scan, None)]
        assert left_out == []


def test_participants_are_named_with_or_without_sub(tmp_path: Path) -> None:
    root = tmp_path / "data"
    touch(root, *(f"sub-{name}/anat/sub-{name}_T1w.nii.gz" for name in ("01", "02", "03")))
    scans, _ = find_scans(study(root, participants=["sub-03", "01"]))
    assert [scan.name for scan in scans] == ["sub-01", "sub-03"]
    with pytest.raises(UserError, match=r"has no T1w scan of 9; there are 01, 02, 03"):
        find_scans(study(root, participants=["9"]))


def test_a_folder_of_files_is_told_apart_by_names_then_by_folders(tmp_path: Path) -> None:
    root = tmp_path / "data"
    touch(root, "a/T1.nii.gz", "b/T1.nii.gz", "b/brain_flair.nii", "patient 7.mgz", "x/same.nii", "x/same.nii.gz")
    touch(root, *(f"notes/{number}.txt" for number in range(50)))
    scans, left_out = find_scans(study(root))
    assert [scan.name for scan in scans] == ["sub-aT1", "sub-bT1", "sub-patient7", "sub-xsame"]
    assert [(one.file.name, one.reason.split(";")[0]) for one in left_out] == [
        ("brain_flair.nii", "a FLAIR by its name, and T1w is enhanced"),
        ("same.nii.gz", f"would have the same name as {root / 'x/same.nii'}, sub-xsame"),
    ]
    single, _ = find_scans(study(root / "patient 7.mgz"))
    assert [scan.name for scan in single] == ["sub-patient7"]


def test_stacks_that_are_combined_keep_names_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    touch(root, *(f"sub-01/anat/sub-01_rec-{rec}_run-{run}_T1w.nii.gz" for rec in ("norm", "orig") for run in (1, 2)))
    touch(root, "sub-02/anat/sub-02_T1w.nii.gz")
    scans, _ = find_scans(study(root, fuse=True))
    assert [(scan.name, len(scan.stacks)) for scan in scans] == [
        ("sub-01_rec-normfused", 2),
        ("sub-01_rec-origfused", 2),
        ("sub-02", 0),
    ]
    assert capsys.readouterr().err == ""
    find_scans(study(root, fuse=True, participants=["02"]))
    assert "note: nothing is combined" in capsys.readouterr().err


def test_a_scan_says_all_that_it_is_made_from() -> None:
    one, two = (StudyScan(f"sub-01_acq-{name}", Path(f"sub-01_acq-{name}_T1w.nii.gz")) for name in ("ax", "cor"))
    assert one.sources == "sub-01_acq-ax_T1w.nii.gz"
    fused = StudyScan("sub-01_rec-fused", one.image, stacks=(one, two))
    assert fused.sources == "sub-01_acq-ax_T1w.nii.gz and sub-01_acq-cor_T1w.nii.gz"
    series = StudyScan("sub-02", Path("1.dcm"), series=(Path("1.dcm"), Path("2.dcm")))
    assert series.sources == "2 DICOM files, the first 1.dcm"


def test_nothing_to_enhance_is_said(tmp_path: Path) -> None:
    root = tmp_path / "data"
    touch(root, "sub-01/anat/sub-01_T2w.nii.gz")
    with pytest.raises(UserError, match=r"holds no T1w scan to enhance\n  .*sub-01_T2w.nii.gz: a T2w"):
        find_scans(study(root))
    with pytest.raises(UserError, match="no such file or folder"):
        find_scans(study(tmp_path / "nowhere"))


def test_the_configuration_names_what_is_wrong_with_it() -> None:
    with pytest.raises(UserError, match=r"study\.out: Field required(.|\n)*study\.sampels: Extra inputs"):
        parse_study({"dataset": "x", "sampels": 4})
    with pytest.raises(UserError, match=r"study\.dataset"):
        parse_study(None)


def test_what_is_not_there_is_left_out_with_its_reason(tmp_path: Path) -> None:
    """As in a dataset of which a part was fetched, for which Snakemake would plan nothing at all."""
    root = tmp_path / "data"
    touch(root, "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz", "sub-03/anat/sub-03_notes.txt")
    absent = root / "sub-03/anat/sub-03_T1w.nii.gz"
    absent.symlink_to("../../.git/annex/objects/x/y.nii.gz")
    (root / "sub-02/anat/sub-02_desc-brain_mask.nii.gz").symlink_to("nowhere.nii.gz")
    scans, left_out = find_scans(study(root))
    assert [(scan.name, scan.mask) for scan in scans] == [("sub-01", None), ("sub-02", None)]
    assert scans[0].doubts == ()
    assert "sub-02_desc-brain_mask.nii.gz: is a link to nowhere.nii.gz" in scans[1].doubts[0]
    assert scans[1].doubts[0].endswith("a mask is made instead")
    reasons = {one.file.name: one.reason for one in left_out}
    assert "was not fetched" in reasons["sub-03_T1w.nii.gz"]
    fetched = "derivatives/bet/sub-02/anat/sub-02_desc-brain_mask.nii.gz"
    touch(root, fetched)
    scan = find_scans(study(root))[0][1]
    assert (scan.mask, scan.doubts) == (root / fetched, ())
    folder = tmp_path / "folder"
    touch(folder, "one.nii.gz", "___.nii.gz")
    (folder / "two.nii.gz").symlink_to("nowhere.nii.gz")
    scans, left_out = find_scans(study(folder))
    assert [scan.name for scan in scans] == ["sub-one"]
    assert sorted(one.file.name for one in left_out) == ["___.nii.gz", "two.nii.gz"]


def test_people_in_linked_folders_are_found_once_and_no_loop_is_walked(tmp_path: Path) -> None:
    root = tmp_path / "subset"
    touch(tmp_path / "whole", *(f"sub-{name}/anat/sub-{name}_T1w.nii.gz" for name in ("01", "02")))
    root.mkdir()
    (root / "sub-01").symlink_to(tmp_path / "whole/sub-01")
    (tmp_path / "whole/sub-01/back").symlink_to(root)
    assert [scan.image for scan in find_scans(study(root))[0]] == [root / "sub-01/anat/sub-01_T1w.nii.gz"]
    touch(tmp_path / "folder", "a/T1.nii.gz", "b/T1.nii.gz")
    (tmp_path / "folder/latest").symlink_to("b")
    assert [scan.name for scan in find_scans(study(tmp_path / "folder"))[0]] == ["sub-aT1", "sub-bT1"]


@pytest.mark.parametrize("inside", [".", "..", "file"])
def test_the_dataset_is_never_written_to(tmp_path: Path, inside: str) -> None:
    root = tmp_path / "up" / "data"
    touch(root, "sub-01/anat/sub-01_T1w.nii.gz")
    touch(tmp_path, "file")
    out = {".": root, "..": root.parent, "file": tmp_path / "file"}[inside]
    with pytest.raises(UserError, match="is a file; name a folder" if inside == "file" else "never written to"):
        run_study({"dataset": str(root), "out": str(out)}, 1, dry_run=True)


def test_results_are_never_mixed_with_those_of_another_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "data", tmp_path / "out"
    touch(root, *(f"sub-01/anat/sub-01_{suffix}.nii.gz" for suffix in ("T1w", "FLAIR")))
    before = {"dataset": str(root), "out": str(out), "suffix": "T1w"}
    write_json(out / "code/study.json", {"study": before})
    for changed in ({"suffix": "FLAIR", "model": "mine"}, {"dataset": str(tmp_path / "other")}):
        with pytest.raises(UserError, match=rf"results of another study, whose {next(iter(changed))} was .* --force"):
            run_study(before | changed, 1, dry_run=True)
    monkeypatch.chdir(out)  # the same two folders, named from within one
    (tmp_path / "linked").symlink_to(root)
    for same in ("../data", "../linked"):
        run_study({"dataset": same, "out": "."}, 1, dry_run=True)
        assert capsys.readouterr().out.startswith("1 T1w scans, 1 of them to do")


def test_runs_side_by_side_have_configurations_of_their_own_and_a_limit_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, seen = tmp_path / "data", []
    touch(root, *(f"sub-{name}/anat/sub-{name}_T1w.nii.gz" for name in ("01", "02")))

    def note(command: list[str], **_others: object) -> subprocess.CompletedProcess[str]:
        path = Path(command[command.index("--configfile") + 1])
        assert path.is_relative_to(tmp_path / "out"), "which every machine of a cluster sees"
        seen.append((path, read_json(path)["study"]["participants"], command))
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr("iqt.study.run.subprocess.run", note)
    monkeypatch.setattr("iqt.study.run.free_bytes", lambda: 9e9)
    monkeypatch.setattr("iqt.study.run.visible_gpus", list)
    for name in ("01", "02"):
        with pytest.raises(UserError, match="the study is not finished"):
            run_study({"dataset": str(root), "out": str(tmp_path / "out"), "participants": [name]}, 1)
    assert [participants for _, participants, _ in seen] == [["01"], ["02"]]
    assert seen[0][0] != seen[1][0]
    assert all("mem_mb=9000" in command for _, _, command in seen)
    assert not [path for path, _, _ in seen if path.exists()]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "data", tmp_path / "data" / "derivatives" / "iqt"
    touch(root, "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz")
    touch(out, "precious.txt")
    settings = {"dataset": str(root), "out": str(out)}
    with pytest.raises(UserError, match=r"holds something else than a study; name another folder, or --force"):
        run_study(settings, 1, dry_run=True)
    run_study(settings, 2, dry_run=True, force=True)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "2 T1w scans, 2 of them to do; 0 files left out; about 30 s on 2 cores"
    assert told[1] == f"  sub-01: {root / 'sub-01/anat/sub-01_T1w.nii.gz'}"
    assert (out / "precious.txt").exists()


def tissue(noise: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """White matter of 1 and a cortex of 0.7 with noise, and their labels."""
    labels = np.zeros((20, 30, 20), int)
    labels[:, :15], labels[:, 15:] = 2, 42
    return np.where(labels == 2, 1.0, 0.7) + noise * rng.normal(size=labels.shape), labels


def test_quality_is_what_its_definitions_say() -> None:
    image, labels = tissue(0.05, np.random.default_rng(1))
    found = quality(image, labels)
    assert found["snr_wm"] == pytest.approx(1 / 0.05, rel=0.05)
    assert found["snr_gm"] == pytest.approx(0.7 / 0.05, rel=0.05)
    assert found["cnr"] == pytest.approx(0.3 / (0.05 * 2**0.5), rel=0.05)
    assert found["cjv"] == pytest.approx(0.1 / 0.3, rel=0.05)
    cleaner = quality(*tissue(0.02, np.random.default_rng(1)))
    assert cleaner["snr_wm"] > found["snr_wm"]
    assert cleaner["cjv"] < found["cjv"]
    assert set(quality(image, np.zeros_like(labels))) == {"efc"}


def test_quality_is_what_niimath_makes_of_mriqcs_definitions(tmp_path: Path) -> None:
    image, labels = tissue(0.05, np.random.default_rng(2))
    image = (1000 * np.pad(image, 4)).astype(np.float32)
    labels = np.pad(labels, 4)
    found = quality(image, labels)
    # Its white matter has lost its outermost voxels too; what is neither that nor CSF counts as grey there.
    white = binary_erosion(labels == 2)
    theirs = np.select([white, labels == 42], [3, 2], 0).astype(np.int16)
    theirs[0, 0, :2] = 1  # it wants some CSF
    for name, data in (("image", image), ("labels", theirs)):
        nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / f"{name}.nii")
    command = [BIN / "niimath", "--qc", "image.nii", "--seg", "labels.nii", "--csf", "1", "--wm", "3"]
    command += ["--erode", "0", "--raw", "--json", "qc.json"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    wanted = read_json(tmp_path / "qc.json")
    for ours, name in {"snr_wm": "snr_wm", "snr_gm": "snr_gm", "cnr": "cnr_noair", "cjv": "cjv"}.items():
        assert found[ours] == pytest.approx(wanted[name], rel=2e-3), ours
    brain = labels > 0
    box = tuple(slice(where.min(), where.max() + 1) for where in np.nonzero(brain))
    assert entropy_focus(image[box]) == pytest.approx(wanted["efc_brain"], rel=1e-2)


def test_entropy_focus_is_one_for_a_flat_image_and_falls_where_energy_gathers() -> None:
    assert entropy_focus(np.full((5, 6, 7), 3.0)) == pytest.approx(1)
    point = np.zeros((5, 6, 7))
    point[2, 2, 2] = 4
    assert entropy_focus(point) == pytest.approx(0, abs=1e-12)
    rng = np.random.default_rng(1)
    assert entropy_focus(rng.gamma(0.3, size=(9, 9, 9))) < entropy_focus(rng.gamma(3, size=(9, 9, 9))) < 1


def test_what_is_far_from_the_others_is_marked_and_nothing_else() -> None:
    values = [10.0, 10.5, 9.8, 10.1, 9.9, 30.0, None]
    assert far_from_others(values) == [False] * 5 + [True, False]
    assert far_from_others([1.0, 1.0, 100.0]) == [False] * 3, "too few for a distribution"


def test_an_outline_lies_between_labels_alone() -> None:
    labels = np.zeros((6, 6, 6), int)
    labels[2:4, 2:4, 2:4] = 1
    shown = outlined(np.full(labels.shape, 0.5), labels)
    assert (shown[labels == 1] == 2).any()
    assert (shown[5] == 0.5).all()


def test_a_killed_studys_configuration_is_swept_and_a_living_ones_is_not(tmp_path: Path) -> None:
    for name in ("killed", "alive"):
        (tmp_path / f"{PARTIAL}{name}").mkdir()
        (tmp_path / f"{PARTIAL}{name}" / CLAIM).touch()
    study = Study(dataset=str(tmp_path), out=str(tmp_path / "out"))
    with claim(tmp_path / f"{PARTIAL}alive", fcntl.LOCK_SH), _snakemake(study, [], tmp_path) as command:
        configuration = Path(command[command.index("--configfile") + 1])
        assert configuration.is_file()
        assert {path.name for path in tmp_path.iterdir()} == {f"{PARTIAL}alive", configuration.parent.name}
    assert [path.name for path in tmp_path.iterdir()] == [f"{PARTIAL}alive"]
