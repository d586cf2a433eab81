"""From archives and folders to checked volumes: every layout, every check, and what is left behind by a failure."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from iqt.cohort import entries, fetch, ingest, listing
from iqt.config import Cohort, Grid, Mask
from iqt.errors import StopError, UserError
from iqt.imaging import checks, orientation, resample
from iqt.io.files import read_json
from iqt.io.naming import anat, flat
from iqt.io.volumes import Volume, read_volume, save_volume
from people import IDS, person, real_data, write_hcp, zip_hcp
from s3 import KEYS, Server


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hcp(tmp_path_factory.mktemp("hcp") / "HCP_1200")


def cohort(**settings) -> Cohort:
    return Cohort(split={"train": 1, "val": 1, "test": 1}, **settings)


def hcp(access: str, path: Path, **settings) -> Cohort:
    return cohort(source="hcp", hcp={"access": access, "path": str(path), **settings})


def build(folder: Path, settings: Cohort, suffix: str = "T1w", scans: list[str] | None = None) -> Path:
    """Fetch and ingest the scans of a cohort; the folder of its volumes."""
    index = entries.index_path(settings, suffix, folder)
    scans = scans or list(listing.list_entries(settings, suffix, index))
    fetch.fetch_scans(scans, folder / "source", suffix, settings, index)
    ingest.ingest_scans(scans, folder / "source", folder / "cohort", suffix, 1, settings)
    return folder / "cohort"


def status(folder: Path, scan: str, suffix: str = "T1w") -> str:
    return read_json(anat(folder, scan, f"{suffix}.json"))["status"]


def test_hcp_gives_the_same_from_a_tree_and_from_zips(tree: Path, tmp_path: Path) -> None:
    unpacked = build(tmp_path / "a", hcp("tree", tree))
    zipped = build(tmp_path / "b", hcp("zips", zip_hcp(tree, tmp_path / "zips")))
    for name in IDS:
        scan, made = f"sub-{name}", person(name)
        facts = read_json(anat(unpacked, scan, "T1w.json"))
        assert facts["status"] == "ok"
        assert facts["brain_ml"] == pytest.approx(made.mask.sum() * 0.064, abs=0.1)
        record = facts["files"]["brain"]
        path = tree / name / "T1w" / "T1w_acpc_dc_restore_brain.nii.gz"
        assert (record["source"], record["bytes"]) == (str(path), path.stat().st_size)
        other = read_json(anat(zipped, scan, "T1w.json"))["files"]["brain"]
        assert other["sha256"] == record["sha256"]
        assert other["source"].endswith(f"{name}_StructuralRecommended.zip!{name}/T1w/{path.name}")
        for ending in ("T1w", "desc-brain_mask", "dseg"):
            volumes = [read_volume(anat(folder, scan, f"{ending}.nii.gz")) for folder in (unpacked, zipped)]
            assert np.array_equal(volumes[0].data, volumes[1].data)
            assert np.allclose(volumes[0].affine, made.affine)
        assert np.array_equal(volumes[0].data, made.dseg)
    assert {path.suffix for path in (tmp_path / "zips").iterdir()} == {".zip"}, "nothing is unpacked there"


def test_the_brain_is_computed_where_restore_brain_is_absent(tree: Path, tmp_path: Path) -> None:
    without = write_hcp(tmp_path / "2025", IDS[:1], brains=False)
    made = build(tmp_path / "made", hcp("zips", zip_hcp(without, tmp_path / "zips")))
    given = build(tmp_path / "given", hcp("tree", tree, subjects=[IDS[0]]))
    facts = read_json(anat(made, f"sub-{IDS[0]}", "T1w.json"))
    assert set(facts["files"]) == {"head", "mask", "labels"}
    one, other = (read_volume(anat(folder, f"sub-{IDS[0]}", "T1w.nii.gz")).data for folder in (made, given))
    assert np.array_equal(one, other)


def test_t2w_and_other_labels_are_config_entries(tree: Path, tmp_path: Path) -> None:
    settings = hcp("tree", tree, labels="none")
    folder = build(tmp_path, settings, "T2w")
    assert status(folder, "sub-900001", "T2w") == "ok"
    assert not anat(folder, "sub-900001", "dseg.nii.gz").exists()
    assert listing.entry_of(hcp("tree", tree, labels="wmparc"), "T2w", "sub-1", Path()).labels.endswith("wmparc.nii.gz")
    with pytest.raises(UserError, match="FLAIR, but HCP has T1w and T2w"):
        listing.entry_of(settings, "FLAIR", "sub-1", Path())


def test_a_missing_file_skips_one_person_with_the_reason(tree: Path, tmp_path: Path) -> None:
    folder = build(tmp_path, hcp("tree", tree, subjects=[*IDS[:2], 900009]))
    assert [status(folder, f"sub-{name}") for name in IDS[:2]] == ["ok", "ok"]
    reason = status(folder, "sub-900009")
    assert "restore_brain.nii.gz: no such file" in reason
    assert "restore.nii.gz: no such file" in reason
    assert [path.name for path in (folder / "sub-900009" / "anat").iterdir()] == ["sub-900009_T1w.json"]


def test_a_damaged_file_skips_one_person(tree: Path, tmp_path: Path) -> None:
    zips = zip_hcp(write_hcp(tmp_path / "t", IDS[:2]), tmp_path / "zips")
    archive = zips / f"{IDS[0]}_StructuralRecommended.zip"
    content = bytearray(archive.read_bytes())
    at = content.index(b"restore_brain.nii.gz") + 2000
    content[at : at + 400] = bytes(400)
    archive.write_bytes(content)
    folder = build(tmp_path, hcp("zips", zips))
    assert "cannot be read" in status(folder, f"sub-{IDS[0]}")
    assert status(folder, f"sub-{IDS[1]}") == "ok"
    archive.write_bytes(content[:1000])
    settings = hcp("zips", zips).model_copy(update={"max_missing": 0.5})
    found = fetch.check_source([f"sub-{name}" for name in IDS[:2]], "T1w", settings, tmp_path / "index.tsv")
    assert "is the file complete" in found["missing"][f"sub-{IDS[0]}"]


def test_what_is_missing_is_known_before_anything_is_read(tree: Path, tmp_path: Path) -> None:
    settings = hcp("tree", tree, subjects=[*IDS, 900008, 900009])
    scans = list(listing.list_entries(settings, "T1w", tmp_path))
    with pytest.raises(StopError, match=r"2 of 5 scans(.|\n)*sub-900008"):
        fetch.check_source(scans, "T1w", settings, tmp_path)
    found = fetch.check_source(scans, "T1w", settings.model_copy(update={"max_missing": 0.5}), tmp_path)
    assert sorted(found["missing"]) == ["sub-900008", "sub-900009"]
    settings = hcp("zips", tmp_path, subjects=list(IDS))
    with pytest.raises(StopError, match=r"900001_StructuralRecommended.zip: no such file"):
        fetch.check_source(["sub-900001"], "T1w", settings, tmp_path)


def test_subjects_come_from_the_config_a_file_or_the_source(tree: Path, tmp_path: Path) -> None:
    def names(subjects) -> list[str]:
        settings = hcp("tree", tree, subjects=subjects)
        index = entries.index_path(settings, "T1w", tmp_path)
        return list(listing.list_entries(settings, "T1w", index))

    everybody = [f"sub-{name}" for name in IDS]
    assert names("all") == everybody
    (tmp_path / "ids.txt").write_text("# chosen\n900003\nsub-900001  # first\n\n")
    assert names(str(tmp_path / "ids.txt")) == ["sub-900003", "sub-900001"]
    (tmp_path / "ids.csv").write_text("Subject,Gender\n900002,F\n")
    assert names(str(tmp_path / "ids.csv")) == ["sub-900002"]
    with pytest.raises(UserError, match="named more than once"):
        names([900001, 900001])
    (tmp_path / "bad.txt").write_text("not an id!\n")
    with pytest.raises(UserError, match="is no id"):
        names(str(tmp_path / "bad.txt"))
    with pytest.raises(UserError, match="no such file"):
        names(str(tmp_path / "none.txt"))


def test_an_index_is_made_once(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = hcp("tree", tree)
    index = entries.index_path(settings, "T1w", tmp_path)
    first = listing.list_entries(settings, "T1w", index)
    monkeypatch.setattr(listing, "_list_source", lambda *_: pytest.fail("the source is asked again"))
    assert listing.list_entries(settings, "T1w", index) == first
    assert entries.index_path(settings, "T2w", tmp_path) != index
    assert entries.index_path(hcp("tree", tree, labels="none"), "T1w", tmp_path) != index


@pytest.mark.slow
def test_hcp_from_the_bucket_is_what_the_tree_is(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The real people of IQT_REAL_DATA where there are some; nothing but what the configuration needs is brought."""
    real = real_data()
    source = real / "hcp_layout" / "HCP_1200" if real else tree
    for name, value in KEYS.items():
        monkeypatch.setenv(name.upper(), value)
    with Server() as server:
        sizes = server.upload("hcp-openaccess", source, "HCP_1200/")
        extra = "HCP_1200/900001/T1w/ribbon.nii.gz"
        server.client().put_object(Bucket="hcp-openaccess", Key=extra, Body=b"not needed")
        bucket = {"endpoint": server.url, "part_mb": 0.25, "attempts": 3}
        settings = cohort(source="hcp", downloads=str(tmp_path / "d"), hcp={"s3": bucket}, max_missing=0.5)
        people = list(listing.list_entries(settings, "T1w", tmp_path / "index.tsv"))
        checked = fetch.check_source(people, "T1w", settings, tmp_path / "index.tsv")
        wanted = ("T1w_acpc_dc_restore_brain.nii.gz", "brainmask_fs.nii.gz", "aparc+aseg.nii.gz")
        needed = {key: size for key, size in sizes.items() if key.endswith(wanted)}
        assert checked["bytes_to_download"] == sum(needed.values())
        server.sent.clear()
        index = tmp_path / "index.tsv"
        fetch.fetch_scans(people, tmp_path / "source", "T1w", settings, index)
        sent = {path.removeprefix("/hcp-openaccess/"): count for path, count in server.sent.items()}
        assert sent == needed
        server.sent.clear()
        fetch.fetch_scans(people, tmp_path / "source", "T1w", settings, index)
        assert not server.sent
    ingest.ingest_scans(people, tmp_path / "source", tmp_path / "cohort", "T1w", 1, settings)
    from_tree = build(tmp_path / "tree", hcp("tree", source), scans=people)
    for scan in people:
        assert status(tmp_path / "cohort", scan) == "ok"
        for ending in ("T1w", "desc-brain_mask", "dseg"):
            one, other = (
                read_volume(anat(where, scan, f"{ending}.nii.gz")) for where in (tmp_path / "cohort", from_tree)
            )
            assert np.array_equal(one.data, other.data)
        place = read_json(flat(tmp_path / "source", scan, "files.json"))["files"]["brain"]["source"]
        assert place.startswith("s3://hcp-openaccess/HCP_1200/")
    left = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(key.encode() in content for key in KEYS.values() for content in left)
    captured = capfd.readouterr()
    assert not any(key in captured.out + captured.err for key in KEYS.values())


def test_too_small_a_disk_is_noticed_before_the_first_byte(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name.upper(), value)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with Server() as server:
        server.upload("hcp-openaccess", tree, "HCP_1200/")
        settings = cohort(
            source="hcp",
            downloads=str(tmp_path / "new" / "d"),
            hcp={"subjects": list(IDS), "s3": {"endpoint": server.url}},
        )
        with pytest.raises(StopError, match=r"GB are to be downloaded, but its disk has 0.0 GB left"):
            fetch.check_source([f"sub-{name}" for name in IDS], "T1w", settings, tmp_path)


def test_wrong_keys_stop_the_batch_and_leave_no_record(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name.upper(), value)
    with Server() as server:
        server.upload("hcp-openaccess", tree, "HCP_1200/")
        server.refuse = lambda method, path: (403, "InvalidAccessKeyId")
        settings = cohort(source="hcp", downloads=str(tmp_path / "d"), hcp={"s3": {"endpoint": server.url}})
        scans = [f"sub-{name}" for name in IDS]
        for attempt in (fetch.check_source, lambda *rest: fetch.fetch_scans(rest[0], tmp_path / "s", *rest[1:])):
            with pytest.raises(StopError, match="wrong or were reset"):
                attempt(scans, "T1w", settings, tmp_path / "index.tsv")
    assert not (tmp_path / "s").exists()


# --- grids -----------------------------------------------------------------------------------------------------------


def test_a_crop_moves_the_affine_with_it() -> None:
    """The paper's crop of HCP's grid: [2:258, 27:283, :256] of 260 x 311 x 260."""
    data = np.zeros((260, 311, 260), np.uint8)
    data[100, 150, 200] = 1
    affine = np.array([[-0.7, 0, 0, 90], [0, 0.7, 0, -126], [0, 0, 0.7, -72], [0, 0, 0, 1]])
    cropped = resample.crop(Volume(data, affine), Grid(crop=((2, 258), (27, 283), (0, 256))))
    assert cropped.data.shape == (256, 256, 256)
    assert tuple(np.argwhere(cropped.data)[0]) == (98, 123, 200)
    assert np.allclose(
        nib.affines.apply_affine(cropped.affine, (98, 123, 200)), affine @ [100, 150, 200, 1] @ np.eye(4)[:, :3]
    )
    with pytest.raises(UserError, match=r"reaches beyond its shape \(100, 311, 260\)"):
        resample.crop(Volume(data[:100], affine), Grid(crop=((2, 258), (27, 283), (0, 256))))


def test_a_crop_that_cuts_the_brain_is_refused(tree: Path, tmp_path: Path) -> None:
    settings = hcp("tree", tree, subjects=[IDS[0]])
    shape = person(IDS[0]).mask.shape
    whole = tuple((0, side) for side in shape)
    kept = build(tmp_path / "a", settings.model_copy(update={"grid": Grid(crop=whole)}))
    assert status(kept, f"sub-{IDS[0]}") == "ok"
    half = ((0, shape[0] // 2), *whole[1:])
    cut = build(tmp_path / "b", settings.model_copy(update={"grid": Grid(crop=half)}))
    assert "cuts" in status(cut, f"sub-{IDS[0]}")


@pytest.mark.parametrize("axes", ["LIA", "PSR", "RAS"])
def test_every_orientation_ends_as_ras_with_voxels_where_they_were(axes: str) -> None:
    made = person(IDS[0])
    code = nib.orientations.axcodes2ornt(axes)
    turned = nib.Nifti1Image(made.T1w, made.affine).as_reoriented(
        nib.orientations.ornt_transform(nib.orientations.io_orientation(made.affine), code)
    )
    assert nib.aff2axcodes(turned.affine) == tuple(axes)
    back = orientation.to_ras(Volume(np.asarray(turned.dataobj), turned.affine))
    assert np.array_equal(back.data, made.T1w)
    assert np.allclose(back.affine, made.affine)


def test_resampling_keeps_the_place_and_the_amount() -> None:
    made = person(IDS[0])
    for kind, data in (("image", made.T1w), ("mask", made.mask.astype(np.uint8)), ("posterior", made.gm)):
        moved = resample.isotropic(Volume(data, made.affine), Grid(voxel_size=3.0), kind)
        assert np.allclose(moved.voxel_size, 3)
        centres = [
            nib.affines.apply_affine(
                volume.affine,
                np.average(
                    np.indices(volume.data.shape).reshape(3, -1), axis=1, weights=np.maximum(volume.data, 0).ravel()
                ),
            )
            for volume in (Volume(data, made.affine), moved)
        ]
        assert np.allclose(*centres, atol=0.5)
        assert moved.data.sum(dtype=float) * 27 == pytest.approx(data.sum(dtype=float) * 64, rel=0.03)
    labels = resample.isotropic(Volume(made.dseg, made.affine), Grid(voxel_size=3.0), "labels")
    assert set(np.unique(labels.data)) <= set(np.unique(made.dseg))


def test_larger_voxels_do_not_alias() -> None:
    """A pattern finer than the new grid becomes grey instead of stripes."""
    data = np.tile(np.array([0.0, 2.0], np.float32), (40, 40, 20))
    volume = Volume(data, np.diag([1.0, 1, 1, 1]))
    coarse = resample.isotropic(volume, Grid(voxel_size=3.0), "image").data[3:-3, 3:-3, 3:-3]
    assert coarse.mean() == pytest.approx(1, abs=0.05)
    assert coarse.std() < 0.1


def test_a_sheared_grid_is_resampled() -> None:
    made = person(IDS[0])
    shear = np.eye(4)
    shear[0, 1] = 0.2
    sheared = Volume(made.T1w, made.affine @ shear)
    assert checks.is_sheared(sheared.affine)
    straight = resample.isotropic(sheared, Grid(), "image")
    assert not checks.is_sheared(straight.affine)
    assert straight.data.sum(dtype=float) == pytest.approx(made.T1w.sum(dtype=float), rel=0.05)


# --- checks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "affine", "words"),
    [
        (np.full((50, 50, 50), 7.0), np.diag([4.0, 4, 4, 1]), "is constant: every voxel is 7"),
        (np.arange(125000.0).reshape(50, 50, 50), np.diag([40.0, 4, 4, 1]), "has voxels of 40 x 4 x 4 mm"),
        (np.arange(125000.0).reshape(50, 50, 50), np.diag([1.0, 1, 1, 1]), "spans 50 x 50 x 50 mm"),
        (
            np.arange(125000.0).reshape(50, 50, 50),
            np.array([[4, 1, 0, 0], [0, 4, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1.0]]),
            "sheared",
        ),
    ],
)
def test_an_implausible_image_is_a_sentence(data: np.ndarray, affine: np.ndarray, words: str) -> None:
    assert words in "; ".join(checks.image_problems(Volume(data, affine)))


def test_a_sound_image_and_mask_have_no_problem() -> None:
    made = person(IDS[0])
    assert checks.image_problems(Volume(made.T1w, made.affine)) == []
    assert checks.mask_problems(made.mask, made.affine) == []
    assert checks.overlap_problems(made.T1w, made.mask) == []


def test_a_wrong_mask_is_noticed() -> None:
    made = person(IDS[0])
    small = np.zeros_like(made.mask)
    small[20:25, 20:25, 20:25] = True
    assert "outside 0.7 to 2.2 l" in checks.mask_problems(small, made.affine)[0]
    middle = made.mask.shape[2] // 2
    assert any(
        "touches the volume's border" in each for each in checks.mask_problems(made.mask[:, :, middle:], made.affine)
    )
    split = made.mask.copy()
    split[split.shape[0] // 2] = False
    assert any("in 2 pieces" in each for each in checks.mask_problems(split, made.affine))
    assert checks.mask_problems(np.zeros_like(small), made.affine) == ["the brain mask is empty"]
    elsewhere = np.roll(made.mask, 15, axis=0)
    assert "do not belong together" in checks.overlap_problems(made.T1w, elsewhere)[0]
    assert "holds labels 9, 11999" in checks.label_problems([0, 2, 9, 11999], checks.read_labels("freesurfer"))[0]


def test_the_label_table_is_sound() -> None:
    rows = checks.read_labels("freesurfer").rows
    assert len({row["name"] for row in rows.values()}) == len(rows)
    for label, row in rows.items():
        mirror = rows[int(row["mirror"])]
        assert int(mirror["mirror"]) == label
        assert mirror["tissue"] == row["tissue"]
        assert {row["hemisphere"], mirror["hemisphere"]} in ({"L", "R"}, {"n/a"})
        assert row["tissue"] in ("WM", "GM", "CSF")
    names = {2: "Left-Cerebral-White-Matter", 53: "Right-Hippocampus", 1035: "ctx-lh-insula", 2024: "ctx-rh-precentral"}
    assert {label: rows[label]["name"] for label in names} == names


def folder_with(root: Path, changes: dict) -> Path:
    """One person's HCP folder with files replaced: name -> (data, affine)."""
    write_hcp(root, IDS[:1])
    for name, (data, affine) in changes.items():
        save_volume(root / IDS[0] / "T1w" / f"{name}.nii.gz", data, affine)
    return root


@pytest.mark.parametrize("case", ["nan", "constant", "labels", "grid", "mask elsewhere", "empty mask"])
def test_a_failed_check_is_the_scans_status_and_leaves_no_volume(tmp_path: Path, case: str) -> None:
    made = person(IDS[0])
    far = np.zeros((4, 4))
    far[0, 3] = 1000
    image, mask, labels = "T1w_acpc_dc_restore_brain", "brainmask_fs", "aparc+aseg"
    changes, words = {
        "nan": ({image: (np.where(made.mask, np.nan, 0), made.affine)}, "NaN"),
        "constant": ({image: (np.zeros(made.T1w.shape), made.affine)}, "is constant"),
        "labels": ({labels: (np.where(made.dseg == 3, 9000, made.dseg), made.affine)}, "holds labels 9000"),
        "grid": ({mask: (made.mask.astype(np.uint8), made.affine + far)}, "lies elsewhere in the world"),
        "mask elsewhere": ({mask: (np.roll(made.mask, 15, axis=0).astype(np.uint8), made.affine)}, "do not belong"),
        "empty mask": ({mask: (np.zeros(made.mask.shape, np.uint8), made.affine)}, "mask is empty"),
    }[case]
    folder = build(tmp_path, hcp("tree", folder_with(tmp_path / "t", changes)))
    assert words in status(folder, f"sub-{IDS[0]}")
    assert [path.name for path in folder.rglob("*") if path.is_file()] == [f"sub-{IDS[0]}_T1w.json"]


def test_resampling_does_not_hide_that_a_mask_is_anothers(tmp_path: Path) -> None:
    """Splines leave nothing exactly 0, and so nothing empty in a wrong mask."""
    made = person(IDS[0])
    away = {"brainmask_fs": (np.roll(made.mask, 15, axis=0).astype(np.uint8), made.affine)}
    settings = hcp("tree", folder_with(tmp_path / "t", away))
    finer = settings.model_copy(update={"grid": Grid(voxel_size=0.8 * float(np.linalg.norm(made.affine[:3, 0])))})
    assert "do not belong" in status(build(tmp_path, finer), f"sub-{IDS[0]}")


@pytest.mark.parametrize("codes", ["LAS", "PIR"])
def test_derivatives_in_another_order_belong_to_their_image(tmp_path: Path, codes: str) -> None:
    """fMRIPrep writes RAS, whatever the raw scan's axes are."""
    made = person(IDS[0])
    ornt = nib.orientations.ornt_transform(nib.io_orientation(made.affine), nib.orientations.axcodes2ornt(tuple(codes)))
    raw = nib.Nifti1Image(made.T1w, made.affine).as_reoriented(ornt)
    plain = build(tmp_path / "one", hcp("tree", folder_with(tmp_path / "t", {})))
    changes = {"T1w_acpc_dc_restore_brain": (np.asarray(raw.dataobj), raw.affine)}
    turned = build(tmp_path / "two", hcp("tree", folder_with(tmp_path / "u", changes)))
    for ending in ("T1w.nii.gz", "desc-brain_mask.nii.gz", "dseg.nii.gz"):
        mine, other = (read_volume(anat(folder, f"sub-{IDS[0]}", ending)) for folder in (turned, plain))
        np.testing.assert_array_equal(mine.data, other.data)
        np.testing.assert_allclose(mine.affine, other.affine, atol=1e-4)


@pytest.mark.parametrize("wrong", ["keep", "skip"])
def test_a_wrong_mask_is_drawn_and_kept_or_skipped(tmp_path: Path, wrong: str) -> None:
    made = person(IDS[0])
    part = made.mask.copy()
    part[:, :, : 2 * part.shape[2] // 3] = False
    tree = folder_with(tmp_path / "t", {"brainmask_fs": (part.astype(np.uint8), made.affine)})
    folder = build(tmp_path, hcp("tree", tree).model_copy(update={"mask": Mask(wrong=wrong)}))
    facts = read_json(anat(folder, f"sub-{IDS[0]}", "T1w.json"))
    assert "outside 0.7 to 2.2 l" in facts["mask_warnings"][0]
    assert facts["warnings"] == []
    assert (folder / f"sub-{IDS[0]}" / "figures" / f"sub-{IDS[0]}_desc-mask_T1w.png").stat().st_size > 5000
    assert (facts["status"] == "ok") == (wrong == "keep")
    assert anat(folder, f"sub-{IDS[0]}", "T1w.nii.gz").exists() == (wrong == "keep")


def test_iqt_check_prints_a_table_and_says_whether_all_is_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from typer.testing import CliRunner

    from iqt.cli import app

    root = write_hcp(tmp_path / "t", IDS[:1])
    folder = root / IDS[0] / "T1w"
    good = CliRunner().invoke(app, ["check", str(folder)])
    assert good.exit_code == 0, good.output
    lines = good.output.splitlines()
    assert lines[0].split()[:2] == ["file", "kind"]
    kinds = {Path(line.split()[0]).name: line.split()[1] for line in lines[1:]}
    assert kinds["brainmask_fs.nii.gz"] == "mask"
    assert kinds["aparc+aseg.nii.gz"] == "labels"
    assert kinds["T1w_acpc_dc_restore.nii.gz"] == "image"
    assert all(line.endswith(" ok") for line in lines[1:])

    made = person(IDS[0])
    save_volume(folder / "brainmask_fs.nii.gz", np.zeros(made.mask.shape, np.uint8), made.affine)
    (folder / "T1w_acpc_dc_restore.nii.gz").write_bytes(b"not an image")
    bad = CliRunner().invoke(app, ["check", str(folder)])
    assert bad.exit_code == 1
    assert "is constant: every voxel is 0" in bad.output
    assert "not readable as an image" in bad.output
    assert bad.output.count(" ok\n") == 3
