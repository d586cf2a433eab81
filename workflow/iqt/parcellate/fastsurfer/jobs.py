"""Running planned FastSurfer jobs, one volume after the other, and recording how each ended."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from iqt.compute.gpus import claim_gpus
from iqt.errors import UserError
from iqt.io.files import read_json, write_json
from iqt.parcellate.fastsurfer.faults import explain, installation_fault
from iqt.parcellate.fastsurfer.program import environment, probe

LABELS = "mri/aparc.DKTatlas+aseg.deep.mgz"


def run_jobs(plan: Path, out: Path, script: Path, threads: int) -> None:
    """Run the jobs of a plan and write to `out` each scan's `exit_code`, `seconds` and, where it failed, `reason`.

    Each volume leaves a record beside its folder, so that a run that was cut off does not repeat what it had finished.
    The input, a copy, is removed once its labels exist.

    Raises:
        UserError: a failure that every volume would meet (root refused, checkpoints missing, no memory), or another
            version than the plan's: with the fix.
    """
    jobs = read_json(plan)["jobs"]
    planned, now = {job["version"] for job in jobs.values()}, probe(script)["version"] if jobs else ""
    if planned - {now}:
        raise UserError(
            f"{script}: is version {now}, but the plan was made with {', '.join(planned - {now})}; delete "
            f"{_program(plan)} and run again, so that everything is read by one version"
        )
    if any("cuda" in job["options"] for job in jobs.values()):
        claim_gpus()
    records = {}
    for number, (scan, job) in enumerate(jobs.items(), start=1):
        records[scan] = _finished(job)
        if records[scan] is None:
            records[scan] = _run(job, script, threads)
        if records[scan]["exit_code"] == 0:
            Path(job["image"]).unlink(missing_ok=True)  # a new plan wrote it again, for jobs that are done too
        print(f"[{number}/{len(jobs)}] {scan}: exit code {records[scan]['exit_code']}", file=sys.stderr, flush=True)
    write_json(out, records)


def _program(plan: Path) -> Path:
    """Where the program's version was recorded before the plan was made, in a folder above it."""
    found = (folder / "program.json" for folder in plan.parents if (folder / "program.json").is_file())
    return next(found, plan.parents[1] / "program.json")


def _finished(job: dict) -> dict | None:
    """The record of an earlier success of the same job, if its labels are still there."""
    path = Path(job["record"])
    if not path.is_file() or not Path(job["folder"], LABELS).is_file():
        return None
    record = read_json(path)
    return record["result"] if record["job"] == job and record["result"]["exit_code"] == 0 else None


def _run(job: dict, script: Path, threads: int) -> dict:
    folder, image, record = Path(job["folder"]), Path(job["image"]), Path(job["record"])
    if not image.is_file():
        raise UserError(f"{image}: no such volume; make the plan again (snakemake --forcerun plan_fastsurfer_...)")
    record.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)  # it refuses to run on top of an earlier result
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.parent / f"{folder.name}.log"
    start = time.monotonic()
    with log.open("w", encoding="utf-8", errors="replace") as handle:
        done = subprocess.run(
            [str(script), *job["options"], "--threads", str(threads)],
            stdout=handle,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment(script),
        )
    result = {"exit_code": done.returncode, "seconds": round(time.monotonic() - start, 1)}
    if done.returncode:
        output = log.read_text(encoding="utf-8", errors="replace")
        fault = installation_fault(done.returncode, output)
        if fault:
            raise UserError(f"FastSurfer failed with exit code {done.returncode}: {fault}; what it said: {log}")
        result["reason"] = explain(done.returncode, output)
    write_json(record, {"job": job, "result": result})
    return result
