"""FastSurfer as a parcellator, with a stand-in for its script (tests/standins/fastsurfer): the real one is not run.

So this shows that the command line, the exit codes, the files and the geometry are handled; not how it segments.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from iqt.config import FastSurfer
from iqt.errors import StopError, UserError
from iqt.io.files import read_json, read_table, write_json
from iqt.io.labels import read_lut
from iqt.io.naming import anat, flat
from iqt.io.volumes import Volume, save_volume
from iqt.parcellate.fastsurfer import program
from iqt.parcellate.fastsurfer.command import RunFastSurfer, inputs_of
from iqt.parcellate.fastsurfer.faults import explain, installation_fault
from iqt.parcellate.fastsurfer.jobs import run_jobs
from iqt.parcellate.fastsurfer.plan import plan_jobs
from iqt.parcellate.fastsurfer.program import find_program, probe
from iqt.parcellate.fastsurfer.read import labels_on_grid, read_results
from iqt.parcellate.single import Files, fastsurfer_file

SETTINGS = FastSurfer(allow_root=True)


@pytest.fixture
def home(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in's folder, as FASTSURFER_HOME; conformed volumes of 96 voxels an edge, for speed."""
    folder = repository / "tests" / "standins" / "fastsurfer"
    monkeypatch.setenv("FASTSURFER_HOME", str(folder))
    monkeypatch.setenv("STANDIN_PYTHON", sys.executable)
    monkeypatch.setenv("STANDIN_SIDE", "96")
    return folder


@pytest.fixture
def lut(repository: Path) -> Path:
    return repository / "resources" / "fastsurfer_dseg.tsv"


def brain(affine: np.ndarray, shape: tuple[int, int, int], factor: float = 1.0) -> tuple[Volume, np.ndarray]:
    """A ball of 30 mm about the world's origin: bright in its middle, its rim dark; and its mask."""
    world = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    radius = np.linalg.norm(world, axis=-1)
    data = np.where(radius < 18, 1.0, np.where(radius < 25, 0.4, 0.1)) * (radius < 30)
    return Volume((factor * data).astype(np.float32), affine), radius < 30


def affine_of(codes: str, sizes: tuple[float, ...], shape: tuple[int, int, int]) -> np.ndarray:
    """Centred affine with axes that run as `codes` say."""
    columns = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, code in enumerate(codes):
        row, sign = columns[code]
        affine[row, axis] = sign * sizes[axis]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


GRIDS = {
    "sub-01": ("RAS", (2.0, 2.0, 2.0), (36, 38, 40)),
    "sub-02": ("PIR", (1.5, 2.5, 2.0), (50, 34, 40)),
    "sub-03": ("LIA", (1.0, 1.0, 1.0), (70, 70, 70)),
}


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Three people on different grids, one too dark to hold white matter, and one whose scan failed before."""
    folder = tmp_path / "cohort"
    for scan, (codes, sizes, shape) in GRIDS.items():
        volume, mask = brain(affine_of(codes, sizes, shape), shape, 700)
        save_volume(anat(folder, scan, "T1w.nii.gz"), volume.data, volume.affine)
        save_volume(anat(folder, scan, "desc-brain_mask.nii.gz"), mask, volume.affine)
        write_json(anat(folder, scan, "T1w.json"), {"status": "ok"})
    write_json(anat(folder, "sub-05", "T1w.json"), {"status": "holds 12 voxels that are NaN"})
    return folder


def plan(cohort: Path, scans: list[str], home: Path, work: Path, images: Path | None = None, **changes) -> Path:
    write_json(work / "program.json", probe(find_program(str(home))))
    source = (cohort, "anat") if images is None else (images, "flat")
    settings = SETTINGS.model_copy(update=changes)
    plan_jobs(scans, *source, "T1w", cohort, work / "program.json", settings, work, work / "jobs.json")
    return work / "jobs.json"


# The command line


def test_the_command_line_is_the_documented_one(tmp_path: Path) -> None:
    image = tmp_path / "a scan.nii.gz"
    image.touch()
    inputs = inputs_of(FastSurfer(vox_size="min", device="cuda"), image, "sub-01", tmp_path / "out")
    (tmp_path / "out").mkdir()
    words = shlex.split(RunFastSurfer(threads=3, **inputs).cmdline)
    assert words[0] == "run_fastsurfer.sh"
    assert words[words.index("--t1") + 1] == str(image)
    assert words[words.index("--sd") + 1] == str(tmp_path / "out")
    found = " ".join(words)
    for part in (
        "--sid sub-01",
        "--seg_only",
        "--no_cereb",
        "--no_biasfield",
        "--no_cc",
        "--vox_size min",
        "--device cuda",
    ):
        assert part in found
    assert "--viewagg_device cuda" in found
    assert "--threads 3" in found
    assert "--allow_root" not in found


def test_only_options_that_the_version_knows_are_given(tmp_path: Path) -> None:
    image = tmp_path / "t1.nii.gz"
    image.touch()
    inputs = inputs_of(FastSurfer(), image, "sub-01", tmp_path)
    known = {"--t1", "--sid", "--sd", "--seg_only", "--vox_size", "--device", "--viewagg_device", "--batch"}
    assert "--no_" not in RunFastSurfer(known, **inputs).cmdline
    assert "--no_hypothal" in RunFastSurfer(known | {"--no_hypothal"}, **inputs).cmdline
    with pytest.raises(UserError, match="does not know --vox_size; install"):
        _ = RunFastSurfer(known - {"--vox_size"}, **inputs).cmdline


@pytest.mark.parametrize("wrong", [{"vox_size": 0.5}, {"threads": 0}, {"t1": "/no/such/file"}, {"seg_only": "yes"}])
def test_inputs_are_typed(wrong: dict) -> None:
    with pytest.raises(Exception, match=next(iter(wrong))):
        RunFastSurfer(**wrong)


def test_the_interface_runs_and_lists_its_outputs(home: Path, tmp_path: Path) -> None:
    volume, _ = brain(affine_of(*GRIDS["sub-01"]), GRIDS["sub-01"][2])
    save_volume(tmp_path / "t1.nii.gz", volume.data, volume.affine)
    inputs = inputs_of(SETTINGS, tmp_path / "t1.nii.gz", "sub-01", tmp_path)
    command = RunFastSurfer.installed(find_program(None), threads=1, terminal_output="allatonce", **inputs)
    assert command.version == "2.4.2+standin"
    outputs = command.run(cwd=str(tmp_path)).outputs
    assert {Path(path).name for path in outputs.get().values()} == {
        *("aparc.DKTatlas+aseg.deep.mgz", "orig.mgz", "mask.mgz", "aseg.auto_noCCseg.mgz")
    }


def test_an_option_that_is_needed_and_not_known_stops_the_run(
    home: Path, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = probe(find_program(None))
    fewer = {**found, "options": [option for option in found["options"] if option != "--vox_size"]}
    monkeypatch.setattr(sys.modules[__name__], "probe", lambda script: fewer)
    with pytest.raises(StopError, match="does not know --vox_size"):
        plan(cohort, ["sub-01"], home, tmp_path / "work")
    assert not (tmp_path / "work" / "jobs.json").exists()


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("./run_fastsurfer.sh: line 997: 4121 Killed   python3 run_prediction.py", "memory is short"),
        ("ValueError: cuda not available, try switching to cpu: --device cpu", "device: cpu"),
        ("AssertionError: Torch not compiled with CUDA enabled", "device: cpu"),
        ("RuntimeError: Found no NVIDIA driver on your system.", "device: cpu"),
        ("_pickle.UnpicklingError: invalid load key, '<'.", "checkpoints are missing or damaged"),
        ("env: 'python3.10': No such file or directory", "Python or a package"),
        ("/usr/bin/python3.10: No such file or directory", "Python or a package"),
        ("AssertionError: assume at least 1 CC", None),
        ("UserWarning: The NVIDIA driver on your system is too old\nAssertionError: assume at least 1 CC", None),
    ],
)
def test_what_would_fail_on_every_volume_is_told_from_what_is_the_volumes_own(said: str, remedy: str | None) -> None:
    output = f"{said}\nERROR: FastSurfer asegdkt segmentation failed.\n"
    found = installation_fault(1, output)
    assert (found is None) == (remedy is None)
    assert (remedy or "") in (found or "")
    assert "segmentation failed" not in explain(1, output)


def test_another_version_than_the_plans_is_refused(home: Path, cohort: Path, tmp_path: Path) -> None:
    jobs = plan(cohort, ["sub-01"], home, tmp_path / "work")
    content = read_json(jobs)
    content["jobs"]["sub-01"]["version"] = "2.3.0"
    write_json(jobs, content)
    with pytest.raises(UserError, match=r"is version 2\.4\.2\+standin, but the plan was made with 2\.3\.0.*program"):
        run_jobs(jobs, tmp_path / "runs.json", find_program(None), threads=1)


# The program


def test_in_a_container_the_images_own_copy_is_used(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "IN_IMAGE", str(home))
    monkeypatch.setenv("FASTSURFER_HOME", "/the/hosts")
    monkeypatch.setenv("APPTAINER_CONTAINER", "fastsurfer.sif")
    assert find_program(str(tmp_path)) == home / "run_fastsurfer.sh"


def test_it_is_found_by_configuration_then_variable_then_path(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = home / "run_fastsurfer.sh"
    assert find_program(None) == script
    monkeypatch.setenv("FASTSURFER_HOME", str(tmp_path))
    assert find_program(str(home)) == script
    with pytest.raises(UserError, match=f"FASTSURFER_HOME = {tmp_path}: holds no run_fastsurfer"):
        find_program(None)
    monkeypatch.delenv("FASTSURFER_HOME")
    monkeypatch.setenv("PATH", f"{home}{os.pathsep}{os.environ['PATH']}")
    assert find_program(None) == script
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="was not found: install FastSurfer and set FASTSURFER_HOME"):
        find_program(None)


def test_a_program_that_does_not_answer_is_named(tmp_path: Path) -> None:
    script = tmp_path / "run_fastsurfer.sh"
    script.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    with pytest.raises(UserError, match="is not executable"):
        find_program(str(tmp_path))
    script.chmod(0o755)
    with pytest.raises(UserError, match=r"--help: exit code 3 \(broken\)"):
        probe(find_program(str(tmp_path)))
    script.write_text("#!/bin/sh\necho --something\n")
    with pytest.raises(UserError, match="no --seg_only"):
        probe(script)


def test_what_runs_in_its_environment_needs_the_standard_library_alone(
    repository: Path, home: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-S", "-m", "iqt.parcellate.fastsurfer", "find", "--out", str(tmp_path / "found.json")]
    environment = os.environ | {"PYTHONPATH": str(repository / "workflow")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert read_json(tmp_path / "found.json")["version"] == "2.4.2+standin"


# From volumes to labels


def test_labels_come_back_on_each_volumes_own_grid(home: Path, cohort: Path, lut: Path, tmp_path: Path) -> None:
    scans, work = [*GRIDS, "sub-05"], tmp_path / "work"
    jobs = plan(cohort, scans, home, work)
    run_jobs(jobs, work / "runs.json", find_program(None), threads=2)
    table = read_lut(lut)
    read_results(scans, cohort, "anat", "T1w", cohort, jobs, work / "runs.json", table, tmp_path / "out")
    for scan, (codes, sizes, shape) in GRIDS.items():
        record = read_json(flat(tmp_path / "out", scan, "dseg.json"))
        assert (record["status"], record["engine"], record["version"]) == ("ok", "fastsurfer", "2.4.2+standin")
        affine = affine_of(codes, sizes, shape)
        image = nib.load(flat(tmp_path / "out", scan, "dseg.nii.gz"))
        np.testing.assert_allclose(image.affine, affine, atol=1e-5)
        labels, (volume, mask) = np.asarray(image.dataobj), brain(affine, shape)
        x = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))[..., 0]
        core = (volume.data == 1) & (abs(x) > 1.5)
        # Interpolation moves the border of the core by less than a voxel.
        assert (labels[core & (x < 0)] == 2).mean() > 0.9, scan
        assert (labels[core & (x > 0)] == 41).mean() > 0.9, scan
        assert {2, 41, 1028, 2028} <= set(np.unique(labels).tolist())
        # The ball is centred on the world's origin: labels that were a voxel off would not be.
        ball = np.argwhere(np.isin(labels, (2, 41)))
        off = nib.affines.apply_affine(affine, ball).mean(0)
        assert (np.abs(off) < 0.3 * min(sizes)).all(), (scan, off)
        assert not labels[~mask].any()
    assert read_json(flat(tmp_path / "out", "sub-05", "dseg.json"))["status"] == "cohort: holds 12 voxels that are NaN"
    assert not flat(tmp_path / "out", "sub-05", "dseg.nii.gz").exists()
    assert not list((work / "inputs").glob("*.nii.gz")), "copies go once their labels exist"


def test_a_volume_without_white_matter_is_a_recorded_failure(
    home: Path, cohort: Path, lut: Path, tmp_path: Path
) -> None:
    """Enhanced results are never rescaled, so a dark one stays dark."""
    work, enhanced = tmp_path / "work", tmp_path / "enhanced"
    for scan, factor in (("sub-01", 1.0), ("sub-02", 0.05)):
        volume, _ = brain(affine_of(*GRIDS[scan]), GRIDS[scan][2], factor)
        save_volume(flat(enhanced, scan, "T1w.nii.gz"), volume.data, volume.affine)
        write_json(flat(enhanced, scan, "T1w.json"), {"status": "ok"})
    scans = ["sub-01", "sub-02"]
    jobs = plan(cohort, scans, home, work, enhanced)
    run_jobs(jobs, work / "runs.json", find_program(None), threads=1)
    read_results(scans, enhanced, "flat", "T1w", cohort, jobs, work / "runs.json", read_lut(lut), tmp_path / "out")
    assert read_json(flat(tmp_path / "out", "sub-01", "dseg.json"))["status"] == "ok"
    status = read_json(flat(tmp_path / "out", "sub-02", "dseg.json"))["status"]
    assert status.startswith("FastSurfer failed with exit code 1: it found no white matter")
    assert not flat(tmp_path / "out", "sub-02", "dseg.nii.gz").exists()


def test_a_finished_volume_is_not_run_twice(
    home: Path, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    monkeypatch.setenv("STANDIN_CALLS", str(calls))
    work = tmp_path / "work"
    jobs = plan(cohort, ["sub-01", "sub-02"], home, work)
    run_jobs(jobs, work / "runs.json", find_program(None), threads=1)
    first = (work / "runs.json").read_text()
    plan(cohort, ["sub-01", "sub-02"], home, work)
    run_jobs(jobs, work / "runs.json", find_program(None), threads=4)
    assert not any(Path(job["image"]).exists() for job in read_json(jobs)["jobs"].values()), "no copy is left"
    assert (work / "runs.json").read_text() == first
    assert len(calls.read_text().splitlines()) == 2
    plan(cohort, ["sub-01"], home, work, vox_size=0.9)
    run_jobs(jobs, work / "runs.json", find_program(None), threads=4)
    assert calls.read_text().splitlines()[2:] == ["sub-01 4 cpu cpu 1"], "another setting is another job"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"STANDIN_FAULT": "checkpoints"}, r"checkpoints are missing .* aparc_vinn_axial_v2\.0\.0\.pkl"),
        ({"STANDIN_FAULT": "killed"}, "memory is short"),
    ],
)
def test_a_fault_of_the_installation_stops_the_run_with_its_fix(
    home: Path, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict, message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    jobs = plan(cohort, ["sub-01"], home, tmp_path / "work")
    with pytest.raises(UserError, match=message):
        run_jobs(jobs, tmp_path / "runs.json", find_program(None), threads=1)
    assert not (tmp_path / "runs.json").exists()


def test_root_is_refused_before_anything_runs_and_by_the_program(
    home: Path, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(UserError, match=r"parcellate\.fastsurfer\.allow_root: true"):
        plan(cohort, ["sub-01"], home, tmp_path / "work", allow_root=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("STANDIN_UID", "0")
    jobs = plan(cohort, ["sub-01"], home, tmp_path / "work", allow_root=False)
    with pytest.raises(UserError, match="refuses to run as root; run as another user, or set parcellate"):
        run_jobs(jobs, tmp_path / "runs.json", find_program(None), threads=1)


def test_files_that_do_not_fit_the_volume_are_refused(
    home: Path, cohort: Path, lut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    jobs = plan(cohort, ["sub-01"], home, work)
    run_jobs(jobs, work / "runs.json", find_program(None), threads=1)
    volume, mask = brain(affine_of(*GRIDS["sub-01"]), GRIDS["sub-01"][2])
    folder, table = work / "subjects" / "sub-01", read_lut(lut)
    assert labels_on_grid(folder, volume, mask, table).any()
    away = volume._replace(affine=nib.affines.from_matvec(volume.affine[:3, :3], volume.affine[:3, 3] + 60))
    with pytest.raises(UserError, match="does not hold the whole brain"):
        labels_on_grid(folder, away, mask, table)
    orig = nib.load(folder / "mri" / "orig.mgz")
    nib.save(nib.MGHImage(np.asarray(orig.dataobj)[:-1], orig.affine), folder / "mri" / "orig.mgz")
    with pytest.raises(UserError, match=r"is not that of orig\.mgz"):
        labels_on_grid(folder, volume, mask, table)
    (folder / "mri" / "aparc.DKTatlas+aseg.deep.mgz").unlink()
    with pytest.raises(UserError, match="wrote no labels"):
        labels_on_grid(folder, volume, mask, table)


def test_one_volume_by_hand(home: Path, lut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real program's 256 voxels an edge."""
    monkeypatch.delenv("STANDIN_SIDE")
    codes, sizes, shape = "PIR", (1.5, 2.5, 2.0), (60, 36, 44)  # as large as a head's scan must be
    volume, mask = brain(affine_of(codes, sizes, shape), shape, 50)
    grain = 1 + 0.02 * np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    save_volume(tmp_path / "t1.nii.gz", volume.data * grain, volume.affine)
    save_volume(tmp_path / "mask.nii.gz", mask, volume.affine)
    save_volume(tmp_path / "other.nii.gz", np.where(mask > 0, 16, 0).astype(np.int16), volume.affine)
    files = Files(*(tmp_path / f"{name}.nii.gz" for name in ("t1", "out/labels", "mask", "other")))
    fastsurfer_file(files, lut, read_lut(lut), SETTINGS)
    volumes = {row["index"]: float(row["volume_mm3"]) for row in read_table(tmp_path / "out" / "labels_volumes.tsv")}
    assert min(volumes["2"], volumes["41"]) > 0
    agreement = {row["index"]: row["dice"] for row in read_table(tmp_path / "out" / "labels_agreement.tsv")}
    assert {agreement["2"], agreement["16"], agreement["41"]} == {"0.0000"}, "one holds sides, the other a brain stem"
    record = read_json(tmp_path / "out" / "labels.json")
    assert (record["engine"], record["version"]) == ("fastsurfer", "2.4.2+standin")
    assert {2, 41} <= set(np.unique(np.asarray(nib.load(files.out).dataobj)).tolist())
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == []
    monkeypatch.setenv("STANDIN_FAULT", "checkpoints")
    with pytest.raises(UserError, match="checkpoints are missing"):
        fastsurfer_file(files, lut, read_lut(lut), SETTINGS)
