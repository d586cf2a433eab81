"""A BIDS dataset's scans and what belongs to them: https://bids-specification.readthedocs.io, on disk or at OpenNeuro.

Only names are looked at, so an index of a thousand people takes seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from iqt.cohort.entries import Entry
from iqt.cohort.places import list_names, s3_url
from iqt.config import BIDS
from iqt.errors import UserError
from iqt.io.files import walk
from iqt.io.naming import SCAN_PATTERN, is_study
from iqt.terminal import warn

TISSUES = {"wm": "WM", "gm": "GM", "csf": "CSF"}
NAME = re.compile(
    r"(?P<entities>sub-[A-Za-z0-9]+(?:_[a-z]+-[A-Za-z0-9+]+)*)_(?P<suffix>[A-Za-z0-9]+)(?:\.nii(?:\.gz)?|\.mgz)"
)


class Named(NamedTuple):
    """A file's place, and what its name says: entities (`{"sub": "01", "desc": "brain"}`) and suffix."""

    place: str
    entities: dict[str, str]
    suffix: str


def list_entries(settings: BIDS, suffix: str) -> list[Entry]:
    """The scans of a dataset with a suffix, each with the mask, labels and posteriors that lie on its grid by name.

    A derivative belongs to an image if it has the same person and session, and the same run and space where it names
    them. The image itself is chosen by `settings.entities`, where a session has several.

    Raises:
        UserError: the dataset is not there, or two images would have the same name.
    """
    if settings.downloaded:
        from iqt.cohort.s3 import list_keys

        keys = list_keys(settings.s3, settings.accession)
        if not keys:
            raise UserError(f"cohort.bids.accession: {s3_url(settings.s3, settings.accession)} holds nothing")
        places = {key.removeprefix(f"{settings.accession}/"): s3_url(settings.s3, key) for key in keys}
    else:
        places = {name: str(Path(settings.path, name)) for name in _walk(Path(settings.path))}
    unfiltered = settings.subjects == "all" and settings.sessions is None and not settings.entities
    raw, derived, lowfield = [], {}, {}
    for name, place in places.items():
        if "/anat/" not in f"/{name}":
            continue
        is_raw = not name.startswith(("derivatives/", "sourcedata/"))
        found = NAME.fullmatch(name.rpartition("/")[2])
        if found is None:
            if is_raw and unfiltered and re.search(rf"/sub-[^/]*_{suffix}\.(nii(\.gz)?|mgz)$", name):
                raise UserError(
                    f"{place}: is no name that BIDS has, whose labels hold letters and digits alone; rename it, "
                    "or name those to read with cohort.bids.subjects"
                )
            continue
        entities = dict(part.split("-", 1) for part in found["entities"].split("_"))
        file = Named(place, entities, found["suffix"])
        if is_raw and settings.lowfield and _matches(file, settings.lowfield):
            lowfield.setdefault(entities["sub"], []).append(file)
        elif is_raw and file.suffix == suffix:
            raw.append(file)
        else:
            derived.setdefault((entities["sub"], entities.get("ses")), []).append(file)
    chosen = [file for file in raw if _wanted(file, settings)]
    _refuse_absent(chosen, settings, suffix)
    _refuse_twins(chosen, suffix)
    rivals: dict[tuple[str, ...], str] = {}
    entries = [
        _entry(
            file,
            derived.get((file.entities["sub"], file.entities.get("ses")), []),
            lowfield.get(file.entities["sub"], []),
            settings,
            rivals,
        )
        for file in sorted(chosen, key=lambda file: _scan(file.entities))
    ]
    for (ending, first, *others), scan in rivals.items():
        warn(
            f"{ending} of {scan}, and perhaps of more scans, is in {first} and in {' and '.join(others)}: that of "
            f"{first} is taken; move the wrong one out of the dataset"
        )
    return entries


def _walk(root: Path) -> Iterator[str]:
    """Paths, relative to a dataset, of the files in its anat folders and those of its derivatives."""
    if not any(name.startswith("sub-") for name in list_names(root)):
        raise UserError(f"{root}: holds no folder sub-*; cohort.bids.path is the folder of a BIDS dataset")
    for folder, folders, files in walk(root):
        depth = folder.relative_to(root).parts
        folders[:] = sorted(
            name
            for name in folders
            # The masks of a study lie on the grid of its results.
            if not name.startswith(".") and _may_hold(depth, name) and not is_study(folder / name)
        )
        if depth[-1:] == ("anat",):
            yield from ("/".join((*depth, name)) for name in sorted(files) if not name.startswith("."))


def _may_hold(depth: tuple[str, ...], name: str) -> bool:
    if "sub" in {part.partition("-")[0] for part in depth}:
        return name == "anat" or name.startswith("ses-")
    return name.startswith("sub-") or depth[:1] == ("derivatives",) or (not depth and name == "derivatives")


def _wanted(file: Named, settings: BIDS) -> bool:
    entities = file.entities
    return (
        (settings.subjects == "all" or entities["sub"] in settings.subjects)
        and (settings.sessions is None or entities.get("ses") in settings.sessions)
        and all(entities.get(key, "") == value for key, value in settings.entities.items())
    )


def _refuse_absent(files: Iterable[Named], settings: BIDS, suffix: str) -> None:
    """UserError where a person or session that the configuration names has no scan."""
    files = list(files)
    for key, wanted in (("sub", settings.subjects), ("ses", settings.sessions)):
        there = {file.entities.get(key) for file in files}
        absent = [name for name in wanted or () if name not in there] if isinstance(wanted, list) else []
        if absent:
            known, name = ", ".join(sorted(filter(None, there))[:10]), "subjects" if key == "sub" else "sessions"
            raise UserError(
                f"cohort.bids.{name}: {', '.join(absent[:10])} has no {suffix} scan as cohort.bids asks for; there are "
                f"{known or 'none'}. Hint: ids are compared as text, with their zeros"
            )


def _refuse_twins(files: Iterable[Named], suffix: str) -> None:
    seen: dict[str, Named] = {}
    for file in files:
        other = seen.setdefault(_scan(file.entities), file)
        if other is not file:
            differing = sorted(
                {key for key, value in file.entities.items() if other.entities.get(key) != value}
                | {key for key, value in other.entities.items() if file.entities.get(key) != value}
            )
            if not differing:
                raise UserError(f"{other.place} and {file.place} are the same scan in two formats; remove one of them")
            raise UserError(
                f"{other.place} and {file.place} are both the {suffix} scan {_scan(file.entities)}; choose one by "
                f"cohort.bids.entities, with {', '.join(differing)} (an empty value: without that entity)"
            )


def _matches(file: Named, ending: str) -> bool:
    """Whether a file's name has the entities and the suffix of `ending`."""
    *entities, suffix = ending.split("_")
    return file.suffix == suffix and {tuple(part.split("-", 1)) for part in entities} <= set(file.entities.items())


def _entry(
    image: Named,
    derived: Iterable[Named],
    lowfield: Iterable[Named],
    settings: BIDS,
    rivals: dict[tuple[str, ...], str],
) -> Entry:
    """An image and what belongs to it. `rivals` gets an ending and the pipelines that do equally well, with the first
    scan of which that is so."""
    near = [file for file in derived if _belongs(file, image)]
    # Another session may be the low-field scanner's, if the configuration names it.
    anywhere = "ses-" in (settings.lowfield or "")
    partners = [file for file in lowfield if anywhere or file.entities.get("ses") == image.entities.get("ses")]

    def shared(file: Named) -> int:
        """How much of what the image's name says, such as its run, the file's says too."""
        return len(file.entities.items() & image.entities.items())

    def places(*endings: str) -> tuple[str, ...]:
        """The files of these endings whose names say most of what the image's does, all of one pipeline: maps of two
        do not belong together. Of pipelines that do equally well, the first; empty where none has all."""
        pipelines: dict[str, list[Named]] = {}
        for file in near:
            pipelines.setdefault(_pipeline(file), []).append(file)
        chosen = {}
        for pipeline, files in pipelines.items():
            found = [[file for file in files if _matches(file, ending)] for ending in endings]
            if all(found):
                chosen[pipeline] = [max(each, key=shared) for each in found]
        if not chosen:
            return ("",) * len(endings)
        scores = {pipeline: sum(map(shared, files)) for pipeline, files in chosen.items()}
        best = [pipeline for pipeline, score in scores.items() if score == max(scores.values())]
        if len(best) > 1:
            rivals.setdefault((endings[0], *best), _scan(image.entities))
        return tuple(file.place for file in chosen[best[0]])

    most = max(map(shared, partners), default=0)
    partners = [file for file in partners if shared(file) == most]
    if len(partners) > 1:
        raise UserError(
            f"{partners[0].place} and {partners[1].place} are both the low-field scan of {_scan(image.entities)}; "
            "choose one by more entities in cohort.bids.lowfield"
        )

    labels = places(settings.labels)[0] if settings.labels else ""
    posteriors = places(*(settings.posteriors.replace("{tissue}", tissue) for tissue in TISSUES.values()))
    return Entry(
        scan=_scan(image.entities),
        **{"brain" if settings.skull_stripped else "head": image.place},
        mask=places(settings.mask)[0] if settings.mask else "",
        labels=labels,
        lowfield=partners[0].place if partners else "",
        lut=settings.lut if labels else "",
        **dict(zip(TISSUES, posteriors, strict=True)),
    )


def _pipeline(file: Named) -> str:
    """The folder of people that a file lies in: the dataset, or one of its derivatives."""
    return file.place.rpartition(f"/sub-{file.entities['sub']}/")[0]


def _belongs(file: Named, image: Named) -> bool:
    free = {"label", "desc", "res", "seg", "atlas"}
    return all(image.entities.get(key) == value for key, value in file.entities.items() if key not in free)


def _scan(entities: Mapping[str, str]) -> str:
    scan = "_".join(f"{key}-{entities[key]}" for key in ("sub", "ses", "run") if key in entities)
    if not re.fullmatch(SCAN_PATTERN, scan):
        raise UserError(f"{scan}: session and run may hold letters and digits only; rename the scan")
    return scan
