"""Jobs side by side never meet on a GPU unless asked to; a stand-in for nvidia-smi lists two cards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from noise_run import SETTINGS, write_noise_run

from iqt.compute import gpus
from iqt.compute.devices import best_device
from iqt.errors import UserError
from iqt.training.enhancement import train_model

HOLD = (
    "import sys; from iqt.compute.gpus import claim_gpus; "
    "print(*claim_gpus(int(sys.argv[1])), flush=True); sys.stdin.read()"
)


@pytest.fixture
def two_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "nvidia-smi"
    lines = "\n".join(f"GPU {number}: Pretended (UUID: GPU-{name})" for number, name in enumerate("ab"))
    script.write_text(f"#!/bin/sh\ncat <<END\n{lines}\nEND\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", gpus.JOBS, gpus.CLAIMED):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def jobs(repository: Path) -> Iterator[list[subprocess.Popen]]:
    started: list[subprocess.Popen] = []
    yield started
    for job in started:
        job.kill()
        job.wait()


def start(jobs: list[subprocess.Popen], repository: Path, number: int = 1, **variables: str) -> subprocess.Popen:
    """A job that claims its cards, prints them and holds them until it is killed."""
    job = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(number)],
        cwd=repository / "workflow",
        env=os.environ | variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    jobs.append(job)
    return job


def test_two_jobs_take_two_cards_and_a_third_waits_until_one_is_killed(two_cards, jobs, repository: Path) -> None:
    first, second = (start(jobs, repository) for _ in range(2))
    assert {first.stdout.readline().strip(), second.stdout.readline().strip()} == {"GPU-a", "GPU-b"}
    third = start(jobs, repository)
    assert "waiting for a GPU" in third.stderr.readline()
    assert third.poll() is None
    first.kill()
    assert third.stdout.readline().strip() in ("GPU-a", "GPU-b")


def test_a_job_of_two_cards_gets_both_or_waits(two_cards, jobs, repository: Path) -> None:
    one = start(jobs, repository)
    taken = one.stdout.readline()
    both = start(jobs, repository, 2)
    assert "waiting" in both.stderr.readline()
    one.kill()
    assert taken.strip() in (claimed := both.stdout.readline().split())
    assert sorted(claimed) == ["GPU-a", "GPU-b"]


def test_a_training_claims_all_its_cards_before_it_asks_what_computes(
    two_cards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`best_device` claims one, after which the others could not be had."""
    run = write_noise_run(tmp_path / "run")
    monkeypatch.setattr(gpus, "_held", [])
    best_device.cache_clear()

    def look(*_: object) -> None:
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
        raise KeyboardInterrupt

    monkeypatch.setattr("iqt.training.enhancement.fit", look)
    files = (run / "participants.tsv", run / "store", tmp_path / "out")
    try:
        with pytest.raises(KeyboardInterrupt):
            train_model(SETTINGS, *files, 1, "float32", "diffusion_iqt", 2)
    finally:
        for name in ("CUDA_VISIBLE_DEVICES", gpus.CLAIMED, gpus.SHARING):
            os.environ.pop(name, None)
        best_device.cache_clear()


def test_sharing_is_asked_for_by_more_jobs_than_cards(two_cards, jobs, repository: Path) -> None:
    four = [start(jobs, repository, **{gpus.JOBS: "4"}) for _ in range(4)]
    assert sorted(job.stdout.readline().strip() for job in four) == ["GPU-a", "GPU-a", "GPU-b", "GPU-b"]
    fifth = start(jobs, repository, **{gpus.JOBS: "4"})
    assert "waiting" in fifth.stderr.readline()


def test_a_schedulers_choice_and_a_users_are_kept(two_cards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert gpus.claim_gpus() == ["1"]
    assert gpus.CLAIMED not in os.environ, "Slurm shares cards out"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus.claim_gpus() == [], "hidden on purpose: the CPU"


def test_a_local_run_in_an_allocation_shares_its_cards_out(two_cards, jobs, repository: Path) -> None:
    inside = {"SLURM_JOB_ID": "7", gpus.JOBS: "1", "CUDA_VISIBLE_DEVICES": "0,1"}
    first, second = (start(jobs, repository, **inside) for _ in range(2))
    assert {first.stdout.readline().strip(), second.stdout.readline().strip()} == {"0", "1"}


def test_a_card_is_the_same_by_its_number_and_by_its_id(two_cards, jobs, repository: Path) -> None:
    first = start(jobs, repository, CUDA_VISIBLE_DEVICES="1")
    assert first.stdout.readline().strip() == "1"
    second = start(jobs, repository, CUDA_VISIBLE_DEVICES="GPU-b")
    assert "waiting" in second.stderr.readline()


def test_more_cards_than_there_are_is_an_error(two_cards) -> None:
    with pytest.raises(UserError, match=r"3 GPUs are asked for and 2 are visible.*compute\.gpus"):
        gpus.claim_gpus(3)


def test_the_log_says_that_a_network_runs_on_the_cpu(repository: Path) -> None:
    script = "from iqt.compute.devices import best_device; best_device(); best_device()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=repository / "workflow",
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.count("runs on the CPU") == 1
    assert "no GPU is visible" in done.stderr
