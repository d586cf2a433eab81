"""`iqt study`: the workflow of a study, run by Snakemake."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from iqt.compute.free import free_bytes
from iqt.compute.gpus import visible_gpus
from iqt.config.study import Study, parse_study
from iqt.errors import UserError
from iqt.io.batch import OK
from iqt.io.claim import CLAIM, claim
from iqt.io.files import PARTIAL, read_json, write_json
from iqt.io.naming import STUDY, is_study
from iqt.io.shipped import is_own_model
from iqt.planning.progress import FIRST_GUESS, about
from iqt.study.results import Results
from iqt.study.scans import StudyScan, find_scans
from iqt.terminal import LEVEL, detail

SNAKEFILE = Path(__file__).with_name("Snakefile")
PROFILE = "SNAKEMAKE_PROFILE"
"""Names a profile of Snakemake, as for a cluster, whose machines have memory of their own."""


def run_study(
    settings: dict[str, Any], cores: int | None, dry_run: bool = False, force: bool = False, scans_alone: bool = False
) -> None:
    """Run a study, or with `dry_run` say what it would do; with `scans_alone` without tables and page.

    Raises:
        UserError: there is nothing to enhance, the folder of the results holds something else, Snakemake is not
            installed, it failed, or no scan could be enhanced.
    """
    # Snakemake runs in the folder of the results, from where a relative path would lead elsewhere.
    paths = {key: settings[key] for key in ("dataset", "out")}
    if settings.get("model") and is_own_model(settings["model"]):  # else the name of one that ships
        paths["model"] = settings["model"]
    study = parse_study(settings | {key: os.path.abspath(path) for key, path in paths.items()})
    out = Path(study.out)
    _require_own(out, study, force)
    scans, left_out = find_scans(study)
    if find_spec("snakemake") is None:
        raise UserError("iqt study needs Snakemake: pip install 'iqt[workflow]'")
    if dry_run:
        left = _left(study) if is_study(out) else len(scans)
        print(_told(study, scans, left, len(left_out), cores or len(os.sched_getaffinity(0))))
        return
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / STUDY, _written(study))
    arguments = ["--cores", str(cores or "all"), "--rerun-incomplete", "--keep-going"]
    arguments += ["every_scan"] if scans_alone else []
    arguments += ["--quiet", "all"] if os.environ.get(LEVEL) == "quiet" else ["--logger", "iqt"]
    # No more scans at once than this machine's memory holds, whatever the number of cores.
    limits = {} if PROFILE in os.environ else {"mem_mb": _free_mb()}
    gpus = visible_gpus()
    limits |= {"gpu": len(gpus)} if gpus else {}
    arguments += ["--resources", *(f"{name}={value}" for name, value in limits.items())] if limits else []
    with _snakemake(study, arguments, out / STUDY.parent) as command:
        detail(shlex.join(command))
        named = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        done = subprocess.run(command, env=os.environ | {"IQT_STUDY_COMMAND": named}, check=False)
    if done.returncode:
        raise UserError(
            f"the study is not finished; what failed is said above, and in {out}/logs. Run it again to go on"
        )
    failed = {scan.name: status for scan in scans if (status := _status(study, scan)) != OK}
    page = f": {out}/study.html" if not scans_alone else ""
    print(f"{len(scans) - len(failed)} of {len(scans)} scans enhanced{page}")
    for name, status in failed.items():
        print(f"  {name}: {status}")
    if len(failed) == len(scans):
        raise UserError(f"none of the {len(scans)} scans could be enhanced; the reasons are above")


def _require_own(out: Path, study: Study, force: bool) -> None:
    """UserError where the results would lie among a user's files."""
    dataset = Path(study.dataset)
    if out.is_file():
        raise UserError(f"{out}: is a file; name a folder for the results")
    if out == dataset or out in dataset.parents:
        raise UserError(f"{out}: holds the dataset, which is never written to; name another folder for the results")
    if force or not out.is_dir():
        return
    if is_study(out):
        before = read_json(out / STUDY).get("study", {})
        for key, now in (("suffix", study.suffix), ("dataset", study.dataset)):
            was = before.get(key, now)
            if was != now and (key != "dataset" or os.path.realpath(was) != os.path.realpath(now)):
                raise UserError(
                    f"{out}: holds the results of another study, whose {key} was {was} and is {now} now; name "
                    "another folder, or let this one take its place with --force"
                )
    elif any(out.iterdir()):
        raise UserError(f"{out}: holds something else than a study; name another folder, or --force")


def _status(study: Study, scan: StudyScan) -> str:
    record = Results.of(Path(study.out), scan, study.suffix).record
    return str(read_json(record).get("status")) if record.is_file() else "not done"


def _free_mb() -> int:
    """Memory that is free here, in MB; more than any machine has where that is not known."""
    return int(min(free_bytes() / 1e6, 1e9))


def _written(study: Study) -> dict[str, Any]:
    """The configuration that the Snakefile reads."""
    return {"study": study.model_dump(mode="json")}


@contextlib.contextmanager
def _snakemake(study: Study, arguments: Sequence[str], where: Path | None = None) -> Iterator[list[str]]:
    """Snakemake's command, with a configuration of its own, below `where`: participants of a BIDS App may run side by
    side."""
    for stale in where.glob(f"{PARTIAL}*/{CLAIM}") if where else ():
        owner = claim(stale.parent, fcntl.LOCK_EX)
        if owner is not None:  # it was killed
            owner.close()
            shutil.rmtree(stale.parent, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(prefix=PARTIAL if where else "iqt-", dir=where) as folder,
        claim(Path(folder), fcntl.LOCK_SH) or contextlib.nullcontext(),
    ):
        configuration = Path(folder, "study.json")
        write_json(configuration, _written(study))
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--directory", study.out]
        yield [*command, "--configfile", str(configuration), *arguments]


def _left(study: Study) -> int:
    """Scans that Snakemake would enhance: new ones, and those whose files, options, weights or code have changed."""
    with _snakemake(study, ["--cores", "1", "--dry-run", "--rerun-incomplete", "every_scan"]) as command:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"Snakemake cannot plan the study:\n{done.stderr.strip()}")
    counted = re.search(r"^process_scan +(\d+)$", done.stdout + done.stderr, re.MULTILINE)
    return int(counted[1]) if counted else 0


def _told(study: Study, scans: list[StudyScan], left: int, n_left_out: int, cores: int) -> str:
    took = []
    for table in Path(study.out).glob("benchmarks/*.tsv"):
        took.append(float(table.read_text(encoding="utf-8").splitlines()[1].split("\t")[0]))
    each = sum(took) / len(took) if took else FIRST_GUESS["process_scan"]
    words = [f"{len(scans)} {study.suffix} scans, {left} of them to do", f"{n_left_out} files left out"]
    at_once = max(1, min(cores // study.threads, _free_mb() // study.memory_mb))
    words.append(f"{about(left * each / at_once)} on {cores} cores" if left else "nothing to do")
    listed = "".join(f"\n  {scan.name}: {scan.image}" for scan in scans)
    return "; ".join(words) + listed
