"""The workflow as others take it up: by workflow/Snakefile, and as a module of a workflow of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

BIN = Path(sys.executable).parent
OTHER = """
configfile: "mine.yaml"

module iqt:
    snakefile:
        "{snakefile}"
    config:
        config["iqt"]
    {more}

use rule * from iqt as iqt_*

rule best:
    default_target: True
    input:
        rules.iqt_write_tables.input,
        "out/of/smoke/tables/benchmark.csv",
    output:
        "best.txt",
    shell:
        "head -n 1 out/of/smoke/tables/benchmark.csv > {{output}}"
"""


def snakemake(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "snakemake"), "--cores", "2", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""})


def planned(text: str) -> list[str]:
    """Every job that a dry run names with its files, in the order of their names."""
    jobs = re.split(r"\n(?=\[|(?:local)?rule )", text)
    told = (re.search(r"(?:local)?rule (\w+):\n(?:.|\n)*?    output: (.*)", job) for job in jobs)
    return sorted(f"{one[1]}: {one[2]}" for one in told if one)


def test_both_snakefiles_plan_the_same_jobs(workflow: Path) -> None:
    plans = [
        snakemake(workflow, "-n", "-s", workflow / name, "--configfile", "config/smoke.yaml")
        for name in ("Snakefile", "workflow/Snakefile")
    ]
    assert [plan.returncode for plan in plans] == [0, 0], plans[0].stderr + plans[1].stderr
    first, second = (planned(plan.stdout + plan.stderr) for plan in plans)
    assert len(first) > 30
    assert first == second


def other(folder: Path, repository: Path, more: str = "") -> Path:
    """Somebody's workflow, in a folder of its own."""
    settings = yaml.safe_load((repository / "config" / "smoke.yaml").read_text())
    (folder / "mine.yaml").write_text(yaml.safe_dump({"iqt": settings | {"results": "out/of"}}))
    snakefile = repository / "workflow" / "Snakefile"
    (folder / "Snakefile").write_text(OTHER.format(snakefile=snakefile, more=more))
    return folder


def test_a_source_of_files_is_planned_in_a_module_too(tmp_path: Path, repository: Path) -> None:
    """Snakemake knows none of the module's own names in its shell commands."""
    folder = other(tmp_path, repository)
    for name in "abc":
        (folder / "data" / f"{name}.nii.gz").parent.mkdir(exist_ok=True)
        (folder / "data" / f"{name}.nii.gz").touch()
    settings = yaml.safe_load((folder / "mine.yaml").read_text())
    source = {"source": "folder", "folder": {"path": "data"}, "split": {"train": 1, "val": 1, "test": 1}}
    settings["iqt"] |= {"cohort": source, "tissues": {"engine": "hmrf"}, "parcellate": {}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(settings))
    done = snakemake(folder, "-n", "--printshellcmds")
    told = done.stdout + done.stderr
    assert done.returncode == 0, told[-3000:]
    assert re.search(r"--index out/of/smoke/index-\w+\.tsv", told)


def test_a_prefix_is_refused_and_what_to_do_is_said(tmp_path: Path, repository: Path) -> None:
    done = snakemake(other(tmp_path, repository, 'prefix:\n        "elsewhere"'), "-n")
    assert done.returncode != 0
    assert "set the key `results` of its configuration" in done.stdout + done.stderr


@pytest.mark.slow
def test_another_workflow_runs_the_chain_as_a_module(tmp_path: Path, repository: Path) -> None:
    folder = other(tmp_path, repository)
    done = snakemake(folder)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert (folder / "best.txt").read_text().startswith("method,")
    assert {path.name for path in folder.iterdir()} == {"Snakefile", "mine.yaml", ".snakemake", "out", "best.txt"}
