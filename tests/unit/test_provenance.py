"""How results were made: the chain back through Snakemake's records, and the file that stays with the results."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from iqt.errors import UserError
from iqt.io.files import checksum, write_json
from iqt.provenance.chain import code_checksum, describe, trace
from iqt.provenance.collect import durations, git_state
from iqt.provenance.records import find_workdir, read_records

RUN = "results/run"


def record(folder: Path, output: str, rule: str, inputs: list[str], length: int = 255) -> None:
    """A record as Snakemake's file backend writes it: long names are cut into folders."""
    name = urlsafe_b64encode(output.encode()).decode()
    parts = [name[start : start + length - 1] for start in range(0, len(name), length - 1)]
    path = folder.joinpath(".snakemake", "metadata", *(f"@{part}" for part in parts[:-1]), parts[-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rule": rule, "input": inputs, "starttime": 1.0, "endtime": 3.0}))


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """Two people of one batch: cohort, low field, a model of both, results."""
    code = str(tmp_path / "workflow/iqt/enhance/run.py")
    Path(code).parent.mkdir(parents=True)
    Path(code).write_text("pass\n")
    scans = ("sub-1", "sub-2")
    cohort = [f"{RUN}/cohort/{scan}/anat/{scan}_T1w.json" for scan in scans]
    enhanced = [f"{RUN}/enhanced/main/unet/{scan}_T1w.json" for scan in scans]
    for scan, path in zip(scans, cohort, strict=True):
        (tmp_path / f"{scan}.nii").write_text(scan)
        write_json(tmp_path / path, {"status": "ok", "sources": {f"archive/{scan}.zip": "0" * 64}})
        record(tmp_path, path, "make_cohort_3", [f"{scan}.nii", code])
    model = f"{RUN}/models/unet/seed-1/model.json"
    write_json(tmp_path / model, {"seed": 1})
    record(tmp_path, model, "train", cohort, length=60)
    for path in enhanced:
        write_json(tmp_path / path, {"status": "ok"})
        (tmp_path / path.replace(".json", ".nii.gz")).write_text("volume")
        (tmp_path / path.replace("_T1w.json", "_desc-sd_T1w.nii.gz")).write_text("spread")
        record(tmp_path, path, "enhance_3", [*cohort, model, code])
    table = f"{RUN}/tables/benchmark.csv"
    (tmp_path / table).parent.mkdir()
    (tmp_path / table).write_text("method\n")
    record(tmp_path, table, "write_tables", enhanced)
    return tmp_path


@pytest.mark.parametrize("name", ["sub-1_T1w.nii.gz", "sub-1_desc-sd_T1w.nii.gz", "sub-1_T1w.json"])
def test_a_volume_is_traced_to_its_own_scan_and_to_all_that_trained_its_model(workdir: Path, name: str) -> None:
    chain = trace(workdir / RUN / "enhanced/main/unet" / name)
    steps = {step.rule: step for step in chain.steps}
    assert list(steps) == ["enhance", "make_cohort", "train"]
    assert steps["enhance"].outputs == [f"{RUN}/enhanced/main/unet/sub-1_T1w.json"], "not the batch's other scan"
    assert steps["enhance"].reads == {"make_cohort", "train"}
    assert set(chain.sources) == {"sub-1.nii", "sub-2.nii", "archive/sub-1.zip", "archive/sub-2.zip"}
    assert chain.sources["sub-1.nii"] == checksum(workdir / "sub-1.nii")
    assert chain.sources["archive/sub-1.zip"] == "0" * 64, "a source outside, as the sidecar names it"


def test_a_fetched_scan_is_traced_to_its_archive(workdir: Path) -> None:
    path = workdir / RUN / "cohort/sub-1/anat/sub-1_T1w.json"
    files = {"brain": {"source": "s3://bucket/sub-1/brain.nii.gz", "path": "x", "bytes": 3, "sha256": "a" * 64}}
    write_json(path, {"status": "ok", "files": files})
    assert trace(path).sources["s3://bucket/sub-1/brain.nii.gz"] == "a" * 64


def test_a_cohort_scan_has_its_own_source_alone(workdir: Path) -> None:
    chain = trace(workdir / RUN / "cohort/sub-2/anat/sub-2_T1w.json")
    assert set(chain.sources) == {"sub-2.nii", "archive/sub-2.zip"}
    text = describe(chain)
    assert checksum(workdir / "sub-2.nii") in text
    assert text.splitlines()[0] == "make_cohort"


def test_a_folder_is_traced_through_everything_in_it(workdir: Path) -> None:
    chain = trace(workdir / RUN)
    assert {step.rule for step in chain.steps} == {"write_tables", "enhance", "train", "make_cohort"}
    assert "and" not in describe(chain, shown=None)


def test_an_edit_of_the_code_or_of_a_source_shows(workdir: Path) -> None:
    before = code_checksum(trace(workdir / RUN))
    (workdir / "workflow/iqt/enhance/run.py").write_text("edited\n")
    (workdir / "sub-1.nii").unlink()
    after = trace(workdir / RUN)
    assert code_checksum(after) != before
    assert after.sources["sub-1.nii"].startswith("not readable now")


def test_records_of_both_backends_read_alike(workdir: Path) -> None:
    found = read_records(workdir)
    path = workdir / ".snakemake" / "metadata.db"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE snakemake_metadata (namespace, target, rule, input JSON, starttime REAL, endtime REAL)"
        )
        for entry in found.values():
            values = (entry.output, entry.rule, json.dumps(entry.inputs), entry.started, entry.ended)
            connection.execute("INSERT INTO snakemake_metadata VALUES (?, ?, ?, ?, ?, ?)", (str(path.parent), *values))
        connection.execute("INSERT INTO snakemake_metadata VALUES ('elsewhere', 'x', 'y', '[]', 1, 1)")
    for folder in (workdir / ".snakemake/metadata").iterdir():
        if folder.is_file():
            folder.unlink()
    connection.close()
    assert read_records(workdir) == found


def test_what_cannot_be_traced_is_named(workdir: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(UserError, match="no such file"):
        trace(workdir / RUN / "absent.nii.gz")
    stray = workdir / RUN / "notes.txt"
    stray.write_text("mine")
    with pytest.raises(UserError, match="no record"):
        trace(stray)
    moved = tmp_path_factory.mktemp("moved") / "report.html"
    moved.write_text("page")
    if find_workdir(moved) is None:
        with pytest.raises(UserError, match=r"provenance\.json"):
            trace(moved)


def test_durations_are_summed_over_a_rules_jobs(tmp_path: Path) -> None:
    jobs = [("enhance/main/0.tsv", "1.5", "100"), ("enhance/main/1.tsv", "2", "300"), ("page.tsv", "3", "NA")]
    for name, seconds, memory in jobs:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:01\t{memory}\n")
    assert durations(tmp_path) == {
        "enhance": {"jobs": 2, "seconds": 3.5, "max_rss_mb": 300.0},
        "page": {"jobs": 1, "seconds": 3.0, "max_rss_mb": 0.0},
    }


def test_the_commit_is_the_checkouts_and_a_changed_file_shows(tmp_path: Path) -> None:
    assert git_state(tmp_path / "absent") == {"commit": None, "modified": None}

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "--quiet")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "--quiet", "--message", "a")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "modified": False}
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path)["modified"] is True
    installed = tmp_path / ".venv/lib/iqt"
    installed.mkdir(parents=True)
    assert git_state(installed)["commit"] is None, "the checkout around an environment is another project's"
