"""Write a cohort: every person's volumes and sidecar, then the tables that describe them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

import iqt
from iqt.batch import OK, run_scans
from iqt.cohort.anatomy import LUT, sources
from iqt.cohort.template import Person, make_person
from iqt.config import Template
from iqt.errors import UserError
from iqt.files import read_json, read_table, write_json, write_table, write_text
from iqt.naming import anat
from iqt.volumes import save_volume

SPLITS = ("train", "val", "test")
COLUMNS = ("participant_id", "scan", "split", "status", "voxel_size", "brain_ml")
ENDINGS = ("desc-brain_mask", "label-WM_probseg", "label-GM_probseg", "label-CSF_probseg", "dseg")

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
    }
}


def build_template(scans: Iterable[str], out: Path, suffix: str, seed: int, settings: Template) -> None:
    """Draw people from the template and write `out/sub-X/anat/*`; a person that fails leaves a sidecar alone.

    Raises:
        UserError: `suffix` is not T1w, the only contrast that the template source has.
    """
    if suffix != "T1w":
        raise UserError(f"suffix: {suffix}, but cohort.source: template makes T1w scans only; set suffix: T1w")

    def outputs(scan: str) -> list[Path]:
        return [anat(out, scan, f"{ending}.nii.gz") for ending in (suffix, *ENDINGS)]

    def work(scan: str) -> dict:
        person = make_person(scan, seed, settings)
        volumes = (person.T1w, person.mask, person.wm, person.gm, person.csf, person.dseg)
        for path, data in zip(outputs(scan), volumes, strict=True):
            save_volume(path, data, person.affine)
        return {"seed": seed, "sources": sources(), **describe(person, settings.voxel_size)}

    run_scans(scans, lambda scan: anat(out, scan, f"{suffix}.json"), outputs, work)


def describe(person: Person, voxel_size: float) -> dict:
    """The facts of a sidecar: sizes in voxels and ml, and what was drawn."""
    ml = voxel_size**3 / 1000
    return {
        "voxel_size": voxel_size,
        "shape": list(person.mask.shape),
        "brain_voxels": int(person.mask.sum()),
        "brain_ml": round(float(person.mask.sum()) * ml, 1),
        "wm_ml": round(float(person.wm.sum(dtype=float)) * ml, 1),
        "gm_ml": round(float(person.gm.sum(dtype=float)) * ml, 1),
        "csf_ml": round(float(person.csf.sum(dtype=float)) * ml, 1),
        "structures": int(np.unique(person.dseg[person.mask]).size),
        **person.drawn,
    }


def write_participants(lists: Sequence[Path], out: Path, suffix: str, source: str) -> None:
    """Write `participants.tsv`, `dataset_description.json` and `dseg.tsv` into `out`, from sidecars and lists.

    Raises:
        UserError: a sidecar or list is missing, or a list holds an unknown split.
    """
    rows = [row for path in lists for row in read_table(path, required=("scan", "split"))]
    unknown = sorted({row["split"] for row in rows} - set(SPLITS))
    if unknown:
        raise UserError(f"{', '.join(map(str, lists))}: split {', '.join(unknown)}; allowed are {', '.join(SPLITS)}")
    rows.sort(key=lambda row: (SPLITS.index(row["split"]), row["scan"]))
    write_table(out / "participants.tsv", [_participant(row, out, suffix) for row in rows], COLUMNS)
    write_text(out / "dseg.tsv", LUT.read_text(encoding="utf-8"))
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


def _participant(row: dict, out: Path, suffix: str) -> dict:
    facts = read_json(anat(out, row["scan"], f"{suffix}.json"))
    status = facts.get("status", "its sidecar records no status")
    return {
        "participant_id": row["scan"].split("_")[0],
        "scan": row["scan"],
        "split": row["split"],
        "status": status,
        **{name: facts[name] if status == OK else "n/a" for name in ("voxel_size", "brain_ml")},
    }
