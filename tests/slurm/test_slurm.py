"""config/smoke.yaml through profiles/slurm on a real one-node Slurm, with Ctrl-C, a job over its time and a killed one.

The runs are fixtures in this order: a local run to compare with; a Slurm run that is interrupted; the same run taken up
again, in which one job is made to overrun its time and another one is killed.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml
from cluster import GPUS, Cluster, Job, cluster, missing

from checkout import checkout
from iqt.io.files import read_table
from iqt.io.volumes import read_volume

SNAKEMAKE = Path(sys.executable).with_name("snakemake")
GPU_RULES = ("train", "train_parcellator", "parcellate_reference", "parcellate_result", "enhance", "calibrate")


def command(*arguments: str) -> list[str]:
    return [str(SNAKEMAKE), "--configfile", "config/smoke.yaml", *arguments]


ON_SLURM = command(
    "--workflow-profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "2",
    "--seconds-between-status-checks", "2", "--latency-wait", "5",
)  # fmt: skip
"""The profile as shipped, but asking after its jobs as often as jobs of seconds deserve."""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Cluster]:
    if reason := missing():
        pytest.exit(reason, returncode=1)
    partitions = yaml.safe_load((repository / "profiles/slurm/partitions.yaml").read_text())["partitions"]
    with cluster(tmp_path_factory.mktemp("cluster") / "slurm", list(partitions)) as running:
        yield running


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The results of a run on this machine without Slurm."""
    folder = checkout(tmp_path_factory.mktemp("local"), repository)
    done = subprocess.run(command("--cores", "2"), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-6000:]
    return folder / "results" / "smoke"


@dataclass
class Interrupted:
    folder: Path
    status: int
    output: str
    queued: set[int]
    """Jobs that ran or waited when Ctrl-C came, a training among them."""


@pytest.fixture(scope="module")
def interrupted(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Interrupted:
    """A Slurm run that got Ctrl-C while jobs ran and others waited."""
    folder = checkout(tmp_path_factory.mktemp("slurm"), repository)
    said = folder / "said.txt"  # a pipe that nobody reads would fill and hold the run up
    with (
        said.open("w") as stream,
        subprocess.Popen(ON_SLURM, cwd=folder, env=slurm.environment, stdout=stream, stderr=stream) as process,
    ):
        wait(lambda: process.poll() is not None or busy(slurm), 900)
        assert process.poll() is None, said.read_text()[-4000:]
        queued = {job for job, _ in slurm.queue("RUNNING", "PENDING")}
        process.send_signal(signal.SIGINT)
        process.wait(timeout=180)
    return Interrupted(folder, process.returncode, said.read_text(), queued)


@dataclass
class Finished:
    results: Path
    before: int
    """The last job of the interrupted run."""
    faults: dict[str, int] = field(default_factory=dict)
    """The job that was made to overrun its time, and the one that was killed."""
    output: str = ""


@pytest.fixture(scope="module")
def finished(slurm: Cluster, interrupted: Interrupted) -> Finished:
    """The interrupted run, taken up again and finished in spite of two faults."""
    run = Finished(interrupted.folder / "results" / "smoke", slurm.ledger()[-1].id)
    stop = threading.Event()
    saboteur = threading.Thread(target=sabotage, args=(slurm, run, stop))
    saboteur.start()
    try:
        done = subprocess.run(
            ON_SLURM, cwd=interrupted.folder, env=slurm.environment, capture_output=True, text=True, timeout=2400
        )
    finally:
        stop.set()
        saboteur.join()
    run.output = done.stdout + done.stderr
    assert done.returncode == 0, run.output[-8000:]
    assert set(run.faults) == {"overrun", "killed"}
    return run


def sabotage(slurm: Cluster, run: Finished, stop: threading.Event) -> None:
    """Freeze the first training until its time is over, and kill everything of the first enhancement with a signal."""
    wanted = {"overrun": ("rule_train_wildcards", "train"), "killed": ("rule_enhance_", "enhance")}
    while not stop.is_set() and len(run.faults) < len(wanted):
        for job, comment in slurm.queue("RUNNING"):
            for fault, (rule, subcommand) in wanted.items():
                if fault in run.faults or job <= run.before or not comment.startswith(rule):
                    continue
                found = processes(job)
                if not any(
                    re.search(rf"python -m iqt (--threads \d+ )?stage {subcommand} ", text) for text in found.values()
                ):
                    continue  # it has not come to the command yet
                if fault == "overrun":
                    slurm.ask("scontrol", "update", f"JobId={job}", "TimeLimit=1")
                for pid, text in found.items():
                    with contextlib.suppress(ProcessLookupError):
                        if fault == "killed":
                            os.kill(pid, signal.SIGKILL)
                        elif "-m iqt" in text:
                            os.kill(pid, signal.SIGSTOP)
                run.faults[fault] = job
        time.sleep(0.3)


def processes(job: int) -> dict[int, str]:
    """Command lines of a job's processes by process id."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"SLURM_JOB_ID={job}\0" in (path / "environ").read_text(errors="replace"):
                found[int(path.name)] = (path / "cmdline").read_text(errors="replace").replace("\0", " ")
    return found


def wait(condition: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not so after {seconds} s"
        time.sleep(0.3)


def busy(slurm: Cluster) -> bool:
    """Whether there are three jobs at once, of which a training runs."""
    running, queued = slurm.queue("RUNNING"), slurm.queue("RUNNING", "PENDING")
    return len(queued) >= 3 and any(comment.startswith("rule_train") for _, comment in running)


def rule_of(job: Job) -> str:
    return re.sub(r"(_\d+)?(_wildcards_.*)?$", "", job.comment.removeprefix("rule_"))


def test_ctrl_c_cancels_the_queue(slurm: Cluster, interrupted: Interrupted) -> None:
    assert interrupted.status != 0
    assert "Traceback" not in interrupted.output
    wait(lambda: not slurm.queue("RUNNING", "PENDING"), 30)
    ended = {job.id: job.state for job in slurm.ledger() if job.id in interrupted.queued}
    assert len(ended) >= 3
    # What was about to end anyway may have done so; nothing else is left to run.
    assert "CANCELLED" in ended.values()
    assert set(ended.values()) <= {"CANCELLED", "COMPLETED"}


def test_gpu_rules_got_one_gpu_each_and_cpu_rules_none(slurm: Cluster, finished: Finished) -> None:
    # Ctrl-C cancels jobs that run too, and one whose outputs were whole by then is not run again.
    jobs = [job for job in slurm.ledger() if job.state != "CANCELLED" or job.seconds]
    assert {rule_of(job) for job in jobs} >= {*GPU_RULES, "degrade", "store", "evaluate", "gather_metrics"}
    for job in jobs:
        # An interpolation has no network: cubic is enhanced without a GPU, though not read without one.
        on_gpu = rule_of(job) in GPU_RULES and not (rule_of(job) == "enhance" and job.comment.endswith("_cubic"))
        assert job.gpus == int(on_gpu), job
        assert job.partition == ("gpu" if on_gpu else "cpu"), job


def test_two_jobs_never_share_a_gpu(slurm: Cluster, finished: Finished) -> None:
    times = slurm.gpu_times()
    assert len({gpu for _, gpu, _, _ in times}) == GPUS, "both were used, so sharing was possible"
    asked = {job.id for job in slurm.ledger() if job.gpus}
    assert {job for job, *_ in times} <= asked
    for number, (job, gpu, start, end) in enumerate(times):
        for other, other_gpu, other_start, other_end in times[:number]:
            if gpu == other_gpu:
                assert end <= other_start or other_end <= start, f"jobs {job} and {other} on GPU {gpu} at once"


@pytest.mark.parametrize(("fault", "state"), [("overrun", "TIMEOUT"), ("killed", "FAILED")])
def test_a_killed_job_comes_back_with_more(slurm: Cluster, finished: Finished, fault: str, state: str) -> None:
    jobs = {job.id: job for job in slurm.ledger()}
    first = jobs[finished.faults[fault]]
    assert first.state == state
    again = [job for job in jobs.values() if job.comment == first.comment and job.id > first.id]
    assert [job.state for job in again] == ["COMPLETED"]
    assert again[0].mem_mb == 2 * first.mem_mb
    twin = {"overrun": 1440, "killed": first.minutes}[fault]  # the first one's own limit was cut by the test
    assert again[0].minutes == 2 * twin


def test_the_reports_small_jobs_were_one(slurm: Cluster, finished: Finished) -> None:
    rules = {rule_of(job) for job in slurm.ledger()}
    assert not rules & {"plot", "plot_experiment"}
    assert (finished.results / "figures" / "training.svg").is_file()


def test_results_equal_the_local_runs(local: Path, finished: Finished) -> None:
    ours, theirs = (read_table(folder / "tables/benchmark.csv") for folder in (local, finished.results))
    assert [row["method"] for row in ours] == [row["method"] for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        for column in ("psnr", "msssim", "ssim", "hfcorr", "miou", "dice"):
            assert float(mine[column]) == pytest.approx(float(other[column]), rel=1e-5), (mine["method"], column)
    volumes = sorted(path.relative_to(local) for path in local.rglob("*.nii.gz"))
    assert len(volumes) > 20
    for path in volumes:
        mine, other = (read_volume(folder / path).data for folder in (local, finished.results))
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-5, err_msg=str(path))


def test_nothing_is_left_to_do(slurm: Cluster, finished: Finished, interrupted: Interrupted) -> None:
    before = len(slurm.ledger())
    done = subprocess.run(ON_SLURM, cwd=interrupted.folder, env=slurm.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" in done.stdout + done.stderr
    assert len(slurm.ledger()) == before
