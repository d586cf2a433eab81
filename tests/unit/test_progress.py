"""What a run says of itself while it lasts: `snakemake --logger iqt`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from iqt.planning.progress import FIRST_GUESS, SHORT, Job, Progress, about, family, told_left


def job(rule: str, began: float, log: Path | None = None, threads: int = 1, **wildcards: str) -> Job:
    return Job(rule, wildcards, threads, log, began)


def test_time_left_is_what_earlier_jobs_of_a_rule_took_on_all_cores() -> None:
    progress = Progress({"evaluate": 6, "all": 1}, 2)
    assert progress.seconds_left(0) == pytest.approx((6 * FIRST_GUESS["evaluate"] + SHORT) / 2)
    for number in (1, 2):
        progress.start(number, job("evaluate", 0.0, method="unet"))
    for number in (1, 2):
        progress.finish(number, 10.0)
    assert progress.seconds_left(10) == pytest.approx((4 * 10 + SHORT) / 2)
    progress.start(3, job("evaluate", 10.0, method="cubic"))
    assert progress.text(14) == f"[2/7] scoring cubic; {about((6 + 3 * 10 + SHORT) / 2)} left"


def test_batches_of_a_rule_are_one_and_a_long_job_bounds_what_is_left() -> None:
    progress = Progress({"enhance_0": 1, "enhance_1": 1, "enhance_12": 2, "degrade_portable_0": 1}, 64)
    assert progress.waiting == {"enhance": 4, "degrade": 1}
    assert family("train_parcellator") == "train_parcellator"
    assert family("parcellate_result_3") == "parcellate_result"
    assert family("gather_metrics") == "gather_metrics"
    progress.start(1, job("enhance", 0.0, method="unet"))
    assert progress.seconds_left(1) == pytest.approx(FIRST_GUESS["enhance"] - 1), "no core can share it"
    assert progress.seconds_left(1000) < 1, "late, but not behind zero"


def test_a_training_says_itself_how_long_it_takes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    progress = Progress({"train": 1}, 2)
    progress.start(1, job("train", 0.0, log, threads=2, model="unet"))
    assert told_left(log) is None
    log.write_text("step 100/800: train_loss 0.4, val_psnr 23.4; 129 s left\nstep 200/800: val_psnr 24; 77 s left\n")
    assert progress.seconds_left(5) == 77
    assert progress.text(5) == "[0/1] training unet; about 75 s left"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "about 5 s"), (83, "about 85 s"), (200, "about 3 min"), (9000, "about 2.5 h")]
)
def test_times_are_rounded(seconds: float, words: str) -> None:
    assert about(seconds) == words


def test_a_run_shows_its_progress_and_the_log_of_what_failed(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(
        'rule all:\n    input: expand("made{n}", n=range(2))\n'
        'rule evaluate:\n    output: "made{n}"\n    log: "log{n}"\n'
        '    shell: "echo reading scan {wildcards.n} >{log}; [ {wildcards.n} = 0 ] && touch {output}"\n'
    )
    done = subprocess.run(
        [str(Path(sys.executable).with_name("snakemake")), "--logger", "iqt", "--cores", "2", "--keep-going"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "[0/3] scoring; about" in done.stderr
    assert "log1 ends:\n  reading scan 1" in done.stderr
    assert "reading scan 0" not in done.stderr
    assert "reason:" not in done.stderr, "no more than that"
