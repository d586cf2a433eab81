"""Parcellating with the built-in network the scans of a list, and with either engine a single volume."""

from __future__ import annotations

import functools
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import numpy as np

from iqt import __version__
from iqt.batch import run_scans
from iqt.config import FastSurfer, Mask
from iqt.errors import UserError
from iqt.files import write_json
from iqt.labels import LabelTable
from iqt.naming import flat
from iqt.parcellate.images import Images
from iqt.scans.brain_mask import find_brain
from iqt.scans.checks import mask_problems, scan_problems
from iqt.volumes import Volume, intensity_scale, read_mask, read_volume, save_volume, say_doubts

ENGINE = "builtin"


def parcellate_scans(
    scans: Iterable[str],
    images: Path,
    layout: Literal["anat", "flat"],
    suffix: str,
    cohort: Path,
    model: Path,
    out: Path,
    precision: str,
) -> None:
    """Write `<scan>_dseg.nii.gz` and its sidecar (status, seconds, engine, version) for each scan.

    `layout: anat` reads the cohort's high-quality scans, `flat` enhanced results. Masks are the cohort's.
    """
    read = load_reader(model, precision)
    source = Images(images, layout, suffix, cohort)

    def work(scan: str) -> dict:
        volume, mask = source.read(scan)
        start = time.monotonic()
        labels = read(volume, mask)
        seconds = time.monotonic() - start
        if not labels.any():
            raise UserError("the parcellator found no structure in the brain mask; look at the image")
        save_volume(flat(out, scan, "dseg.nii.gz"), labels, volume.affine)
        return {"seconds": round(seconds, 2), "engine": ENGINE, "version": __version__}

    run_scans(scans, lambda scan: flat(out, scan, "dseg.json"), lambda scan: [flat(out, scan, "dseg.nii.gz")], work)


def load_reader(model: Path, precision: str) -> Callable[[Volume, np.ndarray], np.ndarray]:
    """What labels a volume on the intensity scale within a mask: a trained parcellator of either kind."""
    from iqt.training.checkpoints import load_card

    if load_card(model)["kind"] == "volumetric_parcellator":
        from iqt.parcellate.volumetric import load_volumetric, predict_volumetric

        return functools.partial(predict_volumetric, load_volumetric(model, precision))
    from iqt.parcellate.predict import load_parcellator, predict_labels

    return functools.partial(predict_labels, load_parcellator(model, precision))


def parcellate_file(image: Path, out: Path, mask: Path | None, model: Path, precision: str) -> None:
    """Label one volume with a built-in network; its sidecar lies beside `out`.

    Args:
        mask: brain mask with the volume's voxels; None to find one.

    Raises:
        UserError: a file is not usable, or no structure was found.
    """
    read = load_reader(model, precision)
    volume, brain = _read(image, mask)
    start = time.monotonic()
    labels = read(volume, brain)
    _save(out, labels, volume, {"seconds": time.monotonic() - start, "engine": ENGINE, "version": __version__})


def fastsurfer_file(image: Path, out: Path, mask: Path, table: LabelTable, settings: FastSurfer) -> None:
    """Label one volume with the FastSurfer that is installed; its sidecar lies beside `out`.

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
    volume, brain = _read(image, mask)
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
        _save(out, labels, volume, {"seconds": seconds, "engine": NAME, "version": command.version})


def _read(image: Path, mask: Path | None) -> tuple[Volume, np.ndarray]:
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


def _save(out: Path, labels: np.ndarray, volume: Volume, record: dict) -> None:
    if not labels.any():
        raise UserError("the parcellator found no structure in the brain mask; look at the image")
    save_volume(out, labels, volume.affine)
    sidecar = out.with_name(out.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    record = {**record, "seconds": round(record["seconds"], 2), "warnings": list(volume.doubts)}
    write_json(sidecar, {"status": "ok", **record})
