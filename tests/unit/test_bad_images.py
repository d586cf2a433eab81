"""Images, masks and label maps from outside: each is used as it was meant, or ends in one message that names it."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from damaged_files import GRID, HEADERS, ball, claim, headers, patched, save, wrapped
from nibabel.affines import apply_affine
from scipy import ndimage

from iqt.config import Mask
from iqt.enhance.intake import load_scan
from iqt.enhance.single import enhance_file
from iqt.errors import StopError, UserError
from iqt.imaging import checks
from iqt.imaging.kinds import kind_of
from iqt.io import nifti
from iqt.io.volumes import Volume, cut_mask, read_mask, read_volume
from stand_in import save_stand_in


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stand_in(tmp_path_factory.mktemp("model"), spread=0.0, grid=GRID)


IMAGES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing": (lambda p: p / "none.nii.gz", "no such file"),
    "folder": (lambda p: (p / "folder.nii.gz").mkdir() or p / "folder.nii.gz", "Is a directory"),
    "empty": (lambda p: (p / "e.nii.gz").touch() or p / "e.nii.gz", "the file is empty"),
    "text": (lambda p: (p / "t.nii.gz").write_text("hello") and p / "t.nii.gz", "not readable as an image"),
    "text in gzip": (
        lambda p: (p / "t.nii.gz").write_bytes(gzip.compress(b"hello")) and p / "t.nii.gz",
        "not readable as an image",
    ),
    "annex link": (
        lambda p: (p / "a.nii.gz").symlink_to(".git/annex/objects/x") or p / "a.nii.gz",
        "get the file first, with `datalad get`",
    ),
    "broken link": (lambda p: (p / "a.nii.gz").symlink_to("gone.nii.gz") or p / "a.nii.gz", "is a link to gone.nii.gz"),
    "cut off": (
        lambda p: patched(save(p / "c.nii.gz", ball()[0]), 0, b"")
        and (p / "c.nii.gz").write_bytes((p / "c.nii.gz").read_bytes()[:5000])
        and p / "c.nii.gz",
        "not readable as an image",
    ),
    "checksum": (
        lambda p: patched(save(p / "c.nii.gz", ball()[0]), -8, b"\0\1\2\3"),
        "CRC check failed",
    ),
    "claims 1290^3": (lambda p: claim(p / "b.nii.gz", (1290,) * 3, np.float64), "1290, 1290, 1290"),
    "claims 700^3": (lambda p: claim(p / "b.nii.gz", (700,) * 3), "not readable as an image"),
    "gzip bomb": (lambda p: claim(p / "b.nii.gz", (9, 9, 9), content=bytes(10**8)), "more than the"),
    "offset": (
        lambda p: patched(save(p / "o.nii", ball()[0]), 108, struct.pack("<f", 1e12)),
        "not readable as an image",
    ),
    "data type": (lambda p: patched(save(p / "d.nii", ball()[0]), 70, b"\xe7\3"), "not readable as an image"),
    "no axis": (lambda p: patched(save(p / "d.nii", ball()[0]), 40, b"\0\0"), "not readable as an image"),
    "four volumes": (lambda p: save(p / "f.nii.gz", np.stack([ball()[0]] * 4, axis=-1)), "single 3D volume"),
    "one slice": (lambda p: save(p / "s.nii.gz", ball()[0][:, :, :1]), "at least 8 are needed"),
    "few slices": (lambda p: save(p / "s.nii.gz", ball()[0][:, :, 12:16]), "a few slices are not enough"),
    "NaN": (lambda p: save(p / "n.nii.gz", np.where(ball()[0] > 320, np.nan, ball()[0])), "NaN or infinite"),
    "complex": (lambda p: save(p / "c.nii.gz", ball()[0].astype(np.complex64)), "complex numbers"),
    "colours": (
        lambda p: save(
            p / "c.nii.gz",
            np.zeros((50, 48, 30), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])),
        ),
        "colours",
    ),
    "constant": (lambda p: save(p / "c.nii.gz", np.full((50, 48, 30), 7.0)), "is constant"),
    "too large": (lambda p: save(p / "l.nii.gz", ball()[0].astype(np.float64) * 1e39), "rescale it"),
    "too small": (lambda p: save(p / "s.nii.gz", ball()[0].astype(np.float64) * 1e-60), "rescale it"),
    "ran over": (lambda p: wrapped(p / "w.nii.gz"), "16-bit integers ran over"),
    "phase": (
        lambda p: save(p / "p.nii.gz", np.random.default_rng(0).uniform(-np.pi, np.pi, (50, 48, 30))),
        "it is signed",
    ),
    "difference": (
        lambda p: save(p / "p.nii.gz", np.random.default_rng(0).normal(0, 9, (50, 48, 30)) * (ball()[0] > 0)),
        "it is signed",
    ),
    "mask": (lambda p: save(p / "m.nii.gz", (ball()[0] > 0).astype(np.uint8)), "it is a mask, not an MRI scan"),
    "labels": (
        lambda p: save(p / "l.nii.gz", np.kron(np.arange(60).reshape(5, 4, 3), np.ones((10, 12, 10))).astype(np.int16)),
        "it is a label map, not an MRI scan",
    ),
    "flat affine": (
        lambda p: patched(save(p / "a.nii", ball()[0]), 280, bytes(48)),
        "affine is not invertible",
    ),
    "infinite affine": (
        lambda p: patched(save(p / "a.nii", ball()[0]), 280, struct.pack("<f", np.inf)),
        "affine",
    ),
    "placeholder voxels": (lambda p: save(p / "v.nii.gz", ball()[0], np.diag([0.001] * 3 + [1])), "correct its header"),
    "huge voxels": (lambda p: save(p / "v.nii.gz", ball()[0], np.diag([30.0] * 3 + [1])), "correct its header"),
    "metres that are none": (
        lambda p: patched(save(p / "v.nii", ball()[0]), 123, b"\1"),
        "correct its header",
    ),
    "sheared": (
        lambda p: save(p / "v.nii.gz", ball()[0], ball()[1] @ (np.eye(4) + np.diag([0.4, 0, 0], 1))),
        "sheared",
    ),
    "no rotation": (
        lambda p: patched(
            patched(
                patched(save(p / "q.nii", ball()[0]), 254, b"\0\0"), 252, b"\1\0"
            ),
            256,
            struct.pack("<3f", 1.0, 1.0, 1.0),
        ),
        "its quaternion is no rotation",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", IMAGES)
def test_an_image_that_cannot_be_used_is_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    make, words = IMAGES[case]
    path = make(tmp_path)
    with pytest.raises(UserError) as error:
        load_scan(path, None, False, Mask(), GRID)
    assert words in str(error.value)
    assert str(path) in str(error.value)
    assert not isinstance(error.value, StopError)


LABELS = {
    "interpolated": lambda data: data * 0.93,
    "beyond 16 bits": lambda data: data.astype(np.float64) * 1e12,
}


def test_scaled_label_maps_hold_the_labels_that_were_meant(tmp_path: Path) -> None:
    labels = np.where(ball()[0] > 0, 17, 0).astype(float)
    labels[20:30], labels[30:40] = np.where(ball()[0][20:30] > 0, 53, 0), np.where(ball()[0][30:40] > 0, 2035, 0)
    image = nib.Nifti1Image(labels, ball()[1])
    image.set_data_dtype(np.int16)  # nibabel scales: 17 is stored as 16.99
    nib.save(image, tmp_path / "scaled.nii.gz")
    assert np.abs(nib.load(tmp_path / "scaled.nii.gz").get_fdata() - labels).max() > 1e-3
    np.testing.assert_array_equal(read_volume(tmp_path / "scaled.nii.gz", np.int32).data, labels)
    assert kind_of(read_volume(tmp_path / "scaled.nii.gz").data) == "labels"
    for change in LABELS.values():
        path = save(tmp_path / "bad.nii.gz", change(labels))
        with pytest.raises(UserError, match=r"which are no labels|holds labels from"):
            read_volume(path, np.int16)


def test_masks_are_cut_at_one_half_and_accepted_in_any_order(tmp_path: Path) -> None:
    data, affine = ball()
    scan, truth = Volume(data, affine), data > 0
    near = ndimage.binary_dilation(truth)
    soft, rng = np.where(truth, 0.9, 0.3 * near).astype(np.float32), np.random.default_rng(0)
    shifted = affine.copy()
    shifted[:3, 3] += [0.02, -0.03, 0.04]
    image = nib.Nifti1Image(truth.astype(np.uint8), affine)
    turned = image.as_reoriented(nib.orientations.axcodes2ornt("PSL"))
    accepted = {
        "plain": image,
        "255": nib.Nifti1Image(truth.astype(np.uint8) * 255, affine),
        "probabilities": nib.Nifti1Image(soft, affine),
        "per cent": nib.Nifti1Image((soft * 100 + near * rng.integers(-9, 9, data.shape)).astype(np.uint8), affine),
        "rounded": nib.Nifti1Image(truth.astype(np.uint8), shifted),
        "stored otherwise": turned,
        "background": nib.Nifti1Image(truth.astype(np.float32) + 1e-9, affine),
        "labels": nib.Nifti1Image(np.where(truth, 17, 0).astype(np.int16), affine),
        "the brain's image": nib.Nifti1Image((truth * rng.integers(20, 250, data.shape)).astype(np.uint8), affine),
        "four axes": nib.Nifti1Image(truth[..., None].astype(np.uint8), affine),
    }  # fmt: skip
    for name, each in accepted.items():
        nib.save(each, tmp_path / "mask.nii.gz")
        np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii.gz", scan).data, truth, err_msg=name)
    moved = affine.copy()
    moved[0, 3] += 1
    refused = {
        "elsewhere": (nib.Nifti1Image(truth.astype(np.uint8), moved), "another grid"),
        "smaller": (nib.Nifti1Image(truth[:-1].astype(np.uint8), affine), "another grid"),
        "empty": (nib.Nifti1Image(np.zeros(data.shape, np.uint8), affine), "is empty"),
        "an image": (nib.Nifti1Image(data, affine), "neither a mask nor probabilities"),
        "negative": (nib.Nifti1Image(-truth.astype(np.int16), affine), "no brain mask"),
        "low": (nib.Nifti1Image((0.3 * truth).astype(np.float32), affine), "reaches one half"),
    }
    for each, words in refused.values():
        nib.save(each, tmp_path / "mask.nii.gz")
        with pytest.raises(UserError, match=words):
            read_mask(tmp_path / "mask.nii.gz", scan)
    with pytest.raises(UserError, match="is empty"):
        cut_mask(np.zeros((2, 2, 2)), "m")


def test_a_missing_file_beside_a_sidecar_of_its_own_was_made_by_no_run(tmp_path: Path) -> None:
    path = tmp_path / "sub-01_T1w.nii.gz"
    for record, told in (
        ({"EchoTime": 0.1}, False),
        ({"status": "ok", "files": ["out.png"]}, False),  # of a command for one scan
        ({"status": "ok"}, True),
    ):
        (tmp_path / "sub-01_T1w.json").write_text(json.dumps(record))
        with pytest.raises(UserError, match="no such file") as error:
            read_volume(path)
        assert ("--forcerun" in str(error.value)) is told
    path.symlink_to(".git/annex/objects/x")
    with pytest.raises(UserError, match=r"`datalad get`$"):
        read_volume(path)


def bead_of(volume: Volume) -> np.ndarray:
    """World coordinates of the bright bead's centre."""
    level = np.percentile(volume.data[volume.data > 0], 50)
    weight = np.where(volume.data > 1.3 * level, volume.data - 1.3 * level, 0)
    return apply_affine(volume.affine, np.average(np.argwhere(weight > -1), axis=0, weights=weight.ravel()))


@pytest.mark.parametrize("name", HEADERS)
def test_a_landmark_stays_within_a_tenth_of_a_voxel_whatever_the_header(model: Path, tmp_path: Path, name: str) -> None:
    """Read, ingested and enhanced: against where the bead lies by the affine that the header is meant to hold."""
    from iqt.cohort.ingest import prepare
    from iqt.config import Cohort

    path, words, placed = headers(tmp_path)[name]
    smooth = ball(noise=0)
    for case in ("as stored", "ingested", "enhanced"):
        found = read_volume(path)
        if case == "as stored":
            assert (words in " ".join(found.doubts)) if words else found.doubts == ()
        if case == "ingested":
            cohort = Cohort(source="bids", bids={"path": "x", "skull_stripped": True})
            found = prepare({"brain": {"path": str(path), "source": str(path)}}, "", "T1w", cohort)[0]["image"]
        if case == "enhanced":
            enhance_file(path, tmp_path / "out.nii.gz", model, {"steps": 1}, {}, stripped=True, precision="float32")
            found = read_volume(tmp_path / "out.nii.gz")
        wanted = bead_of(Volume(smooth[0], placed))
        # The stand-in's network adds nothing; its grid's voxels are 4 mm, those of the scan 3 to 5.
        tolerance = 0.1 * (4.0 if case == "enhanced" else 3.0)
        assert np.abs(bead_of(found) - wanted).max() < tolerance, case


def test_doubts_reach_enhance_degrade_check_and_the_cohort(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from iqt.cohort.ingest import prepare
    from iqt.cohort.inspection import inspect
    from iqt.config import Cohort, LowField
    from iqt.degrade.single import degrade_file
    from iqt.degrade.tissues import TissueFiles

    path, words, _ = headers(tmp_path)["mirrored"]
    enhance_file(path, tmp_path / "out.nii.gz", model, {"steps": 1}, {}, precision="float32")
    assert words in " ".join(json.loads((tmp_path / "out.json").read_text())["warnings"])
    settings = LowField(contrast="none", noise="none", unit="mm", thickness=6, gap=0)
    degrade_file(path, tmp_path / "low.nii.gz", TissueFiles(), 1, settings)
    assert words in " ".join(json.loads((tmp_path / "low.json").read_text())["warnings"])
    assert capsys.readouterr().err.count(words) == 2
    assert words in inspect([path], "freesurfer")[0]["warnings"]
    files = {"brain": {"path": str(path), "source": str(path)}}
    cohort = Cohort(source="bids", bids={"path": "x", "skull_stripped": True})
    _, facts = prepare(files, "", "T1w", cohort)
    assert words in " ".join(facts["warnings"])


def test_a_scan_without_skull_is_noticed_and_a_head_is_not() -> None:
    data, affine = ball()
    brain = checks.skull_stripped_brain(Volume(data, affine))
    np.testing.assert_array_equal(brain, data > 0)
    rng = np.random.default_rng(1)
    noisy = data + 8 * rng.standard_normal(data.shape).astype(np.float32)
    found = checks.skull_stripped_brain(Volume(noisy, affine))
    assert 2 * (found & brain).sum() / (found.sum() + brain.sum()) > 0.97
    larger = Volume(noisy, np.diag([1.6, 1.6, 1.6, 1]) @ affine)  # 3.3 l: a head
    assert checks.skull_stripped_brain(larger) is None
    assert checks.skull_stripped_brain(Volume(rng.random(data.shape, np.float32), affine)) is None


def test_the_checksum_of_a_compressed_analyze_pair_is_compared(tmp_path: Path) -> None:
    nib.save(nib.AnalyzeImage(*ball()), tmp_path / "a.img.gz")
    assert read_volume(tmp_path / "a.img.gz").doubts
    patched(tmp_path / "a.img.gz", -8, b"\0\1\2\3")
    with pytest.raises(UserError, match="CRC check failed"):
        read_volume(tmp_path / "a.img.gz")


def test_a_volume_that_memory_does_not_hold_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "scan.nii.gz", ball()[0])
    monkeypatch.setattr(nifti, "free_bytes", lambda: 1e5)
    with pytest.raises(UserError, match=r"scan.nii.gz: does not fit into this machine's memory \(shape \(50, 48, 30\)"):
        read_volume(path)


def test_check_tells_problems_from_warnings(tmp_path: Path) -> None:
    from iqt.cohort.inspection import format_table, inspect

    doubtful = headers(tmp_path / "a")["mirrored"][0] if (tmp_path / "a").mkdir() is None else None
    save(tmp_path / "sub-01_T2w.nii.gz", ball()[0])
    nib.save(nib.AnalyzeImage(*ball()), tmp_path / "b.img")
    truth = ball()[0] > 0
    save(tmp_path / "mask.nii.gz", truth.astype(np.float32) + 1e-9)
    rows = {
        Path(row["file"]).name: row
        for row in inspect([doubtful, *sorted(tmp_path.glob("*.nii.gz")), tmp_path / "b.img"], "freesurfer")
    }
    assert rows["mirrored.nii"]["problems"] == ""
    assert "mirror images" in rows["mirrored.nii"]["warnings"]
    assert rows["sub-01_T2w.nii.gz"]["contrast"] == "T2w"
    assert rows["mask.nii.gz"]["kind"] == "mask"
    assert "warning: its sform and qform" in format_table(list(rows.values()))
    assert {Path(row["file"]).name for row in inspect([tmp_path], "freesurfer")} >= {"b.img", "mask.nii.gz"}
    done = subprocess.run([sys.executable, "-m", "iqt", "check", str(doubtful)], capture_output=True, text=True)
    assert done.returncode == 0
    assert "mirror images" in done.stdout
