"""FSL FAST, through nipype: the command is built and run here, and what it wrote is read by `classify`.

This runs in an environment that holds FSL; everything else of the simulator needs none.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from iqt.config import FAST
from iqt.errors import UserError
from iqt.io import batch
from iqt.io.files import replacing
from iqt.io.naming import anat, flat
from iqt.io.volumes import read_on_grid, read_volume, save_volume

IMAGE_TYPES = {"T1w": 1, "T2w": 2}
"""FAST's number of a contrast (-t)."""
MAPS = tuple(f"pve_{number}.nii.gz" for number in range(3))


def run_fast(scans: Iterable[str], cohort: Path, out: Path, suffix: str, settings: FAST) -> None:
    """Segment each scan of a cohort by FAST: `out/<scan>_fast_pve_{0,1,2}.nii.gz` and `out/<scan>_fast.json`.

    The sidecar holds the command and its exit status; a scan on which FAST fails is recorded and stops nothing.

    Raises:
        UserError: FAST is not installed, or has no setting for the contrast.
    """
    if suffix not in IMAGE_TYPES:
        raise UserError(f"tissues.engine: fast knows {', '.join(IMAGE_TYPES)}, not {suffix}; choose labels or hmrf")
    if shutil.which("fast") is None:
        raise UserError(
            "tissues.engine: fast needs FSL, and its program `fast` is not on PATH; run with --use-conda "
            "(envs/fsl.yaml), or choose labels or hmrf"
        )

    def work(scan: str) -> dict:
        batch.require_ok(anat(cohort, scan, f"{suffix}.json"), "cohort")
        volume = read_volume(anat(cohort, scan, f"{suffix}.nii.gz"))
        mask = read_on_grid(anat(cohort, scan, "desc-brain_mask.nii.gz"), volume, np.uint8)
        # nipype does not quote the input's path, which may hold blanks in a user's folders.
        with tempfile.TemporaryDirectory(prefix="iqt-") as folder:
            brain, base = Path(folder, f"{scan}_brain.nii.gz"), Path(folder, scan)
            save_volume(brain, volume.data * (mask > 0), volume.affine)
            facts = run_command(brain, base, suffix, settings)
            for name, path in zip(MAPS, maps_of(out, scan), strict=True):
                with replacing(path) as temporary:
                    shutil.copyfile(f"{base}_{name}", temporary)
        return facts

    def outputs(scan: str) -> list[Path]:
        return maps_of(out, scan)

    batch.run_scans(scans, lambda scan: flat(out, scan, "fast.json"), outputs, work)


def maps_of(folder: Path, scan: str) -> list[Path]:
    """The partial-volume maps of a scan, in FAST's order."""
    return [flat(folder, scan, f"fast_{name}") for name in MAPS]


def command(brain: Path, basename: Path, suffix: str, settings: FAST):
    """nipype's interface with every option set; its `cmdline` is what will be run."""
    os.environ.setdefault("NO_ET", "1")  # no call home
    from nipype.interfaces.fsl import FAST as Interface

    return Interface(
        in_files=[str(Path(brain).resolve())],
        out_basename=str(Path(basename).resolve()),
        img_type=IMAGE_TYPES[suffix],
        number_classes=3,
        hyper=settings.hyper,
        bias_iters=settings.iterations,
        bias_lowpass=settings.bias_field_fwhm,
        output_type="NIFTI_GZ",
    )


def run_command(brain: Path, basename: Path, suffix: str, settings: FAST) -> dict:
    """Run FAST, which writes `basename`_pve_0.nii.gz and others.

    Returns:
        The command and its exit status.

    Raises:
        UserError: it failed, or did not write its maps.
    """
    interface = command(brain, basename, suffix, settings)
    interface.terminal_output = "allatonce"
    interface.ignore_exception = True  # the exit status is recorded, not raised
    result = interface.run()
    status = getattr(result.runtime, "returncode", None)
    wanted = [Path(f"{basename}_{name}") for name in MAPS]
    if status != 0:
        last = " ".join(f"{result.runtime.stderr} {result.runtime.stdout}".split())[-300:]
        raise UserError(f"FAST ended with exit status {status}: {last}. Its command: {interface.cmdline}")
    absent = [path.name for path in wanted if not path.is_file()]
    if absent:
        raise UserError(f"FAST ended well but did not write {', '.join(absent)}. Its command: {interface.cmdline}")
    return {"command": interface.cmdline, "exit_status": status}
