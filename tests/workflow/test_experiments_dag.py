"""What experiments and training seeds plan: who is trained, for which target, and what an edit reruns."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml
from test_dag import make_outputs, planned, snakemake

from iqt.config import read_config
from iqt.planning.plan import Plan

pytestmark = pytest.mark.slow

EXPERIMENTS = "config/experiments.yaml"


def trained(folder: Path, *arguments: str, config: str) -> Counter[str]:
    """The folders of the models that a dry run trains."""
    done = snakemake(folder, "--dry-run", "--printshellcmds", *arguments, config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    return Counter(re.findall(r"tee results/\w+/logs/train/(\S+)\.log", done.stdout + done.stderr))


def edited(folder: Path, **sections: object) -> str:
    """The smoke configuration with other sections; its name."""
    raw = yaml.safe_load((folder / "config/smoke.yaml").read_text())
    (folder / "config/edited.yaml").write_text(yaml.safe_dump(raw | sections))
    return "config/edited.yaml"


def test_the_six_experiments_are_planned_on_one_cohort_and_judge(workflow: Path) -> None:
    config = read_config(workflow / EXPERIMENTS)
    assert list(config.experiments) == ["cross_batch", "steps", "baselines", "patches", "generalisation", "uncertainty"]
    jobs = planned(workflow, config=EXPERIMENTS)
    assert jobs["list_participants"] == jobs["parcellate_reference"] == 1
    assert "train_parcellator" not in jobs, "the shipped one reads"
    assert jobs["train"] == len(Plan(config).models()) == 17
    assert jobs["gather_experiment"] == jobs["plot_experiment"] == 6
    assert jobs["write_page"] == 1
    pairs = sum(len(Plan(config).results(name)) for name in config.lowfield)
    assert (
        jobs["enhance"]
        == jobs["parcellate_result"]
        == jobs["evaluate"]
        == pairs
        < len(config.methods) * len(config.lowfield)
    )
    named = {method for one in config.experiments.values() for method in one.methods}
    assert named == set(config.methods), "no method is trained for nothing"
    assert all(len(experiment.question) > 100 for experiment in config.experiments.values()), "a caption to read by"


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("steps", {"diffusion_iqt", "linear_1", "sigmoid_1"}),
        ("patches", {"diffusion_iqt", "patch_8", "patch_32", "grid_1", "grid_3"}),
        ("generalisation", {"unet", "flow", "diffusion_iqt"}),
    ],
)
def test_an_experiments_target_trains_its_own_models_and_shares_weights(
    workflow: Path, name: str, models: set[str]
) -> None:
    """Methods that differ only in sampling share one; a flow brings the regression that it starts from."""
    found = trained(workflow, f"experiment_{name}", config=EXPERIMENTS)
    assert found == Counter({f"{model}/seed-1": 1 for model in models})
    jobs = planned(workflow, f"experiment_{name}", config=EXPERIMENTS)
    assert jobs["gather_experiment"] == jobs["plot_experiment"] == 1
    assert not {"write_page", "gather_metrics"} & set(jobs), "nothing but what it shows"
    config = read_config(workflow / EXPERIMENTS)
    pairs = len(config.experiments[name].methods) * len(config.sets_of(name))
    assert jobs["enhance"] == jobs["evaluate"] == pairs, "each result is scored once"


def test_experiments_are_among_the_figures_and_on_the_page(workflow: Path) -> None:
    one = {"title": "t", "question": "q", "methods": ["cubic", "unet"]}
    config = edited(workflow, experiments={"first": one, "second": one | {"figure": "lines", "x": "set"}})
    assert planned(workflow, "figures", config=config)["plot_experiment"] == 2
    assert planned(workflow, "experiments", config=config)["plot_experiment"] == 2
    assert planned(workflow, "results/smoke/report.html", config=config)["plot_experiment"] == 2
    assert "plot_experiment" not in planned(workflow, "figures")


def test_real_pairs_are_one_more_set_of_every_experiment_on_all_sets(workflow: Path, tmp_path: Path) -> None:
    """A folder's scans with their low-field partners, which are registered and not simulated."""
    scans = tmp_path / "scans"
    kinds = {"images": "T1w", "masks": "mask", "labels": "labels", "lowfield": "low"}
    for number in range(1, 6):
        for kind in kinds.values():
            path = scans / kind / f"sub-{number}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    source = {"path": str(scans), **{key: f"{kind}/*.nii.gz" for key, kind in kinds.items()}}
    raw = yaml.safe_load((workflow / "config/smoke.yaml").read_text())
    raw["cohort"] = {"source": "folder", "folder": source, "split": raw["cohort"]["split"]}
    raw["lowfield"] = {"main": {"contrast": "none", "noise": "none"}, "real": {"registration": "rigid"}}
    raw["experiments"] = {"sets": {"title": "t", "question": "q", "methods": ["cubic", "unet"], "sets": "all"}}
    (workflow / "config/pairs.yaml").write_text(yaml.safe_dump(raw))
    config = read_config(workflow / "config/pairs.yaml")
    assert config.sets_of("sets") == ("main", "real")
    jobs = planned(workflow, "experiment_sets", config="config/pairs.yaml")
    assert jobs["enhance"] >= 4
    assert jobs["gather_experiment"] == 1


def test_each_model_is_trained_once_a_seed_and_nothing_else_twice(workflow: Path) -> None:
    one, config = planned(workflow), edited(workflow, seeds=[1, 5])
    two = planned(workflow, config=config)
    assert trained(workflow, config=config) == Counter(
        {f"{model}/seed-{seed}": 1 for model in ("unet", "diffusion_iqt") for seed in (1, 5)}
    )
    batches = one["evaluate"] // 4
    assert two["train"] == 2 * one["train"]
    assert two["enhance"] == one["enhance"] + 3 * batches, "not the interpolation"
    assert two["parcellate_result"] == one["parcellate_result"] + 3 * batches
    assert two["evaluate"] == one["evaluate"] + 3 * batches
    same = {"make_template", "degrade", "store", "train_parcellator", "parcellate_reference", "write_page"}
    assert {name: two[name] for name in same} == {name: one[name] for name in same}


def test_a_flow_of_a_seed_starts_from_the_regression_of_that_seed(workflow: Path) -> None:
    methods = yaml.safe_load((workflow / "config/smoke.yaml").read_text())["methods"]
    network = methods["diffusion_iqt"]["network"]
    methods["flow"] = {"kind": "flow", "start": "unet", "network": network}
    config = edited(workflow, seeds=[1, 5], methods=methods)
    card = "results/smoke/models/flow/seed-5/model.json"
    done = snakemake(workflow, "--dry-run", "--printshellcmds", card, config=config)
    assert "--start results/smoke/models/unet/seed-5" in done.stdout + done.stderr
    assert trained(workflow, card, config=config) == Counter({"unet/seed-5": 1, "flow/seed-5": 1})


def test_another_seed_leaves_the_first_ones_results_alone(workflow: Path) -> None:
    """Every output of the run with one seed exists; a second seed adds its own and gathers anew."""
    make_outputs(workflow)
    jobs = planned(workflow, config=edited(workflow, seeds=[1, 5]))
    first = planned(workflow, "--forceall")
    assert trained(workflow, config="config/edited.yaml") == Counter({"unet/seed-5": 1, "diffusion_iqt/seed-5": 1})
    assert jobs["enhance"] == jobs["parcellate_result"] == jobs["evaluate"] == first["enhance"] * 3 // 4
    assert not {"make_template", "degrade", "store", "train_parcellator", "parcellate_reference"} & set(jobs)
    assert {"gather_metrics", "write_tables", "write_page"} <= set(jobs)


def test_an_experiment_does_not_run_again_for_want_of_benchmarks(workflow: Path) -> None:
    """They tell of memory alone; whoever tidies up should not train again."""
    one = {"title": "t", "question": "q", "methods": ["cubic", "unet"]}
    config = edited(workflow, experiments={"first": one})
    make_outputs(workflow, config=config)
    shutil.rmtree(workflow / "results/smoke/benchmarks", ignore_errors=True)
    assert planned(workflow, "experiment_first", config=config) == {}


def test_figures_of_experiments_are_planned_from_the_metrics_alone(workflow: Path) -> None:
    """Nothing but metrics/ is there, as where a finished run's metrics were copied to."""
    one = {"title": "t", "question": "q", "methods": ["cubic", "unet"]}
    config = edited(workflow, experiments={"first": one, "second": one | {"figure": "reliability"}})
    metrics = workflow / "results/smoke/metrics"
    names = ["subjects.csv", "structures.csv", "history.csv", "run.json", "panels/main/sub-test001.npz"]
    names += ["reliability/main.csv"]
    names += [f"experiments/{name}/{table}.csv" for name in ("first", "second") for table in ("results", "reliability")]
    for name in names:
        (metrics / name).parent.mkdir(parents=True, exist_ok=True)
        (metrics / name).touch()
    jobs = planned(workflow, "figures", config=config)
    assert jobs["plot_experiment"] == 2
    assert {name for name in jobs if not name.startswith("plot")} == {"write_tables", "figures"}
