"""One of each kind of source, and real scans, through the real Snakefile to the report."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from test_cohort_rules import snakemake

from datasets import CASES, PEOPLE, SHIPPED, SPLIT, configure, write_folder
from iqt.io.files import read_json, read_table

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "case", ["hcp tree", "bids, as documented", "folder, masks and labels", "folder, skull-stripped", "label maps"]
)
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
    trained = more.get("parcellate") is None
    assert (results / "models" / "parcellator").exists() == trained


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
    more = {"parcellate": SHIPPED, "methods": methods}
    configure(workflow, {"source": "bids", "bids": settings, "grid": {"voxel_size": 4.0}}, more)
    done = snakemake(workflow)
    assert done.returncode == 0, done.stdout + done.stderr
    results = workflow / "results" / "source"
    rows = {row["method"]: row for row in read_table(results / "tables" / "benchmark.csv")}
    assert all(row["n_failed"] == "0" and float(row["miou"]) > 0.3 for row in rows.values())
    records = [read_json(path) for path in (results / "cohort").rglob("*_T1w.json")]
    assert all(1000 < record["brain_ml"] < 2000 and record["mask_warnings"] == [] for record in records)
