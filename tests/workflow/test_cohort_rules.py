"""Sources in the workflow: planned without data, keys or network; run without a trace of a key."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from iqt.io.files import read_json, read_table
from people import IDS, real_data, write_hcp
from s3 import KEYS, Server

pytestmark = pytest.mark.slow

SNAKEMAKE = Path(sys.executable).with_name("snakemake")


def snakemake(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in a copy of the workflow, without anybody's AWS keys or a way out but loopback."""
    command = [str(SNAKEMAKE), *arguments, "--cores", "2", "--configfile", "source.yaml"]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("SNAKEMAKE", "PYTHON", "AWS"))}
    nowhere = {"AWS_CONFIG_FILE": f"{folder}/none", "AWS_SHARED_CREDENTIALS_FILE": f"{folder}/none"}
    nowhere |= {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=inherited | nowhere | environment)


def configure(folder: Path, /, engine: str = "builtin", **cohort) -> None:
    """The smoke configuration with another cohort; engine `fastsurfer` needs no labels, and here it is never run."""
    config = yaml.safe_load((folder / "config" / "smoke.yaml").read_text())
    config |= {"name": "source", "cohort": cohort}
    config["parcellate"]["engine"] = engine
    (folder / "source.yaml").write_text(yaml.safe_dump(config))


def test_all_of_hcp_is_planned_without_keys_or_network(workflow: Path) -> None:
    people = [100000 + 7 * number for number in range(1113)]
    split = {"train": "rest", "val": 60, "test": people[:20]}
    configure(workflow, source="hcp", split=split, hcp={"subjects": people})
    done = snakemake(workflow, "--dry-run", "--quiet")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Family_ID" in done.stdout + done.stderr, "siblings are warned of"
    assert not (workflow / "results").exists()


def test_a_source_is_planned_with_the_rules_it_needs(workflow: Path) -> None:
    split = {"train": 1, "val": 1, "test": 1}
    configure(workflow, source="hcp", split=split, hcp={"access": "tree", "path": "not/there", "subjects": list(IDS)})
    done = snakemake(workflow, "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    planned = done.stdout + done.stderr
    assert all(f"\n{rule}" in planned for rule in ("fetch_", "ingest_", "degrade_", "train"))
    assert "make_template" not in planned
    assert "mask_" not in planned, "HCP brings its masks"
    configure(workflow, source="hcp", split=split, hcp={"access": "tree", "path": "not/there"})
    done = snakemake(workflow, "--dry-run")
    assert done.returncode != 0
    assert "not/there: cannot be listed" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_real_low_field_scans_replace_the_simulator(workflow: Path) -> None:
    for person in "abc":
        for kind in ("hf", "lf"):
            path = workflow / "pairs" / f"{person}_{kind}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            path.touch()
    pairs = {"path": "pairs", "images": "*_hf.nii.gz", "lowfield": "*_lf.nii.gz", "skull_stripped": True}
    configure(workflow, "fastsurfer", source="folder", split={"train": 1, "val": 1, "test": 1}, folder=pairs)
    config = yaml.safe_load((workflow / "source.yaml").read_text())
    for lowfield, wanted, absent in (
        ({"main": {"registration": "rigid"}}, {"register_"}, {"degrade"}),
        ({"main": {}, "real": {"registration": "affine"}}, {"degrade_", "register_real_"}, {"degrade_real"}),
    ):
        (workflow / "source.yaml").write_text(yaml.safe_dump(config | {"lowfield": lowfield}))
        done = snakemake(workflow, "--dry-run")
        planned = done.stdout + done.stderr
        assert done.returncode == 0, planned
        assert all(f"\n{rule}" in planned for rule in wanted)
        assert not any(f"\n{rule}" in planned for rule in absent)


@pytest.fixture
def bucket(tmp_path: Path):
    """A bucket with HCP's layout: the real people of IQT_REAL_DATA where there are some."""
    real = real_data()
    tree = real / "hcp_layout" / "HCP_1200" if real else write_hcp(tmp_path / "hcp", IDS[:2])
    with Server() as server:
        server.upload("hcp-openaccess", tree, "HCP_1200/")
        yield server


def from_bucket(workflow: Path, server: Server, **changes) -> None:
    settings = {"subjects": list(IDS), "s3": {"endpoint": server.url, "attempts": 2}}
    split = {"train": 1, "val": 1, "test": 1}
    # the third of the real people does not exist: skipped, and listed
    configure(workflow, source="hcp", split=split, max_missing=0.4, hcp=settings, **changes)


def test_a_run_leaves_no_trace_of_a_key_and_repeats_no_download(workflow: Path, bucket: Server) -> None:
    from_bucket(workflow, bucket)
    keys = {name.upper(): value for name, value in KEYS.items()}
    done = snakemake(workflow, "cohort", "--show-failed-logs", "--printshellcmds", **keys)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    folder = workflow / "results" / "source"
    rows = read_table(folder / "cohort" / "participants.tsv")
    assert sorted(row["status"].split(": ")[0] for row in rows) == ["fetch", "ok", "ok"]
    checked = read_json(folder / "source" / "checked.json")
    assert list(checked["missing"]) == ["sub-900003"]
    assert checked["bytes_to_download"] > 0
    labels = {int(row["index"]) for row in read_table(folder / "cohort" / "dseg.tsv")}
    assert {2, 41} <= labels < set(range(3000))

    files = [path for path in workflow.rglob("*") if path.is_file()]
    assert any(".snakemake/metadata" in str(path) for path in files)
    for secret in KEYS.values():
        assert secret not in said
        assert not [path for path in files if secret.encode() in path.read_bytes()]

    asked = bucket.asked.total()
    again = snakemake(workflow, "cohort", **keys)
    assert "Nothing to be done" in again.stdout + again.stderr
    for name in ("fetch.py", "download.py", "s3.py", "ingest.py"):
        path = workflow / "workflow" / "iqt" / "cohort" / name
        path.write_text(path.read_text() + "\n# edited\n")
    planned = snakemake(workflow, "cohort", "--dry-run", **keys)
    assert "ingest_" in planned.stdout + planned.stderr
    assert "fetch_" not in planned.stdout + planned.stderr.replace("results/source/logs/fetch_", "")
    assert bucket.asked.total() == asked


def test_a_changed_source_and_another_change_rerun_in_one_go(workflow: Path) -> None:
    tree = write_hcp(workflow / "hcp", IDS)
    settings = {"access": "tree", "path": str(tree), "subjects": list(IDS)}
    configure(workflow, source="hcp", split={"train": 1, "val": 1, "test": 1}, hcp=settings)
    done = snakemake(workflow, "cohort")
    assert done.returncode == 0, done.stdout + done.stderr
    sidecar = workflow / "results/source/cohort/sub-900001/anat/sub-900001_T1w.json"
    assert read_json(sidecar)["labels"]
    changed = {"grid": {"voxel_size": 3}, "max_missing": 0.5, "hcp": settings | {"labels": "none"}}
    configure(workflow, "fastsurfer", source="hcp", split={"train": 1, "val": 1, "test": 1}, **changed)
    done = snakemake(workflow, "cohort")
    assert done.returncode == 0, done.stdout + done.stderr
    record = read_json(sidecar)
    assert (record["labels"], record["voxel_size"]) == ([], 3.0)
    again = snakemake(workflow, "cohort")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_a_failure_behind_a_pipe_is_a_failure(workflow: Path) -> None:
    """A rule whose output is also shown ends with its command's status, not with tee's."""
    tree = write_hcp(workflow / "hcp", IDS)
    settings = {"access": "tree", "path": str(tree), "subjects": list(IDS)}
    configure(workflow, source="hcp", split={"train": 1, "val": 1, "test": 1}, hcp=settings)
    path = workflow / "workflow/iqt/cohort/fetch.py"
    working = path.read_text()
    path.write_text(working.replace("    entries = {scan", "    raise StopError('full')\n    entries = {scan"))
    assert path.read_text() != working
    done = snakemake(workflow, "cohort")
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "iqt: error: full" in said
    assert "MissingOutput" not in said
    assert "--latency-wait" not in said


@pytest.mark.parametrize("case", ["no keys", "wrong keys", "terms", "clock"])
def test_a_refusal_stops_the_run_with_one_sentence_before_anything_else(
    workflow: Path, bucket: Server, case: str
) -> None:
    from_bucket(workflow, bucket)
    keys = {} if case == "no keys" else {name.upper(): value for name, value in KEYS.items()}
    code, words = {
        "no keys": ("", "no AWS keys"),
        "wrong keys": ("InvalidAccessKeyId", "wrong or were reset"),
        "terms": ("AccessDenied", "data use terms have not been accepted"),
        "clock": ("RequestTimeTooSkewed", "this machine's clock is off"),
    }[case]
    if code:
        bucket.refuse = lambda method, path: (403, code)
    done = snakemake(workflow, "cohort", **keys)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert said.count(words) == 1
    assert "MissingOutput" not in said
    assert "Traceback" not in said
    assert not any(value in said for value in KEYS.values())
    assert not list((workflow / "results" / "source").rglob("*_files.json"))
    assert not (workflow / "downloads").exists()
