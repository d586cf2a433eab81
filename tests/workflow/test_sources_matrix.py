"""Every kind of source through the real Snakefile, with its documented keys: planned, run to the low-field scans."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml
from test_cohort_rules import snakemake

from datasets import CASES, PEOPLE, SPLIT, configure, hcp, write_bids
from iqt.io.files import read_json, read_table
from iqt.io.volumes import save_volume
from people import person
from s3 import KEYS, Server

pytestmark = pytest.mark.slow


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
