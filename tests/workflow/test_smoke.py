"""The smoke configuration end to end, and what a user finds afterwards."""

from __future__ import annotations

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest
import yaml

from browser import Browser, program
from checkout import PARTS
from documented import prepare, runnable
from iqt.diffusion.spread import LEVELS, read_spread
from iqt.io.files import checksum, read_json, read_table

SNAKEMAKE = Path(sys.executable).with_name("snakemake")
METHODS = ["cubic", "unet", "diffusion_iqt", "diffusion_iqt_mean"]
CONTRACT = [
    "method",
    "n_subjects",
    "n_parameters",
    "nfe",
    "seconds_per_volume",
    "psnr",
    "psnr_lo",
    "psnr_hi",
    "msssim",
    "msssim_lo",
    "msssim_hi",
    "ssim",
    "hfcorr",
    "miou",
    "miou_lo",
    "miou_hi",
    "dice",
]


def snakemake(folder: Path, *arguments: str, config: str = "config/smoke.yaml") -> subprocess.CompletedProcess[str]:
    command = [str(SNAKEMAKE), "--cores", "2", "--configfile", config, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A folder in which the smoke configuration has run."""
    folder = tmp_path_factory.mktemp("smoke")
    for name in ("Snakefile", *PARTS):
        (folder / name).symlink_to(repository / name)
    done = snakemake(folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return folder


def test_the_table_keeps_its_contract(finished: Path) -> None:
    with (finished / "results/smoke/tables/benchmark.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0])[: len(CONTRACT)] == CONTRACT
    assert [row["method"] for row in rows] == METHODS
    assert all(row["n_subjects"] == "2" for row in rows), "the test split only"
    nfe = {row["method"]: float(row["nfe"]) for row in rows}
    assert nfe == {"cubic": 0, "unet": 1, "diffusion_iqt": 2, "diffusion_iqt_mean": 4}
    for row in rows:
        assert 5 < float(row["psnr"]) < 40
        assert float(row["psnr_lo"]) <= float(row["psnr"]) <= float(row["psnr_hi"])
        assert all(0 <= float(row[name]) <= 1 for name in ("msssim", "ssim", "miou", "dice"))


def test_every_stage_left_its_files(finished: Path) -> None:
    results = finished / "results/smoke"
    for name in (
        "cohort/participants.tsv",
        "cohort/dataset_description.json",
        "cohort/dseg.tsv",
        "cohort/sub-train001/anat/sub-train001_label-GM_probseg.nii.gz",
        "lowfield/main/sub-test001/anat/sub-test001_T1w.nii.gz",
        "lowfield/main/sub-test001/anat/sub-test001_space-HQ_T1w.nii.gz",
        "models/diffusion_iqt/seed-1/model.safetensors",
        "models/parcellator/seed-1/model.safetensors",
        "enhanced/main/diffusion_iqt_mean/sub-test002_desc-sd_T1w.nii.gz",
        "parcellation/hq/sub-test001_dseg.nii.gz",
        "parcellation/main/unet/sub-test001_dseg.nii.gz",
        "metrics/structures.csv",
        "metrics/parcellator.csv",
        "metrics/panels/main/sub-test001.npz",
        "tables/benchmark.tex",
        "tables/statistics.md",
        "tables/structures.tex",
        "figures/slices_sub-test001.svg",
        "report.html",
        "provenance.json",
    ):
        assert (results / name).is_file(), name
    assert not (results / "models/diffusion_iqt_mean").exists(), "it shares the single sample's model"
    assert not list(results.rglob(".partial-*"))
    drawn = read_json(results / "lowfield/main/sub-test001/anat/sub-test001_T1w.json")
    assert drawn["status"] == "ok"
    assert drawn["draw"]["snr_wm"] > 0


def test_the_page_holds_every_method_and_asks_the_network_for_nothing(finished: Path) -> None:
    page = (finished / "results/smoke/report.html").read_text()
    assert all(method in page for method in METHODS)
    assert "template" in page
    assert 'src="http' not in page
    assert 'href="http' not in page.replace('href="https://arxiv.org', "")


def test_a_second_run_finds_nothing_to_do(finished: Path) -> None:
    done = snakemake(finished)
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr


def test_show_prints_the_table_and_where_the_page_is(finished: Path) -> None:
    command = [sys.executable, "-m", "iqt", "show", "results/smoke"]
    environment = os.environ | {"PYTHONPATH": str(finished / "workflow")}
    done = subprocess.run(command, cwd=finished, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert all(method in done.stdout for method in METHODS)
    assert "results/smoke/report.html" in done.stdout


@pytest.mark.slow
def test_snakemakes_own_report_is_written(finished: Path, tmp_path: Path) -> None:
    done = snakemake(finished, "--report", "report.zip")
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(finished / "report.zip") as archive:
        names = archive.namelist()
        archive.extractall(finished / "report")
    assert any(name.endswith("slices_sub-test001.png") for name in names)
    browser = Browser(program(), tmp_path / "profile")
    try:
        browser.open(next((finished / "report").rglob("report.html")))
        for word in ("Benchmark", "Structures", "Slices", "Parcellation", "Training", "Page"):
            browser.wait(f"document.body.innerText.toLowerCase().includes({word.lower()!r})")
        assert [url for url in browser.requests if not url.startswith(("file:", "data:", "blob:"))] == []
        theirs = "cdn.tailwindcss.com should not be used in production"  # advice to Snakemake's makers, not an error
        assert [text for text in browser.complaints if theirs not in text] == []
    finally:
        browser.close()


@pytest.mark.slow
def test_figures_are_redrawn_from_the_metrics_alone(finished: Path, tmp_path: Path) -> None:
    """No volume, no model and no record of a job is there, and the same bytes come out."""
    for name in ("Snakefile", *PARTS):
        (tmp_path / name).symlink_to(finished / name)
    run = Path("results/smoke")
    shutil.copytree(finished / run / "metrics", tmp_path / run / "metrics", ignore=shutil.ignore_patterns("parts"))
    for path in (tmp_path / run / "metrics").rglob("*.csv"):
        os.utime(path, (0, 0))  # older than the code that wrote them
    done = snakemake(tmp_path, "--", "figures")
    assert done.returncode == 0, done.stderr[-4000:]
    assert not (tmp_path / run / "cohort").exists(), "nothing but figures and tables was made"
    made = [path for name in ("tables", "figures") for path in (tmp_path / run / name).iterdir()]
    assert len(made) > 15
    for path in made:
        assert path.read_bytes() == (finished / path.relative_to(tmp_path)).read_bytes(), path.name


def test_an_experiment_shows_what_was_measured_and_measures_nothing_again(finished: Path) -> None:
    raw = yaml.safe_load((finished / "config/smoke.yaml").read_text())
    methods = ["diffusion_iqt_mean", "unet"]
    metrics = ["psnr", "miou", "patch_seam", "correlation", "train_seconds", "train_mb", "enhance_mb"]
    raw["experiments"] = {"pair": {"title": "t", "question": "q", "methods": methods, "metrics": metrics}}
    (finished / "pair.yaml").write_text(yaml.safe_dump(raw))
    done = snakemake(finished, "--", "experiment_pair", config="pair.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    ran = set(re.findall(r"^(?:local)?rule (\w+):$", done.stdout + done.stderr, re.MULTILINE))
    assert ran == {"gather_experiment", "plot_experiment", "experiment_pair"}
    results = finished / "results/smoke"
    rows = read_table(results / "tables/experiments/pair.csv")
    assert [row["method"] for row in rows] == methods
    for row in rows:
        for table, names in (("subjects", ["psnr", "miou"]), ("seams/main", ["patch_seam"])):
            own = [one for one in read_table(results / f"metrics/{table}.csv") if one["method"] == row["method"]]
            for name in names:
                values = [float(one[name]) for one in own if one[name]]
                assert float(row[name] or "nan") == pytest.approx(np.mean(values or [np.nan]), rel=1e-4, nan_ok=True)
        model = "unet" if row["method"] == "unet" else "diffusion_iqt"
        card = read_json(results / f"models/{model}/seed-1/model.json")
        assert float(row["train_seconds"]) == pytest.approx(card["seconds"], rel=1e-4)
        for name, job in (("train_mb", f"train/{model}/seed-1"), ("enhance_mb", f"enhance/main/{row['method']}/*")):
            sizes = [one["max_rss"] for path in results.glob(f"benchmarks/{job}.tsv") for one in read_table(path)]
            largest = max((float(size) for size in sizes if size not in ("NA", "-")), default=np.nan)
            assert float(row[name] or "nan") == pytest.approx(largest, rel=1e-4, nan_ok=True)
        assert float(row["train_mb"]) > 100, "what holds torch is as large, and a training long enough to be seen"
    mean, regression = rows
    calibration = [float(one["correlation"]) for one in read_table(results / "metrics/calibration/main.csv")]
    assert float(mean["correlation"]) == pytest.approx(np.mean(calibration), rel=1e-4)
    assert (regression["correlation"], regression["patch_seam"]) == ("", ""), "it draws no samples and knows no patches"
    assert mean["patch_seam"]


def test_the_samples_spread_is_calibrated_on_the_validation_people(finished: Path) -> None:
    results = finished / "results/smoke"
    spread = read_spread(results / "models/diffusion_iqt/seed-1/spread_diffusion_iqt_mean.json")
    assert (spread.set, spread.n_scans) == ("main", 1)
    assert spread.usage["sampling"]["samples"] == 2
    for row in read_table(results / "metrics/calibration/main.csv"):
        assert 0.5 < float(row["calibrated_ratio"]) < 2, "one person tells what to expect of another"
        coverage = [float(row[f"calibrated_coverage_{level}"]) for level in LEVELS]
        assert coverage == sorted(coverage)
        assert coverage[-1] > 0.8
    assert "diffusion_iqt_mean, calibrated" in (results / "report.html").read_text()


@pytest.mark.slow
def test_a_further_seed_is_trained_and_scored_and_nothing_else(finished: Path) -> None:
    results = finished / "results/smoke"
    raw = yaml.safe_load((finished / "config/smoke.yaml").read_text()) | {"seeds": [1, 2]}
    raw["experiments"] = {"twice": {"title": "t", "question": "q", "methods": ["unet"], "metrics": ["psnr", "miou"]}}
    (finished / "twice.yaml").write_text(yaml.safe_dump(raw))
    first = {path: path.stat().st_mtime_ns for path in (results / "metrics/parts").rglob("*.csv")}
    done = snakemake(finished, "--", "experiment_twice", config="twice.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    ran = re.findall(r"^(?:local)?rule (\w+?)(?:_\d+)?:$", done.stdout + done.stderr, re.MULTILINE)
    n_batches = len(list((results / "metrics/parts/main").glob("batch-*")))
    batches = dict.fromkeys(("enhance", "parcellate_result", "evaluate"), n_batches)
    assert Counter(ran) == {"train": 1, **batches, "gather_experiment": 1, "plot_experiment": 1, "experiment_twice": 1}
    (row,) = read_table(results / "tables/experiments/twice.csv")
    means = {}
    for path in (results / "metrics/parts/main").glob("batch-*/unet*/**/subjects.csv"):
        for one in read_table(path):
            means.setdefault(one["seed"], []).append(float(one["psnr"]))
    assert {seed: len(values) for seed, values in means.items()} == {"1": 2, "2": 2}
    by_seed = [np.mean(values) for values in means.values()]
    assert by_seed[0] != by_seed[1]
    assert (row["n_seeds"], row["n_subjects"], row["n_failed"]) == ("2", "2", "0")
    assert float(row["psnr"]) == pytest.approx(np.mean(by_seed), rel=1e-4)
    assert float(row["psnr_seed_sd"]) == pytest.approx(np.std(by_seed, ddof=1), rel=1e-3)
    assert all(path.stat().st_mtime_ns == changed for path, changed in first.items()), "what was scored is left"


@pytest.mark.slow
def test_fastsurfer_reads_the_same_run(finished: Path, repository: Path, tmp_path: Path) -> None:
    """With a stand-in for its script: found, planned, run and read by rules of their own."""
    config = tmp_path / "fastsurfer.yaml"
    text = (repository / "config/smoke.yaml").read_text()
    section = "parcellate:\n  engine: fastsurfer\n  fastsurfer: {allow_root: true, threads: 1}"
    config.write_text(text.replace("parcellate:", section))
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("Snakefile", *PARTS):
        (folder / name).symlink_to(repository / name)
    shutil.copytree(finished / "results", folder / "results")
    variables = {"FASTSURFER_HOME": str(repository / "tests/standins/fastsurfer")}
    variables |= {"STANDIN_PYTHON": sys.executable, "STANDIN_SIDE": "200", "PYTHONPATH": ""}
    wanted = "results/smoke/parcellation/main/unet/sub-test001_dseg.json"
    command = [str(SNAKEMAKE), "--cores", "2", "--configfile", str(config), "--rerun-triggers", "mtime", "--", wanted]
    (folder / wanted).unlink()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | variables)
    assert done.returncode == 0, done.stderr[-4000:]
    record = read_json(folder / wanted)
    assert (record["status"], record["engine"], record["version"]) == ("ok", "fastsurfer", "2.4.2+standin")
    assert read_json(folder / "results/smoke/fastsurfer/program.json")["version"] == "2.4.2+standin"
    labels = nib.load(folder / wanted.replace("dseg.json", "dseg.nii.gz"))
    image = nib.load(folder / "results/smoke/enhanced/main/unet/sub-test001_T1w.nii.gz")
    assert np.allclose(labels.affine, image.affine)
    assert labels.shape == image.shape


def test_a_volume_is_traced_back_to_the_template_and_the_run_tells_how_it_was_made(finished: Path) -> None:
    command = [sys.executable, "-m", "iqt", "provenance", "results/smoke/enhanced/main/unet/sub-test001_T1w.nii.gz"]
    environment = os.environ | {"PYTHONPATH": str(finished / "workflow")}
    done = subprocess.run(command, cwd=finished, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    steps = [line.split("  <-  ")[0] for line in done.stdout.splitlines() if line[0] != " "]
    assert steps[0] == "enhance"
    assert steps[-1] == "source files"
    assert set(steps) >= {"train", "degrade", "store", "make_template", "list_participants"}
    parts = re.split(r"^(?=\w)", done.stdout, flags=re.MULTILINE)
    low = next(part for part in parts if part.startswith("degrade"))
    assert "sub-test001" in low
    assert "sub-test002" not in low, "another scan of the same batch is no part of it"
    assert "sub-train001" in low, "the network was trained on it"
    source = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    recorded = read_json(finished / "results/smoke/provenance.json")
    digest = next(digest for name, digest in recorded["sources"].items() if name.endswith(source))
    assert f"{source}  sha256 {digest}" in done.stdout
    assert recorded["config"]["name"] == "smoke"
    assert recorded["seeds"]["models"]["unet"] == 1
    assert recorded["rules"]["write_page"]
    assert recorded["durations"]["train"]["jobs"] == 2
    table = finished / "results/smoke/tables/benchmark.csv"
    assert recorded["results"]["tables/benchmark.csv"] == checksum(table)


@pytest.fixture(scope="module")
def documented(finished: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the documented commands name."""
    folder = tmp_path_factory.mktemp("documented")
    for name in {"Snakefile", *PARTS} - {"config"}:
        (folder / name).symlink_to(repository / name)
    prepare(folder, finished / "results" / "smoke")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", [*runnable("iqt"), *runnable("iqt-bids")])
def test_a_documented_command_runs_as_it_is_written(command: str, documented: Path) -> None:
    """In the order of the pages, so that a command finds what those above it have made."""
    words = shlex.split(command.replace("PATH...", "PATH"))
    program = Path(sys.executable).with_name(words[0])
    if words[1:4] == ["study", "DATASET", "OUT"] and "--dry-run" not in words:
        shutil.rmtree(documented / "OUT", ignore_errors=True)
    environment = os.environ | {"PYTHONPATH": "", "OMP_NUM_THREADS": "2"}
    done = subprocess.run([program, *words[1:]], cwd=documented, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    if words[1:4] == ["study", "DATASET", "OUT"] and "--dry-run" not in words:
        assert "2 of 2 scans enhanced" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", runnable("snakemake"))
def test_a_documented_workflow_can_be_planned(command: str, documented: Path) -> None:
    environment = os.environ | {"PYTHONPATH": ""}
    words = [str(SNAKEMAKE), *shlex.split(command)[1:], "--dry-run", "--quiet"]
    done = subprocess.run(words, cwd=documented, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_result(finished: Path, tmp_path: Path) -> None:
    """SIGKILL to Snakemake and its job amid a training; ten such kills are in tests/faults."""
    folder = tmp_path / "killed"
    shutil.copytree(finished, folder, symlinks=True)
    target = "results/smoke/enhanced/main/unet/sub-test001_T1w.json"
    weights = folder / "results/smoke/models/unet/seed-1/model.safetensors"
    shutil.rmtree(weights.parent)
    shutil.rmtree((folder / target).parent)
    command = [str(SNAKEMAKE), "--cores", "2", "--configfile", "config/smoke.yaml", "--", target]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 180
    while not (weights.parent / "checkpoints" / "identity.json").exists():
        assert time.monotonic() < until, "the training has not begun"
        time.sleep(0.02)
    for member in (*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)):
        member.kill()
    process.wait()
    assert not weights.exists(), "half a model is no model"
    done = snakemake(folder, "--", target)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "An earlier run here was killed" in done.stderr
    assert weights.read_bytes() == (finished / weights.relative_to(folder)).read_bytes()
    volume = target.replace(".json", ".nii.gz")
    assert (folder / volume).read_bytes() == (finished / volume).read_bytes()


@pytest.mark.slow
def test_a_scan_that_fails_is_reported_and_stops_nothing(finished: Path) -> None:
    """Last in this file: it damages a low-field volume and asks for what follows it once more."""
    results = finished / "results/smoke"
    damaged = results / "lowfield/main/sub-test001/anat/sub-test001_space-HQ_T1w.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    done = snakemake(finished, "--forcerun", "enhance_1")
    assert done.returncode == 0, done.stderr[-4000:]
    status = read_json(results / "enhanced/main/unet/sub-test001_T1w.json")["status"]
    assert "not readable" in status
    assert not (results / "enhanced/main/unet/sub-test001_T1w.nii.gz").exists()
    with (results / "tables/benchmark.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert all(row["n_failed"] == "1" for row in rows)
    page = (results / "report.html").read_text()
    assert "sub-test001" in page
    assert "not readable" in page
