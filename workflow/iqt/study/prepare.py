"""From a dataset's files to the one volume that is enhanced: a series of DICOM converted, stacks combined."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iqt.config.study import Study
from iqt.enhance.intake import brain_of
from iqt.errors import StopError, UserError
from iqt.imaging.checks import mask_problems, scan_problems
from iqt.io.volumes import read_volume, save_volume, say_doubts
from iqt.study.dicom import to_nifti
from iqt.study.fusion import Stack, combine
from iqt.study.results import Results
from iqt.study.scans import StudyScan


class Prepared(NamedTuple):
    """What is enhanced: its file and mask (None: to be found), where it comes from as BIDS URIs, what a user should
    know, and facts for the record."""

    image: Path
    mask: Path | None
    sources: list[str]
    warnings: list[str]
    facts: dict[str, Any]


def prepare(scan: StudyScan, study: Study, results: Results) -> Prepared:
    """The volume of a scan that is enhanced; what is not a file of the dataset is written to `results.prepared`.

    Raises:
        UserError: a series cannot be converted, or no stack of the session is usable.
    """
    if scan.stacks:
        return _combined(scan, study, results)
    if scan.series:
        warnings = to_nifti(scan.series, results.prepared)
        facts = {"dicom_files": len(scan.series)}
        return Prepared(results.prepared, None, [_own(results.prepared, study)], warnings, facts)
    return Prepared(scan.image, scan.mask, [_raw(scan.image, Path(study.dataset))], list(scan.doubts), {})


def _combined(scan: StudyScan, study: Study, results: Results) -> Prepared:
    """The stacks of a session as one volume; where one alone is usable, that one as it is."""
    usable: list[tuple[Prepared, Stack]] = []
    warnings = []
    for stack in scan.stacks:
        try:
            usable.append(_stack(stack, study))
        except StopError:
            raise
        except UserError as error:
            warnings.append(f"{stack.name} is not used: {error}")
    if not usable:
        raise UserError(f"no stack of the session can be used: {'; '.join(warnings)}")
    given = [prepared for prepared, _ in usable]
    sources = [source for prepared in given for source in prepared.sources]
    warnings += [text for prepared in given for text in prepared.warnings]
    if len(usable) == 1:
        warnings.append(f"{usable[0][1].name} is enhanced alone: no other stack of its session is usable")
        return given[0]._replace(warnings=warnings)
    try:
        found = combine([stack for _, stack in usable])
    except UserError as error:
        return given[0]._replace(warnings=[*warnings, f"{usable[0][1].name} is enhanced alone: {error}"])
    save_volume(results.prepared, found.volume.data, found.volume.affine)
    save_volume(results.prepared_mask, found.mask.astype(np.uint8), found.volume.affine)
    facts = {"combined": found.stacks}
    return Prepared(results.prepared, results.prepared_mask, sources, warnings + found.warnings, facts)


def _stack(scan: StudyScan, study: Study) -> tuple[Prepared, Stack]:
    """A stack with its brain mask; UserError where it is no usable scan."""
    given = prepare(scan, study, Results.of(Path(study.out), scan, study.suffix))
    source = read_volume(given.image)
    problems = scan_problems(source)
    if problems:
        raise UserError("; ".join(problems))
    doubts = say_doubts(given.image, source.doubts)
    inside, _, unsure = brain_of(
        given.image, source, given.mask, study.skull_stripped and given.mask is None, study.mask
    )
    doubtful = mask_problems(inside, source.affine)
    if doubtful and not (study.keep_doubtful_masks and inside.any()):
        raise UserError(f"{'; '.join(doubtful)}")
    warned = [f"{scan.name}: {text}" for text in (*given.warnings, *doubts, *unsure)]
    return given._replace(warnings=warned), Stack(scan.name, source, inside)


def _raw(image: Path, dataset: Path) -> str:
    return f"bids:raw:{image.relative_to(dataset)}" if dataset.is_dir() else f"bids:raw:{image.name}"


def _own(image: Path, study: Study) -> str:
    return f"bids::{image.relative_to(study.out)}"
