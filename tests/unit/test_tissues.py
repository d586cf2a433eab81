"""The tissue engines, and the simulator's commands: files in, files out."""

from __future__ import annotations

import itertools
import os
import stat
import sys

import numpy as np
import pytest
from tissue_brain import INTENSITY, assert_partition, brain, dice, write_cohort

from iqt.config import FAST, HMRF, LabelTissues, LowField, Tissues
from iqt.degrade import classify, contrast, fast, labels
from iqt.degrade.run import degrade_scans
from iqt.degrade.single import Extras, degrade_file, replay_file
from iqt.degrade.tissues import TissueFiles, probseg, segment_scans, tissues_of_file
from iqt.errors import UserError
from iqt.imaging import checks
from iqt.io import naming
from iqt.io.files import read_json, write_json
from iqt.io.volumes import Volume, read_volume, save_volume

# --- labels


def test_labels_become_tissue_maps():
    volume, soft, dseg, inside = brain()
    found = labels.tissues_from_labels(dseg, inside, volume.voxel_size, LabelTissues(blur=1.4))
    assert_partition(found, inside)
    assert all(dice(found[name], soft[name]) > 0.97 for name in soft), "CSF is what the mask has and no label does"
    sharp = labels.tissues_from_labels(dseg, inside, volume.voxel_size, LabelTissues(blur=0))
    assert set(np.unique(sharp["WM"])) == {0, 1}
    without = labels.tissues_from_labels(
        np.where(inside & (dseg == 0), 24, dseg), None, volume.voxel_size, LabelTissues()
    )
    assert_partition(without, inside)


@pytest.mark.parametrize(
    ("tissue", "ids"),
    [
        (1, [2, 41, 7, 46, 16, 28, 77, 85, 251, 255, 3024, 4035, 5001]),
        (2, [3, 42, 8, 47, 10, 13, 17, 18, 26, 49, 54, 58, 80, 1000, 1035, 2001, 1901, 2905, 11101, 12175]),
        (3, [4, 5, 14, 15, 24, 43, 44, 31, 63, 72, 122, 257]),
        (0, [0, 118, 121, 165, 258, 500, 530]),
        (255, [1, 6, 400, 9999, 32000]),
    ],
)
def test_every_label_has_the_tissue_that_freesurfer_gives_it(tissue, ids):
    assert labels.tissue_of(np.array(ids)).tolist() == [tissue] * len(ids)


def test_the_look_up_table_has_the_same_tissues():
    rows = checks.read_labels("freesurfer").rows
    found = labels.tissue_of(np.array([*rows]))
    names = ("outside", *contrast.TISSUES)
    assert {index: names[int(tissue)] for index, tissue in zip(rows, found, strict=True)} == {
        index: row["tissue"] for index, row in rows.items()
    }


def test_no_label_has_two_tissues():
    ranges = sorted([*labels.OUTSIDE, *(pair for pairs in labels.RANGES.values() for pair in pairs)])
    assert all(first <= last for first, last in ranges)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(ranges))


def test_labels_that_are_not_freesurfers_are_refused():
    volume, _, dseg, inside = brain()
    with pytest.raises(UserError, match=r"labels 401.*none of FreeSurfer"):
        labels.tissues_from_labels(np.where(dseg == 1024, 401, dseg), inside, volume.voxel_size, LabelTissues())
    with pytest.raises(UserError, match="no voxel of GM"):
        labels.tissues_from_labels(np.where(dseg > 1000, 2, dseg), inside, volume.voxel_size, LabelTissues())


# --- hmrf


@pytest.mark.parametrize("suffix", INTENSITY)
def test_hmrf_finds_the_tissues_of_every_contrast(suffix):
    volume, soft, _, inside = brain(suffix)
    found = classify.tissues_by_hmrf(volume.data, inside, suffix, HMRF())
    assert_partition(found, inside)
    # between dark CSF and bright grey matter a rim of mixed voxels looks like FLAIR's white matter
    assert all(dice(found[name], soft[name]) > (0.75 if suffix == "FLAIR" else 0.95) for name in soft)


def test_hmrf_gives_the_same_every_time():
    volume, _, _, inside = brain()
    one, two = (classify.tissues_by_hmrf(volume.data, inside, "T1w", HMRF(iterations=5)) for _ in range(2))
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)


def test_a_brain_needs_a_mask_or_a_black_background():
    volume, _, _, inside = brain()
    assert (classify.brain_of(volume, None) >= inside * (volume.data > 0)).all()
    head = Volume(volume.data + 10, volume.affine)
    with pytest.raises(UserError, match=r"not skull-stripped.*--mask"):
        classify.brain_of(head, None)
    large = Volume(volume.data, np.diag([6.0, 6.0, 6.0, 1.0]))
    with pytest.raises(UserError, match="not skull-stripped"):
        classify.brain_of(large, None)
    assert (classify.brain_of(head, inside) == inside).all()
    flat = Volume(np.where(inside, 5.0, 0).astype(np.float32), volume.affine)
    with pytest.raises(UserError, match="single intensity"):
        classify.tissues_by_hmrf(flat.data, inside, "T1w", HMRF())


# --- fast: the command and what it writes; FSL itself is not run by any test


def test_the_command_of_fast_is_the_one_meant(tmp_path):
    volume, _, _, _ = brain()
    scan = tmp_path / "brain.nii.gz"
    save_volume(scan, volume.data, volume.affine)
    words = fast.command(scan, tmp_path / "sub-01_fast", "T1w", FAST()).cmdline.split()
    assert words[0] == "fast"
    options = dict(zip(words[1:-1:2], words[2:-1:2], strict=True))
    base = str(tmp_path / "sub-01_fast")
    assert options == {"-t": "1", "-n": "3", "-H": "0.10", "-I": "4", "-l": "20", "-o": base, "-S": "1"}
    assert words[-1] == str(scan)
    assert "-t 2" in fast.command(scan, tmp_path / "x", "T2w", FAST()).cmdline


FAKE = """#!{python}
# A stand-in for FSL's program: it writes files of the shape that FAST writes, or fails.
import shutil, sys
arguments = sys.argv[1:]
base = arguments[arguments.index("-o") + 1]
if "sub-02" in base:
    sys.exit("Segmentation fault")
for number in range(3):
    shutil.copy(f"{folder}/pve_{{number}}.nii.gz", f"{{base}}_pve_{{number}}.nii.gz")
for extra in ("seg", "mixeltype", "pveseg"):
    shutil.copy(f"{folder}/pve_0.nii.gz", f"{{base}}_{{extra}}.nii.gz")
"""


@pytest.fixture
def fake_fast(tmp_path, monkeypatch):
    """A stand-in for FAST on PATH, which hands out the given maps in the given order."""

    def install(maps, affine):
        folder = tmp_path / "stand_in"
        for number, data in enumerate(maps):
            save_volume(folder / f"pve_{number}.nii.gz", data, affine)
        program = folder / "fast"
        program.write_text(FAKE.format(python=sys.executable, folder=folder))
        program.chmod(program.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return install


@pytest.mark.parametrize("order", [("CSF", "GM", "WM"), ("WM", "CSF", "GM")])
def test_fast_is_run_recorded_and_read_whatever_the_order_of_its_maps(tmp_path, fake_fast, order):
    tmp_path = tmp_path / "a user's folder"
    volume, soft, _ = write_cohort(tmp_path / "cohort", ["sub-01", "sub-02"])
    fake_fast([soft[name] for name in order], volume.affine)
    fast.run_fast(["sub-01", "sub-02"], tmp_path / "cohort", tmp_path / "fast", "T1w", FAST())
    record = read_json(tmp_path / "fast" / "sub-01_fast.json")
    assert "a user" not in record["command"], "nipype does not quote the input"
    assert (record["status"], record["exit_status"]) == ("ok", 0)
    assert record["command"].startswith("fast ")
    failed = read_json(tmp_path / "fast" / "sub-02_fast.json")["status"]
    assert "exit status" in failed
    assert "Segmentation fault" in failed
    left = sorted(path.name for path in (tmp_path / "fast").iterdir() if path.name.endswith(".nii.gz"))
    assert left == [f"sub-01_fast_pve_{number}.nii.gz" for number in range(3)]

    settings = Tissues(engine="fast")
    segment_scans(["sub-01", "sub-02"], tmp_path / "cohort", tmp_path / "t", "T1w", settings, tmp_path / "fast")
    for name, data in soft.items():
        path = naming.anat(tmp_path / "t", "sub-01", f"label-{name}_probseg.nii.gz")
        np.testing.assert_allclose(read_volume(path).data, data, atol=1e-6)
    assert read_json(naming.anat(tmp_path / "t", "sub-02", "probseg.json"))["status"].startswith("fast: ")


def test_fast_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"not on PATH.*--use-conda"):
        fast.run_fast(["sub-01"], tmp_path, tmp_path / "fast", "T1w", FAST())
    with pytest.raises(UserError, match="not FLAIR"):
        fast.run_fast(["sub-01"], tmp_path, tmp_path / "fast", "FLAIR", FAST())
    volume, soft, _, _ = brain()
    for number, name in enumerate(soft):
        save_volume(tmp_path / f"pve_{number}.nii.gz", soft[name] * (number != 1), volume.affine)
    with pytest.raises(UserError, match=r"pve_1.*empty"):
        classify.tissues_from_fast([tmp_path / name for name in fast.MAPS], volume, "T1w")


# --- the stages' files


@pytest.mark.parametrize("engine", ["labels", "hmrf"])
def test_a_cohort_is_segmented_and_degraded_by_an_engine(tmp_path, engine):
    scans = ["sub-01", "sub-02"]
    _, soft, _ = write_cohort(tmp_path / "cohort", scans)
    write_json(naming.anat(tmp_path / "cohort", "sub-02", "T1w.json"), {"status": "no brain"})
    segment_scans(scans, tmp_path / "cohort", tmp_path / "tissues", "T1w", Tissues(engine=engine))
    record = read_json(naming.anat(tmp_path / "tissues", "sub-01", "probseg.json"))
    assert record["engine"] == engine
    assert record["ml"]["WM"] == pytest.approx(soft["WM"].sum() * 8 / 1000, rel=0.05)
    assert read_json(naming.anat(tmp_path / "tissues", "sub-02", "probseg.json"))["status"] == "cohort: no brain"
    arguments = (tmp_path / "cohort", tmp_path / "low", "T1w", 1, LowField(), "main", tmp_path / "tissues")
    degrade_scans(scans, *arguments)
    found = read_json(naming.anat(tmp_path / "low", "sub-01", "T1w.json"))
    assert (found["status"], found["tissues"]) == ("ok", engine)
    assert read_json(naming.anat(tmp_path / "low", "sub-02", "T1w.json"))["status"].endswith("no brain")


def test_training_people_get_several_draws_and_the_first_is_the_only_one_of_before(tmp_path):
    write_cohort(tmp_path / "cohort", ["sub-01", "sub-02"])
    common = (["sub-01", "sub-02"], tmp_path / "cohort")
    degrade_scans(*common, tmp_path / "one", "T1w", 1, LowField(), "main", None, ["sub-01"])
    degrade_scans(*common, tmp_path / "low", "T1w", 1, LowField(draws=3), "main", None, ["sub-01"])

    def names(scan):
        return sorted(path.name for path in naming.anat(tmp_path / "low", scan, "x").parent.iterdir())

    assert len(names("sub-01")) == 1 + 2 * 3
    assert names("sub-02") == ["sub-02_T1w.json", "sub-02_T1w.nii.gz", "sub-02_space-HQ_T1w.nii.gz"]
    for ending in ("T1w.nii.gz", "space-HQ_T1w.nii.gz"):
        one, low = (naming.anat(tmp_path / folder, "sub-01", ending).read_bytes() for folder in ("one", "low"))
        assert one == low
    record = read_json(naming.anat(tmp_path / "low", "sub-01", "T1w.json"))
    draws = [record["draw"], *(one["draw"] for one in record["further_draws"])]
    assert len({one["snr_wm"] for one in draws}) == 3
    second = naming.anat(tmp_path / "low", "sub-01", "draw-2_space-HQ_T1w.nii.gz")
    assert second.read_bytes() != naming.anat(tmp_path / "low", "sub-01", "space-HQ_T1w.nii.gz").read_bytes()
    degrade_scans(*common, tmp_path / "low", "T1w", 1, LowField(draws=2), "main", None, ["sub-01"])
    assert len(names("sub-01")) == 1 + 2 * 2, "what is no longer drawn is removed"


def test_posteriors_on_another_grid_are_brought_to_the_scans(tmp_path):
    volume, soft, _, _ = brain()
    half = np.diag([0.5, 0.5, 0.5, 1.0])
    half[:3, 3] = -0.25  # the corner stays in its place
    fine = volume.affine @ half
    given = {}
    for name, data in soft.items():
        given[name] = tmp_path / f"{name}.nii.gz"
        save_volume(given[name], np.kron(data, np.ones((2, 2, 2), np.float32)), fine)
    found = tissues_of_file(volume, TissueFiles(given), "T1w", Tissues()).maps
    for name, data in soft.items():
        assert dice(found[name], data) > 0.95
    far = fine.copy()
    far[:3, 3] += 1000
    save_volume(given["GM"], soft["GM"], far)
    with pytest.raises(UserError, match="lies elsewhere in the world than its image"):
        tissues_of_file(volume, TissueFiles(given), "T1w", Tissues())


def test_a_record_replays_to_the_same_volume_bit_for_bit(tmp_path):
    """With every part of the model on, from the files alone."""
    volume, soft, _, _ = brain()
    image = tmp_path / "sub-01_T1w.nii.gz"
    save_volume(image, volume.data, volume.affine)
    given = {name: tmp_path / f"{name}.nii.gz" for name in soft}
    for name, data in soft.items():
        save_volume(given[name], data, volume.affine)
    settings = LowField(preset="64mT", in_plane=2.5)
    for kind in ("first", "again"):
        out, extras = tmp_path / f"{kind}.nii.gz", Extras(tmp_path / f"{kind}_hq.nii.gz")
        if kind == "first":
            degrade_file(image, out, TissueFiles(given), 7, settings, extras)
        else:
            replay_file(tmp_path / "first.json", image, out, TissueFiles(given), extras)
    for ending in (".nii.gz", "_hq.nii.gz"):
        assert (tmp_path / f"first{ending}").read_bytes() == (tmp_path / f"again{ending}").read_bytes()
    first, again = (read_json(tmp_path / f"{name}.json") for name in ("first", "again"))
    assert (first.pop("files"), again.pop("files")) == (["first_hq.nii.gz"], ["again_hq.nii.gz"])
    assert first == again
    draw = read_json(tmp_path / "first.json")["draw"]
    assert set(draw["artefacts"]) == {"kspace", "bias_field", "distortion", "motion"}
    with pytest.raises(UserError, match="named twice"):
        replay_file(tmp_path / "first.json", image, tmp_path / "first.nii.gz", TissueFiles(given))
    write_json(tmp_path / "not.json", {"status": "ok"})
    with pytest.raises(UserError, match=r"not\.json.*not the record"):
        replay_file(tmp_path / "not.json", image, tmp_path / "x.nii.gz", TissueFiles(given))


def test_every_acquisition_of_a_training_person_replays(tmp_path):
    write_cohort(tmp_path / "cohort", ["sub-01"])
    low, cohort = tmp_path / "low", tmp_path / "cohort"
    degrade_scans(["sub-01"], cohort, low, "T1w", 1, LowField(draws=3), "main", training=["sub-01"])
    record, image = naming.anat(low, "sub-01", "T1w.json"), naming.anat(cohort, "sub-01", "T1w.nii.gz")
    given = TissueFiles(probseg(cohort, "sub-01"))
    for number, name in ((1, "T1w.nii.gz"), (3, "draw-3_T1w.nii.gz")):
        replay_file(record, image, tmp_path / "again.nii.gz", given, number=number)
        assert (tmp_path / "again.nii.gz").read_bytes() == naming.anat(low, "sub-01", name).read_bytes()
    with pytest.raises(UserError, match=r"--draw 4: .* holds 3"):
        replay_file(record, image, tmp_path / "x.nii.gz", given, number=4)
    with pytest.raises(UserError, match=r"came from cohort, not from hmrf.*--wm"):
        replay_file(record, image, tmp_path / "x.nii.gz", TissueFiles())
    assert not (tmp_path / "x.nii.gz").exists()
