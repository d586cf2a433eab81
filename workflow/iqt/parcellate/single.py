"""Parcellating a single volume with either engine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from iqt.config import FastSurfer, Mask
from iqt.errors import UserError
from iqt.imaging.brain_mask import find_brain
from iqt.imaging.checks import mask_problems, scan_problems
from iqt.imaging.contrast import contrast_warnings
from iqt.io.files import write_json
from iqt.io.labels import LabelTable
from iqt.io.naming import beside
from iqt.io.outputs import check_outputs, drafting
from iqt.io.volumes import Volume, intensity_scale, read_like, read_mask, read_volume, save_volume, say_doubts
from iqt.parcellate.reader import ENGINE, load_reader
from iqt.parcellate.volumes import (
    AGREEMENT_ENDING,
    TABLE_ENDING,
    VOLUMES_ENDING,
    require_names,
    table_of,
    write_agreement,
    write_structures,
)
from iqt.terminal import Bar, warn


class Files(NamedTuple):
    """What is read and written: sidecar, look-up table and structure volumes lie beside `out`, and with `against` what
    both label maps agree in."""

    image: Path
    out: Path
    mask: Path | None = None
    """Brain mask with the image's voxels; None to find one."""
    against: Path | None = None
    """Another label map of the same image, on its grid."""


class Scan(NamedTuple):
    """What is labelled: the volume on the intensity scale, its brain mask (bool) and where that came from, the label
    map that the result shall be compared with, and what a user should know."""

    volume: Volume
    brain: np.ndarray
    origin: str
    other: np.ndarray | None
    warnings: list[str]


def parcellate_file(files: Files, model: Path, lut: Path | None, precision: str) -> None:
    """Label one volume with a built-in network.

    Args:
        lut: look-up table with the names of the parcellator's labels; None for the shipped one that has them all.

    Raises:
        UserError: a file is not usable, or no structure was found.
    """
    _check_files(files, lut)
    reader = load_reader(model, precision)
    table = table_of(reader.ids) if lut is None else lut
    require_names(table, reader.ids)
    with Bar(finding_the_brain=30, labelling=60, writing=10) as bar:
        bar.phase("finding_the_brain")
        scan = _read(files, reader.suffix)
        bar.phase("labelling")
        start = time.monotonic()
        labels = reader.read(scan.volume, scan.brain)
        record = {"seconds": time.monotonic() - start, "engine": ENGINE, "version": reader.version}
        bar.phase("writing")
        _save(files, scan, labels, record, table, reader.ids)


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
    _check_files(files, lut)
    require_names(lut, table.ids)
    scan = _read(files, "T1w")
    volume, brain = scan.volume, scan.brain
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
        _save(files, scan, labels, {"seconds": seconds, "engine": NAME, "version": command.version}, lut, table.ids)


def _check_files(files: Files, lut: Path | None) -> None:
    """UserError where an output would not be readable afterwards, or would replace another file."""
    tables = [TABLE_ENDING, VOLUMES_ENDING, *([AGREEMENT_ENDING] if files.against is not None else [])]
    check_outputs(
        files.out,
        (files.image, files.mask, files.against, lut),
        "a label map",
        lambda known: "engine" in known,
        tables=[beside(files.out, ending) for ending in tables],
    )


def _read(files: Files, contrast: str | None) -> Scan:
    """What is to be labelled; `contrast` is that of the scans that the parcellator was trained on."""
    image, mask = files.image, files.mask
    volume = read_volume(image)
    problems = scan_problems(volume)
    if problems:
        raise UserError(f"{image}: {'; '.join(problems)}")
    warnings = say_doubts(image, volume.doubts) + contrast_warnings(image, contrast)
    if mask is not None:
        given = read_mask(mask, volume)
        brain, origin = given.data, mask.name
        warnings += say_doubts(mask, given.doubts) + [f"{mask}: {one}" for one in mask_problems(brain, volume.affine)]
    else:
        try:
            found, origin = find_brain(volume, Mask())
        except UserError as error:
            raise type(error)(f"{image}: {error}. Hint: --mask FILE") from None
        brain = found.data > 0
        doubtful = mask_problems(brain, volume.affine)
        if doubtful:
            raise UserError(f"{image}: {'; '.join(doubtful)}; give a mask (--mask FILE)")
    other = None
    if files.against is not None:
        compared = read_like(files.against, volume, np.int32)
        other = compared.data
        warnings += say_doubts(files.against, compared.doubts)
    for warning in warnings:
        warn(warning)
    try:
        volume = volume._replace(data=volume.data / intensity_scale(volume.data, brain))
    except UserError as error:
        raise UserError(f"{image}: {error}; does {'the mask' if mask is None else mask} lie on the brain?") from None
    return Scan(volume, brain, origin, other, warnings)


def _save(files: Files, scan: Scan, labels: np.ndarray, record: dict, lut: Path, ids: Collection[int]) -> None:
    if not labels.any():
        raise UserError(f"{files.image}: the parcellator found no structure in the brain mask; look at the image")
    record = {**record, "seconds": round(record["seconds"], 2), "mask": scan.origin, "warnings": scan.warnings}
    agreed, again = None, beside(files.out, ".json").exists()
    with drafting(files.out) as draft:
        save_volume(draft, labels, scan.volume.affine)
        write_structures(draft, labels, scan.volume.affine, lut, ids)
        if scan.other is not None:
            agreed = write_agreement(draft, labels, scan.other, files.against, scan.volume, lut, ids)
        write_json(beside(draft, ".json"), {"status": "ok", **record})
    if again and files.against is None:  # what the label map before this one agreed in
        beside(files.out, AGREEMENT_ENDING).unlink(missing_ok=True)
    if agreed is not None:
        mean, n = agreed
        where = beside(files.out, AGREEMENT_ENDING).name
        print(f"mean Dice with {files.against.name} over the {n} structures that it holds: {mean:.3f} (each: {where})")
