"""Tissue posteriors for the simulator, by the engine that the configuration names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from iqt.config import Tissues
from iqt.degrade import classify, fast
from iqt.degrade.contrast import TISSUES
from iqt.degrade.labels import tissues_from_labels
from iqt.errors import UserError
from iqt.imaging.resample import Kind, like
from iqt.io import batch
from iqt.io.files import write_table
from iqt.io.naming import anat, flat
from iqt.io.volumes import Volume, cut_mask, read_on_grid, read_volume, save_volume, say_doubts

GIVEN = "posteriors"
"""Name of the engine in a record where the user gave the posteriors."""


class TissueFiles(NamedTuple):
    """What the user gives for one scan: the posteriors, or labels, or nothing but perhaps a mask."""

    probseg: Mapping[str, Path] = {}
    labels: Path | None = None
    mask: Path | None = None


def segment_scans(
    scans: Iterable[str], cohort: Path, out: Path, suffix: str, settings: Tissues, fast_folder: Path | None = None
) -> None:
    """Write each scan's `out/sub-X/anat/sub-X_label-{WM,GM,CSF}_probseg.nii.gz` and `_probseg.json`.

    Args:
        fast_folder: what `fast.run_fast` wrote; needed by the engine `fast`.
    """

    def outputs(scan: str) -> list[Path]:
        return [probseg(out, scan)[name] for name in TISSUES]

    def work(scan: str) -> dict:
        batch.require_ok(anat(cohort, scan, f"{suffix}.json"), "cohort")
        volume = read_volume(anat(cohort, scan, f"{suffix}.nii.gz"))
        mask = read_on_grid(anat(cohort, scan, "desc-brain_mask.nii.gz"), volume, np.uint8) > 0
        if settings.engine == "labels":
            labels = read_on_grid(anat(cohort, scan, "dseg.nii.gz"), volume, np.int32)
            found = tissues_from_labels(labels, mask, volume.voxel_size, settings.labels)
        elif settings.engine == "hmrf":
            found = classify.tissues_by_hmrf(volume.data, mask, suffix, settings.hmrf)
        elif settings.engine == "fast":
            batch.require_ok(flat(fast_folder, scan, "fast.json"), "fast")
            found = classify.tissues_from_fast(fast.maps_of(fast_folder, scan), volume, suffix)
        else:
            raise UserError(f"tissues.engine {settings.engine}: needs no segmentation")
        for name, path in zip(TISSUES, outputs(scan), strict=True):
            save_volume(path, found[name], volume.affine)
        size = float(np.prod(volume.voxel_size)) / 1000
        return {
            "engine": settings.engine,
            "settings": getattr(settings, settings.engine).model_dump(mode="json"),
            "ml": {name: round(float(found[name].sum(dtype=float)) * size, 1) for name in TISSUES},
        }

    batch.run_scans(scans, lambda scan: anat(out, scan, "probseg.json"), outputs, work)


def probseg(folder: Path, scan: str) -> dict[str, Path]:
    """The paths of a scan's posteriors, by tissue."""
    return {name: anat(folder, scan, f"label-{name}_probseg.nii.gz") for name in TISSUES}


def compare_scans(scans: Iterable[str], reference: Path, other: Path, out: Path) -> None:
    """Write a table with the Dice overlap of each scan's tissues in two folders of posteriors, cut at one half.

    Raises:
        UserError: a scan's posteriors are absent in one of them, or on another grid.
    """
    rows = []
    for scan in scans:
        for name in TISSUES:
            truth = read_volume(probseg(reference, scan)[name])
            found = read_on_grid(probseg(other, scan)[name], truth) > 0.5
            wanted = truth.data > 0.5
            total = int(wanted.sum() + found.sum())
            dice = 2 * float((wanted & found).sum()) / total if total else 0.0
            rows.append({"scan": scan, "tissue": name, "dice": f"{dice:.4f}"})
    write_table(out, rows, ("scan", "tissue", "dice"))


class FoundTissues(NamedTuple):
    """The engine's name, the posteriors, and what the files that the user gave leave in doubt."""

    engine: str
    maps: dict[str, np.ndarray] | None
    warnings: list[str]


def tissues_of_file(volume: Volume, given: TissueFiles, suffix: str, settings: Tissues) -> FoundTissues:
    """The posteriors of one scan, from the files that the user gave, or from the scan alone.

    Files on another grid are brought to the scan's.

    Raises:
        UserError: not all three posteriors are given, the engine needs what is not given, or as the engine says.
    """
    warnings: list[str] = []

    def read(path: Path, kind: Kind) -> np.ndarray:
        found = read_companion(path, volume, kind)
        warnings.extend(say_doubts(path, found.doubts))
        return found.data

    if given.probseg:
        if given.mask is not None:
            raise UserError(f"{given.mask}: a mask has no effect beside posteriors, which say where the brain is")
        missing = [name for name in TISSUES if name not in given.probseg]
        if missing:
            raise UserError(f"tissue posterior {', '.join(missing)} is not given; the simulator needs all three")
        return FoundTissues(GIVEN, {name: read(given.probseg[name], "posterior") for name in TISSUES}, warnings)
    mask = None if given.mask is None else cut_mask(read(given.mask, "mask"), given.mask)
    if given.labels is not None:
        labels = read(given.labels, "labels")
        maps = tissues_from_labels(labels, mask, volume.voxel_size, settings.labels)
        return FoundTissues("labels", maps, warnings)
    brain = classify.brain_of(volume, mask)
    return FoundTissues("hmrf", classify.tissues_by_hmrf(volume.data, brain, suffix, settings.hmrf), warnings)


def read_companion(path: Path, volume: Volume, kind: Kind) -> Volume:
    """A file on the scan's grid, as `imaging.resample.like` brings it there; UserError as that and `read_volume`."""
    return like(read_volume(path, np.int32 if kind == "labels" else np.float32), volume, kind, path)
