"""What a task of a second costs on Slurm alone, in an array, in a group and in a batch: `batching.py` (root, Slurm).

Prints a table for docs/cluster.md. Uses the one-node Slurm of tests/slurm, so start-up is real and waiting for a free
node is not in it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "slurm"))

from cluster import cluster, missing  # noqa: E402

TASKS, MANY = 16, 4
SNAKEFILE = """
tasks = range(config["tasks"])
rule all:
    input: expand("out/{{task}}", task=tasks)
rule work:
    output: "out/{{task}}"
    resources: mem_mb=100, runtime=5
    shell: "sleep {seconds}; touch {{output}}"
"""
WAYS = {
    "a job each": (TASKS, 1, []),
    "one array": (TASKS, 1, ["--slurm-array-jobs", "work"]),
    "groups of four": (TASKS, 1, ["--groups", "work=g", "--group-components", f"g={MANY}"]),
    "batches of four": (TASKS // MANY, MANY, []),
}
"""Tasks, seconds of each, options."""


def main() -> None:
    if reason := missing():
        sys.exit(reason)
    print(f"| {TASKS} tasks of 1 s | Slurm jobs | s | s of start-up a task |\n| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as scratch, cluster(Path(scratch) / "slurm", ["cpu"], cpus=4) as slurm:
        for number, (way, (tasks, seconds, options)) in enumerate(WAYS.items()):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            (folder / "Snakefile").write_text(SNAKEFILE.format(seconds=seconds))
            before = len(slurm.ledger())
            command = [str(Path(sys.executable).with_name("snakemake")), "--executor", "slurm", "--jobs", "100"]
            command += [
                "--config",
                f"tasks={tasks}",
                "--default-resources",
                "slurm_partition=cpu",
                "--latency-wait",
                "5",
            ]
            command += ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1"]
            command += ["--latency-wait", "5"]
            command += ["--seconds-between-status-checks", "1", *options]
            start = time.monotonic()
            done = subprocess.run(command, cwd=folder, env=slurm.environment, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr[-3000:])
            jobs = slurm.ledger()[before:]
            spent = sum(job.seconds for job in jobs)
            print(
                f"| {way} | {len(jobs)} | {time.monotonic() - start:.0f} | {(spent - TASKS) / TASKS:.1f} |", flush=True
            )


if __name__ == "__main__":
    main()
