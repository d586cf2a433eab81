"""`iqt degrade` and its neighbours as a user calls them."""

from __future__ import annotations

import sys

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread
from tissue_brain import brain, dice, write_cohort

from iqt.cli import main
from iqt.degrade import simulator
from iqt.io import naming
from iqt.io.files import read_json, read_table
from iqt.io.volumes import read_volume, save_volume


@pytest.fixture
def iqt(tmp_path, monkeypatch, capsys):
    """The command line, in a folder with a scan: returns the exit status and the message."""
    volume, _, _, _ = brain(shape=(36, 36, 36))
    save_volume(tmp_path / "HQ.nii.gz", volume.data, volume.affine)
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["iqt", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().err

    return run


def test_the_command_of_the_readme_works_and_draws_its_steps(tmp_path, iqt):
    code, message = iqt("degrade", "HQ.nii.gz", "LQ.nii.gz", "--preset", "iqt-8x", "--seed", 1, "--preview", "out.png")
    assert not code, message
    record = read_json(tmp_path / "LQ.json")
    assert (record["tissues"], record["settings"]["thickness"], record["seed"]) == ("hmrf", 6, 1)
    assert nib.load(tmp_path / "LQ.nii.gz").shape == (36, 36, 5)
    picture = imread(tmp_path / "out.png")[..., 0]
    columns = np.array_split(picture, 5, axis=1)  # input, slices, contrast, noise, on the grid
    assert all(column.max() > 0.5 and column.std() > 0.05 for column in columns)
    assert np.abs(columns[0][:, : columns[1].shape[1]] - columns[1]).mean() > 0.005


def test_the_presets_are_drawn_side_by_side(tmp_path, iqt):
    code, message = iqt("plot", "presets", "HQ.nii.gz", "--out", "presets.png")
    assert not code, message
    picture = imread(tmp_path / "presets.png")[..., 0]
    assert all(column.std() > 0.05 for column in np.array_split(picture, 7, axis=1))


def test_the_drawn_presets_are_what_degrade_makes_of_the_scan(tmp_path, iqt, monkeypatch):
    (tmp_path / "HQ.nii.gz").rename(tmp_path / "sub-07_T1w.nii.gz")
    names = []
    original = simulator.draw

    def note(settings, seed, scan, *rest):
        names.append((seed, scan))
        return original(settings, seed, scan, *rest)

    monkeypatch.setattr(simulator, "draw", note)
    assert not iqt("plot", "presets", "sub-07_T1w.nii.gz", "--out", "presets.png")[0]
    assert not iqt("degrade", "sub-07_T1w.nii.gz", "LQ.nii.gz")[0]
    assert len(names) == 4
    assert set(names) == {(1, "sub-07")}


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("sub-01_FLAIR.mgz", "FLAIR"), ("case7_flair.nii.gz", "FLAIR"), ("mprage.nii.gz", "T1w"), ("scan.nii.gz", "T1w")],
)
def test_the_contrast_is_what_the_name_says_in_any_format(tmp_path, iqt, name, suffix):
    image = nib.load(tmp_path / "HQ.nii.gz")
    kind = nib.MGHImage if name.endswith(".mgz") else nib.Nifti1Image
    nib.save(kind(np.asarray(image.dataobj, np.float32), image.affine), tmp_path / name)
    code, message = iqt("degrade", name, "LQ.nii.gz", "--settings", '{"noise": "none", "contrast": "none"}')
    assert not code, message
    assert read_json(tmp_path / "LQ.json")["suffix"] == suffix


def test_a_contrast_that_is_not_simulated_is_refused_where_the_name_says_it(tmp_path, iqt):
    (tmp_path / "HQ.nii.gz").rename(tmp_path / "sub-01_PDw.nii.gz")
    code, _ = iqt("degrade", "sub-01_PDw.nii.gz", "LQ.nii.gz")
    assert "sub-01_PDw.nii.gz says PDw" in code
    (tmp_path / "sub-01_PDw.nii.gz").rename(tmp_path / "sub-01_T2w.nii.gz")
    code, _ = iqt("plot", "presets", "sub-01_T2w.nii.gz", "--out", "presets.png")
    assert "the presets cannot draw a T2w scan" in code
    assert not (tmp_path / "presets.png").exists()


def test_a_signed_image_is_refused(tmp_path, iqt):
    image = nib.load(tmp_path / "HQ.nii.gz")
    data = image.get_fdata()
    brain = data > 0
    signed = np.where(brain, (data - data[brain].mean()) / data[brain].std(), 0).astype(np.float32)
    save_volume(tmp_path / "z.nii.gz", signed, image.affine)
    code, _ = iqt("degrade", "z.nii.gz", "LQ.nii.gz")
    assert "z.nii.gz: reaches from -" in code
    assert not (tmp_path / "LQ.nii.gz").exists()


def test_a_replay_of_another_scan_says_that_it_is_another(tmp_path, iqt):
    assert not iqt("degrade", "HQ.nii.gz", "LQ.nii.gz")[0]
    assert "those of the record" not in iqt("degrade", "HQ.nii.gz", "again.nii.gz", "--replay", "LQ.json")[1]
    image = nib.load(tmp_path / "HQ.nii.gz")
    data = image.get_fdata(dtype=np.float32)
    save_volume(tmp_path / "other.nii.gz", np.where(data > 0, data**1.1, 0), image.affine)
    code, message = iqt("degrade", "other.nii.gz", "third.nii.gz", "--replay", "LQ.json")
    assert not code, message
    assert (
        "other.nii.gz or its tissues are not those of the record" in read_json(tmp_path / "third.json")["warnings"][0]
    )
    assert "not those of the record" in message


def test_two_engines_are_compared(tmp_path, iqt):
    _, soft, _ = write_cohort(tmp_path / "cohort", ["sub-01"])
    (tmp_path / "list.tsv").write_text("scan\tsplit\nsub-01\ttest\n")
    common = ("--list", "list.tsv", "--cohort", "cohort")
    code, message = iqt("stage", "tissues", *common, "--out", "labels", "--settings", '{"engine": "labels"}')
    assert not code, message
    path = naming.anat(tmp_path / "labels", "sub-01", "label-WM_probseg.nii.gz")
    found = read_volume(path)
    found.data[:20] = 0
    save_volume(path, found.data, found.affine)
    table = ("--list", "list.tsv", "--reference", "cohort", "--other", "labels", "--out", "dice.csv")
    code, message = iqt("stage", "compare-tissues", *table)
    assert not code, message
    rows = {row["tissue"]: float(row["dice"]) for row in read_table(tmp_path / "dice.csv", required=("tissue", "dice"))}
    assert rows["WM"] == pytest.approx(dice(found.data, soft["WM"]), abs=1e-4)
    assert rows["WM"] < 0.8 < 0.95 < min(rows["GM"], rows["CSF"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "iqt-9x"], "iqt-8x"),
        (["--settings", '{"registration": "rigid"}'], "registration rigid: takes real low-field scans"),
        (["--settings", '{"slices": false, "read_axis": "S"}'], "read_axis S is the sliced axis"),
        (["--labels", "HQ.nii.gz", "--wm", "HQ.nii.gz"], "not both"),
        (["--preview", "out.jpg"], "out.jpg"),
        (["--wm", "HQ.nii.gz"], "GM, CSF"),
        (["--suffix", "T2w"], "not published"),
        (["--mask", "absent.nii.gz"], "absent.nii.gz"),
        (["--mask", "HQ.nii.gz", "--settings", '{"contrast": "none", "noise": "none"}'], "mask have no effect"),
        (
            ["--mask", "HQ.nii.gz", *(f"--{name}=HQ.nii.gz" for name in ("wm", "gm", "csf"))],
            "no effect beside posteriors",
        ),
        (["--preset", "64mT", "--settings", '{"preset": "iqt-8x"}'], "another preset"),
        (["--draw", "2"], "--draw: goes with --replay"),
        (["--replay", "HQ.json", "--seed", "1", "--preset", "64mT"], "--preset, --seed: is in the record"),
    ],
)
def test_a_wrong_command_ends_in_one_message_and_writes_nothing(tmp_path, iqt, words, message):
    code, _ = iqt("degrade", "HQ.nii.gz", "LQ.nii.gz", *words)
    assert isinstance(code, str), "the message, with which Python exits in status 1"
    assert message in code
    assert [path.name for path in tmp_path.iterdir()] == ["HQ.nii.gz"]
