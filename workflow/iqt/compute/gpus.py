"""Which of this machine's GPUs a job takes, so that jobs that run side by side never meet on one.

Snakemake counts GPUs (`--resources gpu=N`) but hands none out: each job would take the first. So a job claims a card
with a lock that the system drops when the job ends, however it ends. On a cluster the scheduler hands cards out, and
nothing is claimed here.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from iqt.errors import UserError
from iqt.terminal import note

JOBS = "IQT_GPU_JOBS"
"""Variable in which a local run tells its jobs N of `--resources gpu=N`: more than there are cards asks for sharing.
Where it is set, cards are claimed also in an allocation of a scheduler."""
CLAIMED = "IQT_GPUS_CLAIMED"
"""Variable that a job sets for the processes it starts, which use its cards."""
SHARING = "IQT_GPU_SHARING"
"""Variable in which it tells them how many jobs share a card."""
WAIT_S = 2.0

_held: list[IO[str]] = []


def visible_gpus() -> list[str]:
    """Ids of the GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, else all that the driver lists."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [part for part in (part.strip() for part in chosen.split(",")) if part and part != "-1"]
    return _installed()


def _installed() -> list[str]:
    """UUIDs of the machine's GPUs, in the driver's order."""
    try:
        done = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"^GPU \d+:.*\(UUID: (\S+)\)", done.stdout, re.MULTILINE) if done.returncode == 0 else []


def claim_gpus(number: int = 1) -> list[str]:
    """Claim `number` GPUs for this process and make them the only visible ones; waits while others have them.

    Call it before CUDA is first used. Where the machine has none, or a scheduler has handed them out, nothing happens.

    Raises:
        UserError: there are GPUs, but fewer than `number`.
    """
    cards = visible_gpus()
    by_slurm = "SLURM_JOB_ID" in os.environ and JOBS not in os.environ  # not so for a local run in an allocation
    if not cards or by_slurm or CLAIMED in os.environ:
        return cards
    if number > len(cards):
        raise UserError(f"{number} GPUs are asked for and {len(cards)} are visible; lower compute.gpus")
    # By the same name, however the variable of this or another run calls a card.
    installed = _installed()
    names = {card: installed[int(card)] if card.isdigit() and int(card) < len(installed) else card for card in cards}
    said = False
    while True:
        mine = _try(names, number)
        if mine:
            break
        if not said:
            note("waiting for a GPU that no other job uses")
            said = True
        time.sleep(WAIT_S)
    sharing = str(jobs_per_card(len(names)))
    os.environ.update({"CUDA_VISIBLE_DEVICES": ",".join(mine), CLAIMED: "1", SHARING: sharing})
    return mine


def _try(names: Mapping[str, str], number: int) -> list[str]:
    """Claim `number` different cards of `names` (id to UUID), the emptiest first; none where that many are not free."""
    mine: dict[str, IO[str]] = {}
    for place in range(jobs_per_card(len(names))):
        for card, name in names.items():
            if card not in mine and len(mine) < number and (handle := _lock(name, place)):
                mine[card] = handle
    if len(mine) < number:
        for handle in mine.values():
            handle.close()
        return []
    _held.extend(mine.values())
    return list(mine)


def share_of_a_card() -> float:
    """What part of its card this process may count on: other jobs of the run may have claimed it too."""
    return 1 / int(os.environ.get(SHARING, "1"))


def jobs_per_card(cards: int) -> int:
    """Jobs that share a card, where a run asks for more of them than there are cards."""
    asked = os.environ.get(JOBS, "")
    return -(-max(cards, int(asked)) // cards) if asked.isdigit() else 1


def _lock(card: str, place: int) -> IO[str] | None:
    name = re.sub(r"\W", "_", card)
    path = Path(tempfile.gettempdir()) / f"iqt-gpu-{os.getuid()}-{name}-{place}.lock"
    handle = path.open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    except OSError:
        pass  # a file system without locks: nothing can be claimed, and nobody waits
    return handle
