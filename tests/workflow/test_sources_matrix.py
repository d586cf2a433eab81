"""Every kind of source through the real Snakefile, with its documented keys: planned, run to the low-field scans, and
one of each to the report."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_cohort_rules import snakemake

from iqt.files import read_json, read_table
from iqt.volumes import save_volume
from people import person, write_hcp, zip_hcp
from s3 import KEYS, Server

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


def write_folder(root: Path, stripped: bool = False) -> Path:
    for name in PEOPLE:
        made = person(name)
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


def folder(root: Path, stripped: bool = False, **settings) -> dict:
    path = str(write_folder(root / "scans", stripped))
    return {"source": "folder", "folder": {"path": path, "images": "**/*_T1w.nii.gz", **settings}}


ALL = ("mask", "labels", "posteriors")
CASES: dict[str, tuple[Callable[[Path], dict], dict]] = {
    "template": (lambda root: {"source": "template", "template": {"voxel_size": 4.0}}, {}),
    "hcp tree": (lambda root: hcp(root, "tree"), {"tissues": {"engine": "labels"}}),
    "hcp zips": (lambda root: hcp(root, "zips"), {}),
    "bids, as documented": (lambda root: bids(root, {"stripped": True}), {"parcellate": {"engine": "none"}}),
    "bids, mask, labels and posteriors": (
        lambda root: bids(root, {"derivatives": ALL}),
        {"tissues": {"engine": "cohort"}},
    ),
    "bids, mask made": (lambda root: bids(root, {}), {"parcellate": {"engine": "none"}}),
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


@pytest.mark.parametrize("case", CASES)
def test_a_source_is_planned_and_run_to_its_low_field_scans(workflow: Path, tmp_path: Path, case: str) -> None:
    cohort, more = CASES[case]
    configure(workflow, cohort(tmp_path), more)
    planned = snakemake(workflow, "--dry-run", "--quiet")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    done = snakemake(workflow, "cohort", "lowfield")
    assert done.returncode == 0, done.stdout + done.stderr
    results = workflow / "results" / "source"
    rows = read_table(results / "cohort" / "participants.tsv")
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    sidecars = [*(results / "lowfield" / "main").rglob("sub-*_T1w.json")]
    assert len(sidecars) == len(rows)
    assert {read_json(path)["status"] for path in sidecars} == {"ok"}


def test_openneuro_by_accession_is_planned_and_run(workflow: Path, tmp_path: Path) -> None:
    write_bids(tmp_path / "ds", stripped=True)
    with Server() as server:
        server.upload("openneuro.org", tmp_path / "ds", "ds000001/", public=True)
        settings = {"accession": "ds000001", "skull_stripped": True, "s3": {"endpoint": server.url, "attempts": 2}}
        configure(workflow, {"source": "bids", "bids": settings}, {"parcellate": {"engine": "none"}})
        done = snakemake(workflow, "cohort", "lowfield")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_table(workflow / "results/source/cohort/participants.tsv")
    assert [row["status"] for row in rows] == ["ok"] * len(PEOPLE)


def test_hcp_from_its_bucket_is_run_to_the_low_field_scans(workflow: Path, tmp_path: Path) -> None:
    cohort = hcp(tmp_path, "tree")
    with Server() as server:
        server.upload("hcp-openaccess", tmp_path / "tree", "HCP_1200/")
        subjects = cohort["hcp"]["subjects"]
        settings = {"subjects": subjects, "s3": {"endpoint": server.url, "attempts": 2}}
        configure(workflow, {"source": "hcp", "hcp": settings}, {"tissues": {"engine": "labels"}})
        done = snakemake(workflow, "lowfield", **{name.upper(): value for name, value in KEYS.items()})
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((workflow / "results/source/lowfield/main").rglob("*_T1w.json"))) == len(subjects)


@pytest.mark.parametrize("case", ["hcp tree", "bids, as documented", "folder, masks and labels", "label maps"])
def test_a_source_is_run_to_its_report(workflow: Path, tmp_path: Path, case: str) -> None:
    cohort, more = CASES[case]
    methods = {"cubic": {"kind": "cubic"}, "unet": {"kind": "unet", "network": {"channels": [8, 16]}}}
    configure(workflow, cohort(tmp_path), {**more, "methods": methods})
    done = snakemake(workflow)
    assert done.returncode == 0, done.stdout + done.stderr
    results = workflow / "results" / "source"
    rows = {row["method"]: row for row in read_table(results / "tables" / "benchmark.csv")}
    assert all(float(row["psnr"]) > 0 and row["n_failed"] == "0" for row in rows.values())
    page = (results / "report.html").read_text()
    unread = more.get("parcellate", {}).get("engine") == "none"
    assert ("so results are compared by similarity alone" in page) == unread
    assert all((row["miou"] == "") == unread for row in rows.values())
    markdown = (results / "tables" / "benchmark.md").read_text()
    assert ("there is neither mIoU nor Dice" in markdown) == unread
    assert ("| mIoU" in markdown) != unread
    assert ("mIoU" in (results / "tables" / "statistics.md").read_text()) != unread
    assert (results / "figures" / "overlap.png").exists() != unread


NASTY = "a {b} 'c' \"d\" $HOME % \\ ü"


def test_a_users_text_of_any_kind_is_planned_and_run(workflow: Path, tmp_path: Path) -> None:
    """Braces, quotes, dollar and percent signs, a backslash, blanks and an umlaut in every free-text key and path."""
    root = tmp_path / NASTY
    scans = write_folder(root / NASTY)
    lut = root / f"{NASTY}.tsv"
    shutil.copy(workflow / "resources" / "freesurfer_dseg.tsv", lut)
    table = root / f"{NASTY} people.tsv"
    table.write_text("participant_id\t{site} ü\n" + "".join(f"P{name}\tKöln {{x}}\n" for name in PEOPLE))
    glob = {"images": "**/*_T1w.nii.gz", "masks": "**/*{_,}mask*", "labels": "**/*_seg.nii.gz"}
    for path in list(scans.rglob("*_mask.nii.gz")):
        path.rename(path.with_name(path.name.replace("_mask", "{_,}mask")))
    cohort = {
        "source": "folder",
        "downloads": str(root / "downloads"),
        "split": {**SPLIT, "table": str(table), "stratify": ["{site} ü"]},
        "folder": {"path": str(scans), **glob, "pattern": r"^(?P<sub>P\d{2})", "lut": str(lut)},
    }
    experiment = {"title": f"T {NASTY}", "question": f"Which of {{cubic, linear}}? {NASTY}", "methods": ["cubic"]}
    more = {
        "methods": {"cubic": {"kind": "cubic"}, "linear": {"kind": "linear"}},
        "experiments": {"asked": experiment},
        "parcellate": {"labels": str(lut)},
    }
    configure(workflow, cohort, more)
    planned = snakemake(workflow, "--dry-run", "--quiet")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    done = snakemake(workflow)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (workflow / "results/source/report.html").read_text()
    assert "Which of {cubic, linear}?" in page
    assert "$HOME % \\ ü" in page


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["ds002748", "ixi_muse"])
def test_a_real_dataset_is_run_to_its_report(workflow: Path, real: Path, name: str) -> None:
    """Skull-stripped scans without labels, and whole heads with labels of a scheme of their own."""
    people = [path.name.removeprefix("sub-") for path in sorted((real / name).glob("sub-*"))[:4]]
    settings = {"path": str(real / name), "subjects": people, "labels": None}
    settings |= {"skull_stripped": True} if name == "ds002748" else {}
    methods = {"cubic": {"kind": "cubic"}, "unet": {"kind": "unet", "network": {"channels": [8, 16]}}}
    more = {"parcellate": {"engine": "none"}, "methods": methods}
    configure(workflow, {"source": "bids", "bids": settings, "grid": {"voxel_size": 4.0}}, more)
    done = snakemake(workflow)
    assert done.returncode == 0, done.stdout + done.stderr
    results = workflow / "results" / "source"
    rows = {row["method"]: row for row in read_table(results / "tables" / "benchmark.csv")}
    assert all(row["n_failed"] == "0" for row in rows.values())
    records = [read_json(path) for path in (results / "cohort").rglob("*_T1w.json")]
    assert all(1000 < record["brain_ml"] < 2000 and record["mask_warnings"] == [] for record in records)


def test_a_run_may_be_started_outside_the_checkout(workflow: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    configure(workflow, {"source": "template", "template": {"voxel_size": 4.0}}, {})
    (folder / "source.yaml").write_text((workflow / "source.yaml").read_text())
    done = snakemake(folder, "cohort", "-s", str(workflow / "Snakefile"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "results/source/cohort/participants.tsv").exists()
    assert not (workflow / "results").exists()


# --- documentation ---------------------------------------------------------------------------------------------------


def blocks(repository: Path) -> dict[str, str]:
    """Every YAML block of README.md and docs/, by file and line."""
    found = {}
    for path in [repository / "README.md", *sorted((repository / "docs").rglob("*.md"))]:
        text = path.read_text()
        for block in re.finditer(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            line = text[: block.start()].count("\n") + 1
            found[f"{path.relative_to(repository)}:{line}"] = block.group(1)
    return found


def test_every_configuration_of_the_documentation_is_planned(workflow: Path, repository: Path) -> None:
    folders = {
        "/data/ds": lambda root: write_bids(root, dict.fromkeys(PEOPLE, "_acq-mprage")),
        "/data/oasis": lambda root: (
            [save_volume(root / f"OAS1_{name}_T1w.nii.gz", person(name).T1w, person(name).affine) for name in PEOPLE]
            and [
                save_volume(root / f"OAS1_{name}_mask.nii.gz", person(name).mask, person(name).affine)
                for name in PEOPLE
            ]
        ),
        "/data/label_maps": lambda root: [
            save_volume(root / f"sub-{name}_dseg.nii.gz", person(name).dseg, person(name).affine) for name in PEOPLE
        ],
        "/data/pairs": lambda root: [
            save_volume(root / f"{name}_{kind}_T1w.nii.gz", person(name).T1w, person(name).affine)
            for name in PEOPLE
            for kind in ("3T", "64mT")
        ],
    }
    ids = ["116120", "116221", "116423", *(str(100000 + number) for number in range(66))]
    (workflow / "hcp_subjects.txt").write_text("\n".join(ids))
    named = blocks(repository)
    assert len(named) >= 10
    for place, text in named.items():
        for folder_name, write in folders.items():
            if folder_name in text:
                local = workflow / folder_name.lstrip("/")
                if not local.exists():
                    write(local)
                text = text.replace(folder_name, str(local))
        config = {"name": "documented", **yaml.safe_load(text)}
        config = complete(config)
        (workflow / "source.yaml").write_text(yaml.safe_dump(config))
        shutil.rmtree(workflow / "results", ignore_errors=True)
        done = snakemake(workflow, "--dry-run", "--quiet")
        assert done.returncode == 0, place + done.stdout + done.stderr


def complete(config: dict) -> dict:
    """What a block of the documentation leaves out because it is about something else."""
    if config.get("cohort", {}).get("source") in ("bids", "folder", "labelmaps"):
        config["cohort"].setdefault("split", SPLIT)
    for experiment in config.get("experiments", {}).values():
        names = [name for name in experiment["methods"] if name not in config.get("methods", {})]
        schedule = {name: name.partition("_")[0] for name in names}
        config["methods"] = config.get("methods", {}) | {
            name: {"kind": "diffusion_iqt", "diffusion": {"schedule": schedule[name]}} for name in names
        }
    return config
