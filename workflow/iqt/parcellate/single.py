"""Parcellating a single volume with either engine."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from iqt.config import FastSurfer, Mask
from iqt.errors import UserError
from iqt.imaging.brain_mask import find_brain
from iqt.imaging.checks import mask_problems, scan_problems
from iqt.io.files import write_json
from iqt.io.labels import LabelTable
from iqt.io.naming import beside
from iqt.io.volumes import Volume, intensity_scale, read_mask, read_on_grid, read_volume, save_volume, say_doubts
from iqt.parcellate.reader import ENGINE, load_reader
from iqt.parcellate.volumes import AGREEMENT_ENDING, table_of, write_agreement, write_structures


class Files(NamedTuple):
    """What is read and written: sidecar, look-up table and structure volumes lie beside `out`, and with `against` what
    both label maps agree in."""

    image: Path
    out: Path
    mask: Path | None = None
    """Brain mask with the image's voxels; None to find one."""
    against: Path | None = None
    """Another label map of the same image, on its grid."""


def parcellate_file(files: Files, model: Path, lut: Path | None, precision: str) -> None:
    """Label one volume with a built-in network.

    Args:
        lut: look-up table with the names of the parcellator's labels; None for the shipped one that has them all.

    Raises:
        UserError: a file is not usable, or no structure was found.
    """
    reader = load_reader(model, precision)
    table = table_of(reader.ids) if lut is None else lut
    volume, brain = _read(files)
    start = time.monotonic()
    labels = reader.read(volume, brain)
    record = {"seconds": time.monotonic() - start, "engine": ENGINE, "version": reader.version}
    _save(files, labels, volume, record, table)


def fastsurfer_file(files: Files, lut: Path, table: LabelTable, settings: FastSurfer) -> None:
    """Label one volume with the FastSurfer that is installed.

    Raises:
        UserError: a file is not usable, FastSurfer is not found or failed on the volume, or no structure was found.
    """
    from iqt.parcellate.fastsurfer.command import RunFastSurfer, inputs_of, refuse_root
    from iqt.parcellate.fastsurfer.faults import explain, installation_fault
    from iqt.parcellate.fastsurfer.program import find_program
    from iqt.parcellate.fastsurfer.read import ENGINE as NAME
    from iqt.parcellate.fastsurfer.read import labels_on_grid

    script = find_program(settings.home)
    refuse_root(settings)
    volume, brain = _read(files)
    out, image = files.out, files.image
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fastsurfer-", dir=out.parent) as folder:
        masked = Path(folder, "input.nii.gz")
        save_volume(masked, np.where(brain, volume.data, 0).astype(np.float32), volume.affine)
        command = RunFastSurfer.installed(
            script,
            threads=settings.threads,
            terminal_output="allatonce",
            **inputs_of(settings, masked, "subject", Path(folder)),
        )
        _ = command.cmdline  # an option that it does not know is no failure of the volume
        start = time.monotonic()
        done = command.run(cwd=folder, ignore_exception=True)
        seconds = time.monotonic() - start
        code = done.runtime.returncode
        if code:
            said = f"{done.runtime.stdout or ''}\n{done.runtime.stderr or ''}"
            fault = installation_fault(code, said)
            raise UserError(f"{image}: {explain(code, said)}" + (f"; {fault}" if fault else ""))
        labels = labels_on_grid(Path(folder, "subject"), volume, brain, table)
        _save(files, labels, volume, {"seconds": seconds, "engine": NAME, "version": command.version}, lut)


def _read(files: Files) -> tuple[Volume, np.ndarray]:
    image, mask = files.image, files.mask
    volume = read_volume(image)
    for warning in say_doubts(image, volume.doubts):
        print(f"warning: {warning}", file=sys.stderr)
    if mask is not None:
        given = read_mask(mask, volume)
        brain = given.data
        for warning in say_doubts(mask, given.doubts):
            print(f"warning: {warning}", file=sys.stderr)
    else:
        problems = scan_problems(volume)
        if problems:
            raise UserError(f"{image}: {'; '.join(problems)}")
        brain = find_brain(volume, Mask())[0].data > 0
        doubtful = mask_problems(brain, volume.affine)
        if doubtful:
            raise UserError(f"{image}: {'; '.join(doubtful)}; give a mask (--mask FILE)")
    return volume._replace(data=volume.data / intensity_scale(volume.data, brain)), brain


def _save(files: Files, labels: np.ndarray, volume: Volume, record: dict, lut: Path) -> None:
    if not labels.any():
        raise UserError("the parcellator found no structure in the brain mask; look at the image")
    other = None if files.against is None else read_on_grid(files.against, volume, np.int32)
    out = files.out
    save_volume(out, labels, volume.affine)
    write_structures(out, labels, volume.affine, lut)
    if other is not None:
        mean = write_agreement(out, labels, other, files.against, volume, lut)
        print(f"mean Dice with {files.against.name}: {mean:.3f} (by structure: {beside(out, AGREEMENT_ENDING).name})")
    record = {**record, "seconds": round(record["seconds"], 2), "warnings": list(volume.doubts)}
    write_json(beside(out, ".json"), {"status": "ok", **record})
