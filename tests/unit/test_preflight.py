"""What a run checks first: its claim to the folder, stale locks, the results folder, the clock, the disk."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

from iqt.errors import UserError
from iqt.io.files import PARTIAL, sweep, write_json
from iqt.planning import preflight

Usage = namedtuple("Usage", "total used free")
RUN = (
    "import sys; from pathlib import Path; from iqt.planning.preflight import Run; "
    "run = Run(Path(sys.argv[1])); run.claim();"
    "run.start(sys.argv[2] == 'local'); print('noted', flush=True); sys.stdin.read()"
)
JOB = """
import sys
from iqt.cli import main
from iqt.cli.options import stage

@stage.command()
def wait():
    print("noted", flush=True)
    sys.stdin.read()

sys.argv = ["iqt", "stage", "wait"]
main()
"""


def other(state: Path, script: str, *arguments: str) -> subprocess.Popen:
    """Another process that runs in the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=state.parent,
        env=os.environ | {"PYTHONPATH": str(Path(preflight.__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().strip() == "noted"
    return process


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / ".snakemake"
    (folder / "locks").mkdir(parents=True)
    for name in ("0.input.lock", "0.output.lock"):
        (folder / "locks" / name).touch()
    return folder


@pytest.mark.parametrize(("kind", "dropped"), [("local", True), ("cluster", False)])
def test_locks_of_a_killed_run_are_dropped_unless_its_jobs_may_still_run(state: Path, kind: str, dropped: bool) -> None:
    results = state.parent / "results"
    stale = results / "models/unet/seed-1" / f"{PARTIAL}model.json-abc.json"
    stale.parent.mkdir(parents=True)
    stale.touch()
    process = other(state, RUN, str(state), kind)
    assert not preflight.Run(state).drop_stale_locks(results), "a live run keeps its locks"
    assert len(list((state / "locks").iterdir())) == 2
    process.kill()
    process.wait()
    assert preflight.Run(state).drop_stale_locks(results) is dropped
    assert (not any((state / "locks").iterdir())) is dropped
    assert stale.exists() is not dropped


def test_locks_stay_while_another_run_or_a_job_of_a_killed_one_lives(state: Path) -> None:
    first, second = (other(state, RUN, str(state), "local") for _ in range(2))
    job = other(state, JOB)
    for process in (first, second, job):
        assert not preflight.Run(state).drop_stale_locks(state.parent)
        process.kill()
        process.wait()
    assert preflight.Run(state).drop_stale_locks(state.parent)


def test_a_cluster_run_that_ended_by_itself_leaves_no_jobs(state: Path) -> None:
    run = preflight.Run(state)
    run.start(local=False)
    assert not run.drop_stale_locks(state.parent)
    run.end()
    assert run.drop_stale_locks(state.parent)


def test_a_file_system_without_locks_stops_nothing(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    assert preflight.claim(state, fcntl.LOCK_SH) is None
    assert not preflight.Run(state).drop_stale_locks(state.parent)
    assert list((state / "locks").iterdir())


def test_a_run_on_other_people_is_not_overwritten(tmp_path: Path) -> None:
    preflight.check_name(tmp_path, "bids")
    write_json(tmp_path / "cohort/dataset_description.json", {"Name": "iqt high-quality cohort (template)"})
    preflight.check_name(tmp_path, "template")
    with pytest.raises(UserError, match=r"holds a run on people of cohort\.source template, .* name of its own"):
        preflight.check_name(tmp_path, "bids")


def test_without_locks_nothing_is_written(tmp_path: Path) -> None:
    assert not preflight.Run(tmp_path / ".snakemake").drop_stale_locks(tmp_path)
    assert not list(tmp_path.iterdir()), "a dry run leaves no trace"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preflight.check_folder(tmp_path / "results" / "run")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(UserError, match=rf"{tmp_path}.*cannot be written"):
        preflight.check_folder(tmp_path / "results" / "run")


def test_an_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"iqt\.sif: no such image; build it with `apptainer build"):
        preflight.check_image(tmp_path / "iqt.sif")


def test_a_clock_set_back_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    path = tmp_path / "cohort" / "participants.tsv"
    path.touch()
    preflight.check_clock(tmp_path)
    later = time.time() + 3600
    os.utime(path, (later, later))
    with pytest.raises(UserError, match=rf"60 min behind {path}.*find {tmp_path} -exec touch"):
        preflight.check_clock(tmp_path)


def test_a_full_disk_is_the_likely_reason_only_where_little_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, 10**11))
    assert preflight.failure_hint(tmp_path / "results") == ""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, 3 * 10**6))
    assert "only 3 MB are free" in preflight.failure_hint(tmp_path / "results")


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    mine, others = tmp_path / "sub-1_T1w.nii.gz", tmp_path / "sub-11_T1w.nii.gz"
    names = [f"{PARTIAL}{path.name}-x1y2z3.nii.gz" for path in (mine, others)]
    for name in (*names, mine.name):
        (tmp_path / name).touch()
    draft = tmp_path / f"{PARTIAL}{mine.name}-a1b2"
    draft.mkdir()
    (draft / mine.name).touch()
    sweep([mine, tmp_path / "absent" / "a.json"])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([names[1], mine.name])


@pytest.mark.parametrize("name", ["ENOSPC", "EROFS"])
def test_the_machines_errors_end_in_one_message(name: str, repository: Path) -> None:
    script = (
        "import errno, sys, iqt.cli as cli\n"
        f"def fail(): raise OSError(errno.{name}, 'the reason', 'a/file.nii.gz')\n"
        "cli.app = fail\ncli.main()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=repository / "workflow", capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("iqt: error: a/file.nii.gz: the reason; ")
    assert "Traceback" not in done.stderr
