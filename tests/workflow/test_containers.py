"""--sdm apptainer runs rules in the image; a stand-in named apptainer notes the image and runs the command without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from checkout import checkout

pytestmark = pytest.mark.slow

SNAKEMAKE = Path(sys.executable).with_name("snakemake")
STANDIN = """#!/bin/sh
[ "$1" = --version ] && { echo apptainer version 1.3.0; exit; }
while [ $# -gt 0 ]; do
    case $1 in *.sif) echo "$1" >>"$STANDIN_LOG"; shift; exec "$@" ;; esac
    shift
done
exit 1
"""


@pytest.fixture
def folder(tmp_path: Path, repository: Path) -> Path:
    checkout(tmp_path, repository)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "apptainer").write_text(STANDIN)
    (tmp_path / "bin" / "apptainer").chmod(0o755)
    return tmp_path


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    arguments = ["--cores", "1", "--configfile", "config/smoke.yaml", "--sdm", "apptainer"]
    environment = os.environ | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "STANDIN_LOG": str(folder / "log"),
    }
    return subprocess.run(
        [str(SNAKEMAKE), *arguments, "--", "results/smoke/lists/all_batch-0.tsv"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_rules_run_in_the_image_and_its_absence_is_named(folder: Path) -> None:
    done = run(folder)
    message = done.stdout + done.stderr
    assert done.returncode != 0
    assert "envs/iqt.sif: no such image; build it with" in message
    assert "Traceback" not in message
    image = folder / "envs" / "iqt.sif"
    image.touch()
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "results/smoke/lists/all_batch-0.tsv").read_text().startswith("scan\tsplit")
    assert (folder / "log").read_text().split() == [str(image)]
