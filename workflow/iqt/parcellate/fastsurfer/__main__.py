"""What runs in FastSurfer's environment: `python -m iqt.parcellate.fastsurfer find|run`. Standard library alone."""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from pathlib import Path

from iqt.errors import UserError
from iqt.io.claim import claim
from iqt.io.files import write_json
from iqt.parcellate.fastsurfer.jobs import run_jobs
from iqt.parcellate.fastsurfer.program import find_program, probe


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m iqt.parcellate.fastsurfer", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    find = commands.add_parser("find", help="find run_fastsurfer.sh and record its version and options")
    find.add_argument("--home", help="folder of run_fastsurfer.sh; default: FASTSURFER_HOME, then PATH")
    find.add_argument("--out", type=Path, required=True, help="JSON to write")
    run = commands.add_parser("run", help="run planned jobs and record their exit codes")
    run.add_argument("--home", help="folder of run_fastsurfer.sh; default: FASTSURFER_HOME, then PATH")
    run.add_argument("--jobs", type=Path, required=True, help="JSON that `iqt stage plan-fastsurfer` wrote")
    run.add_argument("--threads", type=int, default=1, help="CPU threads")
    run.add_argument("--out", type=Path, required=True, help="JSON to write")
    arguments = parser.parse_args()
    state = Path(".snakemake")
    job = claim(state, fcntl.LOCK_SH) if os.access(state, os.W_OK) else None  # as `iqt stage` does
    try:
        script = find_program(arguments.home)
        if arguments.command == "find":
            write_json(arguments.out, probe(script))
        else:
            run_jobs(arguments.jobs, arguments.out, script, arguments.threads)
    except UserError as error:
        sys.exit(f"iqt: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        if job is not None:
            job.close()


main()
