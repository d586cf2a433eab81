"""One scan of a study: enhanced, labelled, measured, and shown on a page of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from iqt import __version__
from iqt.config.study import Study
from iqt.enhance.single import enhance_file
from iqt.errors import StopError, UserError
from iqt.imaging.resample import on_grid
from iqt.io.batch import run_scans
from iqt.io.files import read_json, write_json
from iqt.io.naming import STUDY, beside
from iqt.io.shipped import PARCELLATOR, find_model
from iqt.io.volumes import Volume, intensity_scale, read_on_grid, read_volume
from iqt.parcellate.single import Files, parcellate_file
from iqt.report.panels import as_acquired
from iqt.study.pages import sd_name, write_scan_page
from iqt.study.prepare import prepare
from iqt.study.quality import quality
from iqt.study.results import Results
from iqt.study.scans import StudyScan
from iqt.terminal import warn
from iqt.training.card import method_of
from iqt.training.checkpoints import load_card

SAMPLES = 4
"""Samples of a model that draws them and whose card does not say how many."""


def process_scan(scan: StudyScan, study: Study) -> None:
    """Enhance, label and measure a scan, and write its page. The record says `ok`, or why there is nothing else."""
    results = Results.of(Path(study.out), scan, study.suffix)
    _mark(study)
    run_scans([scan.name], lambda _: results.record, lambda _: results.all, lambda _: _work(scan, study, results))
    if not results.page.exists():
        write_scan_page(results.page, scan, read_json(results.record), {})


def _mark(study: Study) -> None:
    """Write the study's configuration, if `iqt study` has not: by it the folder is known as a study, whose results are
    no masks of the dataset that it may lie in."""
    mark = Path(study.out) / STUDY
    if not mark.is_file():
        paths = {key: os.path.abspath(getattr(study, key)) for key in ("dataset", "out")}
        write_json(mark, {"study": study.model_dump(mode="json") | paths})


def _work(scan: StudyScan, study: Study, results: Results) -> dict[str, Any]:
    model = find_model(study.model, study.suffix)
    sampling = sampling_of(model, study.samples)
    extras = {"mask": results.mask, "residual": results.residual}
    if sampling.get("samples", 1) > 1:
        extras["sd"] = results.sd
    given = prepare(scan, study, results)
    enhance_file(
        given.image,
        results.enhanced,
        model,
        sampling,
        extras,
        given.mask,
        study.skull_stripped and given.mask is None,
        study.mask,
        study.keep_doubtful_masks,
        study.seed,
        study.precision,
        given.warnings,
    )
    record = read_json(results.sidecar) | given.facts
    about = {"Sources": given.sources, "SpatialReference": "orig"}
    write_json(beside(results.mask, ".json"), {"Description": "brain mask", "Type": "Brain", **about})
    described = {}
    if results.residual.exists():
        described[results.residual] = "the scan minus the result acquired again as it was, on the result's scale"
    if "sd" in extras:
        described[results.sd] = f"{sd_name(record)}, on the result's scale: {record['sd']['meaning']}"
    for path, text in described.items():
        write_json(beside(path, ".json"), {"Description": text, "SkullStripped": True, **about})
    enhanced = read_volume(results.enhanced)
    brain = read_on_grid(results.mask, enhanced, np.uint8) > 0
    acquired = read_volume(given.image)
    before = _scaled(on_grid(acquired, enhanced.data.shape, enhanced.affine, order=3).data, brain)
    voxel_ml = abs(float(np.linalg.det(enhanced.affine[:3, :3]))) / 1000
    found: dict[str, Any] = {"brain_ml": round(float(brain.sum()) * voxel_ml, 1)}
    labels = _labels(results, study, about) if study.parcellate and study.suffix == "T1w" else None
    if isinstance(labels, str):
        found["parcellation"] = labels
    elif labels is not None:
        found["quality_before"], found["quality_after"] = (quality(image, labels) for image in (before, enhanced.data))
    record |= found | {"SkullStripped": True, "Description": f"enhanced by iqt {__version__}", **about}
    write_json(results.sidecar, record)
    shown = {"as acquired": _scaled(as_acquired(acquired, enhanced), brain), "interpolated": before}
    shown["brain mask, outlined"] = outlined(before, brain.astype(np.int16))
    if isinstance(labels, np.ndarray):
        shown["structures, outlined"] = outlined(enhanced.data, labels)
    if results.sd.exists():
        shown[sd_name(record)] = _to_white(read_on_grid(results.sd, enhanced), brain)
    if results.residual.exists():
        residual = as_acquired(read_volume(results.residual), enhanced)
        shown["unexplained by the result"] = _to_white(np.where(brain, np.abs(residual), 0), brain)
    shown["enhanced"] = enhanced.data  # last, so that the viewer begins with it
    write_scan_page(results.page, scan, {"status": "ok", **record}, shown, Volume(brain, enhanced.affine))
    return record


def sampling_of(model: Path, samples: int | None) -> dict[str, Any]:
    """How many samples a study draws: as many as it says, else as the model's card does, else several where they
    differ, so that there is a standard deviation. Empty where nothing is asked of the model.

    Raises:
        UserError: the model's card is not sound.
    """
    if samples is not None:
        return {"samples": samples}
    card = load_card(model)
    method = method_of(model, card)
    if card.get("sampling"):
        return {"samples": method.samples}
    return {"samples": SAMPLES} if method.draws else {}


def _labels(results: Results, study: Study, about: Mapping[str, Any]) -> np.ndarray | str:
    """The label map (X, Y, Z) of the enhanced scan, or why there is none."""
    try:
        parcellate_file(Files(results.enhanced, results.labels, results.mask), PARCELLATOR, None, study.precision)
    except StopError:
        raise
    except UserError as error:
        warn(f"no structures: {error}")
        for path in (results.labels, *results.volumes):
            path.unlink(missing_ok=True)
        return str(error)
    record = beside(results.labels, ".json")
    write_json(record, read_json(record) | {"Description": "structures of the enhanced scan", **about})
    return read_volume(results.labels, np.int32).data


def outlined(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """An image with the borders between labels (X, Y, Z) in white, one voxel wide."""
    border = np.zeros(labels.shape, bool)
    for axis in range(3):
        first, second = np.moveaxis(labels, axis, 0)[:-1], np.moveaxis(labels, axis, 0)[1:]
        np.moveaxis(border, axis, 0)[:-1] |= first != second
    return np.where(border, 2.0, image)


def _to_white(image: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """An image whose 99th percentile in the brain is white."""
    return image / max(float(np.percentile(image[brain], 99)), 1e-6)


def _scaled(image: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """The brain alone, on the intensity scale."""
    return np.where(brain, image, 0) / intensity_scale(image, brain)
