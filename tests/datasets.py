"""Small datasets of every kind of source, and the configurations that read them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml

from iqt.io.volumes import save_volume
from people import person, write_hcp, zip_hcp

PEOPLE = ("01", "02", "03", "04")
SPLIT = {"train": 2, "val": 1, "test": 1}


def head(name: str) -> np.ndarray:
    """The brain with noise and a shell around it, which no skull-stripped scan has."""
    made = person(name)
    noise = np.random.default_rng(len(name)).random(made.mask.shape)
    return np.where(made.mask, made.T1w, 100 + 200 * noise).astype(np.float32)


def write_bids(root: Path, middle: dict[str, str] | None = None, derivatives: tuple[str, ...] = (), **kinds) -> Path:
    """A BIDS dataset: `middle` has the entities between sub and suffix by person, `derivatives` what there is of mask,
    labels and posteriors; `stripped` images, and a low-field partner in another acquisition with `lowfield`."""
    (root / "sub-01").mkdir(parents=True)
    (root / "dataset_description.json").write_text('{"Name": "made by a test", "BIDSVersion": "1.9.0"}')
    for name in PEOPLE:
        made = person(name)
        entities = (middle or {}).get(name, "")
        session = re.search(r"_(ses-\w+?)(?:_|$)", entities)
        folder = "/".join([f"sub-{name}", *([session.group(1)] if session else []), "anat"])
        image = made.T1w if kinds.get("stripped") else head(name)
        save_volume(root / folder / f"sub-{name}{entities}_T1w.nii.gz", image, made.affine)
        if kinds.get("lowfield"):
            thick = np.ascontiguousarray(made.T1w[:, :, ::2])
            affine = made.affine @ np.diag([1, 1, 2, 1])
            save_volume(root / folder / f"sub-{name}_acq-lowfield_T1w.nii.gz", thick, affine)
        derived = root / "derivatives" / "made" / folder
        files = {"mask": ("desc-brain_mask", made.mask.astype(np.uint8)), "labels": ("desc-aparcaseg_dseg", made.dseg)}
        for kind, (ending, data) in files.items():
            if kind in derivatives:
                save_volume(derived / f"sub-{name}{entities}_{ending}.nii.gz", data, made.affine)
        if "posteriors" in derivatives:
            for tissue, data in (("WM", made.wm), ("GM", made.gm), ("CSF", made.csf)):
                save_volume(derived / f"sub-{name}{entities}_label-{tissue}_probseg.nii.gz", data, made.affine)
    return root


def write_folder(root: Path, stripped: bool = False, lowfield: bool = False) -> Path:
    for name in PEOPLE:
        made = person(name)
        if lowfield:
            thick, affine = np.ascontiguousarray(made.T1w[:, :, ::2]), made.affine @ np.diag([1, 1, 2, 1])
            save_volume(root / f"P{name}" / f"P{name}_64mT.nii.gz", thick, affine)
        save_volume(root / f"P{name}" / f"P{name}_T1w.nii.gz", made.T1w if stripped else head(name), made.affine)
        save_volume(root / f"P{name}" / f"P{name}_mask.nii.gz", made.mask.astype(np.uint8), made.affine)
        save_volume(root / f"P{name}" / f"P{name}_seg.nii.gz", made.dseg, made.affine)
        (root / f"P{name}" / f"._P{name}_T1w.nii.gz").write_bytes(b"what macOS leaves")
    return root


def hcp(root: Path, access: str) -> dict:
    ids = ("900001", "900002", "900003", "900004")
    tree = write_hcp(root / "tree", ids)
    path = tree if access == "tree" else zip_hcp(tree, root / "zips")
    return {"source": "hcp", "hcp": {"access": access, "path": str(path), "subjects": list(ids)}}


def bids(root: Path, made: dict, **settings) -> dict:
    return {"source": "bids", "bids": {"path": str(write_bids(root / "ds", **made)), **settings}}


def write_visits(root: Path) -> Path:
    """A folder whose names hold visits and runs with letters."""
    for number, name in enumerate(PEOPLE):
        made = person(name)
        run = "1b" if number % 2 else "1"
        save_volume(root / f"P{name}_visit-a_run-{run}.nii.gz", made.T1w, made.affine)
    return root


def folder(root: Path, stripped: bool = False, partner: bool = False, **settings) -> dict:
    path = str(write_folder(root / "scans", stripped, partner))
    return {"source": "folder", "folder": {"path": path, "images": "**/*_T1w.nii.gz", **settings}}


SHIPPED = {"builtin": {"weights": "shipped"}}
"""The default, where the smoke configuration trains a parcellator."""
ALL = ("mask", "labels", "posteriors")
CASES: dict[str, tuple[Callable[[Path], dict], dict]] = {
    "template": (lambda root: {"source": "template", "template": {"voxel_size": 4.0}}, {}),
    "hcp tree": (lambda root: hcp(root, "tree"), {"tissues": {"engine": "labels"}}),
    "hcp zips": (lambda root: hcp(root, "zips"), {}),
    "bids, as documented": (lambda root: bids(root, {"stripped": True}), {"parcellate": SHIPPED}),
    "bids, mask, labels and posteriors": (
        lambda root: bids(root, {"derivatives": ALL}),
        {"tissues": {"engine": "cohort"}},
    ),
    "bids, mask made": (lambda root: bids(root, {}), {"parcellate": SHIPPED}),
    "bids, sessions and runs with letters": (
        lambda root: bids(
            root,
            {
                "middle": {name: f"_ses-a_acq-x_run-{'1b' if name == '02' else '1'}" for name in PEOPLE},
                "derivatives": ("mask", "labels"),
            },
            sessions=["a"],
            entities={"acq": "x"},
        ),
        {"tissues": {"engine": "labels"}},
    ),
    "bids, low-field partner": (
        lambda root: bids(root, {"stripped": True, "lowfield": True}, lowfield="acq-lowfield_T1w"),
        {"parcellate": {"engine": "none"}, "lowfield": {"main": {"registration": "rigid"}}},
    ),
    "folder, masks and labels": (
        lambda root: folder(
            root, masks="**/*_mask.nii.gz", labels="**/*_seg.nii.gz", pattern=r"^(?P<sub>P\d{2})_", lut="freesurfer"
        ),
        {},
    ),
    "folder, skull-stripped": (
        lambda root: folder(root, True, skull_stripped=True),
        {"parcellate": {"engine": "none"}},
    ),
    "folder, mask made": (lambda root: folder(root, pattern=r"^(?P<sub>P\d{2})"), {"parcellate": SHIPPED}),
    "folder, visits and runs with letters": (
        lambda root: {
            "source": "folder",
            "folder": {
                "path": str(write_visits(root / "scans")),
                "pattern": r"^(?P<sub>P\d{2})_visit-(?P<ses>[a-z]+)_run-(?P<run>\w+)\.",
                "skull_stripped": True,
            },
        },
        {"parcellate": {"engine": "none"}},
    ),
    "folder, low-field partner": (
        lambda root: folder(root, True, True, skull_stripped=True, lowfield="**/*_64mT.nii.gz"),
        {"parcellate": {"engine": "none"}, "lowfield": {"main": {"registration": "rigid"}}},
    ),
    "label maps": (
        lambda root: {
            "source": "labelmaps",
            "labelmaps": {"path": str(write_folder(root / "maps")), "labels": "**/*_seg.nii.gz", "draws": 2},
        },
        {},
    ),
}


def configure(workflow: Path, cohort: dict, more: dict, name: str = "source") -> None:
    config = yaml.safe_load((workflow / "config" / "smoke.yaml").read_text())
    config |= {"name": name, "compute": {"batches": 1}, "cohort": {"split": SPLIT, "max_missing": 0, **cohort}}
    config["parcellate"] |= more.get("parcellate", {})
    config |= {key: value for key, value in more.items() if key != "parcellate"}
    (workflow / "source.yaml").write_text(yaml.safe_dump(config))
