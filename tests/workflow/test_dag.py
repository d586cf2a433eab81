"""The shape of the workflow: every configuration plans, and an edit reruns exactly what depends on it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from checkout import checkout
from iqt.config import read_config
from iqt.config.evaluate import LPIPS_FILES
from iqt.io.files import read_table
from iqt.io.volumes import save_volume
from iqt.planning.closure import closure

SNAKEMAKE = Path(sys.executable).with_name("snakemake")


def snakemake(folder: Path, *arguments: str, config: str = "config/smoke.yaml") -> subprocess.CompletedProcess[str]:
    """Run Snakemake in a copy of the workflow; `config` may be several files, with blanks between them."""
    command = [str(SNAKEMAKE), "--cores", "2", "--configfile", *config.split(), *arguments]
    # A shell's own variables could choose another profile or Python path.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SNAKEMAKE", "PYTHON"))}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


def planned(folder: Path, *arguments: str, config: str = "config/smoke.yaml") -> Counter[str]:
    """Jobs by rule, batches counted together, of a dry run."""
    done = snakemake(folder, "--dry-run", *arguments, config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    table = (done.stdout + done.stderr).partition("Job stats:")[2].partition("total")[0]
    jobs: Counter[str] = Counter()
    for name, count in re.findall(r"^(\w+)\s+(\d+)$", table, re.MULTILINE):
        jobs[re.sub(r"_\d+$", "", name)] += int(count)
    return jobs


def make_outputs(folder: Path, config: str = "config/smoke.yaml") -> None:
    """Make every output of a run, empty: enough for planning what an edit reruns."""
    listed = snakemake(folder, "--summary", config=config)
    assert listed.returncode == 0, listed.stderr
    for line in listed.stdout.splitlines()[1:]:
        path = folder / line.split("\t")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    # All of it, for only of jobs that are done Snakemake notes what they were called with.
    touched = snakemake(folder, "--touch", "--forceall", config=config)
    assert touched.returncode == 0, touched.stderr


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Counter[str]:
    """Jobs by rule of the smoke configuration, from nothing."""
    return planned(checkout(tmp_path_factory.mktemp("smoke"), repository))


@pytest.fixture(scope="module")
def touched(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A copy in which every output of the smoke run exists, as Snakemake knows them; not to be edited."""
    folder = checkout(tmp_path_factory.mktemp("touched"), repository)
    make_outputs(folder)
    assert planned(folder) == {}
    return folder


@pytest.fixture
def finished(touched: Path, tmp_path: Path) -> Path:
    """A copy of that, so that a test may edit it."""
    return shutil.copytree(touched, tmp_path / "finished", symlinks=True)


CHAIN = {
    "list_scans",
    "make_template",
    "list_participants",
    "degrade",
    "store",
    "train",
    "train_parcellator",
    "enhance",
    "parcellate_reference",
    "parcellate_result",
    "calibrate",
    "evaluate",
    "score_parcellator",
    "gather_metrics",
    "extract_panels",
    "write_tables",
    "plot",
    "write_page",
    "write_provenance",
    "all",
}


@pytest.mark.parametrize(
    ("config", "models", "left_out"),
    [
        ("config/config.yaml", 2, {"train_parcellator"}),
        ("config/demo-full.yaml", 5, {"train_parcellator"}),
        ("config/smoke.yaml", 2, set()),
    ],
)
def test_shipped_configurations_plan_the_whole_chain(
    workflow: Path, smoke: Counter[str], config: str, models: int, left_out: set[str]
) -> None:
    jobs = smoke if config == "config/smoke.yaml" else planned(workflow, config=config)
    assert set(jobs) == CHAIN - left_out
    assert jobs["train"] == models, "methods that differ only in sampling share a model"


def test_fastsurfer_is_an_engine_of_the_configuration(workflow: Path, smoke: Counter[str]) -> None:
    """Found once, planned and run for the references and for every method; nothing of the built-in one is trained."""
    path = workflow / "config" / "fastsurfer.yaml"
    text = (workflow / "config" / "smoke.yaml").read_text()
    path.write_text(text.replace("parcellate:", "parcellate:\n  engine: fastsurfer"))
    jobs = planned(workflow, config="config/fastsurfer.yaml")
    new = {"find_fastsurfer", "plan_fastsurfer", "run_fastsurfer", "parcellate"}
    assert set(jobs) == CHAIN - {"train_parcellator", "parcellate_reference", "parcellate_result"} | new
    assert jobs["find_fastsurfer"] == 1
    volumes = smoke["parcellate_reference"] + smoke["parcellate_result"]
    assert jobs["plan_fastsurfer"] == jobs["run_fastsurfer"] == jobs["parcellate"] == volumes


def test_the_papers_experiment_is_planned_without_data_or_keys(workflow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(workflow))  # no AWS profile either
    jobs = planned(workflow, config="config/hcp.yaml")
    assert jobs["train"] == 3, "unet, esrgan and one diffusion model"
    assert {"fetch", "ingest", "degrade", "run_fastsurfer", "evaluate", "write_page"} <= set(jobs)
    assert "make_template" not in jobs
    assert "train_parcellator" not in jobs
    config = read_config(workflow / "config" / "hcp.yaml")
    assert config.methods["diffusion_iqt"].patches.region == (96, 96, 96)


def test_a_dry_run_leaves_a_killed_runs_locks_to_a_real_one(workflow: Path) -> None:
    """Whose locks they are is not known where a file system keeps locks to a machine."""
    lock, draft = workflow / ".snakemake/locks/0.input.lock", workflow / "results/smoke/.partial-x.tsv"
    for path in (lock, draft):
        path.parent.mkdir(parents=True)
        path.touch()
    assert snakemake(workflow, "-np").returncode == 0
    assert lock.exists()
    assert draft.exists()


def test_the_demo_is_planned_without_a_configuration_file(workflow: Path) -> None:
    done = subprocess.run([str(SNAKEMAKE), "--dry-run"], cwd=workflow, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "results/demo/report.html" in done.stdout + done.stderr


def test_a_set_a_method_and_an_ablation_are_config_entries(workflow: Path, smoke: Counter[str]) -> None:
    path = workflow / "config" / "more.yaml"
    text = (workflow / "config" / "smoke.yaml").read_text()
    text = text.replace(
        "parcellate:", "  ancestral:\n    base: diffusion_iqt\n    sampling: {sampler: ancestral}\nparcellate:", 1
    )
    text = text.replace(
        "parcellate:",
        "  no_attention:\n    base: diffusion_iqt\n    network: {attention: false}\n\n"
        "lowfield:\n  main: {}\n  thicker: {thickness: 6, gap: 2}\n\nparcellate:",
        1,
    )
    path.write_text(text)
    before, after = smoke, planned(workflow, config="config/more.yaml")
    batches = before["evaluate"] // 4
    assert after["train"] == before["train"] + 1, "only the entry with another network trains"
    assert after["enhance"] == 2 * (before["enhance"] + 2 * batches), "six methods on two sets"
    assert after["parcellate_reference"] == before["parcellate_reference"], "references are read once"
    assert after["evaluate"] == after["enhance"], "each result by itself"
    assert (before["write_tables"], after["write_tables"]) == (1, 2)


def test_a_flow_waits_for_the_regression_that_it_starts_from(workflow: Path) -> None:
    path = workflow / "config" / "flow.yaml"
    text = (workflow / "config" / "smoke.yaml").read_text()
    start = "  flow:\n    kind: flow\n    start: unet\n"
    size = "    network: {channels: 8, multipliers: [1, 2], blocks: 1, heads: 2, head_dim: 4}\n"
    path.write_text(text.replace("parcellate:", f"{start}{size}parcellate:", 1))
    card = "results/smoke/models/flow/seed-1/model.json"
    jobs = planned(workflow, card, config="config/flow.yaml")
    assert jobs["train"] == 2, "the regression, then the flow"
    done = snakemake(workflow, "--dry-run", "--printshellcmds", card, config="config/flow.yaml")
    assert "--start results/smoke/models/unet/seed-1" in done.stdout + done.stderr


def test_the_sweep_trains_each_model_once(workflow: Path) -> None:
    jobs = planned(workflow, "sampling_sweep", config="config/sweep.yaml")
    methods = read_config(workflow / "config" / "sweep.yaml").methods
    assert len(methods) == 2 + 3 * (6 + 4) + 4 + 3
    assert jobs["train"] == 3, "a diffusion model, and a flow with its regression"
    assert (jobs["plot"], jobs["gather_metrics"]) == (2, 1), "the sweep and the reliability of its samples"
    assert "write_page" not in jobs


def test_nothing_is_left_to_do_after_a_run_and_one_edit_reruns_what_depends_on_it(
    finished: Path, smoke: Counter[str]
) -> None:
    """One degrade parameter: the cohort, the references and the parcellator stay, all that saw low field goes again."""
    edited = finished / "config" / "edited.yaml"
    edited.write_text(
        (finished / "config" / "smoke.yaml").read_text() + "\nlowfield:\n  main: {thickness: 2, gap: 2}\n"
    )
    again = planned(finished, config="config/edited.yaml")
    stay = {"make_template", "list_participants", "train_parcellator", "parcellate_reference", "list_scans"}
    stay |= {"score_parcellator"}
    assert set(again) == CHAIN - stay
    first = planned(finished, "--forceall")
    assert first == smoke
    edited.write_text((finished / "config" / "smoke.yaml").read_text().replace("seed: 1", "seed: 2"))
    assert planned(finished, config="config/edited.yaml")["make_template"] == first["make_template"], "another seed"
    assert all(again[rule] == first[rule] for rule in CHAIN - stay), "every set, method and person of those stages"


def test_more_samples_rerun_one_method_and_train_nothing(finished: Path, smoke: Counter[str]) -> None:
    edited = finished / "config" / "edited.yaml"
    text = (finished / "config" / "smoke.yaml").read_text()
    assert text.count("samples: 2") == 1
    edited.write_text(text.replace("samples: 2", "samples: 3"))
    again = planned(finished, config="config/edited.yaml")
    assert again["enhance"] == again["parcellate_result"] == smoke["enhance"] // 4
    assert not {"train", "train_parcellator", "degrade", "store", "make_template", "parcellate_reference"} & set(again)


def test_a_new_person_joins_one_batch(finished: Path) -> None:
    """A fourth training person: their batch is made again, and nobody else's; what is trained on them follows."""
    edited = finished / "config" / "edited.yaml"
    text = (finished / "config" / "smoke.yaml").read_text()
    edited.write_text(text.replace("train: 2", "train: 3"))
    again = planned(finished, config="config/edited.yaml")
    assert again["make_template"] == again["degrade"] == again["store"] == 1
    assert again["list_scans"] == 2, "the lists of that batch: everybody, and whom training reads"
    assert again["train"] == 2


def test_an_edit_of_a_stages_code_reruns_that_stage(finished: Path) -> None:
    path = finished / "workflow" / "iqt" / "enhance" / "tiling.py"
    path.write_text(path.read_text() + "\n# edited\n")
    again = planned(finished)
    assert "enhance" in again
    assert not {"train", "train_parcellator", "degrade", "make_template", "store"} & set(again)


def test_the_inputs_of_a_rule_are_the_modules_that_it_runs(workflow: Path) -> None:
    done = snakemake(workflow, "--dry-run")
    assert done.returncode == 0, done.stderr
    inputs: dict[str, set[str]] = {}
    for rule, files in re.findall(
        r"^(?:rule|localrule) (\w+):\n    input: (.*)$", done.stdout + done.stderr, re.MULTILINE
    ):
        inputs.setdefault(re.sub(r"_\d+$", "", rule), set()).update(re.findall(r"workflow/iqt/([\w/.]+\.py)", files))
    code = {
        "make_template": "iqt.cohort.build",
        "list_participants": "iqt.cohort.participants",
        "degrade": "iqt.degrade.run",
        "store": "iqt.training.store",
        "evaluate": "iqt.evaluate.run",
        "score_parcellator": "iqt.evaluate.parcellator_qc",
        "extract_panels": "iqt.report.panels",
    }
    for rule, module in code.items():
        assert inputs[rule] == {str(path) for path in closure(module)}, rule
    assert {rule for rule, files in inputs.items() if not files} <= {"all"}
    assert {"networks/unet.py", "networks/diffusion_iqt.py"} < inputs["train"]
    unused = {"networks/esrgan.py", "networks/multiview.py", "methods/flow.py", "enhance/models.py"}
    assert not unused & inputs["train"]
    assert {"diffusion/samplers.py", "enhance/models.py", "methods/unet.py"} < inputs["enhance"]
    assert not {*unused - {"enhance/models.py"}, "training/tasks/denoising.py"} & inputs["enhance"]


def test_an_edit_reruns_a_rule_if_and_only_if_it_runs_the_module(finished: Path) -> None:
    """What makes the template's voxels, and what only describes a network or is another stage's."""
    package = finished / "workflow" / "iqt"
    for name in (
        "networks/describe.py",
        "methods/esrgan.py",
        "degrade/single.py",
        "enhance/single.py",
        "planning/needs.py",
        "cli/train.py",
    ):
        (package / name).write_text((package / name).read_text() + "\n# edited\n")
    assert planned(finished) == {}
    (package / "cohort" / "deform.py").write_text((package / "cohort" / "deform.py").read_text() + "\n# edited\n")
    again = planned(finished)
    assert {"make_template", "degrade", "train"} <= set(again)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("parcellate: {engine: fastsurfer, labels: aseg}\n", ["labels 'aseg'", "leave labels out"]),
        ("nmae: x\n", ["nmae", "unknown key", "did you mean name"]),
        ("methods: {a: {base: b}}\n", ["methods.a.base", "'b'"]),
        ("suffix: T2w\n", ["T2w", "template"]),
    ],
)
def test_a_wrong_configuration_stops_before_any_job(workflow: Path, text: str, parts: list[str]) -> None:
    (workflow / "config" / "wrong.yaml").write_text(text)
    done = snakemake(workflow, config="config/wrong.yaml")
    message = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Traceback" not in message
    assert all(part in message for part in ("config/wrong.yaml", *parts))
    assert not (workflow / "results").exists()


def test_weights_of_the_perceptual_distance_are_inputs_and_named_where_they_lack(workflow: Path) -> None:
    config = workflow / "config" / "perceptual.yaml"
    config.write_text(
        (workflow / "config" / "smoke.yaml").read_text().replace("evaluate:", "evaluate:\n  lpips: weights")
    )
    (workflow / "weights").mkdir()
    first, second = (workflow / "weights" / name for name in LPIPS_FILES)
    first.touch()
    done = snakemake(workflow, "--dry-run", config="config/perceptual.yaml")
    message = done.stdout + done.stderr
    assert done.returncode != 0
    assert f"weights/{second.name}: no such file; evaluate.lpips must name a folder" in message
    second.touch()
    assert set(planned(workflow, config="config/perceptual.yaml")) == CHAIN


@pytest.mark.parametrize("engine", ["cohort", "labels", "hmrf", "fast"])
def test_the_tissue_engine_decides_what_the_simulator_waits_for(workflow: Path, engine: str) -> None:
    path = workflow / "config" / "engine.yaml"
    path.write_text((workflow / "config" / "smoke.yaml").read_text() + f"\ntissues: {{engine: {engine}}}\n")
    jobs = planned(workflow, "lowfield", config="config/engine.yaml")
    batches = jobs["degrade"]
    assert jobs["make_tissues"] == (0 if engine == "cohort" else batches)
    assert jobs["run_fast"] == (batches if engine == "fast" else 0)


def test_sets_out_of_distribution_are_of_the_test_people_alone(workflow: Path) -> None:
    path = workflow / "config" / "shifted.yaml"
    sets = "  main: {draws: 2}\n  noisy: {base: main, shift: {snr: 0.5}}\n  flat: {base: main, shift: {contrast: 1}}\n"
    path.write_text((workflow / "config" / "smoke.yaml").read_text() + f"\nlowfield:\n{sets}")
    done = snakemake(workflow, "--dry-run", "lowfield", config="config/shifted.yaml")
    assert done.returncode == 0, done.stderr
    made = set(re.findall(r"lowfield/(\w+)/(sub-\w+)/anat", done.stdout + done.stderr))
    of = {name: {person for each, person in made if each == name} for name in ("main", "noisy", "flat")}
    assert of["noisy"] == of["flat"] < of["main"]
    assert len(of["main"]) == 5
    assert len(of["noisy"]) == 2


@pytest.mark.parametrize(
    ("config", "n_models", "n_calibrated"),
    [("openneuro", 8, 2), ("openneuro-full", 9, 3), ("openneuro more/openneuro", 10, 3)],
)
def test_the_benchmark_on_real_brains_is_planned_from_a_copy_at_hand(
    workflow: Path, tmp_path: Path, config: str, n_models: int, n_calibrated: int
) -> None:
    """Nothing but the names of the files is read for that. Methods that were added afterwards are in a second file."""
    paths = [f"config/{name}.yaml" for name in config.split()]
    split = read_table(workflow / "config" / "openneuro_split.tsv", ("participant_id", "split"))
    assert Counter(row["split"] for row in split) == {"train": 20, "val": 4, "test": 12}
    dataset = tmp_path / "ds002748"
    for row in split:
        person = row["participant_id"]
        save_volume(dataset / person / "anat" / f"{person}_T1w.nii.gz", np.ones((4, 4, 4), np.float32), np.eye(4))
    (dataset / "dataset_description.json").write_text('{"Name": "a stand-in", "BIDSVersion": "1.9.0"}')
    jobs = planned(workflow, "--config", f"cohort={{bids: {{path: {dataset}}}}}", config=" ".join(paths))
    assert (jobs["train"], jobs["calibrate"]) == (n_models, n_calibrated)
    methods = [name for path in paths for name in yaml.safe_load((workflow / path).read_text())["methods"]]
    assert {"cubic", "unet", "esrgan", "pmrf", "diffusion_iqt", "diffusion_iqt_paper"} < set(methods)
    assert jobs["evaluate"] % (len(methods) + 5) == 0, "every method on main, those of an experiment on the other set"


def test_a_model_is_trained_on_the_set_that_its_method_names(workflow: Path) -> None:
    path = workflow / "config" / "other.yaml"
    text = (workflow / "config" / "smoke.yaml").read_text()
    text = text.replace("parcellate:", "  unet_thick: {base: unet, trained_on: thick}\nparcellate:", 1)
    path.write_text(f"{text}\nlowfield:\n  main: {{}}\n  thick: {{thickness: 6}}\n  noisy: {{shift: {{snr: 0.5}}}}\n")
    done = snakemake(workflow, "--dry-run", "--printshellcmds", "models", config="config/other.yaml")
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    made = {name: set(re.findall(rf"lowfield/{name}/(sub-\w+)/anat", told)) for name in ("main", "thick", "noisy")}
    assert made["thick"] == made["main"] != set()
    assert made["noisy"] == set()
    done = snakemake(workflow, "--dry-run", "lowfield", config="config/other.yaml")
    asked = {name: set(re.findall(rf"lowfield/{name}/(sub-\w+)/anat", done.stdout + done.stderr)) for name in made}
    assert asked["thick"] == asked["main"] > asked["noisy"] != set()
    read = dict(re.findall(r"--store results/smoke/store/(\w+) .*?--name (\w+)", " ".join(told.split())))
    assert read["thick"] == "unet_thick"
    assert set(read) == {"main", "thick"}
