"""What FastSurfer shall read: a copy of each volume as it likes them, and its command line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np

from iqt.config import FastSurfer
from iqt.io.batch import run_scans
from iqt.io.files import read_json, write_json
from iqt.io.naming import flat
from iqt.io.volumes import Volume, save_volume
from iqt.parcellate.fastsurfer.command import RunFastSurfer, arguments, inputs_of, refuse_root
from iqt.parcellate.images import Images


def plan_jobs(
    scans: Iterable[str],
    images: Path,
    layout: Literal["anat", "flat"],
    suffix: str,
    cohort: Path,
    program: Path,
    settings: FastSurfer,
    work: Path,
    out: Path,
) -> None:
    """Write the volumes to read into `work/inputs/` and the jobs to `out`.

    Reference and results are handed over alike: on the intensity scale, 0 outside the brain mask, float32 without a
    slope (an integer header with one makes FastSurfer skip its rescaling). A scan that has no volume leaves its reason
    in `work/inputs/<scan>.json` and no job.

    Args:
        program: JSON that `program.probe` found where FastSurfer runs.

    Raises:
        UserError: the program would refuse root.
        StopError: it does not know an option that is needed.
    """
    found = read_json(program)
    refuse_root(settings)
    source = Images(images, layout, suffix, cohort)
    inputs, subjects = (work / "inputs").absolute(), (work / "subjects").absolute()
    jobs = {}

    def prepare(scan: str) -> dict:
        volume, mask = source.read(scan)
        image = flat(inputs, scan, f"{suffix}.nii.gz")
        data = np.where(mask, volume.data, 0).astype(np.float32)
        save_volume(image, data, volume.affine)
        command = RunFastSurfer(found["options"], **inputs_of(settings, image, scan, subjects))
        command._version = found["version"]
        jobs[scan] = {
            "image": str(image),
            "sha256": _fingerprint(volume._replace(data=data)),
            "folder": str(subjects / scan),
            "record": str(subjects / f"{scan}.json"),
            "options": arguments(command),
            "version": found["version"],
        }
        return {}

    run_scans(scans, lambda scan: flat(inputs, scan, "input.json"), lambda _: [], prepare)
    write_json(out, {"jobs": jobs})


def _fingerprint(volume: Volume) -> str:
    return hashlib.sha256(volume.data.tobytes() + volume.affine.tobytes()).hexdigest()
