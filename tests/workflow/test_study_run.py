"""A study from a dataset to its page, as a user runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dicoms import write_series
from iqt.io.files import read_json, read_table, write_table
from iqt.io.volumes import save_volume
from people import person

BIN = Path(sys.executable).parent
STRANGE = "my {scans} 'of' 2026 ü"


def run(*command: object, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SNAKEMAKE", "PYTHON"))}
    return subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small people's skull-stripped scans with thick slices, one without anything in it, and a T2w."""
    root = tmp_path_factory.mktemp("study") / STRANGE
    root.mkdir()
    (root / "dataset_description.json").write_text(
        json.dumps({"Name": "made by a test", "BIDSVersion": "1.9.0", "Authors": ["One", "Two"]})
    )
    for name, size in (("01", 0.9), ("02", 0.8)):
        made = person(name, 2.0)
        thick, affine = np.ascontiguousarray(made.T1w[:, :, ::2]), made.affine @ np.diag([size, size, 2 * size, 1])
        save_volume(root / f"sub-{name}/anat/sub-{name}_acq-ax_T1w.nii.gz", thick, affine)
        os.chmod(root / f"sub-{name}/anat", 0o555)
    save_volume(root / "sub-03/anat/sub-03_T1w.nii.gz", np.zeros((20, 20, 20), np.float32), np.eye(4))
    save_volume(root / "sub-03/anat/sub-03_T2w.nii.gz", np.ones((20, 20, 20), np.float32), np.eye(4))
    return root


@pytest.fixture(scope="module")
def finished(dataset: Path) -> Path:
    out = dataset.parent / "results {of} it"
    done = run(BIN / "iqt", "study", dataset, out, "--cores", 2, folder=dataset.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"2 of 3 scans enhanced: {out}/study.html\n  sub-03: " in done.stdout
    return out


def test_every_scan_has_its_results_or_its_reason(finished: Path, dataset: Path) -> None:
    rows = {row["scan"]: row for row in read_table(finished / "group" / "scans.tsv")}
    assert {name: row["status"] == "ok" for name, row in rows.items()} == {
        "sub-01_acq-ax": True,
        "sub-02_acq-ax": True,
        "sub-03": False,
    }
    assert [row["reason"] for row in read_table(finished / "group" / "left_out.tsv")] == ["a T2w, and T1w is enhanced"]
    folder = finished / "sub-01" / "anat"
    image = nib.load(folder / "sub-01_acq-ax_desc-enhanced_T1w.nii.gz")
    assert nib.affines.voxel_sizes(image.affine) == pytest.approx([1, 1, 1])
    mask = np.asarray(nib.load(folder / "sub-01_acq-ax_desc-brain_mask.nii.gz").dataobj)
    data, labels = image.get_fdata(), np.asarray(nib.load(folder / "sub-01_acq-ax_desc-enhanced_dseg.nii.gz").dataobj)
    assert mask.shape == data.shape == labels.shape
    assert not data[mask == 0].any()
    assert labels[mask > 0].any()
    record = read_json(folder / "sub-01_acq-ax_desc-enhanced_T1w.json")
    assert record["Sources"] == ["bids:raw:sub-01/anat/sub-01_acq-ax_T1w.nii.gz"]
    assert 0.5 < record["brain_ml"] / 1300 < 1.6
    assert record["quality_after"]["snr_wm"] > 0
    volumes = {row["scan"]: row for row in read_table(finished / "group" / "volumes.tsv")}
    assert float(volumes["sub-01_acq-ax"]["Left-Thalamus"]) > 0
    assert volumes["sub-03"]["Left-Thalamus"] == ""
    assert not list((finished / "sub-03").rglob("*.nii.gz"))


def test_the_results_are_a_valid_bids_derivative(finished: Path) -> None:
    done = run(BIN / "bids-validator-deno", finished, "--json", folder=finished)
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] in ("error", "warning")] == []
    described = read_json(finished / "dataset_description.json")
    (made,) = described["GeneratedBy"]
    assert made["Command"].startswith("iqt study")
    assert (
        read_json(finished / "sub-01/anat/sub-01_acq-ax_desc-enhanced_T1w.json")["model"]["weights_sha256"]
        in made["Description"]
    )


def test_pages_open_offline_and_name_what_failed(finished: Path) -> None:
    text = (finished / "study.html").read_text()
    assert '<a href="pages/sub-01_acq-ax.html">' in text
    assert "<li>sub-03: " in text
    for page in (finished / "study.html", *(finished / "pages").iterdir()):
        told = page.read_text()
        assert not re.search("https?://", told)
        assert len(told) < 5_000_000
        assert "Not for diagnosis" in told or "Not enhanced" in told
    page = (finished / "pages" / "sub-01_acq-ax.html").read_text()
    assert "structures, outlined" in page
    assert "<code>name t1w-unet, kind unet, weights_sha256 " in page


def test_a_folder_that_cannot_be_written_to_is_one_message(dataset: Path) -> None:
    for program in ("iqt-bids", "iqt"):
        words = (
            (dataset, "/proc/results", "participant") if program == "iqt-bids" else ("study", dataset, "/proc/results")
        )
        done = run(BIN / program, *words, folder=dataset.parent)
        assert done.returncode == 1
        assert re.fullmatch(rf"{program}: error: /proc/results.*; .* and run the same command again\n", done.stderr)


@pytest.mark.slow
def test_run_again_it_does_what_is_new(finished: Path, dataset: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*desc-enhanced_T1w.nii.gz")}
    (dataset / "sub-03/anat/sub-03_T1w.nii.gz").unlink()
    done = run(
        BIN / "iqt-bids", dataset, finished, "participant", "--participant-label", "01", "02", folder=dataset.parent
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 scans enhanced" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for options, to_do in ((), 0), (("--fuse",), 0), (("--samples", "2"), 2):
        done = run(BIN / "iqt", "study", dataset, finished, "--dry-run", *options, folder=dataset.parent)
        assert f"2 T1w scans, {to_do} of them to do;" in done.stdout, done.stdout + done.stderr
    done = run(BIN / "iqt", "study", os.path.relpath(dataset, finished), ".", folder=finished)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 scans enhanced" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_a_configuration_of_ones_own_makes_a_study_that_is_known_as_one(workflow: Path, tmp_path: Path) -> None:
    """Its results lie in the dataset's derivatives: run again, their masks are not taken for the dataset's."""
    root = tmp_path / "data"
    made = person("01", 4.0)
    save_volume(root / "sub-01/anat/sub-01_T1w.nii.gz", made.T1w, made.affine)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "made by a test", "BIDSVersion": "1.9.0"}))
    out, path = root / "derivatives/iqt", workflow / "config" / "own.yaml"
    write_table(out / "group/volumes.tsv", [{"scan": "sub-01", "Left-Thalamus": 1}])  # of an earlier run, with labels
    inside = os.path.relpath(root, workflow)
    path.write_text(f"study: {{dataset: {inside}, out: {inside}/derivatives/iqt, parcellate: false}}\n")
    command = (BIN / "snakemake", "--cores", 2, "--configfile", path)
    first = run(*command, folder=workflow)
    assert first.returncode == 0, first.stdout + first.stderr
    enhanced = out / "sub-01/anat/sub-01_desc-enhanced_T1w.nii.gz"
    before = enhanced.stat().st_mtime_ns
    assert read_json(out / "code/study.json")["study"]["out"] == str(out)
    assert not (out / "group/volumes.tsv").exists(), "no structure was labelled"
    again = run(*command, folder=workflow)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Nothing to be done" in again.stdout + again.stderr
    assert enhanced.stat().st_mtime_ns == before


def test_a_study_is_planned_from_a_configuration(workflow: Path, dataset: Path) -> None:
    path = workflow / "config" / "study.yaml"
    path.write_text(f"study:\n  dataset: {json.dumps(str(dataset))}\n  out: results/study\n")
    done = run(BIN / "snakemake", "-n", "--cores", 2, "--configfile", path, folder=workflow)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "process_scan" in done.stdout + done.stderr
    path.write_text("study:\n  dataset: nowhere\n  out: results/study\n")
    done = run(BIN / "snakemake", "-n", "--cores", 2, "--configfile", path, folder=workflow)
    assert done.returncode != 0
    assert "nowhere: no such file or folder" in done.stdout + done.stderr


@pytest.mark.slow
def test_a_folder_of_dicom_with_stacks_of_a_session(tmp_path: Path) -> None:
    """One patient has a single stack; another an axial and a coronal one, between which the head moved, and a T2w."""
    exam, out = tmp_path / "exam", tmp_path / "out"
    made = person("01", 2.0)
    axial = np.ascontiguousarray(made.T1w[:, :, ::2]), made.affine @ np.diag([1, 1, 2, 1])
    shift = nib.affines.from_matvec(np.eye(3), (1.5, -2, 1))
    # Slices along the file's last axis, as a scanner sends them.
    coronal = np.ascontiguousarray(made.T1w[:, ::2].transpose(0, 2, 1))
    turned = shift @ made.affine @ np.diag([1, 2, 1, 1]) @ np.eye(4)[:, [0, 2, 1, 3]]
    write_series(exam / "one", *axial, "T1 (AXI)", patient="1", study="1.2.826.0.1.1")
    write_series(exam / "two", *axial, "T1 (AXI)", patient="2", study="1.2.826.0.1.2")
    write_series(exam / "two", coronal, turned, "T1 (COR)", patient="2", study="1.2.826.0.1.2", number=2)
    write_series(exam / "two", *axial, "T2 (AXI)", patient="2", study="1.2.826.0.1.2", number=3)
    done = run(BIN / "iqt", "study", exam, out, "--fuse", "--no-parcellate", "--cores", 2, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 scans enhanced" in done.stdout, done.stdout + done.stderr
    assert len(read_table(out / "group" / "left_out.tsv")) == 1
    alone, fused = "sub-1_ses-20260301_acq-T1AXI", "sub-2_ses-20260301_rec-fused"
    folder = out / "sub-2" / "ses-20260301" / "anat"
    record = read_json(folder / f"{fused}_desc-enhanced_T1w.json")
    assert [Path(source).name for source in record["Sources"]] == [
        "sub-2_ses-20260301_acq-T1AXI_T1w.nii.gz",
        "sub-2_ses-20260301_acq-T1COR_T1w.nii.gz",
    ]
    assert record["combined"][1]["translation_mm"] == pytest.approx([1.5, -2, 1], abs=0.7)
    combined = nib.load(out / "sourcedata" / "sub-2" / "ses-20260301" / "anat" / f"{fused}_T1w.nii.gz")
    assert nib.affines.voxel_sizes(combined.affine) == pytest.approx([1, 1, 1])
    assert (out / "pages" / f"{fused}.html").exists()
    converted = out / "sourcedata" / "sub-1" / "ses-20260301" / "anat" / f"{alone}_T1w.nii.gz"
    assert nib.affines.voxel_sizes(nib.load(converted).affine) == pytest.approx([2, 2, 4], rel=1e-3)
    done = run(BIN / "bids-validator-deno", out, "--json", folder=out)
    # DICOM files do not say who the authors of a dataset are.
    issues = [one for one in json.loads(done.stdout)["issues"]["issues"] if one["code"] != "TOO_FEW_AUTHORS"]
    assert [issue for issue in issues if issue["severity"] in ("error", "warning")] == []


@pytest.mark.slow
def test_whatever_lies_in_a_folder_is_named_with_its_reason(tmp_path: Path) -> None:
    """Nothing here can be enhanced, and the study says of each why, and ends well."""
    root, out, rng = tmp_path / "all sorts", tmp_path / "out", np.random.default_rng(1)
    made = person("01", 4.0)
    head, affine = made.T1w.astype(np.float32), made.affine
    write = {
        "four_dimensions_T1w.nii.gz": np.stack([head] * 3, axis=-1),
        "three_slices_T1w.nii.gz": head[:, :, 20:23],
        "ct_T1w.nii.gz": np.where(head > 0, head - 300, -1000).astype(np.float32),
        "phantom_T1w.nii.gz": np.pad(np.ones((20, 20, 20), np.float32), 10),
        "noise_T1w.nii.gz": np.abs(rng.normal(100, 30, head.shape)).astype(np.float32),
        "nan_T1w.nii.gz": np.where(rng.random(head.shape) < 0.01, np.nan, head).astype(np.float32),
    }
    root.mkdir()
    for name, data in write.items():
        nib.save(nib.Nifti1Image(data, affine), root / name)
    (root / "truncated_T1w.nii.gz").write_bytes((root / "nan_T1w.nii.gz").read_bytes()[:2000])
    (root / "brain_T2w.nii.gz").touch()
    for number in range(2000):
        (root / f"note {number}.txt").touch()
    done = run(BIN / "iqt", "study", root, out, "--no-parcellate", "--cores", 2, folder=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "0 of 7 scans enhanced" in done.stdout
    assert "none of the 7 scans could be enhanced" in done.stderr
    status = {
        row["scan"].removeprefix("sub-").removesuffix("T1w"): row["status"]
        for row in read_table(out / "group/scans.tsv")
    }
    for name, reason in {
        "fourdimensions": "a single 3D volume is needed",
        "threeslices": "slices",
        "ct": "signed",
        "phantom": "a mask, not an MRI scan",
        "noise": "brain",
        "nan": "NaN",
        "truncated": "is it complete?",
    }.items():
        assert status[name] != "ok", name
        assert reason in status[name], (name, status[name])
    assert [row["reason"] for row in read_table(out / "group" / "left_out.tsv")] == [
        "a T2w by its name, and T1w is enhanced"
    ]
    text = (out / "study.html").read_text()
    assert all(f"sub-{name}T1w" in text for name in status)
    assert not list(out.rglob("*desc-enhanced*"))
