"""A page per scan and one for the study: HTML that opens offline, from the parts of the benchmark's report."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from skimage.transform import downscale_local_mean

from iqt import __version__
from iqt.io.files import write_text
from iqt.io.volumes import Volume, bounding_box
from iqt.report.page.templates import templates
from iqt.report.page.viewer import person_of
from iqt.report.panels import WINDOW
from iqt.study.quality import MEASURES
from iqt.study.scans import LeftOut, StudyScan

BUDGET = 4_800_000
"""Characters of a page that volumes may take: above it JPEGs get coarser, and then voxels are averaged in blocks."""
QUALITIES = (85, 75, 65, 55)
"""Of the JPEGs; at the last, errors are of about two grey levels in a hundred."""


def sd_name(record: Mapping[str, Any]) -> str:
    """What the volume is that is written beside a mean of samples, whose record is given."""
    return "error to be expected" if "interval_half_width_in_sd" in record["sd"] else "standard deviation"


def write_scan_page(
    out: Path,
    scan: StudyScan,
    record: Mapping[str, Any],
    volumes: Mapping[str, np.ndarray],
    brain: Volume | None = None,
) -> None:
    """The page of a scan: warnings first, the volumes (X, Y, Z, 1 is white) to compare, quality, and how it was made.

    Args:
        record: of the scan; its status, where it failed, is shown instead.
        brain: the mask, on the volumes' grid, whose box is shown.
    """
    viewer = {"people": [], "left_out": []}
    if volumes and brain is not None:
        viewer["people"].append(_shown(scan.name, volumes, brain))
    before, after = record.get("quality_before", {}), record.get("quality_after", {})
    rows = [(text, before.get(name), after.get(name)) for name, text in MEASURES.items() if name in after]
    hidden = ("quality_before", "quality_after", "warnings", "status", "tile_borders", "patch_borders")
    facts = {key: _in_words(value) for key, value in record.items() if key not in hidden}
    content = {"scan": scan, "record": {"warnings": [], **record}, "viewer": viewer, "quality": rows, "facts": facts}
    content["sd_name"] = sd_name(record) if "sd" in record else None
    write_text(out, _render("scan.html", content))


def _in_words(value: Any) -> str:
    """A value of a record as a person reads it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_in_words(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_in_words, value)) or "none"
    return str(value)


def write_study_page(
    out: Path,
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    left_out: Sequence[LeftOut],
    facts: Mapping[str, Any],
) -> None:
    """The study's page: every scan with its link, status and figures, outliers marked, and what was left out.

    Args:
        rows: `scan`, `page`, `status`, `warnings`, the values of `columns`, and `outlying`, the names of those that are
            far from the study's own.
        columns: heading of each figure by its name.
    """
    content = {"rows": rows, "columns": columns, "left_out": left_out, "facts": facts}
    write_text(out, _render("study.html", content))


def _shown(name: str, volumes: Mapping[str, np.ndarray], brain: Volume) -> dict[str, Any]:
    def turned(data: np.ndarray) -> np.ndarray:
        return np.asarray(nib.as_closest_canonical(nib.Nifti1Image(data, brain.affine)).dataobj)

    canonical = nib.as_closest_canonical(nib.Nifti1Image(brain.data.astype(np.uint8), brain.affine))
    box = bounding_box(np.asarray(canonical.dataobj) > 0, 3)
    whole = {label: turned(np.asarray(data, np.float32))[box] for label, data in volumes.items()}
    for block in itertools.count(1):
        cut = {label: downscale_local_mean(data, block) for label, data in whole.items()}
        grey = {label: np.clip(np.rint(data / WINDOW * 255), 0, 255).astype(np.uint8) for label, data in cut.items()}
        for jpeg in QUALITIES:
            shown = person_of(name, grey, nib.affines.voxel_sizes(canonical.affine) * block, jpeg)
            if sum(len(volume["data"]) for volume in shown["volumes"]) < BUDGET:
                return shown
    raise AssertionError("blocks grow until one is left")


def _render(template: str, content: Mapping[str, Any]) -> str:
    return templates(Path(__file__).parent).get_template(template).render(content, version=__version__)
