"""What may happen to a run, and that it ends in the right result or in a message that says what to do.

Every test compares with a run that nothing happened to. Timings, logs and provenance differ between runs and are left
out.
"""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from checkout import checkout
from iqt.io.files import PARTIAL
from iqt.io.volumes import read_volume

SNAKEMAKE = Path(sys.executable).with_name("snakemake")
KILLS = 10
EXACT = ("cohort", "lowfield", "store", "lists")
"""Stages without training, whose files are the same to the last bit."""


def command(*arguments: str, config: str = "config/smoke.yaml") -> list[str]:
    # --cores last: targets after --configfile would be taken for more of them.
    return [str(SNAKEMAKE), "--configfile", config, "--cores", "2", *arguments]


def run(folder: Path, *arguments: str, config: str = "config/smoke.yaml") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments, config=config), cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A folder in which the smoke configuration has run in peace."""
    folder = checkout(tmp_path_factory.mktemp("undisturbed"), repository)
    done = run(folder)
    assert done.returncode == 0, done.stderr[-6000:]
    return folder


@pytest.fixture
def finished(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of the undisturbed run, Snakemake's records included, for a test to spoil."""
    shutil.copytree(undisturbed, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def kill_all(process: subprocess.Popen) -> None:
    """SIGKILL to Snakemake and everything below it."""
    try:
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    except psutil.NoSuchProcess:
        family = []
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


def start(folder: Path, *arguments: str, config: str = "config/smoke.yaml") -> subprocess.Popen:
    return subprocess.Popen(
        command(*arguments, config=config), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def wait(condition: Callable[[], bool], seconds: float, pause: float = 0.05) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not so after {seconds} s"
        time.sleep(pause)


def assert_same(one: Path, two: Path) -> None:
    """The results of two runs are the same, timings aside."""
    left, right = (sorted(str(path.relative_to(root)) for path in files(root)) for root in (one, two))
    assert left == right
    for name in left:
        mine, other = one / name, two / name
        if name.split("/")[0] in EXACT and not name.endswith(".json"):
            assert mine.read_bytes() == other.read_bytes(), name
        elif name.endswith(".json"):
            close(timeless(json.loads(mine.read_text())), timeless(json.loads(other.read_text())), name)
        elif name.endswith((".csv", ".tsv")):
            close(rows(mine), rows(other), name)
        elif name.endswith(".nii.gz"):
            np.testing.assert_allclose(read_volume(mine).data, read_volume(other).data, atol=1e-4, err_msg=name)
        elif name.endswith(".safetensors"):
            weights, expected = load_file(mine), load_file(other)
            assert weights.keys() == expected.keys(), name
            for key, value in weights.items():
                torch.testing.assert_close(value, expected[key], rtol=0, atol=1e-5, msg=f"{name}: {key}")
        else:  # pictures and texts of the above
            assert mine.stat().st_size > 0, name


def files(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        inside = path.relative_to(root)
        timed = {"logs", "benchmarks", "tensorboard", "provenance.json"}
        if path.is_file() and not timed.intersection(inside.parts):
            yield path


def timeless(content: object) -> object:
    if isinstance(content, dict):
        return {key: timeless(value) for key, value in content.items() if not is_timing(key)}
    return [timeless(value) for value in content] if isinstance(content, list) else content


def is_timing(key: str) -> bool:
    return "seconds" in key or key == "data_wait"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        table = list(csv.DictReader(handle, delimiter="," if path.suffix == ".csv" else "\t"))
    return [{key: value for key, value in row.items() if not is_timing(key)} for row in table]


def close(mine: object, other: object, where: str) -> None:
    """Equal, numbers (also as text) within what a training on other threads may differ by."""
    if isinstance(mine, dict) and isinstance(other, dict):
        assert mine.keys() == other.keys(), where
        for key in mine:
            close(mine[key], other[key], f"{where}: {key}")
    elif isinstance(mine, list) and isinstance(other, list):
        assert len(mine) == len(other), where
        for number, pair in enumerate(zip(mine, other, strict=True)):
            close(*pair, f"{where}: {number}")
    elif mine != other:
        try:
            assert float(mine) == pytest.approx(float(other), rel=1e-3, abs=1e-4), where
        except (TypeError, ValueError):
            pytest.fail(f"{where}: {mine!r} is not {other!r}")


def test_ten_kills_at_random_moments_change_nothing(undisturbed: Path, tmp_path: Path, repository: Path) -> None:
    folder = checkout(tmp_path, repository)
    seed = int(os.environ.get("IQT_FAULT_SEED", time.time_ns() % 100_000))
    draw = random.Random(seed)
    print(f"IQT_FAULT_SEED={seed}")
    killed = []
    while len(killed) < KILLS:
        process = start(folder)
        moment = draw.uniform(3, 20)
        time.sleep(moment)
        if process.poll() is None:
            kill_all(process)
            killed.append(round(moment, 1))
        else:  # it was over too soon: once more from the beginning
            shutil.rmtree(folder / "results")
    print(f"killed after {killed} s")
    done = run(folder)
    assert done.returncode == 0, done.stderr[-6000:]
    assert_same(undisturbed / "results/smoke", folder / "results/smoke")
    assert not list((folder / "results").rglob(f"{PARTIAL}*")), "half-written files stay behind"
    again = run(folder)
    assert "Nothing to be done" in again.stdout + again.stderr


def test_a_killed_training_loses_nothing_before_its_checkpoint(undisturbed: Path, tmp_path: Path) -> None:
    config = (undisturbed / "config/smoke.yaml").read_text().replace("\n  steps: 4\n", "\n  steps: 60\n", 1)
    weights = "results/smoke/models/unet/seed-1/model.safetensors"
    folders = []
    for name in ("killed", "peaceful"):
        shutil.copytree(undisturbed, tmp_path / name, symlinks=True)
        (tmp_path / name / "config/long.yaml").write_text(config)
        folders.append(tmp_path / name)
    killed, peaceful = folders
    log = killed / "results/smoke/logs/train/unet/seed-1.log"
    checkpoint = killed / weights.replace("model.safetensors", "checkpoints/last.ckpt")
    for _ in range(3):
        process = start(killed, weights, config="config/long.yaml")
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        wait(lambda before=before: checkpoint.exists() and checkpoint.stat().st_mtime_ns > before, 120, pause=0.005)
        time.sleep(0.2)  # some steps further, or into the next checkpoint
        kill_all(process)
        step = torch.load(checkpoint, weights_only=False)["global_step"]
        log.unlink(missing_ok=True)  # what it says is to be this run's
        done = start(killed, weights, config="config/long.yaml")
        wait(lambda: log.exists() and "resumed at step" in log.read_text(), 120)
        kill_all(done)
        assert int(re.search(r"resumed at step (\d+)/60", log.read_text())[1]) >= step > 0
    for folder in folders:
        done = run(folder, weights, config="config/long.yaml")
        assert done.returncode == 0, done.stderr[-4000:]
    found, expected = (load_file(folder / weights) for folder in (killed, peaceful))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5)
    history = "results/smoke/models/unet/seed-1/history.csv"
    close(rows(killed / history), rows(peaceful / history), history)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small disk needs the right to mount one: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_named_and_the_run_goes_on_with_more(
    undisturbed: Path, small_disk: Path, tmp_path: Path, repository: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    checkout(folder, repository)
    (folder / "results").symlink_to(small_disk)
    done = run(folder)
    message = done.stdout + done.stderr
    assert done.returncode != 0
    assert "the disk is most likely full" in message
    assert "Traceback" not in message
    subprocess.run(["mount", "-o", "remount,size=500m", small_disk], check=True)
    done = run(folder)
    assert done.returncode == 0, done.stderr[-4000:]
    assert_same(undisturbed / "results/smoke", small_disk / "smoke")


def test_a_read_only_results_folder_is_named_before_any_job(
    finished: Path, small_disk: Path, undisturbed: Path
) -> None:
    (finished / "results").rename(finished / "before")
    (finished / "results").symlink_to(small_disk)
    (small_disk / "smoke").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    done = run(finished)
    message = done.stdout + done.stderr
    assert done.returncode != 0
    assert "cannot be written" in message
    assert "Traceback" not in message
    assert not list((small_disk / "smoke").iterdir())


def test_a_deleted_intermediate_is_made_again_or_not_needed(undisturbed: Path, finished: Path) -> None:
    results = finished / "results/smoke"
    for name in (
        "lowfield/main/sub-test001/anat/sub-test001_T1w.json",
        "metrics/subjects.csv",
        "models/unet/seed-1/model.json",
        "enhanced/main/unet/sub-test002_T1w.json",
    ):
        (results / name).unlink()
    shutil.rmtree(results / "tables")
    done = run(finished)
    assert done.returncode == 0, done.stderr[-4000:]
    # What no missing file needs is not made again for its own sake; asked for by name it is.
    one = "results/smoke/enhanced/main/unet/sub-test002_T1w.json"
    done = run(finished, "all", "lowfield", "models", one)
    assert done.returncode == 0, done.stderr[-4000:]
    assert_same(undisturbed / "results/smoke", results)


def test_a_deleted_volume_is_named_and_the_remedy_works(undisturbed: Path, finished: Path) -> None:
    results = finished / "results/smoke"
    (results / "lowfield/main/sub-test001/anat/sub-test001_space-HQ_T1w.nii.gz").unlink()
    done = run(finished, "--forcerun", "enhance_1")
    assert done.returncode == 0, done.stderr[-4000:]
    status = json.loads((results / "enhanced/main/unet/sub-test001_T1w.json").read_text())["status"]
    assert "sub-test001_space-HQ_T1w.nii.gz" in status
    assert "no such file" in status
    record = "results/smoke/lowfield/main/sub-test001/anat/sub-test001_T1w.json"
    assert f"--forcerun {record}" in status
    assert "no such file" in (results / "report.html").read_text()
    done = run(finished, "--forcerun", record)
    assert done.returncode == 0, done.stderr[-4000:]
    assert_same(undisturbed / "results/smoke", results)


def test_a_clock_set_back_is_told_before_any_job(undisturbed: Path, finished: Path) -> None:
    results = finished / "results/smoke"
    future = time.time() + 7200
    kept = {path: path.stat().st_mtime for path in (*(results / "cohort").rglob("*"), *(results / "lists").rglob("*"))}
    for path in kept:
        os.utime(path, (future, future))
    shutil.rmtree(results / "tables")
    done = run(finished)
    message = done.stdout + done.stderr
    assert done.returncode != 0
    assert re.search(r"the clock stands 1[12]\d min behind", message), message[-2000:]
    assert "Traceback" not in message
    assert not (results / "tables").exists()
    for path, before in kept.items():  # the clock is right again
        os.utime(path, (before, before))
    done = run(finished)
    assert done.returncode == 0, done.stderr[-4000:]
    assert_same(undisturbed / "results/smoke", results)


def test_files_of_a_wrong_clock_can_be_given_the_present_time(finished: Path) -> None:
    future = time.time() + 7200
    for path in (finished / "results/smoke").rglob("*"):
        os.utime(path, (future, future))
    done = run(finished, "--forcerun", "write_page")
    remedy = re.search(r"`(find .*? \+)`", done.stdout + done.stderr)[1]
    subprocess.run(remedy, shell=True, cwd=finished, check=True)
    again = run(finished)
    assert "Nothing to be done" in again.stdout + again.stderr


def test_two_runs_at_once_in_one_folder(undisturbed: Path, tmp_path: Path, repository: Path) -> None:
    folder = checkout(tmp_path, repository)
    first = start(folder)
    try:
        wait(lambda: any((folder / "results").rglob("make_template/*.log")), 120)
        second = run(folder)
        message = second.stdout + second.stderr
        assert second.returncode != 0
        assert "Directory cannot be locked" in message
        assert "Traceback" not in message
        assert first.poll() is None, "the first goes on"
        assert first.wait(600) == 0
    finally:
        kill_all(first)
    assert_same(undisturbed / "results/smoke", folder / "results/smoke")
