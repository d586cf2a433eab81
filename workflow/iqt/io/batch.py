"""Running a stage over a list of scans: one failing scan is recorded and never stops the others.

Every volume has a JSON sidecar, which is what the rules declare as output. Its `status` is `ok` or the reason why there
is no volume.
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from iqt.compute.free import out_of_memory
from iqt.errors import MachineError, StopError, UserError
from iqt.io.files import DISK, read_json, read_table, sweep, write_json

OK = "ok"
MEMORY = "wants more memory than this job has"
"""How the status of a scan begins that may work elsewhere: it says nothing of what was to be done with it."""

UNFORESEEN = "unforeseen"
"""Key of a sidecar whose scan failed by an error that is no sentence for a user: the machine's, or a fault of ours."""


def read_list(path: str | Path, split: str | None = None) -> list[str]:
    """Scan names in a list (TSV with `scan` and `split`), all of them or one split's."""
    rows = read_table(path, required=("scan", "split"))
    return [row["scan"] for row in rows if split in (None, row["split"])]


def allow_missing(failed: Mapping[str, str], total: int, share: float) -> None:
    """StopError that lists the failed scans and why, where they are more than a share of all."""
    if len(failed) <= share * total:
        return
    listed = "".join(f"\n  {scan}: {reason}" for scan, reason in list(failed.items())[:10])
    more = f"\n  and {len(failed) - 10} more" if len(failed) > 10 else ""
    raise StopError(
        f"{len(failed)} of {total} scans of the cohort failed, more than cohort.max_missing = {share:g} allows; put "
        f"them right, name other people, or raise it:{listed}{more}"
    )


def status_of(sidecar: str | Path) -> str:
    """`ok` or the reason recorded in a sidecar."""
    return status_in(read_json(sidecar))


def status_in(record: Mapping) -> str:
    """`ok` or the reason in a sidecar's content."""
    return str(record.get("status", "its sidecar records no status"))


def is_the_machines(record: Mapping) -> bool:
    """Whether a sidecar's failure says nothing of the scan: memory was short, or nobody had foreseen the error."""
    return bool(record.get(UNFORESEEN)) or str(record.get("status", "")).startswith(MEMORY)


def require_ok(sidecar: str | Path, stage: str) -> dict:
    """The content of an earlier stage's sidecar; UserError `<stage>: <reason>` where it failed on this scan."""
    try:
        record = read_json(sidecar)
    except UserError as error:
        raise UserError(f"{stage}: {error}") from None
    if record.get("status") != OK:
        raise UserError(f"{stage}: {record.get('status', f'{sidecar} records no status')}")
    return record


def warnings_of(*records: Mapping) -> list[str]:
    """What the sidecars of earlier stages warn of, each sentence once, for the sidecar of what comes of them."""
    return list(dict.fromkeys(text for record in records for text in record.get("warnings", ())))


def run_scans(
    scans: Iterable[str],
    sidecar: Callable[[str], Path],
    outputs: Callable[[str], list[Path]],
    work: Callable[[str], dict],
) -> None:
    """Call `work` for each scan and write its sidecar: `status: ok` and what `work` returned, or the reason.

    `outputs` names the volumes that `work` writes: what an earlier run left there is removed first, so that a scan
    that fails has no data. What wants too much memory is one scan, and fails alone; a full disk and the like are not a
    scan's fault and do stop the command.
    """
    scans = list(scans)
    sweep(path for scan in scans for path in (sidecar(scan), *outputs(scan)))
    for number, scan in enumerate(scans, start=1):
        for path in outputs(scan):
            path.unlink(missing_ok=True)
        unforeseen = {}
        try:
            record = {"status": OK, **work(scan)}
        except Exception as error:  # whatever it is, it is this scan's
            if _stops(error):
                raise
            if out_of_memory(error):
                reason = (
                    f"{MEMORY} ({str(error) or 'no size is known'}); delete {sidecar(scan)} and run again with more"
                )
            elif isinstance(error, UserError):
                reason, unforeseen = str(error), {UNFORESEEN: True} if isinstance(error, MachineError) else {}
            else:
                reason, unforeseen = f"{type(error).__name__}: {error}", {UNFORESEEN: True}
                traceback.print_exc()
            for path in outputs(scan):
                path.unlink(missing_ok=True)
            record = {"status": " ".join(reason.split()) or type(error).__name__, **unforeseen}
        write_json(sidecar(scan), record)
        print(f"[{number}/{len(scans)}] {scan}: {record['status']}", file=sys.stderr, flush=True)


def _stops(error: Exception) -> bool:
    """Whether an error meets every scan that follows: a full disk, say, or a GPU that has failed."""
    full = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, *DISK}
    if isinstance(error, RuntimeError):
        return "CUDA error" in str(error)
    return isinstance(error, StopError) or (isinstance(error, OSError) and error.errno in full)
