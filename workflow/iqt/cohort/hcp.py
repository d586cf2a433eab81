"""Where HCP keeps a person's files: https://www.humanconnectome.org/study/hcp-young-adult. Nothing is read here."""

from __future__ import annotations

import re
from pathlib import Path

from iqt.cohort.entries import Entry
from iqt.cohort.places import in_zip, list_names, s3_url
from iqt.config import HCP
from iqt.errors import UserError

SUFFIXES = ("T1w", "T2w")
ZIP = "{}_StructuralRecommended.zip"


def entry(scan: str, suffix: str, settings: HCP) -> Entry:
    """The files of `sub-<id>`; the mask and the labels are needed, and one of the two images.

    `brain` is `<suffix>_acpc_dc_restore_brain`, `head` the same with its skull, from which the brain is computed where
    the first is absent, as it may be in the release of 2025.
    """
    if suffix not in SUFFIXES:
        raise UserError(f"suffix: {suffix}, but HCP has {' and '.join(SUFFIXES)} only")
    person = scan.removeprefix("sub-")

    def place(name: str) -> str:
        path = f"{person}/T1w/{name}.nii.gz"
        if settings.access == "s3":
            return s3_url(settings.s3, path)
        folder = Path(settings.path)
        if settings.access == "zips":
            return in_zip(folder / ZIP.format(person), path)
        return str(folder / path)

    return Entry(
        scan=scan,
        brain=place(f"{suffix}_acpc_dc_restore_brain"),
        head=place(f"{suffix}_acpc_dc_restore"),
        mask=place("brainmask_fs"),
        labels="" if settings.labels == "none" else place(settings.labels),
        lut="freesurfer",
    )


def list_people(settings: HCP) -> list[str]:
    """The ids that the source holds, in order; this is the only thing that needs the source when a run is planned."""
    if settings.access == "s3":
        from iqt.cohort.s3 import list_folders

        names = list_folders(settings.s3)
        where = s3_url(settings.s3, "")
    else:
        where = Path(settings.path)
        names = list_names(where)
    pattern = re.escape(ZIP).replace(r"\{\}", r"(\d+)") if settings.access == "zips" else r"(\d+)"
    people = [found.group(1) for name in names if (found := re.fullmatch(pattern, name))]
    if not people:
        wanted = ZIP.format("<id>") if settings.access == "zips" else "<id>/T1w"
        raise UserError(f"{where}: holds no {wanted}; check cohort.hcp, or name cohort.hcp.subjects")
    return sorted(people)
