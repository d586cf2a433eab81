"""Which scans of a dataset a study takes, and why it leaves the others out: by their names, or by the headers of DICOM
files."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from iqt.config.study import Study
from iqt.errors import UserError
from iqt.imaging.contrast import contrast_in, contrast_of
from iqt.io.files import missing_file, walk
from iqt.io.naming import READABLE, image_stem, is_study
from iqt.study.dicom import Series, is_dicom, read_series
from iqt.terminal import note

DICOM_INDEX = Path("code", "dicom.json")
"""What the headers of DICOM files say, so that they are read once."""
NO_RAW = ("derivatives", "sourcedata", "code")
"""Folders of a BIDS dataset that hold no raw scans in NIfTI."""
ENTITIES = re.compile(r"sub-[A-Za-z0-9]+(?:_[a-z]+-[A-Za-z0-9]+)*")


class StudyScan(NamedTuple):
    """A scan to enhance: its entities, which name its results, its file, and the dataset's brain mask if it has one."""

    name: str
    image: Path
    """Of a series of DICOM files the first, of several stacks that of the first."""
    mask: Path | None = None
    series: tuple[Path, ...] = ()
    """The DICOM files that it consists of."""
    stacks: tuple[StudyScan, ...] = ()
    """The scans of one session that are combined into it."""
    doubts: tuple[str, ...] = ()
    """What a user should know, sentences."""

    @property
    def folder(self) -> str:
        """Below the results: `sub-X[/ses-Y]/anat`."""
        parts = [part for part in self.name.split("_") if part.startswith(("sub-", "ses-"))]
        return "/".join([*parts, "anat"])

    @property
    def files(self) -> list[Path]:
        """Every file that it is made from."""
        if self.stacks:
            return [path for stack in self.stacks for path in stack.files]
        return [*(self.series or (self.image,)), *([self.mask] if self.mask else [])]

    @property
    def sources(self) -> str:
        """What it is made from, in words."""
        if self.stacks:
            return " and ".join(stack.sources for stack in self.stacks)
        return f"{len(self.series)} DICOM files, the first {self.image.name}" if self.series else self.image.name

    @property
    def dicom(self) -> bool:
        """Whether it is made from DICOM files, of which `followed` holds a few alone."""
        return bool(self.series) or any(stack.dicom for stack in self.stacks)

    @property
    def stamp(self) -> str:
        """What changes when one of its files does."""
        facts = [(path.stat().st_size, path.stat().st_mtime_ns) for path in self.files if path.is_file()]
        return f"{len(facts)} files, {sum(size for size, _ in facts)} bytes, {max((at for _, at in facts), default=0)}"

    @property
    def followed(self) -> list[Path]:
        """Those whose change makes it anew: of a series the first stands for all."""
        if self.stacks:
            return [path for stack in self.stacks for path in stack.followed]
        return [self.image, *([self.mask] if self.mask else [])]


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
        if is_dicom(root):
            raise UserError(f"{root}: is one file of a series of DICOM files; name their folder")
        scans, left_out = [StudyScan(f"sub-{_label(Path(root.name))}", root)], []
    elif not root.is_dir():
        raise UserError(f"{root}: no such file or folder")
    elif next(_images(root), None) is None:
        scans, left_out = _dicom(root, study)
    elif any(child.name.startswith("sub-") and child.is_dir() for child in root.iterdir()):
        scans, left_out = _bids(root, study)
        left_out += _dicom_beside(root)
    else:
        scans, left_out = _folder(root, study)
        left_out += _dicom_beside(root)
    if study.series is not None and not any(scan.series for scan in scans):
        raise UserError(f"{root}: study.series chooses among DICOM series, and no series here is taken by it")
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
    if study.fuse:
        scans = _by_session(scans)
        if not any(scan.stacks for scan in scans):
            note("nothing is combined: no session has several scans of the contrast, by the names of BIDS or DICOM")
    if not scans:
        told = "".join(f"\n  {one.file}: {one.reason}" for one in left_out[:10])
        raise UserError(f"{root}: holds no {study.suffix} scan to enhance{told}")
    return sorted(scans), sorted(left_out)


def _bids(root: Path, study: Study) -> tuple[list[StudyScan], list[LeftOut]]:
    scans, left_out, suffix = [], [], study.suffix
    for path in _images(root, NO_RAW):
        inside = path.relative_to(root)
        if path.parent.name != "anat":
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
            masks = [folder / f"{entities}_desc-brain_mask.nii.gz" for folder in folders]
            mask = next((mask for mask in masks if mask.is_file()), None)
            absent = [] if mask else [one for one in masks if os.path.lexists(one)]
            doubts = tuple(f"{missing_file(one)}; a mask is made instead" for one in absent)
            if not path.is_file():
                left_out.append(LeftOut(path, missing_file(path)))
            else:
                scans.append(StudyScan(entities, path, mask, doubts=doubts))
    return scans, left_out


def _pipelines(derivatives: Path) -> list[Path]:
    """The derivatives of a dataset, but for studies: their masks lie on the grid of their results."""
    if not derivatives.is_dir():
        return []
    return [folder for folder in sorted(derivatives.iterdir()) if not is_study(folder)]


def _dicom_beside(root: Path) -> list[LeftOut]:
    """The first of the DICOM files among files that are taken: they are not. A few of each folder are looked at."""
    for _, files in itertools.groupby(_files(root, NO_RAW), key=lambda path: path.parent):
        others = (path for path in files if not path.name.endswith((*READABLE, ".json", ".tsv")))
        for path in itertools.islice(others, 3):
            if is_dicom(path):
                reason = "DICOM files beside NIfTI or MGH files, which are taken"
                return [LeftOut(path, f"{reason}; give the study a folder of DICOM alone")]
    return []


def _folder(root: Path, study: Study) -> tuple[list[StudyScan], list[LeftOut]]:
    scans, left_out = [], []
    for path in _images(root):
        contrast = contrast_of(path)[0]
        if contrast not in (None, study.suffix):
            left_out.append(LeftOut(path, f"a {contrast} by its name, and {study.suffix} is enhanced"))
        elif not path.is_file():
            left_out.append(LeftOut(path, missing_file(path)))
        elif not _letters(image_stem(path.name)):
            left_out.append(LeftOut(path, "its name has no letter or digit that a label may have; rename it"))
        else:
            scans.append(StudyScan(f"sub-{_label(Path(path.name))}", path))
    # Where every folder has a T1.nii.gz, the folders tell them apart.
    count = Counter(scan.name for scan in scans)
    scans = [
        scan if count[scan.name] == 1 else scan._replace(name=f"sub-{_label(scan.image.relative_to(root))}")
        for scan in scans
    ]
    return scans, left_out


def _dicom(root: Path, study: Study) -> tuple[list[StudyScan], list[LeftOut]]:
    """The series of the contrast: `sub-` is the patient's id, `ses-` the day, `acq-` what the operator called it."""
    ours = is_study(Path(study.out))  # else nothing may be written there
    found, damaged = read_series(root, _files(root), Path(study.out) / DICOM_INDEX if ours else None)
    scans, left_out = [], [LeftOut(path, "a DICOM file whose header cannot be read") for path in damaged]
    names: Counter[str] = Counter()
    wanted = re.compile(study.series, re.IGNORECASE) if study.series is not None else None
    visits = _visits(found, root)
    for series in found:
        reason = series.no_scan or _unwanted(series, study.suffix, wanted)
        if reason is not None:
            left_out.append(LeftOut(series.files[0], f"a series of {len(series.files)} files: {reason}"))
            continue
        called = _letters(series.described)
        name = visits[series.header["uid"]] + (f"_acq-{called}" if called else "")
        names[name] += 1
        name = name if names[name] == 1 else f"{name}_run-{names[name]}"
        scans.append(StudyScan(name, series.files[0], None, series.files))
    return scans, left_out


def _visits(found: list[Series], root: Path) -> dict[str, str]:
    """`sub-X[_ses-Y]` of each series, by its uid: no two patients share a label, nor two visits of one."""
    studies: dict[str, set[str]] = defaultdict(set)
    for series in found:
        studies[_patient(series, root)].add(series.header["study"])
    people: dict[str, str] = {}
    visits: dict[str, dict[str, str]] = defaultdict(dict)
    labelled = {}
    for series in found:
        header, patient = series.header, _patient(series, root)
        person = _apart_from(people, patient, _letters(patient.removeprefix("sub-")) or "unknown")
        day = header["date"] or ("unknown" if len(studies[patient]) > 1 else "")
        visit = _apart_from(visits[patient], header["study"], _letters(day)) if day else ""
        labelled[header["uid"]] = f"sub-{person}" + (f"_ses-{visit}" if visit else "")
    return labelled


def _patient(series: Series, root: Path) -> str:
    """Who a series is of: without an id the folder below the dataset's stands for a patient."""
    inside = series.files[0].relative_to(root).parts
    return series.header["patient"] or (f"/{inside[0]}" if len(inside) > 1 else f"/{root.name}")


def _apart_from(known: dict[str, str], key: str, label: str) -> str:
    """The label of a key: what it has, or a new one that no other key has."""
    if key not in known:
        taken = set(known.values())
        labels = itertools.chain([label], (f"{label}x{number}" for number in itertools.count(2)))
        known[key] = next(each for each in labels if each not in taken)
    return known[key]


def _unwanted(series: Series, suffix: str, wanted: re.Pattern[str] | None) -> str | None:
    """Why a series is left out, by what its operator called it."""
    called = f"called {series.described!r}" if series.described else "without a description"
    if wanted is not None:
        return None if wanted.search(series.described) else f"{called}, which study.series does not match"
    found = contrast_in(series.described)
    if found is None:
        return f"{called}, which names no contrast; study.series (--series) chooses by a pattern"
    return None if found == suffix else f"a {found}, {called}, and {suffix} is enhanced"


def _by_session(scans: list[StudyScan]) -> list[StudyScan]:
    """Scans of which several of one session are stacks of one."""
    sessions: dict[str, list[StudyScan]] = {}
    for scan in sorted(scans):
        own = [part for part in scan.name.split("_") if not part.startswith(("acq-", "run-"))]
        sessions.setdefault("_".join(own), []).append(scan)
    return [
        stacks[0] if len(stacks) == 1 else StudyScan(_fused(name), stacks[0].image, None, (), tuple(stacks))
        for name, stacks in sessions.items()
    ]


def _fused(name: str) -> str:
    """The entities of what is combined; BIDS has `rec` after `sub`, `ses`, `task` and `ce`."""
    own = "".join(part.removeprefix("rec-") for part in name.split("_") if part.startswith("rec-"))
    parts = [part for part in name.split("_") if not part.startswith("rec-")]
    before = sum(part.startswith(("sub-", "ses-", "task-", "ce-")) for part in parts)
    return "_".join([*parts[:before], f"rec-{own}fused", *parts[before:]])


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
    label = _letters(image_stem(path))
    if not label:
        raise UserError(f"{path}: its name has no letter or digit; rename it")
    return label.removeprefix("sub")


def _letters(text: str | Path) -> str:
    """The letters and digits that BIDS allows in a label."""
    return re.sub(r"[^A-Za-z0-9]", "", str(text))


def _images(root: Path, without: Collection[str] = ()) -> Iterator[Path]:
    return (path for path in _files(root, without) if path.name.endswith(READABLE) and path.name[0] != ".")


def _files(root: Path, without: Collection[str] = ()) -> Iterator[Path]:
    """Every file below a folder, folder by folder in the order of their names, but for hidden folders, studies, and
    folders of the names `without`."""
    for folder, folders, files in walk(root):
        folders[:] = sorted(
            name for name in folders if name[0] != "." and name not in without and not is_study(folder / name)
        )
        yield from (folder / name for name in sorted(files))
