"""The installed program: where `run_fastsurfer.sh` is, which version, and which options it knows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from iqt.errors import UserError

SCRIPT = "run_fastsurfer.sh"
IN_IMAGE = "/fastsurfer"
"""Its folder in its own container images."""
PATIENCE_S = 300
"""Seconds for --version and --help, which in a container on a network disk can take a while."""


def find_program(home: str | None) -> Path:
    """`run_fastsurfer.sh` in `home`, else in the folder that FASTSURFER_HOME names, else on PATH.

    Raises:
        UserError: there is none in any of them, or what is there cannot be run.
    """
    # In a container only what the image brings counts: the host's folders are not there.
    inside = "APPTAINER_CONTAINER" in os.environ or "SINGULARITY_CONTAINER" in os.environ
    if inside and Path(IN_IMAGE, SCRIPT).is_file():
        home = IN_IMAGE
    named = home or os.environ.get("FASTSURFER_HOME")
    if named:
        whence = "parcellate.fastsurfer.home" if home else "FASTSURFER_HOME"
        script = Path(named).expanduser().absolute() / SCRIPT
        if not script.is_file():
            raise UserError(f"{whence} = {named}: holds no {SCRIPT}; name the folder that FastSurfer was unpacked to")
    else:
        found = shutil.which(SCRIPT)
        if found is None:
            raise UserError(
                f"{SCRIPT} was not found: install FastSurfer and set FASTSURFER_HOME to its folder, or run with "
                "--sdm apptainer, or choose parcellate.engine: builtin"
            )
        script = Path(found).absolute()
    if not os.access(script, os.X_OK):
        raise UserError(f"{script}: is not executable; run chmod +x on it")
    return script


def probe(script: Path) -> dict:
    """`version` (text) and `options` (the long options that --help lists).

    Raises:
        UserError: the program does not answer, or cannot run its segmentation alone (--seg_only), as before 2020.
    """
    options = sorted(set(re.findall(r"--[A-Za-z0-9][A-Za-z0-9_]*", _answer(script, "--help"))))
    if "--seg_only" not in options:
        raise UserError(f"{script}: its --help lists no --seg_only, so it is no FastSurfer that this version can use")
    version = _answer(script, "--version") if "--version" in options else ""
    found = re.search(r"\d+\.\d+\S*", version)
    return {"version": found[0] if found else "unknown", "options": options}


def environment(script: Path) -> dict[str, str]:
    """The variables that the script runs with: its own home, and none of this package's Python path."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "FASTSURFER_HOME": str(script.parent)}


def _answer(script: Path, option: str) -> str:
    try:
        done = subprocess.run(
            [str(script), option],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env=environment(script),
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{script} {option}: {error}; does it run in a terminal?") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-300:]
        raise UserError(f"{script} {option}: exit code {done.returncode} ({said}); does it run in a terminal?")
    return done.stdout + done.stderr
