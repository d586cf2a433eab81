"""Files from outside, damaged or absurd: each ends in one message that names it, and never in a traceback or a silent
result."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy import ndimage

from iqt.cohort.bids import list_entries
from iqt.cohort.split import split_scans
from iqt.config import BIDS, Mask, Split, parse_config
from iqt.enhance.intake import load_scan
from iqt.enhance.single import enhance_file
from iqt.errors import StopError, UserError
from iqt.imaging import checks
from iqt.imaging.contrast import contrast_of
from iqt.imaging.kinds import kind_of
from iqt.io.files import read_table, read_text
from iqt.io.volumes import Volume, cut_mask, read_mask, read_volume
from stand_in import save_stand_in

GRID = {"axes": "RAS", "voxel_size_mm": [4.0, 4.0, 4.0], "acquired_voxel_size_mm": [3.0, 3.0, 5.0], "slice_axis": "S"}
BEAD = np.array([22.0, -14.0, 9.0])


def ball(noise: float = 10.0, shape: tuple[int, ...] = (50, 48, 30)) -> tuple[np.ndarray, np.ndarray]:
    """A skull-stripped ball (0.8 l) with a bright bead, voxels of 3 x 3 x 5 mm, and its affine."""
    affine = nib.affines.from_matvec(np.diag([3.0, 3, 5]), [-73.5, -70.5, -72.5])
    world = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    bead = 500 * np.exp(-np.square(world - BEAD).sum(-1) / (2 * 6.0**2))
    values = 300 + bead + noise * np.random.default_rng(0).standard_normal(shape)
    return np.where(np.linalg.norm(world, axis=-1) < 58, values, 0).astype(np.float32), affine


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = None, kind: type = nib.Nifti1Image) -> Path:
    nib.save(kind(data, ball()[1] if affine is None else affine), path)
    return path


def claim(path: Path, shape: tuple[int, ...], dtype: type = np.float32, content: bytes = b"") -> Path:
    """A compressed NIfTI file whose header claims a shape, followed by `content`."""
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(dtype)
    raw = bytearray(header.binaryblock + bytes(4))
    raw[344:348] = b"n+1\0"
    struct.pack_into("<f", raw, 108, 352.0)
    path.write_bytes(gzip.compress(bytes(raw) + content))
    return path


def patched(path: Path, at: int, content: bytes) -> Path:
    raw = bytearray(path.read_bytes())
    raw[at : at + len(content)] = content
    path.write_bytes(raw)
    return path


def wrapped(path: Path) -> Path:
    """Values up to 45,000, stored in 16 bits with a sign."""
    data = ball()[0] * 50
    return save(path, data.astype(np.int64).astype(np.int16))


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


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stand_in(tmp_path_factory.mktemp("model"), spread=0.0, grid=GRID)


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
    for name, change in LABELS.items():
        path = save(tmp_path / "bad.nii.gz", change(labels))
        with pytest.raises(UserError, match=r"which are no labels|holds labels from"):
            read_volume(path, np.int16)
        assert name


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


def headers(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    """Headers that are accepted, and what is said of each."""
    data, affine = ball()
    mirrored, far, larger = np.diag([-1.0, 1, 1, 1]) @ affine, affine.copy(), np.diag([1.2, 1.2, 1.2, 1]) @ affine
    far[2, 3] += 40

    def written(name: str, sform: np.ndarray | None, qform: np.ndarray | None) -> Path:
        image = nib.Nifti1Image(data, affine)
        image.set_sform(sform, 0 if sform is None else 1)
        image.set_qform(qform, 0 if qform is None else 1)
        nib.save(image, tmp_path / f"{name}.nii")
        return tmp_path / f"{name}.nii"

    microns = nib.Nifti1Image(data, np.diag([1000.0, 1000, 1000, 1]) @ affine)
    microns.header.set_xyzt_units("micron")
    nib.save(microns, tmp_path / "microns.nii")
    quaternion = written("quaternion", None, affine)
    patched(quaternion, 256, struct.pack("<3f", 0, 0, 1.00002))
    return {
        "both": (written("both", affine, affine), ""),
        "sform alone": (written("sform", affine, None), ""),
        "qform alone": (written("qform", None, affine), ""),
        "mirrored": (written("mirrored", affine, mirrored), "mirror images, so left and right may be swapped"),
        "shifted": (written("shifted", affine, far), "up to 40.0 mm apart; the sform is used"),
        "scaled": (written("scaled", affine, larger), "their voxels differ (3 x 3 x 5 mm against 3.6 x 3.6 x 6 mm)"),
        "microns": (tmp_path / "microns.nii", "units of a micron"),
        "quaternion": (quaternion, "taken for a rounding"),
    }


def test_a_header_that_is_in_doubt_is_used_as_said_and_the_doubt_is_told(tmp_path: Path) -> None:
    data, affine = ball()
    for name, (path, words) in headers(tmp_path).items():
        found = read_volume(path)
        assert (words in " ".join(found.doubts)) if words else found.doubts == (), name
        if name == "quaternion":  # 180 degrees about the vertical axis: the first two axes run backwards
            np.testing.assert_allclose(found.affine[:3, :3], np.diag([-3, -3, 5]), atol=1e-3)
            continue
        voxels = np.abs(np.linalg.inv(affine) @ found.affine - np.eye(4)).max()
        assert voxels < 0.1, name
        np.testing.assert_array_equal(found.data, data)
    image = nib.Nifti1Image(data, affine)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "none.nii")
    assert "left and right may be swapped" in read_volume(tmp_path / "none.nii").doubts[0]
    nib.save(nib.AnalyzeImage(data, affine), tmp_path / "a.img")
    assert "Analyze" in read_volume(tmp_path / "a.img").doubts[0]


def test_doubts_reach_enhance_degrade_check_and_the_cohort(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from iqt.cohort.ingest import prepare
    from iqt.cohort.inspection import inspect
    from iqt.config import Cohort, LowField
    from iqt.degrade.single import degrade_file
    from iqt.degrade.tissues import TissueFiles

    path, words = headers(tmp_path)["mirrored"]
    enhance_file(path, tmp_path / "out.nii.gz", model, {"steps": 1}, {}, precision="float32")
    assert words in " ".join(json.loads((tmp_path / "out.json").read_text())["warnings"])
    settings = LowField(contrast="none", noise="none", unit="mm", thickness=6, gap=0)
    degrade_file(path, tmp_path / "low.nii.gz", TissueFiles(), 1, settings)
    assert words in " ".join(json.loads((tmp_path / "low.json").read_text())["warnings"])
    assert capsys.readouterr().err.count(words) == 2
    assert words in inspect([path], "freesurfer")[0]["problems"]
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


# --- tables ----------------------------------------------------------------------------------------------------------

IDS = [f"sub-{number:03d}" for number in range(1, 7)]
TEXT = "participant_id\tsite\n" + "".join(f"{name}\tKöln\n" for name in IDS)
READ = {
    "utf-8": TEXT.encode(),
    "BOM": TEXT.encode("utf-8-sig"),
    "utf-16": TEXT.encode("utf-16"),
    "Windows": TEXT.encode("cp1252"),
    "CRLF": TEXT.replace("\n", "\r\n").encode(),
    "empty lines": TEXT.replace("\n", "\n\n").encode(),
    "blank row": (TEXT + "\t\t\n").encode(),
    "commas": TEXT.replace("\t", ",").encode(),
    "semicolons": TEXT.replace("\t", ";").encode(),
    "quotes": TEXT.replace("Köln", '"Köln"').encode(),
    "blanks": TEXT.replace("\t", " \t ").encode(),
    "trailing tab": TEXT.replace("\n", "\t\n").encode(),
}
REFUSED = {
    "binary": (b"\x00\x01\x02", "holds no text"),
    "half a character": (TEXT.encode("utf-16")[:-1], "UTF-16"),
    "undefined": (b"participant_id\tsite\nsub-1\t\x81\x8d\xff\n", "holds no text in UTF-8"),
    "long row": ((TEXT + "sub-9\tRome\tItaly\n").encode(), "line 8 has 3 cells, its heading 2"),
    "column twice": (TEXT.replace("site", "participant_id").encode(), "named twice"),
    "open quote": ((TEXT + 'sub-9\t"Rome\n').encode(), "line 8 is not readable"),
    "no column": (TEXT.replace("site", "place").encode(), "column site is missing"),
    "nothing": (b"", "column participant_id, site is missing"),
    "short row": ((TEXT + "sub-9\n").encode(), "line 8 ends before its column site"),
}


@pytest.mark.parametrize("case", READ)
def test_a_table_is_read_however_a_spreadsheet_wrote_it(tmp_path: Path, case: str) -> None:
    (tmp_path / "t.tsv").write_bytes(READ[case])
    rows = read_table(tmp_path / "t.tsv", required=("participant_id", "site"))
    assert rows == [{"participant_id": name, "site": "Köln"} for name in IDS]


@pytest.mark.parametrize("case", REFUSED)
def test_a_table_that_cannot_be_read_is_refused_with_file_and_line(tmp_path: Path, case: str) -> None:
    content, words = REFUSED[case]
    (tmp_path / "t.tsv").write_bytes(content)
    with pytest.raises(UserError) as error:
        read_table(tmp_path / "t.tsv", required=("participant_id", "site"))
    assert words in str(error.value)
    assert "t.tsv" in str(error.value)


def test_cells_that_a_row_lacks_are_empty_where_nobody_needs_them(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("participant_id\tsex\tsite\nsub-1\tF\n")
    assert read_table(tmp_path / "t.tsv", required=("sex",)) == [{"participant_id": "sub-1", "sex": "F", "site": ""}]
    (tmp_path / "ids.txt").write_bytes("100307\n100408\n".encode("utf-16"))
    assert read_text(tmp_path / "ids.txt").split() == ["100307", "100408"]


def test_a_join_that_matches_nobody_or_not_everybody_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("participant_id\tsex\n" + "".join(f"sub-{n}\tF\n" for n in range(1, 7)))
    split = Split(train=2, val=1, test=1, table=str(table), stratify=("sex",))
    with pytest.raises(UserError, match=r"none of its 6 people is among the 6.*it has sub-1, the source sub-001"):
        split_scans(IDS, split, 1)
    table.write_text("participant_id\tsex\n" + "".join(f"{name}\tF\n" for name in IDS[:4]))
    split_scans(IDS, split, 1)
    assert "no row of 2 of the source's 6 people (sub-005, sub-006)" in capsys.readouterr().err
    table.write_text("participant_id\tsex\nsub-001\tF\n\tM\n")
    with pytest.raises(UserError, match="the row with sex M has no participant_id"):
        split_scans(IDS, split, 1)


# --- configurations --------------------------------------------------------------------------------------------------

CONFIGS = {
    "octal id": ({"cohort": {"source": "bids", "bids": {"path": "x", "subjects": [8]}}}, "write the id in quotes"),
    "id of one digit": ({"cohort": {"source": "bids", "bids": {"path": "x"}, "split": {"test": [1]}}}, "in quotes"),
    "id that is true": ({"cohort": {"source": "bids", "bids": {"path": "x", "subjects": [True]}}}, "in quotes"),
    "id with an accent": ({"cohort": {"source": "bids", "bids": {"path": "x", "subjects": ["é1"]}}}, "subjects"),
    "id with a power": ({"cohort": {"source": "bids", "bids": {"path": "x", "subjects": ["a²"]}}}, "subjects"),
    "draws": ({"lowfield": {"main": {"draws": 10**9}}}, "less than or equal to 1000"),
    "batches": ({"compute": {"batches": 10**9}}, "less than or equal to 10000"),
    "people": ({"cohort": {"split": {"train": 10**9}}}, "100000"),
    "network": ({"methods": {"unet": {"kind": "unet", "network": {"channels": [10**6, 10**6]}}}}, "4096"),
    "blocks": ({"methods": {"d": {"kind": "diffusion_iqt", "network": {"blocks": 10**9}}}}, "64"),
    "experiment": (
        {
            "parcellate": {"engine": "none"},
            "experiments": {"a": {"title": "t", "question": "q", "methods": ["cubic"], "metrics": ["miou"]}},
        },
        "parcellate.engine is none",
    ),
    "shipped, T2w": ({"suffix": "T2w", "cohort": {"source": "bids", "bids": {"path": "x"}}}, "weights: train"),
    "shipped, own size": (
        {"parcellate": {"builtin": {"filters": 8}}},
        "builtin.filters: the shipped",
    ),
    "shipped, other table": ({"parcellate": {"labels": "template"}}, "the shipped parcellator has those of aseg"),
    "trained without labels": (
        {
            "cohort": {"source": "bids", "bids": {"path": "x", "labels": None}},
            "parcellate": {"builtin": {"weights": "train"}},
        },
        "weights: shipped",
    ),
    "image": ({"parcellate": {"fastsurfer": {"image": "docker://{x}"}}}, "braces"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_that_cannot_be_meant_is_refused(case: str) -> None:
    raw, words = CONFIGS[case]
    with pytest.raises(UserError) as error:
        parse_config(raw)
    assert words in str(error.value)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    s3 = {"endpoint": "http://me:hunter2@localhost:9000"}
    with pytest.raises(UserError, match="a profile") as error:
        parse_config({"cohort": {"source": "hcp", "hcp": {"s3": s3}}})
    assert "hunter2" not in str(error.value)


def test_quoted_ids_keep_their_zeros() -> None:
    raw = {"cohort": {"source": "bids", "bids": {"path": "x", "subjects": ["001", "sub-010", 100307]}}}
    assert parse_config(raw).cohort.bids.subjects == ["001", "010", "100307"]


# --- model cards -----------------------------------------------------------------------------------------------------


def set_in(card: dict, place: str, value: object) -> dict:
    *path, last = place.split(".")
    target = card
    for key in path:
        target = target[key]
    target[last] = value
    return card


CARDS: dict[str, object] = {
    "format": 99, "kind": "cubic", "n_parameters": 0, "weights_sha256": "x", "settings": {}, "suffix": "bold",
    "settings.network.channels": 10**6, "settings.network.blocks": 10**9, "settings.network.multipliers": [1] * 50,
    "settings.network.groups": 7, "settings.patches.patch": 10**6, "settings.patches.grid": [0, 0, 0],
    "settings.network.tokens": [3], "settings.target": "x",
    "grid.voxel_size_mm": [-2, -2, -2], "grid.axes": "LPS", "grid.acquired_voxel_size_mm": [1e-9] * 3,
    "standardisation.input_sd": 0, "standardisation.target_sd": -1, "standardisation.input_mean": "a",
    "standardisation": [], "grid": {"axes": "RAS", "voxel_size_mm": [1e6, 1e6, 1e6]},
    "settings.network.head_dim": 4096,
}  # fmt: skip


@pytest.mark.parametrize("place", CARDS)
def test_a_card_that_is_not_sound_is_refused_before_anything_is_built(model: Path, tmp_path: Path, place: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(model / "model.safetensors")
    card = set_in(json.loads((model / "model.json").read_text()), place, CARDS[place])
    (folder / "model.json").write_text(json.dumps(card))
    image = save(tmp_path / "scan.nii.gz", ball()[0])
    with pytest.raises(UserError, match=r"model\.json"):
        enhance_file(image, tmp_path / "out.nii.gz", folder, {"steps": 1}, {}, precision="float32")
    assert not list(tmp_path.glob("out*"))


FILES = {
    "deep": ("model.json", "[" * 100_000),
    "no JSON": ("model.json", "{"),
    "a list": ("model.json", "[]"),
    "no text": ("model.json", "\ud800"),
    "no weights": ("model.safetensors", "hello"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_model_folder_that_is_damaged_is_refused(model: Path, tmp_path: Path, case: str) -> None:
    name, content = FILES[case]
    for other in ("model.json", "model.safetensors"):
        (tmp_path / other).write_bytes((model / other).read_bytes())
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogatepass"))
    image = save(tmp_path / "scan.nii.gz", ball()[0])
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        enhance_file(image, tmp_path / "out.nii.gz", tmp_path, {"steps": 1}, {}, precision="float32")
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        enhance_file(image, tmp_path / "out.nii.gz", tmp_path, {"steps": 1}, {}, precision="float32")


# --- contrast, trees, keys -------------------------------------------------------------------------------------------


def test_another_contrast_than_the_models_is_a_warning(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = json.loads((model / "model.json").read_text())
    (tmp_path / "model.safetensors").symlink_to(model / "model.safetensors")
    (tmp_path / "model.json").write_text(json.dumps(card | {"suffix": "T1w"}))
    for name in ("sub-01_T2w.nii.gz", "patient_t2_tse.nii.gz", "scan.nii.gz"):
        image = save(tmp_path / name, ball()[0])
        if name == "scan.nii.gz":
            (tmp_path / "scan.json").write_text('{"SeriesDescription": "AX T2 FLAIR"}')
        enhance_file(image, tmp_path / "out.nii.gz", tmp_path, {"steps": 1}, {}, precision="float32")
        told = "FLAIR" if name == "scan.nii.gz" else "T2w"
        assert f"says {told}, but the model was trained on T1w scans" in capsys.readouterr().err
    enhance_file(save(tmp_path / "a_T1w.nii.gz", ball()[0]), tmp_path / "o.nii.gz", tmp_path, {"steps": 1}, {})
    assert "says" not in capsys.readouterr().err
    assert contrast_of(Path("MPRAGE.nii")) == (None, "") or contrast_of(Path("MPRAGE.nii"))[0] == "T1w"


def test_links_that_lead_back_do_not_end_in_a_circle(tmp_path: Path) -> None:
    for name in ("sub-01/anat/sub-01_T1w.nii.gz", "derivatives/a/sub-01/anat/sub-01_desc-brain_mask.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    for name in ("one", "two"):
        (tmp_path / "derivatives" / name).symlink_to(".")
    (tmp_path / "sub-01/anat/._sub-01_T1w.nii.gz").touch()
    (entry,) = list_entries(BIDS(path=str(tmp_path)), "T1w")
    assert entry.mask.endswith("sub-01_desc-brain_mask.nii.gz")
    (tmp_path / "sub-01/anat/sub-01_T1w.nii").touch()
    with pytest.raises(UserError, match="the same scan in two formats"):
        list_entries(BIDS(path=str(tmp_path)), "T1w")


def test_a_key_that_would_leave_the_folder_is_refused(tmp_path: Path) -> None:
    from iqt.cohort.download import Downloader
    from iqt.config import HCP

    bucket = HCP().s3.model_copy(update={"anonymous": True, "endpoint": "http://127.0.0.1:9"})
    fetch = Downloader(bucket, tmp_path / "downloads")
    (tmp_path / "downloads" / bucket.bucket).mkdir(parents=True)
    (tmp_path / "downloads" / bucket.bucket / "link").symlink_to(tmp_path)
    for key in ("/etc/passwd", "../x", "a/../../x", "a//b", "link/x", "a\\b", "./x"):
        with pytest.raises(UserError, match="is no object of"):
            fetch.key_of(f"s3://{bucket.bucket}/{key}")
    assert fetch.key_of(f"s3://{bucket.bucket}/HCP_1200/1/T1w/x.nii.gz") == "HCP_1200/1/T1w/x.nii.gz"


def test_keys_with_a_line_end_are_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    from iqt.cohort.s3 import connect
    from iqt.config import HCP

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA0")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret\n")
    with pytest.raises(StopError, match="AWS_SECRET_ACCESS_KEY: ends or begins with a blank") as error:
        connect(HCP().s3)
    assert "secret\n" not in str(error.value)


def test_memory_that_one_scan_wants_is_that_scans_failure(tmp_path: Path) -> None:
    from iqt.io.batch import run_scans, status_of

    def work(scan: str) -> dict:
        if scan == "sub-2":
            np.empty((2**20, 2**20, 2**10))
        return {}

    run_scans(["sub-1", "sub-2", "sub-3"], lambda scan: tmp_path / f"{scan}.json", lambda scan: [], work)
    assert [status_of(tmp_path / f"sub-{n}.json") for n in (1, 3)] == ["ok", "ok"]
    assert "wants more memory than this job has (Unable to allocate" in status_of(tmp_path / "sub-2.json")


# --- what goes with a scan -------------------------------------------------------------------------------------------


def prepared(tmp_path: Path, **more: Path) -> dict:
    """The sidecar's facts of the ball as a skull-stripped scan, with other files of it."""
    from iqt.cohort.ingest import prepare
    from iqt.config import Cohort

    image = save(tmp_path / "scan.nii.gz", ball()[0])
    files = {name: {"path": str(path), "source": str(path)} for name, path in {"brain": image, **more}.items()}
    cohort = Cohort(source="bids", bids={"path": "x", "skull_stripped": True})
    volumes, facts = prepare(files, "freesurfer", "T1w", cohort)
    return facts | {"volumes": volumes}


def test_doubts_of_what_goes_with_a_scan_are_told_too(tmp_path: Path) -> None:
    """A label map without an affine is taken to be stored as its scan is, and that is said."""
    data, _ = ball()
    labels = np.where(data > 0, 2, 0).astype(np.int16)
    labels[25:][labels[25:] > 0] = 41
    image = nib.Nifti1Image(labels, None)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "labels.nii.gz")
    facts = prepared(tmp_path, labels=tmp_path / "labels.nii.gz")
    assert "labels.nii.gz: it has no affine" in facts["warnings"][0]
    np.testing.assert_array_equal(facts["volumes"]["dseg"].data, labels)


@pytest.mark.parametrize("scale", [100, 255, -1])
def test_posteriors_on_another_scale_are_refused(tmp_path: Path, scale: int) -> None:
    share = (scale / 3 * (ball()[0] > 0)).astype(np.float32)
    maps = {name: save(tmp_path / f"{name}.nii.gz", share) for name in ("wm", "gm", "csf")}
    with pytest.raises(UserError, match=r"wm\.nii\.gz has values from .* not from 0 to 1"):
        prepared(tmp_path, **maps)


def test_a_sheared_label_map_is_no_scan() -> None:
    labels = np.kron(np.arange(60).reshape(5, 4, 3), np.ones((10, 12, 10))).astype(np.float32)
    sheared = Volume(labels, ball()[1] @ (np.eye(4) + np.diag([0.1, 0, 0], 1)))
    assert "sheared" in checks.scan_problems(sheared)[0]
    assert "label map" in checks.scan_problems(sheared, sheared_ok=True)[0]


@pytest.mark.parametrize(
    ("index", "words"), [("x1", "must be numbers"), ("40000", "outside 0 to 32767"), ("2", "twice")]
)
def test_a_look_up_table_of_ones_own_is_checked(tmp_path: Path, index: str, words: str) -> None:
    path = tmp_path / "own.tsv"
    row = "{}\tLeft\tL\t#ffffff\tL\t2\tWM\n"
    head = "index\tname\tabbreviation\tcolor\themisphere\tmirror\ttissue\n"
    path.write_text(head + row.format(2) + row.format(index))
    with pytest.raises(UserError, match=words):
        checks.read_labels(str(path))


def test_a_family_that_is_not_known_is_nobodys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("participant_id\tfamily\n" + "".join(f"{name}\tn/a\n" for name in IDS))
    found = split_scans(IDS, Split(train="rest", val=1, test=2, table=str(table), family="family"), 1)
    assert {name: len(scans) for name, scans in found.items()} == {"train": 3, "val": 1, "test": 2}
    assert "who count as a family each" in capsys.readouterr().err


def test_people_and_sessions_that_are_not_there_are_named(tmp_path: Path) -> None:
    for name in ("01", "02"):
        (tmp_path / f"sub-{name}" / "anat").mkdir(parents=True)
        (tmp_path / f"sub-{name}" / "anat" / f"sub-{name}_T1w.nii.gz").touch()
    with pytest.raises(UserError, match=r"subjects: 2, 99 has no T1w scan .* there are 01"):
        list_entries(BIDS(path=str(tmp_path), subjects=["01", "2", "99"]), "T1w")
    with pytest.raises(UserError, match=r"sessions: a has no T1w scan"):
        list_entries(BIDS(path=str(tmp_path), sessions=["a"]), "T1w")


def test_an_engine_that_cannot_work_with_a_cohort_is_refused() -> None:
    from iqt.cohort.entries import Entry
    from iqt.planning.needs import check_needs

    scans = {name: [f"sub-{name}"] for name in ("train", "val", "test")}
    plain = {scan[0]: Entry(scan[0], head="x") for scan in scans.values()}
    raw = {"cohort": {"source": "bids", "bids": {"path": "x", "lowfield": "acq-low_T1w"}}}
    for change, words in (
        ({"parcellate": {"builtin": {"weights": "train"}}}, "weights: shipped"),
        ({"parcellate": {"engine": "none"}, "tissues": {"engine": "cohort"}}, "set tissues.engine to hmrf"),
        ({"parcellate": {"engine": "none"}, "tissues": {"engine": "labels"}}, "set tissues.engine to hmrf"),
        (
            {"parcellate": {"engine": "none"}, "lowfield": {"main": {"registration": "rigid"}}},
            "has a low-field partner",
        ),
    ):
        with pytest.raises(UserError, match=words):
            check_needs(parse_config(raw | change), plain, scans)
    check_needs(parse_config(raw | {"parcellate": {"engine": "none"}}), plain, scans)


def test_line_breaks_that_are_none_stay_in_their_cell(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("participant_id\tnote\nsub-1\ta\u2028b\x0bc\nsub-2\td\n", encoding="utf-8")
    rows = read_table(tmp_path / "t.tsv")
    assert [row["participant_id"] for row in rows] == ["sub-1", "sub-2"]
    assert rows[0]["note"] == "a\u2028b\x0bc"
