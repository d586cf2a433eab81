"""What many people cost before and while they run: `scale.py OUT.md [--run results/NAME] [--people N ...]`.

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
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import yaml

from iqt.config import read_config
from iqt.planning.plan import Plan

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

from checkout import checkout  # noqa: E402

SNAKEMAKE = Path(sys.executable).with_name("snakemake")
PLANNED = (1113, 5000)
PEOPLE = (1113, 50_000)
"""Whom storage and work are reckoned for."""
HCP_VOXELS = 260 * 311 * 260
STAGES = {
    "cohort": ("all", 1.0),
    "lowfield": ("all", 1.0),
    "store": ("trained", 0.82),
    "enhanced": ("test", 0.18),
    "parcellation": ("test", 0.18),
    "metrics": ("test", 0.18),
}
"""Whom a stage keeps files of, and their share."""
RULES = {
    "make_template": "cohort",
    "degrade": "lowfield",
    "store": "store",
    "enhance": "enhanced",
    "parcellate": "parcellation",
    "evaluate": "metrics",
}
"""The rules that grow with the people, by the stage whose people they work on."""
MANY = 70
"""People a batch of the largest cohorts: as many as 1,113 people in 16 batches have."""
LIMIT_S = 3600
"""Seconds after which a planning is given up."""
LOCAL = {"list_scans", "all"}
MAC_A_VOXEL = 45.8e9 / 32**3
"""Multiply-adds a voxel of one forward of the paper's network: `iqt describe --config config/hcp.yaml`, for 32^3."""
TILES, STEPS, RATES = (96 / 64) ** 3, 20, (10, 50, 100)
"""How often each voxel is computed where tiles of 96 keep their inner 64; steps; sustained TFLOP/s to list."""


@dataclass
class Planning:
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
        if self.seconds >= LIMIT_S:
            return f"| {self.people:,} | {self.batches} | {self.options or '-'} | | | given up after {LIMIT_S} | | |"
        return (
            f"| {self.people:,} | {self.batches} | {self.options or '-'} | {self.jobs:,} | {self.cluster_jobs:,} | "
            f"{self.seconds:.1f} | {self.cpu_seconds:.1f} | {self.megabytes:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--run", type=Path, help="A finished run to take bytes and seconds a person from.")
    parser.add_argument("--people", type=int, nargs="+", default=PLANNED)
    arguments = parser.parse_args()
    demo = read_config(REPOSITORY / "config/config.yaml")
    facts = {"n_models": len(Plan(demo).models()), "n_rows": len(demo.methods), "machine": machine()}
    parts = [HEAD.format(date=date.today(), load=f"{os.getloadavg()[0]:.1f}", **facts)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = checkout(Path(scratch), REPOSITORY)
        parts += planning(folder, arguments.people)
        parts += records(folder, arguments.people[0])
    if arguments.run:
        parts += storage(arguments.run) + work(arguments.run)
    arguments.out.write_text("\n".join(parts) + "\n")


def planning(folder: Path, people: list[int]) -> list[str]:
    """Plans of the whole run, and with the options that promise to make them cheaper."""
    few, *many = people
    plans = [plan(folder, few, batches) for batches in (8, 16, 32)]
    plans += [
        plan(folder, few, 16, "--persistence-backend", "db"),
        plan(folder, few, 16, "--batch", "gather_metrics=1/4"),
        plan(folder, few, 16, "--rerun-triggers", "mtime"),
    ]
    for number in many:
        plans.append(plan(folder, number, round(number / MANY)))
    return ["## Planning a new run", "", PLAN_TABLE, *(entry.row() for entry in plans), ""]


def plan(folder: Path, people: int, batches: int, *options: str) -> Planning:
    """Plan a run of so many people and measure it."""
    name = f"config/{people}_{batches}.yaml"
    (folder / name).write_text(configuration(people, batches))
    command = ["--dry-run", "--workflow-profile", "none", "--configfile", name, *options]
    text, seconds, cpu, megabytes = measured(folder, *command)
    jobs = Counter()
    table = text.partition("Job stats:")[2].partition("total")[0]
    for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE):
        jobs[rule] += int(count)
    groups = yaml.safe_load((REPOSITORY / "profiles/slurm/profile.yaml").read_text())["groups"]
    grouped = sum(count for rule, count in jobs.items() if rule in groups)
    cluster = sum(count for rule, count in jobs.items() if rule not in LOCAL and rule not in groups)
    cluster += len({groups[rule] for rule in jobs if rule in groups}) if grouped else 0
    print(people, batches, *options, f"{seconds:.1f} s", file=sys.stderr, flush=True)
    return Planning(people, batches, " ".join(options), seconds, cpu, megabytes, sum(jobs.values()), cluster)


def records(folder: Path, people: int) -> list[str]:
    """Planning again when everything is there: what Snakemake's records cost as files and as a database."""
    name = f"config/{people}_16.yaml"
    lines = [f"## Planning again when all is made ({people:,} people, 16 batches)", "", RECORDS_TABLE]
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
        noted = f"{touching:.1f} | {seconds:.1f} | {cpu:.1f} | {megabytes:.0f}"
        lines.append(f"| {backend} | {noted} | {len(state):,} | {size:.1f} |")
    return [*lines, ""]


def people_and_voxels(run: Path) -> tuple[dict[str, int], int, str]:
    """People that each stage keeps, voxels of a volume, and the grid, of a finished run."""
    split = json.loads((run / "provenance.json").read_text())["config"]["cohort"]["split"]
    trained = split["train"] + split["val"]
    count = {"all": trained + split["test"], "trained": trained, "test": split["test"]}
    shape = next(json.loads(path.read_text())["shape"] for path in (run / "cohort").rglob("*_T1w.json"))
    kept = {stage: count[who] for stage, (who, _) in STAGES.items()}
    return kept, shape[0] * shape[1] * shape[2], " x ".join(map(str, shape))


def storage(run: Path) -> list[str]:
    """Bytes a person of a finished run, scaled by the number of voxels to HCP's grid."""
    kept, voxels, grid = people_and_voxels(run)
    lines = ["## Storage", "", f"Measured on a grid of {grid}; HCP's is 260 x 311 x 260.", "", STORAGE_TABLE]
    for stage, (_, share) in STAGES.items():
        size = sum(path.stat().st_size for path in (run / stage).rglob("*") if path.is_file()) / 1e6
        each = size / kept[stage]
        scaled = each * HCP_VOXELS / voxels
        totals = " | ".join(f"{scaled * number * share / 1e6:.2f}" for number in PEOPLE)
        lines.append(f"| {stage} | {each:.2f} | {scaled:.0f} | {totals} |")
    return [*lines, "", SHARES, ""]


def work(run: Path) -> list[str]:
    """CPU seconds a person of a finished run, scaled alike; and what the paper's network asks of a GPU."""
    kept, voxels, _ = people_and_voxels(run)
    durations = json.loads((run / "provenance.json").read_text())["durations"]
    lines = ["## Work", "", WORK_TABLE]
    for rule, stage in RULES.items():
        each = durations[rule]["seconds"] / kept[stage]
        scaled = each * HCP_VOXELS / voxels
        totals = " | ".join(f"{scaled * number * STAGES[stage][1] / 3600:,.0f}" for number in PEOPLE)
        lines.append(f"| {rule} | {each:.1f} | {scaled:,.0f} | {totals} |")
    lines += ["", GPU_TEXT, "", GPU_TABLE]
    for number in PEOPLE:
        samples = number * STAGES["enhanced"][1]
        mac = MAC_A_VOXEL * HCP_VOXELS * TILES * STEPS * samples
        hours = " | ".join(f"{2 * mac / (rate * 1e12) / 3600:,.0f}" for rate in RATES)
        lines.append(f"| {number:,} | {samples:,.0f} | {2 * mac / 1e18:,.0f} | {hours} |")
    return [*lines, ""]


def configuration(people: int, batches: int) -> str:
    """The demo's configuration for so many people: 72 % train, 10 % validation, 18 % test."""
    content = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
    train, val = int(people * 0.72), int(people * 0.1)
    content["name"] = f"scale_{people}"
    content["cohort"]["split"] = {"train": train, "val": val, "test": people - train - val}
    content["compute"]["batches"] = batches
    return yaml.safe_dump(content)


def measured(folder: Path, *arguments: str) -> tuple[str, float, float, float]:
    """Output, seconds, CPU seconds and peak megabytes of a Snakemake, which is stopped after LIMIT_S."""
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([SNAKEMAKE, *arguments], cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        watch = threading.Timer(LIMIT_S, process.kill)
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        watch.cancel()
        output.seek(0)
        text = output.read()
    if status and time.monotonic() - start < LIMIT_S:
        sys.exit(f"snakemake {' '.join(arguments)}: {text[-3000:]}")
    return text, time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def machine() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as handle:
        name = next(line.split(":", 1)[1].strip() for line in handle if line.startswith("model name"))
    return f"{os.cpu_count()} cores of an {name}, Python {platform.python_version()}"


HEAD = """# Scale, measured

`make scale` after `make demo`, {date}, {machine}; load of the machine at the start: {load}. `s` is wall
time and suffers from other load; `CPU s` does not. The people are planned, not made: 72 % training, 10 %
validation, 18 % test, and the demo's methods ({n_models} networks, one parcellator, {n_rows} rows). *Cluster jobs*
leaves out what runs on the login node (the lists of scans) and counts the report's drawings as the one job that the
Slurm profile makes of them.
"""
PLAN_TABLE = """| people | batches | options | jobs | cluster jobs | s | CPU s | MB |
| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |"""
RECORDS_TABLE = """| backend | s to note all | s | CPU s | MB | files | MB on disk |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |"""
STORAGE_TABLE = """| stage | MB a person, measured | at HCP's grid | TB for 1,113 | TB for 50,000 |
| --- | ---: | ---: | ---: | ---: |"""
WORK_TABLE = """| rule | job seconds a person, measured | at HCP's grid | hours for 1,113 | hours for 50,000 |
| --- | ---: | ---: | ---: | ---: |"""
GPU_TEXT = """These are CPU times of the demo's small networks. No GPU was to be had, so GPU hours are computed, not
measured: one sample of 20 steps a test person with the paper's network (45.8 GMAC for 32^3, tiles of 96 of which 64 are
kept), at a sustained rate that you know of your card. Training is steps x batch x 3 such forwards."""
GPU_TABLE = """| people | volumes | EFLOP | GPU h at 10 TFLOP/s | at 50 | at 100 |
| ---: | ---: | ---: | ---: | ---: | ---: |"""
SHARES = "Cohort and low field are kept of everybody, the store of the 82 % that train, the rest of the 18 % that test."

if __name__ == "__main__":
    main()
