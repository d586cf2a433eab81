"""Write the people drawn from the template: each person's volumes and sidecar."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from iqt.cohort.anatomy import sources
from iqt.cohort.template import Person, make_person
from iqt.config import Template
from iqt.errors import UserError
from iqt.io.batch import run_scans
from iqt.io.naming import anat
from iqt.io.volumes import save_volume

ENDINGS = ("desc-brain_mask", "label-WM_probseg", "label-GM_probseg", "label-CSF_probseg", "dseg")


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
