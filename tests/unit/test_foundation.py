"""Names, files, batches and volumes: what every stage stands on."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from iqt.errors import UserError
from iqt.io.batch import read_list, require_ok, run_scans
from iqt.io.files import read_json, read_table, replacing, write_json, write_table
from iqt.io.naming import anat, batch_of, flat, seed_of
from iqt.io.volumes import bounding_box, intensity_scale, read_on_grid, read_volume, save_volume


def test_names_follow_bids() -> None:
    assert anat("c", "sub-01", "T1w.json") == Path("c/sub-01/anat/sub-01_T1w.json")
    assert anat("c", "sub-01_ses-a_run-2", "T1w.json") == Path("c/sub-01/ses-a/anat/sub-01_ses-a_run-2_T1w.json")
    assert flat("e", "sub-01", "dseg.json") == Path("e/sub-01_dseg.json")
    with pytest.raises(ValueError, match="not a scan name"):
        anat("c", "../sub-01", "T1w.json")


def test_batches_depend_on_the_person_alone() -> None:
    people = [f"sub-{number:04d}" for number in range(400)]
    batches = {person: batch_of(person, 8) for person in people}
    assert set(batches.values()) == set(range(8))
    assert all(batch_of(f"{person}_ses-1", 8) == batch for person, batch in batches.items())
    counts = np.bincount(list(batches.values()))
    assert counts.min() > 25, "batches are of about the same size"


def test_seeds_differ_by_every_word() -> None:
    seeds = {seed_of(1, "a", "b"), seed_of(2, "a", "b"), seed_of(1, "ab"), seed_of(1, "b", "a")}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"value": 1})
    with pytest.raises(RuntimeError), replacing(path) as temporary:  # noqa: PT012 - the block is what is tested
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"value": 1}
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"], "no temporary file stays behind"
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"value": float("nan")})
    assert read_json(path) == {"value": 1}


def test_tables_come_back_and_miss_nothing_silently(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    write_table(path, [{"scan": "sub-1", "split": "test"}, {"scan": "sub-2", "split": "train"}])
    assert read_list(path) == ["sub-1", "sub-2"]
    assert read_list(path, "train") == ["sub-2"]
    with pytest.raises(UserError, match="column age is missing"):
        read_table(path, required=("age",))
    with pytest.raises(UserError, match=r"absent\.tsv"):
        read_table(tmp_path / "absent.tsv")


def test_a_file_where_a_folder_belongs_and_the_reverse_are_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    for read in (read_json, read_table):
        with pytest.raises(UserError, match=r"model\.safetensors/model\.json: no such"):
            read(tmp_path / "model.safetensors" / "model.json")
        with pytest.raises(UserError, match=f"{tmp_path}: is a folder"):
            read(tmp_path)


def test_one_failing_scan_does_not_stop_the_others(tmp_path: Path) -> None:
    def sidecar(scan: str) -> Path:
        return tmp_path / f"{scan}.json"

    def output(scan: str) -> Path:
        return tmp_path / f"{scan}.txt"

    def work(scan: str) -> dict:
        output(scan).write_text("data")
        if scan == "sub-bad":
            raise UserError("the mask is empty")
        if scan == "sub-odd":
            raise ZeroDivisionError("division by zero")
        return {"voxels": 3}

    output("sub-bad").write_text("of an earlier run")
    run_scans(["sub-a", "sub-bad", "sub-odd", "sub-z"], sidecar, lambda scan: [output(scan)], work)
    assert read_json(sidecar("sub-a")) == {"status": "ok", "voxels": 3}
    assert read_json(sidecar("sub-bad")) == {"status": "the mask is empty"}
    assert read_json(sidecar("sub-odd")) == {"status": "ZeroDivisionError: division by zero", "unforeseen": True}
    assert output("sub-z").exists()
    assert not output("sub-bad").exists(), "a failed scan has no data, not even of an earlier run"
    with pytest.raises(UserError, match=r"^cohort: the mask is empty$"):
        require_ok(sidecar("sub-bad"), "cohort")
    assert require_ok(sidecar("sub-a"), "cohort")["voxels"] == 3


def test_a_full_disk_is_not_a_scans_fault(tmp_path: Path) -> None:
    def work(_scan: str) -> dict:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        run_scans(["sub-a"], lambda scan: tmp_path / f"{scan}.json", lambda _scan: [], work)
    assert not (tmp_path / "sub-a.json").exists()


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int16, bool])
def test_volumes_come_back_as_they_were(tmp_path: Path, dtype: type) -> None:
    data = (np.random.default_rng(1).random((4, 5, 6)) * 3).astype(dtype)
    affine = np.array([[0, -2, 0, 10], [2, 0, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1.0]])
    path = tmp_path / "a.nii.gz"
    save_volume(path, data, affine)
    image = nib.load(path)
    assert image.get_data_dtype() == (np.uint8 if dtype is bool else dtype)
    assert not image.header.get_slope_inter()[0] or image.header.get_slope_inter()[0] == 1
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, data.astype(np.float32))
    np.testing.assert_allclose(volume.affine, affine)
    np.testing.assert_allclose(volume.voxel_size, [2, 2, 3])
    first = path.read_bytes()
    save_volume(path, data, affine)
    assert path.read_bytes() == first, "the same volume is the same file"


def test_unusable_volumes_are_named(tmp_path: Path) -> None:
    good = np.ones((4, 4, 4), np.float32)
    for name, data, affine, reason in [
        ("four", np.ones((4, 4, 4, 2), np.float32), np.eye(4), "single 3D volume"),
        ("nan", np.where(np.arange(64).reshape(4, 4, 4) == 5, np.nan, good), np.eye(4), "1 voxels that are NaN"),
    ]:
        nib.save(nib.Nifti1Image(data, affine), tmp_path / f"{name}.nii.gz")
        with pytest.raises(UserError, match=rf"{name}\.nii\.gz.*{reason}"):
            read_volume(tmp_path / f"{name}.nii.gz")
    save_volume(tmp_path / "good.nii.gz", good, np.eye(4))
    whole = (tmp_path / "good.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut\.nii\.gz.*not readable"):
        read_volume(tmp_path / "cut.nii.gz")
    with pytest.raises(UserError, match="no such file"):
        read_volume(tmp_path / "absent.nii.gz")
    save_volume(tmp_path / "moved.nii.gz", good, np.diag([1, 1, 2, 1.0]))
    with pytest.raises(UserError, match=r"moved\.nii\.gz.*another grid"):
        read_on_grid(tmp_path / "moved.nii.gz", read_volume(tmp_path / "good.nii.gz"))


def test_the_scale_is_a_percentile_of_the_brain_alone() -> None:
    rng = np.random.default_rng(0)
    data, mask = rng.random((20, 20, 20)), np.zeros((20, 20, 20), bool)
    mask[5:15, 5:15, 5:15] = True
    scale = intensity_scale(data, mask)
    assert scale == pytest.approx(np.quantile(data[5:15, 5:15, 5:15], 0.995))
    assert intensity_scale(np.where(mask, data, 1e6), mask) == scale
    assert intensity_scale(7 * data, mask) == pytest.approx(7 * scale)
    with pytest.raises(UserError, match="empty"):
        intensity_scale(data, np.zeros_like(mask))
    with pytest.raises(UserError, match="not positive"):
        intensity_scale(-data, mask)
    assert bounding_box(mask, 6) == (slice(0, 20), slice(0, 20), slice(0, 20))
    assert bounding_box(mask) == (slice(5, 15),) * 3


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("iqt.cli", ["torch", "numpy", "pydantic", "nibabel", "matplotlib", "monai", "lightning", "scipy", "pandas"]),
        ("iqt.config, iqt.cohort.split, iqt.io.naming", ["torch", "numpy", "scipy", "pandas", "nibabel"]),
        ("iqt.cohort.build", ["torch", "monai", "lightning"]),
        ("iqt.degrade.run", ["torch", "monai", "lightning"]),
        ("iqt.training.store", ["torch", "monai", "lightning"]),
        ("iqt.enhance.run", ["torch", "monai", "lightning"]),
        ("iqt.enhance.models", ["monai", "lightning"]),
        ("iqt.parcellate.run, iqt.parcellate.predict", ["monai", "lightning"]),
        ("iqt.networks.unet, iqt.networks.volumetric, iqt.networks.esrgan", ["monai", "lightning"]),
        ("iqt.report.data, iqt.report.figures.scores", ["torch", "scipy.stats"]),
        (
            "iqt.report.tables.benchmark, iqt.report.tables.comparisons, iqt.report.tables.structures, "
            "iqt.report.panels, "
            "iqt.report.figures.slices, iqt.report.figures.published, iqt.report.figures.structures, "
            "iqt.report.page.write, iqt.report.significance",
            ["torch", "monai", "lightning"],
        ),
        ("iqt.evaluate.run, iqt.evaluate.gather", ["torch", "monai", "lightning"]),
        ("snakemake_logger_plugin_iqt", ["iqt"]),
    ],
)
def test_a_stage_imports_no_more_than_it_needs(repository: Path, module: str, forbidden: list[str]) -> None:
    script = f"import sys, json, {module}; print(json.dumps([name for name in {forbidden!r} if name in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=repository / "workflow", capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []


def test_help_imports_no_stage(repository: Path) -> None:
    script = (
        "import sys; from typer.testing import CliRunner; from iqt.cli import app; "
        "print([CliRunner().invoke(app, args).exit_code for args in (['--help'], ['degrade', '--help'])]); "
        "own = ('iqt.cli', 'iqt.errors', 'iqt.io.shipped', 'iqt.terminal'); light = ['iqt.io']; "
        "print([m for m in sys.modules if m.startswith('iqt.') and m not in light and not m.startswith(own)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=repository / "workflow", capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[0, 0]", "[]"]
