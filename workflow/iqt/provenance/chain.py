"""From a result back to the files that no rule made."""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from iqt.errors import UserError
from iqt.io import files
from iqt.io.naming import SCAN_PATTERN
from iqt.provenance.records import Record, find_workdir, read_records

CODE = "workflow/iqt/"
"""Below this folder lies the package, whose files are inputs too, so that an edit reruns what depends on it."""


@dataclass
class Step:
    """A rule on the way, with those of its outputs that the result came from."""

    rule: str
    outputs: list[str] = field(default_factory=list)
    reads: set[str] = field(default_factory=set)
    """The rules whose outputs this one read."""


@dataclass
class Chain:
    """How a result came to be. Paths are as the workflow names them."""

    workdir: Path
    steps: list[Step]
    """From the result back."""
    sources: dict[str, str]
    """Path of a file that no rule made, or that a sidecar names as its source, and its SHA-256."""
    code: list[str]
    """The package's files that the steps ran."""


def trace(result: Path) -> Chain:
    """The chain behind a file of a finished run, or behind everything in a folder.

    An output that names one scan comes from that scan's inputs and from those that name none: a batch's scans share a
    job and nothing else.

    Raises:
        UserError: the file does not exist, or Snakemake has no record of it.
    """
    if not result.exists():
        raise UserError(f"{result}: no such file or folder; name a result such as results/demo/report.html")
    # A results folder may be a link to another disk, and a result a link to another run's.
    result = next((path for path in (result.absolute(), result.resolve()) if find_workdir(path)), result)
    workdir = find_workdir(result)
    records = read_records(workdir) if workdir else {}
    if not records:
        raise UserError(
            f"{result}: Snakemake's records (.snakemake beside results/) are not here; provenance.json in the run's "
            "folder tells what was recorded when it was made"
        )
    return walk(workdir, records, _starts(result.absolute().relative_to(workdir), workdir, records))


def walk(workdir: Path, records: Mapping[str, Record], starts: list[str]) -> Chain:
    """Follow the records from `starts` back, nearest first."""
    steps: dict[str, Step] = {}
    sources: dict[str, str] = {}
    code: set[str] = set()
    seen, waiting = set(starts), deque(starts)
    while waiting:
        path = waiting.popleft()
        record = records[path]
        step = steps.setdefault(record.rule, Step(record.rule))
        step.outputs.append(path)
        sources |= _named_by(workdir / path)
        for needed in filter(lambda needed: _belongs(needed, path), record.inputs):
            if needed in records:
                step.reads.add(records[needed].rule)
                if needed not in seen:
                    seen.add(needed)
                    waiting.append(needed)
            elif CODE in needed:
                code.add(needed)
            elif needed not in sources:
                sources[needed] = checksum(workdir / needed)
    return Chain(workdir, list(steps.values()), dict(sorted(sources.items())), sorted(code))


def describe(chain: Chain, shown: int | None = 3) -> str:
    """The chain as a person reads it; of a step's files, the first `shown` (all for None) with their checksums."""
    lines = []
    for step in chain.steps:
        lines.append(f"{step.rule}" + (f"  <-  {', '.join(sorted(step.reads))}" if step.reads else ""))
        lines += [f"    {path}  sha256 {checksum(chain.workdir / path)}" for path in step.outputs[:shown]]
        if shown is not None and len(step.outputs) > shown:
            lines.append(f"    and {len(step.outputs) - shown} more (--all lists them)")
    lines.append("source files")
    lines += [f"    {path}  sha256 {digest}" for path, digest in chain.sources.items()]
    if chain.code:
        lines.append(f"    iqt's own code, {len(chain.code)} files  sha256 {code_checksum(chain)}")
    return "\n".join(lines)


def code_checksum(chain: Chain) -> str:
    """SHA-256 over the names (from the package's folder on) and checksums of the code that ran."""
    digest = hashlib.sha256()
    for path in chain.code:
        digest.update(f"{path.split(CODE, 1)[1]} {checksum(chain.workdir / path)}\n".encode())
    return digest.hexdigest()


def checksum(path: Path) -> str:
    """SHA-256 of a file, or why there is none."""
    try:
        return files.checksum(path)
    except OSError as error:
        return f"not readable now ({error.strerror})"


def _starts(result: Path, workdir: Path, records: Mapping[str, Record]) -> list[str]:
    """The recorded outputs that a file or folder stands for; a volume is recorded through its sidecar."""
    name = str(result)
    if name in records:
        return [name]
    if (workdir / result).is_dir():
        inside = [path for path in records if path.startswith(f"{name}/")]
        if inside:
            return inside
        raise UserError(f"{result}: Snakemake made nothing in this folder that it has a record of")
    scan = re.match(SCAN_PATTERN, result.name)
    beside = [path for path in records if scan and Path(path).parent == result.parent and _scan(path) == scan.group()]
    if not beside:
        raise UserError(f"{result}: Snakemake has no record of this file; name one that the workflow wrote")
    # The sidecar of a map (desc-sd, probseg) is the scan's own.
    return [min(beside, key=lambda path: (Path(path).name.split(".")[0] != result.name.split(".")[0], path))]


def _belongs(needed: str, output: str) -> bool:
    ours, theirs = _scan(output), _scan(needed)
    return ours is None or theirs is None or ours == theirs


def _scan(path: str) -> str | None:
    """The scan that a file's name stands for; figures end in theirs."""
    found = re.search(rf"(?:^|[_-]){SCAN_PATTERN}", Path(path).name)
    return found.group().lstrip("_-") if found else None


def _named_by(sidecar: Path) -> dict[str, str]:
    """Name and SHA-256 of what a sidecar says it was made from, where that is no file of the workflow: the template's
    `sources`, and `files` of a scan that was fetched."""
    if sidecar.suffix != ".json":
        return {}
    try:
        record = json.loads(sidecar.read_text(encoding="utf-8"))
        fetched = {file["source"]: file["sha256"] for file in record.get("files", {}).values()}
        return {**record.get("sources", {}), **fetched}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):  # not a record of the kind
        return {}
