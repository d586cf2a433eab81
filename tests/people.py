"""Small scans for tests of the sources, in the layouts that archives have; stand-ins made from the MNI152 template."""

from __future__ import annotations

import functools
import os
import zipfile
from pathlib import Path

import numpy as np

from iqt.cohort.template import Person, make_person
from iqt.config import Template
from iqt.io.volumes import save_volume

IDS = ("900001", "900002", "900003")


@functools.lru_cache
def person(name: str, voxel_size: float = 4.0) -> Person:
    """A template person, whose labels are FreeSurfer's."""
    return make_person(f"sub-{name}", 1, Template(voxel_size=voxel_size))


def skull(made: Person) -> np.ndarray:
    """The image with something around the brain: what `restore` shows and `restore_brain` does not."""
    return np.where(made.mask, made.T1w, 300).astype(np.float32)


def write_hcp(root: Path, ids: tuple[str, ...] = IDS, brains: bool = True) -> Path:
    """HCP's layout below `root`; without `brains` as the release of 2025 may be, with the skull alone."""
    for name in ids:
        made, folder = person(name), root / name / "T1w"
        if brains:
            save_volume(folder / "T1w_acpc_dc_restore_brain.nii.gz", made.T1w, made.affine)
            save_volume(
                folder / "T2w_acpc_dc_restore_brain.nii.gz", np.where(made.mask, 900 - made.T1w / 2, 0), made.affine
            )
        save_volume(folder / "T1w_acpc_dc_restore.nii.gz", skull(made), made.affine)
        save_volume(folder / "brainmask_fs.nii.gz", made.mask.astype(np.uint8), made.affine)
        save_volume(folder / "aparc+aseg.nii.gz", made.dseg, made.affine)
    return root


def zip_hcp(tree: Path, out: Path) -> Path:
    """A folder of <id>_StructuralRecommended.zip with the people of a tree."""
    out.mkdir()
    for folder in sorted(tree.iterdir()):
        with zipfile.ZipFile(out / f"{folder.name}_StructuralRecommended.zip", "w") as archive:
            for path in sorted(folder.rglob("*.nii.gz")):
                archive.write(path, f"{folder.name}/{path.relative_to(folder).as_posix()}")
    return out


def real_data() -> Path | None:
    """The folder of real scans, where there is one."""
    folder = os.environ.get("IQT_REAL_DATA")
    return Path(folder) if folder and Path(folder).is_dir() else None
