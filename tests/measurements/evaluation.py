"""Measures the evaluation of 1,000 people: time and memory of scoring, tables, a figure and the page.

    python tests/measurements/evaluation.py docs/measurements/evaluation-1000.md

Every person is the same small phantom under another name, with two methods and 30 structures; a real volume costs more
(see evaluation.md), but as much each. Under two minutes on one core.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from iqt.config import Evaluate
from iqt.io.files import read_table, write_json, write_table, write_text
from iqt.io.naming import anat, flat
from iqt.io.volumes import save_volume

SIDE, STRUCTURES, METHODS = 28, 30, ("cubic", "unet")
COSTS = {"seconds": 1.0, "nfe": 1, "samples": 1, "n_parameters": 9}
RUN = {
    "name": "many",
    "created_by": "iqt",
    "seed": 1,
    "suffix": "T1w",
    "cohort": {"source": "phantom", "voxel_size_mm": 2.0, "n_train": 0, "n_val": 0, "n_test": 0, "skipped": []},
    "lowfield": {"main": {}},
    "models": {},
    "methods": {method: {"kind": method} for method in METHODS},
    "parcellator": {"engine": "phantom", "version": "1", "n_structures": STRUCTURES},
    "machine": {},
    "evaluate": {},
}


def make(root: Path, scans: list[str]) -> None:
    """The cohort, results and label maps of everybody: links to one person's files."""
    rng = np.random.default_rng(0)
    grid = np.indices((SIDE,) * 3) - (SIDE - 1) / 2
    mask = np.square(grid).sum(axis=0) < (SIDE / 2 - 1) ** 2
    brain = np.where(mask, 1 + 0.1 * gaussian_filter(rng.normal(size=mask.shape), 1) / 0.2, 0).astype(np.float32)
    labels = np.where(mask, 1 + (np.indices(mask.shape).sum(axis=0) // 2) % STRUCTURES, 0).astype(np.int16)
    one, affine = root / "one", np.diag([2.0, 2.0, 2.0, 1.0])
    volumes = {
        "image": 700 * brain,
        "mask": mask.astype(np.uint8),
        "labels": labels,
        "moved": np.roll(labels, 1, axis=0),
    }
    volumes |= {method: brain + 0.05 * mask * rng.normal(size=mask.shape).astype(np.float32) for method in METHODS}
    for name, data in volumes.items():
        save_volume(one / f"{name}.nii.gz", data, affine)
    for name, content in (("plain", {}), ("costs", COSTS), ("read", {"engine": "phantom", "version": "1"})):
        write_json(one / f"{name}.json", {"status": "ok", **content})
    write_table(root / "lut.tsv", [{"index": index, "name": f"structure {index}"} for index in range(STRUCTURES + 1)])
    for scan in scans:
        links = {anat(root / "cohort", scan, "T1w.nii.gz"): "image.nii.gz"}
        links |= {anat(root / "cohort", scan, "desc-brain_mask.nii.gz"): "mask.nii.gz"}
        links |= {anat(root / "cohort", scan, "T1w.json"): "plain.json"}
        links |= {anat(root / "lowfield/main", scan, "T1w.nii.gz"): "image.nii.gz"}
        for where, content in (("hq", "labels"), *((f"main/{method}", "moved") for method in METHODS)):
            links[flat(root / "parcellation" / where, scan, "dseg.nii.gz")] = f"{content}.nii.gz"
            links[flat(root / "parcellation" / where, scan, "dseg.json")] = "read.json"
        for method in METHODS:
            links[flat(root / "enhanced/main" / method, scan, "T1w.nii.gz")] = f"{method}.nii.gz"
            links[flat(root / "enhanced/main" / method, scan, "T1w.json")] = "costs.json"
        for link, target in links.items():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(one / target)


def measured(*arguments: object) -> tuple[float, float]:
    """Processor seconds and largest memory (MB) of an `iqt` command."""
    command = [sys.executable, "-m", "iqt", "--threads", "1", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main(out: Path) -> None:
    scans = [f"sub-{number:04d}" for number in range(1, 1001)]
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make(root, scans)
        metrics, tables = root / "metrics", root / "tables"
        paths = ["--list", root / "list.tsv", "--run", root, "--lut", root / "lut.tsv", "--set", "main"]
        paths += ["--settings", json.dumps(Evaluate().model_dump(mode="json", exclude={"bootstrap", "reference"}))]
        for n in (10, 100, 1000):
            write_table(root / "list.tsv", [{"scan": scan, "split": "test"} for scan in scans[:n]])
            costs = [
                measured("stage", "evaluate", *paths, "--result", one, "--out", root / "parts" / one) for one in METHODS
            ]
            seconds, memory = zip(*costs, strict=True)
            lines.append((f"`iqt stage evaluate` of {n:,} people, all methods", sum(seconds), max(memory)))
        for name in ("subjects", "structures"):
            rows = [row for one in METHODS for row in read_table(root / "parts" / one / f"{name}.csv")]
            write_table(metrics / f"{name}.csv", rows)
        write_json(metrics / "run.json", RUN)
        files = ["--subjects", metrics / "subjects.csv"]
        written = [*files, "--structures", metrics / "structures.csv", "--reference", "unet", "--out", tables]
        lines.append(("`iqt stage tables`", *measured("stage", "tables", *written)))
        figure = root / "metrics.png"
        lines.append(("`iqt plot metrics`", *measured("plot", "metrics", *files, "--out", figure)))
        page = root / "report.html"
        shown = ["--metrics", metrics, "--tables", tables, "--figure", figure, "--out", page]
        lines.append(("`iqt stage page`", *measured("stage", "page", *shown)))
        size = page.stat().st_size / 1e6
    rows = "\n".join(f"| {name} | {seconds:.1f} | {memory:.0f} |" for name, seconds, memory in lines)
    (_, few, _), (_, some, _), (_, many, _) = lines[:3]
    near, far = (some - few) / 90, (many - some) / 900
    write_text(
        out,
        f"""# Evaluating 1,000 people

Made by `python tests/measurements/evaluation.py docs/measurements/{out.name}`, {datetime.date.today()}, one core of
{processor()}, Python {platform.python_version()}, beside other work.
Everybody is one phantom of {SIDE} x {SIDE} x {SIDE} voxels with {len(METHODS)} methods and {STRUCTURES} structures, so
seconds a volume are not those of real scans ([evaluation.md](evaluation.md) has them); measured is how they grow.

| command | CPU s | largest memory, MB |
| --- | ---: | ---: |
{rows}

A person more costs {near:.3f} s between 10 and 100 people and {far:.3f} s between 100 and 1,000:
linear in time, and flat in memory but for the rows. The page of 1,000 people is {size:.1f} MB, to which pictures
add at most 12 million characters.
""",
    )


def processor() -> str:
    """The processor's name, where Linux gives it."""
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.is_file() else ""
    name = next((line.split(":")[1] for line in text.splitlines() if line.startswith("model name")), "")
    return " ".join(name.split()) or platform.machine()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
