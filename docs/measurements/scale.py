"""What 1,113 and 50,000 people cost before and while they run: `scale.py OUT.md [--run results/NAME]`.

Plans the demo's configuration for that many people and measures the planning: wall time, CPU time, memory, jobs. With
--run, a finished run of the same chain, its bytes and seconds a person are scaled to the wanted grid. Nothing of the
workflow is stood in for; the people are only planned, never made.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
SNAKEMAKE = Path(sys.executable).with_name("snakemake")
PEOPLE = (1113, 50_000)
HCP_VOXELS = 260 * 311 * 260
STAGES = ("cohort", "lowfield", "store", "enhanced", "parcellation", "metrics")
LOCAL = {"list_scans", "all"}
MAC_TRAINING = 93e9 / 32**3 * 3
"""Multiply-adds a voxel and step of the paper's network (93 GMAC for 32^3), forward and twice that backward."""


@dataclass
class Plan:
    """One planning."""

    people: int
    batches: int
    options: str
    seconds: float
    cpu_seconds: float
    megabytes: float
    jobs: int
    cluster_jobs: int

    def row(self) -> str:
        return (
            f"| {self.people:,} | {self.batches} | {self.options or '-'} | {self.jobs:,} | {self.cluster_jobs:,} | "
            f"{self.seconds:.1f} | {self.cpu_seconds:.1f} | {self.megabytes:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--run", type=Path, help="A finished run to take bytes and seconds a person from.")
    parser.add_argument("--people", type=int, nargs="+", default=PEOPLE)
    arguments = parser.parse_args()
    parts = [HEAD.format(date=date.today(), machine=machine(), load=f"{os.getloadavg()[0]:.1f}")]
    with tempfile.TemporaryDirectory() as scratch:
        folder = checkout(Path(scratch))
        parts += planning(folder, arguments.people)
        parts += records(folder)
    if arguments.run:
        parts += volume_of_data(arguments.run)
    arguments.out.write_text("\n".join(parts) + "\n")


def planning(folder: Path, people: list[int]) -> list[str]:
    """Plans of the whole run, and with the options that promise to make them cheaper."""
    few, *many = people
    plans = [plan(folder, few, batches) for batches in (8, 16, 32, 64)]
    plans += [
        plan(folder, few, 16, "--persistence-backend", "db"),
        plan(folder, few, 16, "--batch", "gather_metrics=1/4"),
        plan(folder, few, 16, "--rerun-triggers", "mtime"),
    ]
    for number in many:
        plans += [plan(folder, number, batches) for batches in (32, 64, 256)]
        plans.append(plan(folder, number, 64, "--batch", "gather_metrics=1/10"))
    table = "| people | batches | options | jobs | cluster jobs | s | CPU s | MB |\n| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |"
    return ["## Planning a new run", "", table, *(entry.row() for entry in plans), ""]


def plan(folder: Path, people: int, batches: int, *options: str) -> Plan:
    """Plan a run of so many people and measure it."""
    name = f"config/{people}_{batches}.yaml"
    (folder / name).write_text(configuration(people, batches))
    command = ["--dry-run", "--workflow-profile", "none", "--configfile", name, *options]
    text, seconds, cpu, megabytes = measured(folder, *command)
    jobs = Counter()
    for rule, count in re.findall(
        r"^(\w+) +(\d+)$", text.partition("Job stats:")[2].partition("total")[0], re.MULTILINE
    ):
        jobs[rule] += int(count)
    groups = yaml.safe_load((REPOSITORY / "profiles/slurm/profile.yaml").read_text())["groups"]
    grouped = sum(count for rule, count in jobs.items() if rule in groups)
    cluster = sum(count for rule, count in jobs.items() if rule not in LOCAL and rule not in groups)
    cluster += len({groups[rule] for rule in jobs if rule in groups}) if grouped else 0
    print(people, batches, *options, f"{seconds:.1f} s", file=sys.stderr, flush=True)
    return Plan(people, batches, " ".join(options), seconds, cpu, megabytes, sum(jobs.values()), cluster)


def records(folder: Path) -> list[str]:
    """Planning again when everything is there: what Snakemake's records cost as files and as a database."""
    name = "config/1113_16.yaml"
    lines = ["## Planning again when all is made (1,113 people, 16 batches)", "", RECORDS_TABLE]
    for backend in ("file", "db"):
        shutil.rmtree(folder / ".snakemake", ignore_errors=True)
        shutil.rmtree(folder / "results", ignore_errors=True)
        common = ("--workflow-profile", "none", "--configfile", name, "--persistence-backend", backend)
        listed, *_ = measured(folder, *common, "--summary")
        for line in listed.splitlines():
            if line.startswith("results/"):
                path = folder / line.split("\t")[0]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        _, touching, *_ = measured(folder, *common, "--touch", "--cores", "1")
        text, seconds, cpu, megabytes = measured(folder, *common, "--dry-run")
        assert "Nothing to be done" in text, text[-2000:]
        state = [path for path in (folder / ".snakemake").rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in state) / 1e6
        lines.append(
            f"| {backend} | {touching:.1f} | {seconds:.1f} | {cpu:.1f} | {megabytes:.0f} | {len(state):,} | {size:.1f} |"
        )
    return [*lines, ""]


def volume_of_data(run: Path) -> list[str]:
    """Bytes and CPU seconds a person of a finished run, scaled by the number of voxels to HCP's grid."""
    facts = json.loads((run / "provenance.json").read_text())
    people = facts["config"]["cohort"]["split"]
    count = {"cohort": sum(people.values()), "lowfield": sum(people.values()), "store": people["train"] + people["val"]}
    shape = next(json.loads(path.read_text())["shape"] for path in (run / "cohort").rglob("*_T1w.json"))
    voxels = shape[0] * shape[1] * shape[2]
    lines = [
        "## Storage",
        "",
        f"Measured on a grid of {shape[0]} x {shape[1]} x {shape[2]}; HCP's is 260 x 311 x 260.",
        "",
    ]
    lines += [
        "| stage | MB a person, measured | at HCP's grid | TB for 1,113 | TB for 50,000 |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for stage in STAGES:
        size = sum(path.stat().st_size for path in (run / stage).rglob("*") if path.is_file()) / 1e6
        each = size / count.get(stage, people["test"])
        scaled = each * HCP_VOXELS / voxels
        share = {"store": 0.82, "enhanced": 0.18, "parcellation": 0.18, "metrics": 0.18}.get(stage, 1.0)
        totals = [f"{scaled * number * share / 1e6:.2f}" for number in PEOPLE]
        lines.append(f"| {stage} | {each:.2f} | {scaled:.0f} | {totals[0]} | {totals[1]} |")
    return [*lines, "", SHARES, ""]


def configuration(people: int, batches: int) -> str:
    """The demo's configuration for so many people: 72 % train, 10 % validation, 18 % test."""
    content = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
    train, val = int(people * 0.72), int(people * 0.1)
    content["name"] = f"scale_{people}"
    content["cohort"]["split"] = {"train": train, "val": val, "test": people - train - val}
    content["compute"]["batches"] = batches
    return yaml.safe_dump(content)


def measured(folder: Path, *arguments: str) -> tuple[str, float, float, float]:
    """Output, seconds, CPU seconds and peak megabytes of a Snakemake."""
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([SNAKEMAKE, *arguments], cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        output.seek(0)
        text = output.read()
    if status:
        sys.exit(f"snakemake {' '.join(arguments)}: {text[-3000:]}")
    return text, time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def checkout(folder: Path) -> Path:
    for name in ("workflow", "config", "envs", "profiles", "resources"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "Snakefile", folder)
    return folder


def machine() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as handle:
        name = next(line.split(":", 1)[1].strip() for line in handle if line.startswith("model name"))
    return f"{os.cpu_count()} cores of an {name}, Python {platform.python_version()}"


HEAD = """# Scale

Made by `make scale` (docs/measurements/scale.py), {date}, {machine}; load of the machine at the start: {load}. `s` is wall
time and suffers from other load; `CPU s` does not. The people are planned, not made: 72 % training, 10 % validation, 18 %
test, and the demo's methods (two networks, one parcellator, four rows). *Cluster jobs* leaves out what runs on the login
node (the lists of scans) and counts the report's drawings as the one job that the Slurm profile makes of them.
"""
RECORDS_TABLE = "| backend | s to note all | s | CPU s | MB | files | MB on disk |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
SHARES = "Cohort and low field are kept of everybody, the store of the 82 % that train, the rest of the 18 % that test."

if __name__ == "__main__":
    main()
