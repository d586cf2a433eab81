"""Which scans of a dataset a study takes, and why it leaves the others out. Only names are looked at."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from iqt.config.study import Study
from iqt.errors import UserError
from iqt.imaging.contrast import contrast_of
from iqt.io.naming import READABLE, image_stem

CONFIGURATION = Path("code", "study.json")
"""What a study is known by, in the folder of its results."""
ENTITIES = re.compile(r"sub-[A-Za-z0-9]+(?:_[a-z]+-[A-Za-z0-9]+)*")


class StudyScan(NamedTuple):
    """A scan to enhance: its entities, which name its results, its file, and the dataset's brain mask if it has one."""

    name: str
    image: Path
    mask: Path | None = None

    @property
    def folder(self) -> str:
        """Below the results: `sub-X[/ses-Y]/anat`."""
        parts = [part for part in self.name.split("_") if part.startswith(("sub-", "ses-"))]
        return "/".join([*parts, "anat"])


class LeftOut(NamedTuple):
    """A file that is not enhanced, and why."""

    file: Path
    reason: str


def find_scans(study: Study) -> tuple[list[StudyScan], list[LeftOut]]:
    """A dataset's scans in the order of their names, and what is left out. Several scans of a session are several.

    Raises:
        UserError: the dataset is not there, holds no scan of the contrast, or lacks a participant who is named.
    """
    root = Path(study.dataset)
    if root.is_file():
        scans, left_out = [StudyScan(f"sub-{_label(Path(root.name))}", root)], []
    elif not root.is_dir():
        raise UserError(f"{root}: no such file or folder")
    elif any(child.name.startswith("sub-") and child.is_dir() for child in root.iterdir()):
        scans, left_out = _bids(root, study)
    else:
        scans, left_out = _folder(root, study)
    scans, doubled = _apart(scans)
    left_out += doubled
    if study.participants != "all":
        wanted = [name.removeprefix("sub-") for name in study.participants]
        there = {scan.name.split("_")[0].removeprefix("sub-") for scan in scans}
        absent = [name for name in wanted if name not in there]
        if absent:
            raise UserError(
                f"{root}: has no {study.suffix} scan of {', '.join(absent[:10])}; there are "
                f"{', '.join(sorted(there)[:10]) or 'none'}"
            )
        scans = [scan for scan in scans if scan.name.split("_")[0].removeprefix("sub-") in wanted]
    if not scans:
        told = "".join(f"\n  {one.file}: {one.reason}" for one in left_out[:10])
        raise UserError(f"{root}: holds no {study.suffix} scan to enhance{told}")
    return sorted(scans), sorted(left_out)


def _bids(root: Path, study: Study) -> tuple[list[StudyScan], list[LeftOut]]:
    scans, left_out, suffix = [], [], study.suffix
    for path in _images(root):
        inside = path.relative_to(root)
        if inside.parts[0] in ("derivatives", "sourcedata", "code") or path.parent.name != "anat":
            continue
        stem = image_stem(path.name)
        entities, _, kind = stem.rpartition("_")
        if not ENTITIES.fullmatch(entities):
            left_out.append(LeftOut(path, "no name that BIDS has, whose labels hold letters and digits alone"))
        elif "_desc-" in f"_{entities}":
            left_out.append(LeftOut(path, "a derivative by its name (desc-), no scan as it was acquired"))
        elif kind != suffix:
            left_out.append(LeftOut(path, f"a {kind}, and {suffix} is enhanced"))
        else:
            folders = (path.parent, *(pipeline / inside.parent for pipeline in _pipelines(root / "derivatives")))
            masks = (folder / f"{entities}_desc-brain_mask.nii.gz" for folder in folders)
            scans.append(StudyScan(entities, path, next((mask for mask in masks if mask.is_file()), None)))
    return scans, left_out


def _pipelines(derivatives: Path) -> list[Path]:
    """The derivatives of a dataset, but for studies: their masks lie on the grid of their results."""
    if not derivatives.is_dir():
        return []
    return [folder for folder in sorted(derivatives.iterdir()) if not _is_study(folder)]


def _is_study(folder: Path) -> bool:
    return (folder / CONFIGURATION).is_file()


def _folder(root: Path, study: Study) -> tuple[list[StudyScan], list[LeftOut]]:
    scans, left_out = [], []
    for path in _images(root):
        contrast = contrast_of(path)[0]
        if contrast not in (None, study.suffix):
            left_out.append(LeftOut(path, f"a {contrast} by its name, and {study.suffix} is enhanced"))
        else:
            scans.append(StudyScan(f"sub-{_label(Path(path.name))}", path))
    # Where every folder has a T1.nii.gz, the folders tell them apart.
    count = Counter(scan.name for scan in scans)
    scans = [
        scan if count[scan.name] == 1 else scan._replace(name=f"sub-{_label(scan.image.relative_to(root))}")
        for scan in scans
    ]
    return scans, left_out


def _apart(scans: list[StudyScan]) -> tuple[list[StudyScan], list[LeftOut]]:
    """Scans whose names differ; of those with one name the first by its file, and the others left out."""
    kept: dict[str, StudyScan] = {}
    left_out = []
    for scan in sorted(scans, key=lambda scan: scan.image):
        if scan.name in kept:
            reason = f"would have the same name as {kept[scan.name].image}, {scan.name}; rename one of them"
            left_out.append(LeftOut(scan.image, reason))
        else:
            kept[scan.name] = scan
    return list(kept.values()), left_out


def _label(path: Path) -> str:
    """Letters and digits of a file's name, or of its path, without its ending."""
    label = re.sub(r"[^A-Za-z0-9]", "", image_stem(path))
    if not label:
        raise UserError(f"{path}: its name has no letter or digit; rename it")
    return label.removeprefix("sub")


def _images(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not _is_study(Path(folder, name)))
        yield from (Path(folder, name) for name in sorted(files) if name.endswith(READABLE) and name[0] != ".")
