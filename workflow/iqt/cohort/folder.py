"""Scans in any folder: found by a glob, named by a pattern in their file names. Only names are looked at."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from iqt.cohort.entries import Entry
from iqt.config import Folder, LabelMaps
from iqt.errors import UserError
from iqt.io.naming import READABLE, image_stem
from iqt.terminal import warn


def list_entries(settings: Folder) -> list[Entry]:
    """The scans of a folder; what else there is belongs to the image whose name gives the same person, session, run.

    Raises:
        UserError: no file matches, a name does not hold the pattern, or two files have the same name.
    """
    images = find(settings, settings.images, "images")
    masks = find(settings, settings.masks, "masks") if settings.masks else {}
    labels = find(settings, settings.labels, "labels") if settings.labels else {}
    lowfield = find(settings, settings.lowfield, "lowfield") if settings.lowfield else {}
    for key, found in (("masks", masks), ("labels", labels), ("lowfield", lowfield)):
        _check_partners(settings, key, found, images)
    field = "brain" if settings.skull_stripped else "head"
    return [
        Entry(
            scan=scan,
            **{field: path},
            mask=masks.get(scan, ""),
            labels=labels.get(scan, ""),
            lowfield=lowfield.get(scan, ""),
            lut=settings.lut if scan in labels else "",
        )
        for scan, path in images.items()
    ]


def _check_partners(settings: Folder, key: str, found: Mapping[str, str], images: Mapping[str, str]) -> None:
    """UserError where none of these files has the name of an image, a warning where some have none."""
    alone = sorted(found.keys() - images.keys())
    if not alone:
        return
    if len(alone) == len(found):
        raise UserError(
            f"cohort.folder.{key}: no file has the person, session and run of an image: {settings.pattern!r} finds "
            f"{alone[0]} in {Path(found[alone[0]]).name}, and {min(images)} in {Path(images[min(images)]).name}; name "
            "them alike, or change pattern"
        )
    warn(f"cohort.folder.{key}: {len(alone)} of {len(found)} files belong to no image ({', '.join(alone[:3])})")


def list_label_maps(settings: LabelMaps) -> list[Entry]:
    """A folder's label maps, `draws` scans to be made of each: `sub-X`, or `sub-X_run-1` and on where it is more."""
    maps = find(settings, settings.labels, "labels")
    if settings.draws == 1:
        return [Entry(scan=scan, labels=path, lut=settings.lut) for scan, path in maps.items()]
    running = [scan for scan in maps if "_run-" in scan]
    if running:
        raise UserError(
            f"cohort.labelmaps.draws: {running[0]} has a run already; set draws: 1, or a pattern without run"
        )
    return [
        Entry(scan=f"{scan}_run-{number}", labels=path, lut=settings.lut)
        for scan, path in maps.items()
        for number in range(1, settings.draws + 1)
    ]


def find(settings: Folder | LabelMaps, glob: str, key: str) -> dict[str, str]:
    """Paths by scan name of the files that a glob finds, in order."""
    root, where = Path(settings.path), f"cohort.{'folder' if isinstance(settings, Folder) else 'labelmaps'}"
    if not root.is_dir():
        raise UserError(f"{where}.path: {root} is no folder")
    pattern = re.compile(settings.pattern)
    found: dict[str, str] = {}
    for path in _visible(root, glob):
        match = pattern.search(path.name)
        parts = (
            {name: re.sub(r"[^A-Za-z0-9]", "", value) for name, value in match.groupdict().items() if value}
            if match
            else {}
        )
        if not parts.get("sub"):
            raise UserError(
                f"{path}: {where}.pattern {settings.pattern!r} finds no id (its group sub) in the name; correct it, or "
                f"narrow {where}.{key}"
            )
        scan = "_".join(f"{name}-{parts[name]}" for name in ("sub", "ses", "run") if name in parts)
        if scan in found and image_stem(found[scan]) == image_stem(path):
            raise UserError(f"{found[scan]} and {path} are the same scan in two formats; remove one of them")
        if scan in found:
            raise UserError(f"{found[scan]} and {path} are both {scan} by {where}.pattern; add ses or run to it")
        found[scan] = str(path)
    if not found:
        raise UserError(f"{root}: {where}.{key} = {glob!r} finds no {', '.join(READABLE)} file")
    return found


def _visible(root: Path, glob: str) -> list[Path]:
    """The volumes that a glob finds; hidden files, such as the ._ ones that macOS leaves, are none."""
    try:
        found = sorted(path for path in root.glob(glob) if path.name.endswith(READABLE))
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"{glob!r} is no glob below {root} ({error})") from None
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts)]
