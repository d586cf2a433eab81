"""A real Slurm of one node on loopback, with two pretended GPUs, for as long as a test needs it.

Debian's slurm-wlm and munge under a folder of their own: munge's key and socket, configuration, state and logs.
Nothing outside that folder is written, and /etc/slurm is neither read nor touched, since every command gets SLURM_CONF.
There is no accounting database: the ledger is the controller's own record of its jobs, and a prolog and an epilog note
which GPUs each had from when to when.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun", "sinfo")
GPUS = 2


def missing() -> str:
    """Why no cluster can be started here, and what to do; empty where one can."""
    absent = [name for name in NEEDED if not shutil.which(name, path=_path())]
    if absent:
        return f"Slurm is not installed (no {', '.join(absent)}): as root, apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "slurmd starts jobs as their users, so make test-slurm must run as root (a container will do)"
    return ""


@dataclass
class Job:
    """A job as Slurm's controller has it."""

    id: int
    state: str
    partition: str
    minutes: int
    """Time limit."""
    mem_mb: int
    gpus: int
    """GPUs that were allocated."""
    seconds: int
    """How long it ran."""
    comment: str
    """`rule_<name>...`, as the plugin writes it."""


class Cluster:
    """A running Slurm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH", "SNAKEMAKE"))},
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{folder / 'bin'}{os.pathsep}{_path()}",
        }

    def ask(self, *command: str) -> str:
        """Output of a Slurm command."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout

    def queue(self, *states: str) -> list[tuple[int, str]]:
        """(job, comment) of the jobs in the queue, in any of the states where some are named."""
        chosen = [f"--states={','.join(states)}"] if states else []
        lines = self.ask("squeue", "--noheader", "--format=%i|%k", *chosen).splitlines()
        return [(int(line.split("|")[0]), line.split("|", 1)[1]) for line in lines]

    def ledger(self) -> list[Job]:
        """Every job there has been, in the order of submission."""
        lines = self.ask("scontrol", "--details", "--oneliner", "show", "job").splitlines()
        return sorted((_job(line) for line in lines if line.startswith("JobId=")), key=lambda job: job.id)

    def gpu_times(self) -> list[tuple[int, str, float, float]]:
        """(job, GPU, start, end) of every GPU of every finished job, as prolog and epilog noted them."""
        starts: dict[tuple[int, str], float] = {}
        found = []
        for line in (self.folder / "gpus.txt").read_text().splitlines():
            what, job, gpus, when = line.split("|")
            for gpu in filter(None, gpus.split(",")):
                if what == "start":
                    starts[int(job), gpu] = float(when)
                else:
                    found.append((int(job), gpu, starts.pop((int(job), gpu)), float(when)))
        return found


@contextlib.contextmanager
def cluster(folder: Path, partitions: list[str], cpus: int = 6, mem_mb: int = 64_000) -> Iterator[Cluster]:
    """Start Slurm in `folder` and stop it afterwards, whatever happens.

    CPUs and memory are what is scheduled, not what the machine has; neither is enforced, since there are no cgroups.
    The report's drawings, one job, ask for five CPUs.
    """
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    _configure(folder, partitions, cpus, mem_mb)
    running = Cluster(folder)
    host = _host()
    munge = folder / "munge"
    try:
        for command in (
            [
                *("munged", "--force", f"--socket={folder}/munge.sock", f"--key-file={munge}/key"),
                *(f"--pid-file={munge}/munged.pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed"),
            ],
            ["slurmctld", "-f", f"{folder}/slurm.conf", "-c"],
            ["slurmd", "-f", f"{folder}/slurm.conf", "-N", host],
        ):
            done = subprocess.run(command, env=running.environment, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{command[0]} does not start: {done.stdout}{done.stderr}")
        _wait(lambda: set(running.ask("sinfo", "--noheader", "--format=%t").split()) == {"idle"}, 30, running)
        yield running
    finally:
        for path in (folder / "slurmd.pid", folder / "slurmctld.pid", munge / "munged.pid"):
            _stop(path)


def _job(line: str) -> Job:
    fields = dict(re.findall(r"(\S+?)=(\S*)", line))
    amount, unit = re.search(r"mem=([\d.]+)([MG])", fields["TRES"]).groups()
    return Job(
        id=int(fields["JobId"]),
        state=fields["JobState"],
        partition=fields["Partition"],
        minutes=_seconds(fields["TimeLimit"]) // 60,
        mem_mb=round(float(amount) * {"M": 1, "G": 1024}[unit]),
        gpus=int(fields["JOB_GRES"].removeprefix("gpu:")) if fields.get("JOB_GRES", "(null)") != "(null)" else 0,
        seconds=_seconds(fields["RunTime"]),
        comment=fields.get("Comment", ""),
    )


def _seconds(text: str) -> int:
    """Slurm's days-hours:minutes:seconds as seconds."""
    parts = [int(part) for part in re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text).groups(default="0")]
    return ((parts[0] * 24 + parts[1]) * 60 + parts[2]) * 60 + parts[3]


def _configure(folder: Path, partitions: list[str], cpus: int, mem_mb: int) -> None:
    host = _host()
    (folder / "munge").mkdir(mode=0o700)
    (folder / "munge" / "key").write_bytes(secrets.token_bytes(1024))
    (folder / "munge" / "key").chmod(0o600)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    controller, daemon = _free_ports(2)
    lines = [
        "ClusterName=test",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={controller}",
        f"SlurmdPort={daemon}",
        "SlurmUser=root",
        "SlurmdUser=root",
        f"AuthInfo=socket={folder}/munge.sock",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"SlurmdPidFile={folder}/slurmd.pid",
        f"SlurmctldLogFile={folder}/slurmctld.log",
        f"SlurmdLogFile={folder}/slurmd.log",
        "CommunicationParameters=NoAddrCache",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/none",
        "AccountingStorageType=accounting_storage/none",
        f"Prolog={folder}/start.sh",
        f"Epilog={folder}/end.sh",
        "MpiDefault=none",
        "SwitchType=switch/none",
        "ReturnToService=2",
        "SchedulerParameters=sched_interval=1,bf_interval=2",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        "MinJobAge=36000",  # the ledger must outlast the tests
        "KillWait=2",  # seconds between SIGTERM and SIGKILL for a job over its time
        "GresTypes=gpu",
        "SlurmdParameters=config_overrides",
        f"NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={mem_mb} Gres=gpu:{GPUS} State=UNKNOWN",
        *(f"PartitionName={name} Nodes={host} MaxTime=INFINITE State=UP" for name in partitions),
    ]
    (folder / "slurm.conf").write_text("\n".join(lines) + "\n")
    devices = ["/dev/null", "/dev/zero"]
    gres = [f"NodeName={host} Name=gpu File={device}\n" for device in devices[:GPUS]]
    (folder / "gres.conf").write_text("".join(gres))
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    # The plugin's job step strips SLURM_CONF from the environment of srun, which then looks in /etc/slurm.
    (folder / "bin").mkdir()
    _script(folder / "bin" / "srun", f'SLURM_CONF={folder}/slurm.conf exec {shutil.which("srun", path=_path())} "$@"')
    for name, what in (("start.sh", "start"), ("end.sh", "end")):
        _script(folder / name, f'echo "{what}|$SLURM_JOB_ID|$SLURM_JOB_GPUS|$(date +%s.%N)" >>{folder}/gpus.txt')


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def _wait(condition, seconds: float, running: Cluster) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(subprocess.CalledProcessError):
            if condition():
                return
        time.sleep(0.2)
    logs = "".join(path.read_text()[-2000:] for path in running.folder.glob("slurm*.log"))
    raise RuntimeError(f"Slurm is not ready after {seconds} s:\n{logs}")


def _stop(pid_file: Path) -> None:
    with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
        pid = int(pid_file.read_text())
        os.kill(pid, 15)
        for _ in range(100):
            os.kill(pid, 0)
            time.sleep(0.1)
        os.kill(pid, 9)


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]


def _host() -> str:
    return socket.gethostname().split(".")[0]


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
