"""What else comes from outside: contrasts, trees, keys, and files that go with a scan."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from damaged_files import GRID, ball, save

from iqt.cohort.bids import list_entries
from iqt.config import BIDS, parse_config
from iqt.enhance.single import enhance_file
from iqt.errors import StopError, UserError
from iqt.imaging import checks
from iqt.imaging.contrast import contrast_of
from iqt.io.files import read_table
from iqt.io.labels import read_shown
from iqt.io.volumes import Volume
from iqt.planning.needs import check_needs
from stand_in import save_stand_in


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stand_in(tmp_path_factory.mktemp("model"), spread=0.0, grid=GRID)


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
    assert contrast_of(Path("MPRAGE.nii"))[0] == "T1w"
    for name, contrast in (
        ("AX T1 FLAIR.nii", "T1w"),
        ("Sag_T2_FLAIR_fast.nii", "FLAIR"),
        ("FLAIR_to_T1.nii", "FLAIR"),
    ):
        assert contrast_of(Path(name))[0] == contrast
    (tmp_path / "lowfield.json").write_text('{"suffix": "FLAIR", "draw": {}}')
    assert contrast_of(tmp_path / "lowfield.nii.gz") == ("FLAIR", "lowfield.json"), "which `iqt degrade` wrote"


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
        if scan == "sub-4":
            torch.empty(2**50)
        return {}

    run_scans(["sub-1", "sub-2", "sub-3", "sub-4"], lambda scan: tmp_path / f"{scan}.json", lambda scan: [], work)
    assert [status_of(tmp_path / f"sub-{n}.json") for n in (1, 3)] == ["ok", "ok"]
    assert "wants more memory than this job has (Unable to allocate" in status_of(tmp_path / "sub-2.json")
    assert f"delete {tmp_path / 'sub-4.json'} and run again" in status_of(tmp_path / "sub-4.json")


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


def test_a_look_up_table_of_ones_own_can_be_shown_or_is_refused_when_a_run_is_planned(tmp_path: Path) -> None:
    """Not when the report is drawn, hours later. `n/a`, usual in BIDS, is grey."""
    path = tmp_path / "own.tsv"
    for name, colour, words in (
        ("Right", "red", "color 'red' of index 41 is not like"),
        ("Left", "#ffffff", "the name 'Left' is listed twice"),
        ("Right", "n/a", None),
    ):
        path.write_text(f"index\tname\tcolor\tmirror\n2\tLeft\t#ffffff\t41\n41\t{name}\t{colour}\t2\n")
        config = parse_config(
            {"cohort": {"source": "template"}, "parcellate": {"labels": str(path), "builtin": {"weights": "train"}}}
        )
        if words is None:
            check_needs(config, {}, {})
            assert read_shown(path)[41] == ("Right", "#808080")
        else:
            with pytest.raises(UserError, match=words):
                check_needs(config, {}, {})


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


def test_a_person_whom_a_derivative_links_to_stays_a_person(tmp_path: Path) -> None:
    for person in ("01", "02"):
        (tmp_path / f"sub-{person}/anat").mkdir(parents=True)
        (tmp_path / f"sub-{person}/anat/sub-{person}_T1w.nii.gz").touch()
    (tmp_path / "derivatives/fs").mkdir(parents=True)
    (tmp_path / "derivatives/fs/sub-01").symlink_to("../../sub-01")
    assert [entry.scan for entry in list_entries(BIDS(path=str(tmp_path)), "T1w")] == ["sub-01", "sub-02"]


@pytest.mark.parametrize("name", ["é2", "P_03", "P 03"])
def test_an_id_that_bids_does_not_have_is_refused_and_not_passed_over(tmp_path: Path, name: str) -> None:
    for person in ("01", name):
        (tmp_path / f"sub-{person}/anat").mkdir(parents=True)
        (tmp_path / f"sub-{person}/anat/sub-{person}_T1w.nii.gz").touch()
    with pytest.raises(UserError, match=f"sub-{name}_T1w.nii.gz: is no name that BIDS has"):
        list_entries(BIDS(path=str(tmp_path)), "T1w")
    (entry,) = list_entries(BIDS(path=str(tmp_path), subjects=["01"]), "T1w")
    assert entry.scan == "sub-01"


def test_a_scan_of_another_contrast_is_refused_by_a_cohort(tmp_path: Path) -> None:
    from iqt.cohort.ingest import prepare
    from iqt.config import Cohort

    image = save(tmp_path / "sub-01_T2w.nii.gz", ball()[0])
    cohort = Cohort(source="bids", bids={"path": "x", "skull_stripped": True})
    files = {"brain": {"path": str(image), "source": str(image)}}
    with pytest.raises(UserError, match=r"sub-01_T2w\.nii\.gz: its name says T2w, but"):
        prepare(files, "", "T1w", cohort)
    assert prepare(files, "", "T2w", cohort)[1]["warnings"] == []
    loose = save(tmp_path / "sub12_T2.nii.gz", ball()[0])  # which may be a second time point
    facts = prepare({"brain": {"path": str(loose), "source": str(loose)}}, "", "T1w", cohort)[1]
    assert "sub12_T2.nii.gz says T2w" in facts["warnings"][0]


def test_what_a_cohort_warns_of_is_in_the_sidecars_of_all_that_comes_of_it(tmp_path: Path) -> None:
    from iqt.config import LowField
    from iqt.degrade.run import degrade_scans
    from iqt.enhance.run import enhance_scans
    from iqt.io.files import read_json, write_json
    from iqt.io.volumes import save_volume
    from iqt.parcellate.images import Images

    data, affine = ball()
    cohort, low, out = (tmp_path / name for name in ("cohort", "low", "out"))
    folder = cohort / "sub-01" / "anat"
    save_volume(folder / "sub-01_T1w.nii.gz", data, affine)
    save_volume(folder / "sub-01_desc-brain_mask.nii.gz", (data > 0).astype(np.uint8), affine)
    write_json(folder / "sub-01_T1w.json", {"status": "ok", "warnings": ["left may be right"]})
    degrade_scans(["sub-01"], cohort, low, "T1w", 1, LowField(contrast="none", noise="none"), "main")
    enhance_scans(["sub-01"], cohort, low, None, out, "T1w", {"kind": "cubic"}, 1, "float32")
    for sidecar in (low / "sub-01/anat/sub-01_T1w.json", out / "sub-01_T1w.json"):
        assert read_json(sidecar)["warnings"] == ["left may be right"]
    for images, layout in ((cohort, "anat"), (out, "flat")):
        assert Images(images, layout, "T1w", cohort).read("sub-01")[0].doubts == ("left may be right",)


def test_parcellate_warns_of_contrast_and_of_every_files_doubts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from iqt.parcellate import single
    from iqt.parcellate.reader import Reader

    def stand_in(_model: Path, _precision: str) -> Reader:
        return Reader(lambda _volume, brain: np.where(brain, 17, 0).astype(np.int16), "0", (17,), "T1w")

    monkeypatch.setattr(single, "load_reader", stand_in)
    placeless = nib.Nifti1Image((ball()[0] > 0).astype(np.uint8), None)
    nib.save(placeless, tmp_path / "mask.nii.gz")
    image = save(tmp_path / "sub-01_T2w.nii.gz", ball()[0])
    out = tmp_path / "labels.nii.gz"
    single.parcellate_file(single.Files(image, out, tmp_path / "mask.nii.gz"), tmp_path, None, "float32")
    record = json.loads((tmp_path / "labels.json").read_text())
    said = capsys.readouterr().err
    for words in ("says T2w, but the model was trained on T1w", "mask.nii.gz: it has no affine"):
        assert words in said
        assert words in " ".join(record["warnings"])
    assert record["mask"] == "mask.nii.gz"
    single.parcellate_file(single.Files(save(tmp_path / "a_T1w.nii.gz", ball()[0]), out), tmp_path, None, "float32")
    record = json.loads((tmp_path / "labels.json").read_text())
    assert record["warnings"] == []
    assert record["mask"] == "noticed to be skull-stripped"


def test_degrade_tells_what_its_mask_leaves_in_doubt(tmp_path: Path) -> None:
    from iqt.config import LowField
    from iqt.degrade.single import degrade_file
    from iqt.degrade.tissues import TissueFiles

    data = ball()[0]
    image = save(tmp_path / "scan.nii.gz", data)
    nib.save(nib.Nifti1Image((data > 0).astype(np.uint8), None), tmp_path / "mask.nii.gz")
    given = TissueFiles(mask=tmp_path / "mask.nii.gz")
    degrade_file(image, tmp_path / "low.nii.gz", given, 1, LowField(thickness=1, gap=0, noise="none"))
    assert "mask.nii.gz: it has no affine" in " ".join(json.loads((tmp_path / "low.json").read_text())["warnings"])


@pytest.mark.parametrize("command", ["check", "degrade"])
def test_a_name_that_the_system_refuses_ends_in_one_sentence(tmp_path: Path, command: str) -> None:
    out = [] if command == "check" else [str(tmp_path / "out.nii.gz")]
    done = subprocess.run(
        [sys.executable, "-m", "iqt", command, str(tmp_path / ("n" * 300 + ".nii.gz")), *out],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "too long" in done.stderr


def test_an_output_below_a_file_ends_in_one_sentence(tmp_path: Path) -> None:
    image = save(tmp_path / "scan.nii.gz", ball()[0])
    out = image / "low.nii.gz"
    settings = '{"contrast": "none", "noise": "none"}'
    done = subprocess.run(
        [sys.executable, "-m", "iqt", "degrade", str(image), str(out), "--settings", settings],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "scan.nii.gz" in done.stderr.splitlines()[-1]
