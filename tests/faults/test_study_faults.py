"""A study that is killed goes on; a full disk and a folder that cannot be written to lose nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from iqt.io.files import PARTIAL, read_json, read_table
from iqt.io.volumes import read_volume, save_volume
from people import person

BIN = Path(sys.executable).parent
NAMES = ("01", "02", "03")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study") / "data"
    for name in NAMES:
        made = person(name, 2.0)
        thick, affine = np.ascontiguousarray(made.T1w[:, :, ::2]), made.affine @ np.diag([1, 1, 2, 1])
        save_volume(root / f"sub-{name}/anat/sub-{name}_T1w.nii.gz", thick, affine)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "made by a test", "BIDSVersion": "1.9.0"}))
    return root


def words(dataset: Path, out: Path) -> list[str]:
    return [str(BIN / "iqt"), "study", str(dataset), str(out), "--no-parcellate", "--cores", "1"]


@pytest.fixture(scope="module")
def undisturbed(dataset: Path) -> Path:
    out = dataset.parent / "peace"
    done = subprocess.run(words(dataset, out), cwd=dataset.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def images(out: Path) -> dict[str, np.ndarray]:
    return {path.relative_to(out).as_posix(): read_volume(path).data for path in sorted(out.rglob("sub-*/**/*.nii.gz"))}


def assert_same(out: Path, undisturbed: Path) -> None:
    wanted, found = images(undisturbed), images(out)
    assert wanted.keys() == found.keys()
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    assert {row["status"] for row in read_table(out / "group" / "scans.tsv")} == {"ok"}
    assert not [path for path in out.rglob("*") if path.name.startswith(PARTIAL)]


def test_half_of_a_study_killed_goes_on(dataset: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = subprocess.Popen(words(dataset, out), cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL)
    first = out / "records" / "sub-01.json"
    until = time.monotonic() + 300
    while not first.exists() and time.monotonic() < until:
        time.sleep(0.2)
    time.sleep(2)  # the next one has begun
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert read_json(first)["status"] == "ok"
    before = first.stat().st_mtime_ns
    assert not (out / "study.html").exists()
    done = subprocess.run(words(dataset, out), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert first.stat().st_mtime_ns == before, "what was done is not done again"
    assert_same(out, undisturbed)


def test_a_full_disk_stops_the_study_and_space_lets_it_go_on(dataset: Path, undisturbed: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        out = small / "out"
        done = subprocess.run(words(dataset, out), cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1
        assert "the study is not finished" in done.stderr
        logs = "".join(path.read_text() for path in (out / "logs").glob("*.log"))
        assert "No space left on device; free some space" in logs
        for record in (out / "records").glob("*.json"):
            assert read_json(record)["status"] == "ok", "a full disk is no scan's fault"
        subprocess.run(["mount", "-o", "remount,size=500m", str(small)], check=True)
        done = subprocess.run(words(dataset, out), cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert_same(out, undisturbed)
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_dataset_that_cannot_be_written_to_is_enough(dataset: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Also for root, who may write anywhere: nothing in it has changed."""
    copy = tmp_path / "data"
    shutil.copytree(dataset, copy)
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    for path in [copy, *(path for path in before if path.is_dir())]:
        path.chmod(0o555)
    done = subprocess.run(words(copy, tmp_path / "out"), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before
    assert_same(tmp_path / "out", undisturbed)
    for path in [copy, *(path for path in before if path.is_dir())]:
        path.chmod(0o755)
