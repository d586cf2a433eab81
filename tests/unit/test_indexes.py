"""BIDS datasets, folders and label maps: who is found, and what belongs to whom."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from iqt.cohort import entries, fetch, ingest, listing, synthesize
from iqt.cohort.entries import index_path, transport_of
from iqt.cohort.listing import say_what_is_new
from iqt.config import BIDS, Cohort, Folder, Grid, LabelMaps, Mask
from iqt.errors import StopError, UserError
from iqt.imaging import brain_mask, checks
from iqt.io.files import read_json, write_table
from iqt.io.naming import anat
from iqt.io.volumes import Volume, read_volume, save_volume
from people import person, real_data, skull
from s3 import Server


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def cohort(source: str, **settings) -> Cohort:
    return Cohort(source=source, split={"train": 1, "val": 1, "test": 1}, **{source: settings})


def found(settings: Cohort, index: Path, suffix: str = "T1w") -> dict[str, entries.Entry]:
    index.unlink(missing_ok=True)
    return listing.list_entries(settings, suffix, index)


def bids(root: Path, **settings) -> Cohort:
    return cohort("bids", path=str(root), **settings)


def test_bids_images_are_found_by_suffix_session_and_run(tmp_path: Path) -> None:
    root = touch(
        tmp_path / "ds",
        "dataset_description.json",
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_T2w.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_run-1_T1w.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_run-2_T1w.nii",
        "sub-02/ses-b/anat/sub-02_ses-b_FLAIR.nii.gz",
        "sub-02/ses-a/func/sub-02_ses-a_task-rest_bold.nii.gz",
        "sourcedata/sub-03/anat/sub-03_T1w.nii.gz",
        ".git/annex/sub-04/anat/sub-04_T1w.nii.gz",
        "derivatives/other/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
    )
    index = tmp_path / "index.tsv"
    t1w = found(bids(root), index)
    assert list(t1w) == ["sub-01", "sub-02_ses-a_run-1", "sub-02_ses-a_run-2"]
    assert t1w["sub-01"].head == str(root / "sub-01/anat/sub-01_T1w.nii.gz")
    assert t1w["sub-01"].brain == ""
    assert list(found(bids(root), index, "T2w")) == ["sub-01"]
    assert list(found(bids(root), index, "FLAIR")) == ["sub-02_ses-b"]
    assert list(found(bids(root, subjects=["01"]), index)) == ["sub-01"]
    assert list(found(bids(root, sessions=["b"]), index, "FLAIR")) == ["sub-02_ses-b"]
    with pytest.raises(UserError, match="a has no FLAIR scan"):
        found(bids(root, sessions=["a"]), index, "FLAIR")
    with pytest.raises(UserError, match=r"holds no folder sub-\*"):
        found(bids(tmp_path), index)
    with pytest.raises(UserError, match="cannot be listed"):
        found(bids(tmp_path / "none"), index)


def test_a_pipelines_posteriors_stay_together_and_rival_pipelines_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anats = [f"derivatives/{name}/sub-01/anat/sub-01_" for name in ("a", "b")]
    maps = [f"label-{tissue}_probseg.nii.gz" for tissue in ("WM", "GM", "CSF")]
    root = touch(
        tmp_path / "ds", "sub-01/anat/sub-01_T1w.nii.gz", *(anats[0] + name for name in maps[:2]), anats[1] + maps[1]
    )
    index = tmp_path / "index.tsv"

    def entry() -> entries.Entry:
        return found(bids(root), index)["sub-01"]

    def pipelines(*places: str) -> set[str]:
        return {Path(place).parts[-4] for place in places}

    assert entry().wm == "", "no pipeline has all three"
    touch(root, anats[1] + maps[0], anats[1] + maps[2], anats[1] + f"res-2_{maps[0]}")
    assert pipelines(entry().wm, entry().gm, entry().csf) == {"b"}
    assert entry().wm.endswith(f"sub-01_{maps[0]}"), "of one pipeline the first of those that fit equally"
    assert "warning" not in capsys.readouterr().err
    touch(root, anats[0] + maps[2])
    assert pipelines(entry().wm, entry().gm, entry().csf) == {"a"}
    assert re.search(r"label-WM_probseg of sub-01.*/a and in .*/b: that of .*/a is taken", capsys.readouterr().err)
    touch(root, *(f"{folder}desc-brain_mask.nii.gz" for folder in anats), "derivatives/a/code/study.json")
    assert pipelines(entry().mask, entry().wm) == {"b"}, "a study's masks lie on the grid of its results"


def test_of_two_images_of_a_session_the_entities_choose(tmp_path: Path) -> None:
    root = touch(
        tmp_path / "ds",
        "sub-01/anat/sub-01_acq-mprage_T1w.nii.gz",
        "sub-01/anat/sub-01_acq-mprage_rec-norm_T1w.nii.gz",
        "sub-02/anat/sub-02_acq-mprage_T1w.nii.gz",
    )
    index = tmp_path / "index.tsv"
    with pytest.raises(UserError, match=r"are both the T1w scan sub-01; choose one by cohort.bids.entities, with rec"):
        found(bids(root), index)
    chosen = found(bids(root, entities={"rec": "norm"}), index)
    assert [entry.head.rpartition("/")[2] for entry in chosen.values()] == ["sub-01_acq-mprage_rec-norm_T1w.nii.gz"]
    assert list(found(bids(root, entities={"rec": ""}), index)) == ["sub-01", "sub-02"]


def test_what_lies_on_an_images_grid_is_taken_from_derivatives(tmp_path: Path) -> None:
    fmriprep = "derivatives/fmriprep/sub-01/anat/sub-01"
    root = touch(
        tmp_path / "ds",
        "sub-01/anat/sub-01_run-1_T1w.nii.gz",
        "sub-02/anat/sub-02_T1w.nii.gz",
        f"{fmriprep}_run-1_desc-brain_mask.nii.gz",
        f"{fmriprep}_run-2_desc-brain_mask.nii.gz",
        f"{fmriprep}_space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz",
        f"{fmriprep}_desc-aparcaseg_dseg.nii.gz",
        f"{fmriprep}_dseg.nii.gz",
        f"{fmriprep}_label-GM_probseg.nii.gz",
        f"{fmriprep}_label-WM_probseg.nii.gz",
        f"{fmriprep}_label-CSF_probseg.nii.gz",
        f"{fmriprep}_space-MNI152NLin2009cAsym_label-CSF_probseg.nii.gz",
    )
    one, other = found(bids(root), tmp_path / "index.tsv").values()
    assert one.mask == str(root / f"{fmriprep}_run-1_desc-brain_mask.nii.gz")
    assert one.labels == str(root / f"{fmriprep}_desc-aparcaseg_dseg.nii.gz")
    assert one.lut == "freesurfer"
    assert [one.wm, one.gm, one.csf] == [
        str(root / f"{fmriprep}_label-{t}_probseg.nii.gz") for t in ("WM", "GM", "CSF")
    ]
    assert (other.mask, other.labels, other.wm, other.lut) == ("", "", "", "")


def test_low_field_scans_of_the_same_people_are_found(tmp_path: Path) -> None:
    root = touch(
        tmp_path / "ds",
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_acq-ulf_T1w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz",
        "sub-02/ses-ulf/anat/sub-02_ses-ulf_T1w.nii.gz",
    )
    index = tmp_path / "index.tsv"
    same = found(bids(root, lowfield="acq-ulf_T1w"), index)
    assert {scan: entry.lowfield.rpartition("/")[2] for scan, entry in same.items()} == {
        "sub-01_ses-a": "sub-01_ses-a_acq-ulf_T1w.nii.gz",
        "sub-01_ses-b": "",
        "sub-02_ses-a": "",
        "sub-02_ses-ulf": "",
    }
    another = found(bids(root, lowfield="ses-ulf_T1w", entities={"acq": ""}), index)
    assert {scan: entry.lowfield.rpartition("/")[2] for scan, entry in another.items()} == {
        "sub-01_ses-a": "",
        "sub-01_ses-b": "",
        "sub-02_ses-a": "sub-02_ses-ulf_T1w.nii.gz",
    }
    plain = touch(tmp_path / "plain", "01_hf.nii.gz", "01_lf.nii.gz", "02_hf.nii.gz")
    pairs = found(cohort("folder", path=str(plain), images="*_hf.nii.gz", lowfield="*_lf.nii.gz"), index)
    assert {scan: entry.lowfield for scan, entry in pairs.items()} == {
        "sub-01": str(plain / "01_lf.nii.gz"),
        "sub-02": "",
    }
    with pytest.raises(UserError, match=r"cohort.folder.lowfield = '\*.mgz' finds no"):
        found(cohort("folder", path=str(plain), images="*_hf.nii.gz", lowfield="*.mgz"), index)


def test_a_thousand_people_are_indexed_in_seconds(tmp_path: Path) -> None:
    root = tmp_path / "ds"
    for number in range(1000):
        name = f"sub-{number:04d}"
        touch(root, f"{name}/ses-1/anat/{name}_ses-1_T1w.nii.gz", f"{name}/ses-1/anat/{name}_ses-1_T2w.nii.gz")
        touch(root, f"derivatives/masks/{name}/ses-1/anat/{name}_ses-1_desc-brain_mask.nii.gz")
    people = found(bids(root), tmp_path / "index.tsv")
    assert len(people) == 1000
    assert all(entry.mask for entry in people.values())


def write_bids(root: Path) -> Path:
    for name in ("01", "02"):
        made = person(f"9{name}")
        save_volume(root / f"sub-{name}/anat/sub-{name}_T1w.nii.gz", skull(made), made.affine)
        mask = root / f"derivatives/masks/sub-{name}/anat/sub-{name}_desc-brain_mask.nii.gz"
        save_volume(mask, made.mask.astype(np.uint8), made.affine)
    return root


def build(folder: Path, settings: Cohort, suffix: str = "T1w", seed: int = 1) -> Path:
    index = entries.index_path(settings, suffix, folder)
    scans = list(listing.list_entries(settings, suffix, index))
    fetch.fetch_scans(scans, folder / "source", suffix, settings, index)
    ingest.ingest_scans(scans, folder / "source", folder / "cohort", suffix, seed, settings)
    return folder / "cohort"


def test_openneuro_by_accession_without_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket's layout on a local server: a folder a dataset, its derivatives inside; asked without a signature."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    tree = write_bids(tmp_path / "ds")
    with Server() as server:
        sizes = server.upload("openneuro.org", tree, "ds000999/", public=True)
        another = "ds0009990/sub-77/anat/sub-77_T1w.nii.gz"
        server.client().put_object(Bucket="openneuro.org", Key=another, Body=b"of another dataset")
        bucket = {"endpoint": server.url, "attempts": 2}
        settings = cohort("bids", accession="ds000999", s3=bucket).model_copy(update={"downloads": str(tmp_path / "d")})
        server.sent.clear()
        folder = build(tmp_path / "run", settings)
        brought = {path.removeprefix("/openneuro.org/") for path in server.sent if path != "/openneuro.org"}
        assert {path for path in brought if path in sizes} == set(sizes)
    for name in ("01", "02"):
        made = person(f"9{name}")
        assert read_json(anat(folder, f"sub-{name}", "T1w.json"))["status"] == "ok"
        assert np.array_equal(read_volume(anat(folder, f"sub-{name}", "T1w.nii.gz")).data, made.T1w)
        assert (tmp_path / "d/openneuro.org/ds000999" / f"sub-{name}/anat/sub-{name}_T1w.nii.gz").is_file()


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_folder_of_any_names_with_masks_and_labels(tmp_path: Path) -> None:
    root = tmp_path / "scans"
    for name in ("OAS1_0001", "OAS1_0002"):
        made = person(name.replace("_", ""))
        (root / "deep" / "er").mkdir(parents=True, exist_ok=True)
        nib.save(nib.MGHImage(skull(made), made.affine), root / "deep" / "er" / f"{name}_MR1.mgz")
        save_volume(root / "masks" / f"{name}_mask.nii.gz", made.mask.astype(np.uint8), made.affine)
        save_volume(root / "labels" / f"{name}_seg.nii.gz", made.dseg, made.affine)
    settings = cohort(
        "folder",
        path=str(root),
        images="deep/**/*.mgz",
        masks="masks/*",
        labels="labels/*",
        pattern=r"(?P<sub>OAS1_\d+)",
    )
    folder = build(tmp_path / "run", settings)
    made = person("OAS10002")
    scan = "sub-OAS10002"
    assert np.array_equal(read_volume(anat(folder, scan, "T1w.nii.gz")).data, made.T1w)
    assert np.array_equal(read_volume(anat(folder, scan, "dseg.nii.gz"), np.int32).data, made.dseg)


def test_files_that_belong_to_no_image_are_said_and_none_that_does_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else another engine would make the masks, or nothing be labelled, without a word."""
    root = touch(tmp_path, "a_ses-1.nii.gz", "b_ses-1.nii.gz", "masks/a_ses-1.nii.gz", "masks/c_ses-1.nii.gz")
    pattern = r"^(?P<sub>[a-z])(_ses-(?P<ses>\d))?"
    settings = cohort("folder", path=str(root), images="*.nii.gz", masks="masks/*", pattern=pattern)
    entries = found(settings, tmp_path / "index.tsv")
    assert [bool(entry.mask) for entry in entries.values()] == [True, False]
    assert "cohort.folder.masks: 1 of 2 files belong to no image (sub-c_ses-1)" in capsys.readouterr().err
    for path in (root / "masks").iterdir():
        path.rename(path.with_name(path.name.replace("_ses-1", "")))
    with pytest.raises(UserError, match=r"masks: no file has the person, session and run of an image: .* finds sub-a"):
        found(settings, tmp_path / "other.tsv")


def test_scans_that_came_after_the_listing_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, index = touch(tmp_path / "data", "a.nii.gz", "b.nii.gz"), tmp_path / "index.tsv"
    settings = cohort("folder", path=str(root))
    found(settings, index)
    os.utime(index, (0, 0))
    say_what_is_new(settings, "T1w", index)
    assert "warning" not in capsys.readouterr().err
    touch(tmp_path / "data", "c.nii.gz")
    (root / "a.nii.gz").unlink()
    os.utime(index, (0, 0))
    say_what_is_new(settings, "T1w", index)
    told = capsys.readouterr().err
    assert "1 new and not read (sub-c); 1 gone (sub-a)" in told
    assert f"Delete {index}" in told
    assert list(listing.list_entries(settings, "T1w", index)) == ["sub-a", "sub-b"], "the cohort stays as it was"


def test_how_a_bucket_is_asked_is_no_other_source() -> None:
    one = cohort("hcp", subjects=["100307"])
    other = cohort("hcp", subjects=["100307"], s3={"parallel": 16, "profile": "mine"})
    assert index_path(one, "T1w", Path("r")) == index_path(other, "T1w", Path("r"))
    assert index_path(one, "T1w", Path("r")) != index_path(cohort("hcp", s3={"prefix": "x"}), "T1w", Path("r"))
    assert transport_of(other)["parallel"] == 16
    assert transport_of(cohort("folder", path="x")) == {}


def test_names_of_a_folder_that_say_nobody_or_the_same_are_refused(tmp_path: Path) -> None:
    root = touch(tmp_path, "a_1.nii.gz", "a_2.nii.gz")
    index = tmp_path / "index.tsv"
    with pytest.raises(UserError, match="are both sub-a"):
        found(cohort("folder", path=str(root)), index)
    runs = found(cohort("folder", path=str(root), pattern=r"(?P<sub>[a-z]+)_(?P<run>\d)"), index)
    assert list(runs) == ["sub-a_run-1", "sub-a_run-2"]
    with pytest.raises(UserError, match="finds no id"):
        found(cohort("folder", path=str(root), pattern=r"(?P<sub>\d{5})"), index)
    with pytest.raises(UserError, match=r"finds no \.nii"):
        found(cohort("folder", path=str(root), images="*.mgz"), index)
    with pytest.raises(UserError, match="is no folder"):
        found(cohort("folder", path=str(root / "none")), index)
    with pytest.raises(ValueError, match="needs a group"):
        Folder(path="x", pattern="abc")
    with pytest.raises(ValueError, match="path is missing"):
        cohort("folder")
    assert BIDS(accession="ds000001").downloaded == "ds000001"
    assert BIDS(accession="ds000001", path="x").downloaded is None


# --- label maps ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def label_map() -> Volume:
    """A template person's labels at 2 mm, with something outside the brain as SynthSeg has it."""
    made = person("labels", 2.0)
    data = made.dseg.astype(np.int32)
    data[:4, :, :] = 516
    return Volume(data, made.affine)


def test_the_same_seed_gives_the_same_scan_and_another_scan_differs(label_map: Volume) -> None:
    first, again, other = (
        synthesize.make_person(label_map, scan, "T1w", 1, LabelMaps())
        for scan in ("sub-a_run-1",) * 2 + ("sub-a_run-2",)
    )
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.dseg, again.dseg)
    assert (first.dseg != other.dseg).mean() > 0.01
    assert first.drawn["level"] != other.drawn["level"]


def test_nothing_drawn_leaves_the_labels_and_flat_tissue(label_map: Volume) -> None:
    settings = LabelMaps(deformation=0, texture=0, bias_field=0)
    made = synthesize.make_person(label_map, "sub-a", "T1w", 1, settings)
    whole = np.zeros(label_map.data.shape, np.int32)
    shift = np.rint(np.linalg.inv(label_map.affine) @ made.affine[:, 3])[:3].astype(int)
    inside = np.argwhere(made.mask)
    whole[tuple((inside + shift).T)] = made.dseg[made.mask]
    brain = np.where(label_map.data < 500, label_map.data, 0)
    assert (whole == brain)[brain > 0].mean() > 0.995, "the mask may drop loose voxels"
    for tissue in made.tissues:
        pure = made.image[tissue > 0.999]
        assert pure.std() / pure.mean() < 0.15, "structures of a tissue differ a little"


@pytest.mark.parametrize(("suffix", "order"), [("T1w", "CSF GM WM"), ("T2w", "WM GM CSF"), ("FLAIR", "CSF WM GM")])
def test_the_contrast_is_the_suffixs(label_map: Volume, suffix: str, order: str) -> None:
    made = synthesize.make_person(label_map, "sub-a", suffix, 1, LabelMaps())
    means = {
        name: made.image[tissue > 0.95].mean() for name, tissue in zip(synthesize.TISSUES, made.tissues, strict=True)
    }
    assert sorted(means, key=means.__getitem__) == order.split()


def test_random_contrast_is_the_same_in_both_hemispheres(label_map: Volume) -> None:
    settings = LabelMaps(contrast="random", texture=0, bias_field=0)
    made = synthesize.make_person(label_map, "sub-a", "T1w", 1, settings)
    other = synthesize.make_person(label_map, "sub-b", "T1w", 1, settings)
    medians = []
    for each in (made, other):
        left, right = (np.median(each.image[each.dseg == label]) for label in (12, 51))
        assert left == pytest.approx(right, rel=0.15)
        medians.append(left / np.median(each.image[each.dseg == 2]))
    assert abs(medians[0] - medians[1]) > 0.02


def test_posteriors_mask_and_labels_agree(label_map: Volume) -> None:
    made = synthesize.make_person(label_map, "sub-a", "T1w", 1, LabelMaps())
    assert np.allclose(made.tissues.sum(axis=0), made.mask, atol=1e-3)
    rows = checks.read_labels("freesurfer").rows
    tissue = made.tissues.argmax(axis=0)
    for label in np.unique(made.dseg[made.mask]):
        where = made.dseg == label
        if where.sum() > 200:
            wanted = synthesize.TISSUES.index(rows[int(label)]["tissue"])
            assert (tissue[where] == wanted).mean() > 0.8, rows[int(label)]["name"]
    assert not made.image[~made.mask].any()
    assert checks.mask_problems(made.mask, made.affine)[:1] in (
        [],
        ["the brain mask holds 2.23 l, outside 0.7 to 2.2 l"],
    )
    assert 0 < made.drawn["jacobian_min"] < 1 < made.drawn["jacobian_max"]


def test_label_maps_make_a_cohort(label_map: Volume, tmp_path: Path) -> None:
    save_volume(tmp_path / "maps" / "sub-01_dseg.nii.gz", label_map.data, label_map.affine)
    bad = np.where(label_map.data == 2, 9000, label_map.data)
    save_volume(tmp_path / "maps" / "sub-02_dseg.nii.gz", bad, label_map.affine)
    settings = cohort("labelmaps", path=str(tmp_path / "maps"), draws=2)
    folder = build(tmp_path, settings)
    good = read_json(anat(folder, "sub-01_run-2", "T1w.json"))
    assert good["status"] == "ok"
    assert good["synthesised"]
    volumes = [
        read_volume(anat(folder, "sub-01_run-2", f"{ending}.nii.gz"))
        for ending in ("T1w", "desc-brain_mask", "dseg", "label-WM_probseg", "label-GM_probseg", "label-CSF_probseg")
    ]
    assert all(np.allclose(volume.affine, volumes[0].affine) for volume in volumes)
    assert np.allclose(sum(volume.data for volume in volumes[3:]), volumes[1].data, atol=1e-3)
    assert "9000" in read_json(anat(folder, "sub-02_run-1", "T1w.json"))["status"]


def test_a_label_map_or_table_that_cannot_be_painted_is_named(label_map: Volume, tmp_path: Path) -> None:
    thin = np.zeros_like(label_map.data)
    thin[40:43, 40:43, 40:43] = 2
    maps = {"sub-thin": thin, "sub-tiny": label_map.data, "sub-whole": label_map.data}
    for name, data in maps.items():
        affine = label_map.affine @ np.diag([*((1e-3,) * 3 if name == "sub-tiny" else (1,) * 3), 1])
        save_volume(tmp_path / "maps" / f"{name}_dseg.nii.gz", data, affine)
    rows = [*checks.read_labels("freesurfer").rows.values()]
    background = {**rows[0], "index": "0", "name": "Background", "mirror": "0", "tissue": "n/a"}
    write_table(tmp_path / "own.tsv", [background, *rows], checks.COLUMNS)
    settings = cohort("labelmaps", path=str(tmp_path / "maps"), lut=str(tmp_path / "own.tsv"))
    folder = build(tmp_path, settings)
    told = {name: read_json(anat(folder, name, "T1w.json"))["status"] for name in maps}
    assert "no map of a brain" in told["sub-thin"]
    assert "voxels of 0.00" in told["sub-tiny"]
    assert told["sub-whole"] == "ok", "a row for the background is no structure's"
    write_table(tmp_path / "own.tsv", [{**row, "tissue": "grey"} for row in rows], checks.COLUMNS)
    with pytest.raises(UserError, match=r"whose tissue in own.tsv is 'grey' and not WM, GM, CSF"):
        synthesize.make_person(label_map, "sub-a", "T1w", 1, settings.labelmaps)
    write_table(tmp_path / "own.tsv", [row for row in rows if row["index"] != "41"], checks.COLUMNS)
    with pytest.raises(UserError, match=r"label 2 has the mirror image 41, which has no row"):
        checks.read_labels(str(tmp_path / "own.tsv"))


@pytest.mark.real_data
def test_a_real_label_map_becomes_a_scan(tmp_path: Path) -> None:
    real = real_data()
    if real is None:
        pytest.skip("IQT_REAL_DATA names no folder of real scans")
    maps = tmp_path / "maps"
    maps.mkdir()
    (maps / "sub-07_dseg.nii.gz").symlink_to(real / "label_maps" / "sub-07_dseg.nii.gz")
    settings = cohort("labelmaps", path=str(maps)).model_copy(update={"grid": Grid(voxel_size=2.0)})
    folder = build(tmp_path, settings)
    facts = read_json(anat(folder, "sub-07", "T1w.json"))
    assert facts["status"] == "ok"
    assert facts["warnings"] == []
    assert 1000 < facts["brain_ml"] < 2000
    assert facts["wm_ml"] + facts["gm_ml"] + facts["csf_ml"] == pytest.approx(facts["brain_ml"], rel=0.01)


# --- brain masks -----------------------------------------------------------------------------------------------------


def test_an_engine_that_is_not_installed_stops_with_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = person("901")
    head = Volume(skull(made), made.affine)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StopError, match="FSL's bet is not on PATH"):
        brain_mask.make_mask(head, Mask(engine="bet"))
    for engine in ("deepbet", "brainextractor"):
        monkeypatch.setitem(__import__("sys").modules, engine, None)
        with pytest.raises(StopError, match=f"{engine} is not installed"):
            brain_mask.make_mask(head, Mask(engine=engine))


def test_bet_is_called_through_nipype(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in for FSL's program that notes how it was called and copies a mask that was laid ready."""
    made = person("901")
    save_volume(tmp_path / "mask.nii.gz", made.mask.astype(np.uint8), made.affine)
    program = tmp_path / "bet"
    lines = ["#!/bin/sh", f'echo "$@" > {tmp_path}/called', 'cp "$1" "$2"']
    program.write_text("\n".join([*lines, f'cp {tmp_path}/mask.nii.gz "${{2%.nii.gz}}_mask.nii.gz"']))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = brain_mask.make_mask(Volume(skull(made), made.affine), Mask(engine="bet", fraction=0.4))
    called = (tmp_path / "called").read_text().split()
    assert called[called.index("-f") + 1] == "0.40"
    assert {"-m", "-R"} <= set(called)
    assert np.array_equal(found.data > 0, made.mask)
