"""The cohort's tables: who is in it, what it is made of, and what its labels are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import iqt
from iqt.cohort.split import SPLITS, check_leaks
from iqt.errors import UserError
from iqt.imaging.checks import read_labels
from iqt.io.batch import OK, allow_missing
from iqt.io.files import read_json, read_table, write_json, write_table, write_text
from iqt.io.naming import anat
from iqt.io.shipped import table_file

COLUMNS = ("participant_id", "scan", "split", "status", "voxel_size", "brain_ml")

SOURCES = {
    "template": {
        "Description": "People drawn from the MNI152 template: a stand-in for real anatomy, nobody was scanned.",
        "SourceDatasets": [
            {
                "Name": "MNI ICBM 152 non-linear symmetric template 2009a, as bundled with nilearn",
                "URL": "https://nist.mni.mcgill.ca/icbm-152-nonlinear-atlases-2009/",
            }
        ],
        "License": "Template copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal "
        "Neurological Institute, McGill University; free to use, copy, modify and distribute for any purpose provided "
        "that this notice appears in all copies; no warranty.",
        "ReferencesAndLinks": ["https://doi.org/10.1016/j.neuroimage.2010.07.033"],
    },
    "hcp": {
        "Description": "Structural scans of the Human Connectome Project, young adults, brain-extracted.",
        "SourceDatasets": [{"URL": "https://www.humanconnectome.org/study/hcp-young-adult"}],
        "License": "WU-Minn HCP Consortium Open Access Data Use Terms: not to be shared, nor anything derived from it, "
        "outside those terms.",
    },
    "bids": {"Description": "Scans of a BIDS dataset, brain-extracted; its own licence holds."},
    "folder": {"Description": "Scans of a folder, brain-extracted; their own licence holds."},
    "labelmaps": {
        "Description": "Scans synthesised from label maps: real anatomy with invented intensities.",
        "ReferencesAndLinks": ["https://doi.org/10.1016/j.media.2023.102789", "https://doi.org/10.1126/sciadv.add3607"],
    },
}


def write_participants(lists: Sequence[Path], out: Path, suffix: str, source: str, max_missing: float = 1.0) -> None:
    """Write `participants.tsv`, `dataset_description.json` and `dseg.tsv` into `out`, from sidecars and lists.

    Raises:
        UserError: a sidecar or list is missing, a list holds an unknown split, more than the share `max_missing` of the
            scans failed, or a person or a file is in two splits.
    """
    rows = [row for path in lists for row in read_table(path, required=("scan", "split"))]
    unknown = sorted({row["split"] for row in rows} - set(SPLITS))
    if unknown:
        raise UserError(f"{', '.join(map(str, lists))}: split {', '.join(unknown)}; allowed are {', '.join(SPLITS)}")
    rows.sort(key=lambda row: (SPLITS.index(row["split"]), row["scan"]))
    facts = {row["scan"]: read_json(anat(out, row["scan"], f"{suffix}.json")) for row in rows}
    failed = {scan: record.get("status") for scan, record in facts.items() if record.get("status") != OK}
    allow_missing(failed, len(facts), max_missing)
    people = [row["scan"].split("_")[0] for row in rows]
    check_leaks((person, row["split"], person) for person, row in zip(people, rows, strict=True))
    _check_same_files(rows, facts)
    write_table(out / "participants.tsv", [_participant(row, facts[row["scan"]]) for row in rows], COLUMNS)
    _write_lut(out / "dseg.tsv", source, facts)
    made = {"Name": "iqt", "Version": iqt.__version__}
    write_json(
        out / "dataset_description.json",
        {
            "Name": f"iqt high-quality cohort ({source})",
            "BIDSVersion": "1.9.0",
            "DatasetType": "derivative",
            "GeneratedBy": [made],
            **SOURCES[source],
        },
    )


def _check_same_files(rows: Sequence[Mapping], facts: Mapping[str, Mapping]) -> None:
    """The same image under two names in two splits is a leak too."""
    seen: dict[str, Mapping] = {}
    for row in rows:
        files = facts[row["scan"]].get("files", {})
        checksum = files.get("brain", files.get("head", files.get("labels", {}))).get("sha256")
        other = seen.setdefault(checksum, row) if checksum else row
        if other["split"] != row["split"]:
            raise UserError(
                f"{other['scan']} ({other['split']}) and {row['scan']} ({row['split']}) are the same file under two "
                "names, so the test people would not be new; leave one out"
            )


def _write_lut(path: Path, source: str, facts: Mapping[str, Mapping]) -> None:
    """The look-up table: the template's, or the rows of the labels that the cohort holds, with their mirror images."""
    if source == "template":
        write_text(path, table_file("template").read_text(encoding="utf-8"))
        return
    used = {record["lut"] for record in facts.values() if record.get("lut")}
    rows = {}
    for name in sorted(used):
        known = read_labels(name).rows
        present = {label for record in facts.values() if record.get("lut") == name for label in record["labels"]}
        present |= {int(known[label]["mirror"]) for label in present}
        rows |= {label: known[label] for label in sorted(present)}
    columns = ("index", "name", "abbreviation", "color", "hemisphere", "mirror")
    write_table(path, [{key: row[key] for key in columns} for row in rows.values()], columns)


def _participant(row: Mapping, facts: Mapping) -> dict:
    status = facts.get("status", "its sidecar records no status")
    return {
        "participant_id": row["scan"].split("_")[0],
        "scan": row["scan"],
        "split": row["split"],
        "status": status,
        **{name: facts[name] if status == OK else "n/a" for name in ("voxel_size", "brain_ml")},
    }
