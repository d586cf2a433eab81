"""The commands that README and docs/ show, and what a test needs to run them as they stand there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import yaml

from iqt.io.files import read_table
from iqt.io.volumes import save_volume
from people import person

HERE = Path(__file__).parents[1]
PROGRAM = re.compile(r"(?:\.venv/bin/)?(iqt-bids|iqt|snakemake|make|python|generate-slurm-partition-config)\b")
ELSEWHERE = {
    r"make (test|test-all|demo|slurm)(?= |$)": "what this test is part of, the whole demo, and what test-slurm calls",
    r"make (lint|docs)(?= |$)": "test_style.py runs their parts",
    r"make (gpu|gpu-bundle)(?= |$)": "the first needs a GPU; test_gpu_session.py runs a bundle at toy size",
    r"make weights-parcellator ": "an hour of training on label maps that are not here",
    r"python tests/measurements/": "hours of training or measuring; their parts are the package's",
    r"generate-slurm-partition-config|snakemake --workflow-profile": "test-slurm, on a real Slurm",
    r"snakemake --cores all --use-conda": "test-conda, with a stand-in for conda",
    r"snakemake --cores all --sdm apptainer": "there is no Apptainer here; hadolint reads the recipe",
    r"snakemake --cores all --configfile [^']*openneuro\.yaml$": "test_sources_matrix.py, with a stand-in for S3",
    r"snakemake --report": "test_smoke.py, of the smoke run",
    r"iqt parcellate .* --engine fastsurfer": "FastSurfer is not here; test_fastsurfer.py has a stand-in",
    r"iqt bench gpu ": "needs a GPU; test_gpu_session.py runs it with --check",
}
"""Commands that no test runs as they are written, by pattern, and why not or which test runs what they stand for."""


def shown() -> list[tuple[str, str]]:
    """(where, command) of every line of a block of code that begins with one of our programs."""
    found = []
    for path in [HERE / "README.md", HERE / "CONTRIBUTING.md", *sorted((HERE / "docs").rglob("*.md"))]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if line.startswith("    ") and PROGRAM.match(line.strip()):
                for command in re.sub(r"\s+#.*", "", line.strip()).split("&&"):
                    found.append((f"{path.relative_to(HERE)}:{number}", command.strip()))
    return found


def runnable(program: str) -> list[str]:
    """The commands of a program that are run as they are written, each once."""
    commands = dict.fromkeys(command.removeprefix(".venv/bin/") for _, command in shown())
    return [
        command
        for command in commands
        if command.split()[0] == program and not any(re.match(pattern, command) for pattern in ELSEWHERE)
    ]


def prepare(folder: Path, run: Path) -> None:
    """Put into `folder` what the commands name: a low-field scan, a high-quality one with labels, a dataset, a
    configuration of one's own, and models, which are those of the finished smoke run in `run`."""
    made = person("901", 2.0)
    for name in ("T1w_brain", "T1w", "brain"):
        save_volume(folder / f"{name}.nii.gz", made.T1w, made.affine)
    thick = made.T1w[:, :, : made.T1w.shape[2] // 2 * 2].reshape(*made.T1w.shape[:2], -1, 2).mean(axis=3)
    middle = made.affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0.5], [0, 0, 0, 1]])
    save_volume(folder / "IN.nii.gz", thick.astype(np.float32), middle)
    save_volume(folder / "aparc+aseg.nii.gz", made.dseg, made.affine)
    save_volume(folder / "fastsurfer" / "dseg.nii.gz", made.dseg, made.affine)
    save_volume(folder / "PATH" / "scan.nii.gz", made.T1w, made.affine)
    for row in read_table(HERE / "config" / "openneuro_split.tsv"):
        name = row["participant_id"]
        place = folder / "FOLDER" / name / "anat" / f"{name}_T1w.nii.gz"
        place.parent.mkdir(parents=True)
        place.symlink_to(folder / "T1w.nii.gz")
    dataset = folder / "DATASET"
    for name in ("01", "02"):
        save_volume(dataset / f"sub-{name}" / "anat" / f"sub-{name}_T1w.nii.gz", thick.astype(np.float32), middle)
    (dataset / "dataset_description.json").write_text('{"Name": "made by a test", "BIDSVersion": "1.9.0"}')
    (folder / "data").mkdir()
    (folder / "data" / "my_scans").symlink_to(dataset)  # as config/study.yaml names it
    shutil.copytree(HERE / "config", folder / "config")
    smoke = yaml.safe_load((HERE / "config" / "smoke.yaml").read_text(encoding="utf-8"))
    (folder / "config" / "mine.yaml").write_text(yaml.safe_dump({**smoke, "name": "mine"}))
    for name in ("demo", "mine"):
        (folder / "results" / name).parent.mkdir(exist_ok=True)
        (folder / "results" / name).symlink_to(run)
