"""The tissue engines, and the simulator's commands: files in, files out."""

from __future__ import annotations

import itertools
import os
import stat
import sys

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread
from phantoms import affine_of
from scipy.ndimage import gaussian_filter

from iqt.cli import main
from iqt.config import FAST, HMRF, LabelTissues, LowField, Tissues
from iqt.degrade import classify, contrast, fast, labels, simulator
from iqt.degrade.run import degrade_scans
from iqt.degrade.single import Extras, degrade_file, replay_file
from iqt.degrade.tissues import TissueFiles, probseg, segment_scans, tissues_of_file
from iqt.errors import UserError
from iqt.imaging import checks
from iqt.io import naming
from iqt.io.files import read_json, read_table, write_json
from iqt.io.volumes import Volume, read_volume, save_volume

INTENSITY = {
    "T1w": {"WM": 1000, "GM": 700, "CSF": 250},
    "T2w": {"WM": 300, "GM": 450, "CSF": 1000},
    "FLAIR": {"WM": 600, "GM": 850, "CSF": 150},
}


def brain(suffix="T1w", shape=(44, 48, 40), codes="RAS"):
    """A ball of white matter in a shell of grey in a shell of CSF: scan, true posteriors and FreeSurfer's labels."""
    grid = np.stack(np.meshgrid(*[np.arange(size) - (size - 1) / 2 for size in shape], indexing="ij"))
    radius = np.sqrt(np.square(grid).sum(0))
    truth = {"WM": radius < 10, "GM": (radius >= 10) & (radius < 14), "CSF": (radius >= 14) & (radius < 17)}
    soft = {name: gaussian_filter(mask.astype(np.float32), 0.7) for name, mask in truth.items()}
    inside = radius < 17
    total = sum(soft.values())
    soft = {name: np.where(inside, data / np.maximum(total, 1e-6), 0).astype(np.float32) for name, data in soft.items()}
    data = sum(INTENSITY[suffix][name] * soft[name] for name in soft)
    data = data + np.where(inside, np.random.default_rng(0).normal(0, 20, shape), 0)
    dseg = np.zeros(shape, np.int32)
    left = grid[0] < 0
    dseg[truth["WM"]] = 2
    dseg[truth["WM"] & ~left] = 41
    dseg[truth["GM"]] = 1024
    dseg[truth["GM"] & ~left] = 2024
    return Volume(np.maximum(data, 0).astype(np.float32), affine_of(codes)), soft, dseg, inside


def dice(one, other):
    one, other = one > 0.5, other > 0.5
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def assert_partition(found, inside):
    total = sum(found.values())
    np.testing.assert_allclose(total[inside], 1, atol=1e-4)
    assert total[~inside].max() == 0
    assert all(data.dtype == np.float32 and data.min() >= 0 for data in found.values())


def write_cohort(root, scans, suffix="T1w"):
    volume, soft, dseg, inside = brain(suffix)
    for scan in scans:
        save_volume(naming.anat(root, scan, f"{suffix}.nii.gz"), volume.data, volume.affine)
        save_volume(naming.anat(root, scan, "desc-brain_mask.nii.gz"), inside, volume.affine)
        save_volume(naming.anat(root, scan, "dseg.nii.gz"), dseg, volume.affine)
        for name, data in soft.items():
            save_volume(naming.anat(root, scan, f"label-{name}_probseg.nii.gz"), data, volume.affine)
        write_json(naming.anat(root, scan, f"{suffix}.json"), {"status": "ok"})
    return volume, soft, inside


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


# --- the commands


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
