"""Experiments: what of a configuration is refused, and tables and figures from hand-made metrics."""

from __future__ import annotations

import base64
import html
import re
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from matplotlib.figure import Figure

from iqt.config import Config, Experiment, parse_config
from iqt.config.experiments import Quantity
from iqt.errors import UserError
from iqt.evaluate.experiment import COLUMNS, cost_of
from iqt.evaluate.seams import border_error
from iqt.io.files import read_json, read_table, write_json, write_table
from iqt.io.naming import Result, seed_of
from iqt.planning.plan import Plan
from iqt.report.figures import experiments as experiment_figures
from iqt.report.figures.experiments import plot_experiment
from iqt.report.figures.styles import COLOURS, LINES, styles_of
from iqt.report.page.write import write_page
from iqt.report.significance import mean_limits
from iqt.report.tables.experiments import (
    LABELS,
    _headings,
    columns_of,
    experiment_cells,
    experiment_note,
    read_results,
    write_experiment,
)

PEOPLE = ("sub-01", "sub-02", "sub-03")
METHODS = ("cubic", "one", "many")
KEYS = {
    "cubic": {"sampling.steps": None, "patches.grid": None},
    "one": {"sampling.steps": 1, "patches.grid": [2, 2, 2]},
    "many": {"sampling.steps": 20, "patches.grid": [2, 2, 2]},
}
MACHINE = "a processor, 2 threads"


def psnr(set_name: str, method: str, seed: str, person: str) -> float:
    """A value that differs in every way it can."""
    place = METHODS.index(method) + PEOPLE.index(person) ** 2 / 3
    return 20 + place + (0.4 if seed == "2" else 0) - (3 if set_name == "noisy" else 0)


def experiment(**changes: object) -> Experiment:
    asked = {"title": "Steps", "question": "How many steps?", "methods": METHODS, "sets": ("main", "noisy")}
    asked |= {
        "metrics": ("psnr", "patch_seam", "train_seconds", "train_mb"),
        "keys": ("sampling.steps", "patches.grid"),
    }
    return Experiment.model_validate(asked | changes)


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    """results.csv of three methods, two seeds of those that are trained, on two sets; one failed. And a curve."""
    rows, curves = [], []
    for set_name in ("noisy", "main"):  # the experiment's order is another
        for method in METHODS:
            for seed in ("",) if method == "cubic" else ("1", "2"):
                for person in PEOPLE:
                    row = dict.fromkeys(COLUMNS, "")
                    row |= {"set": set_name, "method": method, "seed": seed, "scan": person, "status": "ok"}
                    row |= {"psnr": psnr(set_name, method, seed, person), "miou": 0.5}
                    if method != "cubic":
                        row |= {"patch_seam": 1.1, "train_seconds": 30 if seed == "1" else 40, "train_mb": 900.5}
                        row |= {"machine": MACHINE}
                    if method == "many":
                        row |= {f"coverage_{level}": level / 110 for level in (50, 68, 90, 95)}
                        for number in (1, 2):
                            curve = {"set": set_name, "method": method, "scan": person, "seed": seed, "bin": number}
                            curves.append(curve | {"n_voxels": 10, "expected": 0.1 * number, "error": 0.2 * number})
                    if (set_name, method, seed, person) == ("main", "many", "2", "sub-02"):
                        row |= {"status": "diverged", "psnr": ""}
                    rows.append(row)
    write_table(tmp_path / "results.csv", rows)
    write_table(tmp_path / "reliability.csv", curves)
    return tmp_path


def test_the_table_holds_means_over_people_of_means_over_seeds(metrics: Path) -> None:
    rows = write_experiment(metrics / "results.csv", experiment(), KEYS, metrics / "steps.csv", 500, 1)
    table = read_table(metrics / "steps.csv")
    assert table == rows
    assert tuple(table[0]) == columns_of(experiment())
    assert [(row["set"], row["method"]) for row in rows] == [(s, m) for s in ("main", "noisy") for m in METHODS]
    one = rows[1]
    by_seed = np.array([[psnr("main", "one", seed, person) for person in PEOPLE] for seed in ("1", "2")])
    assert float(one["psnr"]) == pytest.approx(by_seed.mean(), rel=1e-5)
    assert float(one["psnr_seed_sd"]) == pytest.approx(by_seed.mean(axis=1).std(ddof=1), rel=1e-5)
    low, high = mean_limits(by_seed.mean(axis=0), 500, seed_of(1, "bootstrap", "main"))
    assert (float(one["psnr_lo"]), float(one["psnr_hi"])) == pytest.approx((low, high), rel=1e-5)
    assert (one["n_subjects"], one["n_failed"], one["n_seeds"]) == ("3", "0", "2")
    assert float(one["train_seconds"]) == pytest.approx(35)
    assert float(one["train_seconds_seed_sd"]) == pytest.approx(np.std([30, 40], ddof=1), rel=1e-5)
    assert one["train_seconds_lo"] == "", "a cost has no interval over people"
    assert one["machine"] == MACHINE
    many = rows[2]
    # One seed lost the second person, who is then in no seed's mean.
    kept = np.array([[psnr("main", "many", seed, person) for person in (PEOPLE[0], PEOPLE[2])] for seed in ("1", "2")])
    assert float(many["psnr"]) == pytest.approx(kept.mean(), rel=1e-5)
    assert float(many["psnr_seed_sd"]) == pytest.approx(kept.mean(axis=1).std(ddof=1), rel=1e-5)
    assert (many["n_subjects"], many["n_failed"], many["psnr_n"], many["psnr_n_shared"]) == ("3", "1", "2", "2")
    assert float(one["psnr_shared"]) == pytest.approx(by_seed[:, [0, 2]].mean(), rel=1e-5)
    assert (one["psnr_n"], one["psnr_n_shared"]) == ("3", "2")
    assert (rows[5]["psnr_n"], rows[5]["psnr_shared"]) == ("3", rows[5]["psnr"]), "nobody failed on the other set"


def test_the_table_says_whose_mean_is_of_whom_and_who_failed(metrics: Path) -> None:
    rows = write_experiment(metrics / "results.csv", experiment(), KEYS, metrics / "steps.csv", 500, 1)
    cells = experiment_cells(rows, experiment())[1:]
    assert [line[4].endswith("[2 of 3]") for line in cells] == [False, False, True, False, False, False]
    assert not any("[" in cell for line in cells for cell in line[5:]), "what a method has not lacks nobody"
    compared = "Over the 2 people whose scans all methods have: PSNR (dB) cubic 20.67, one 21.87, many 22.87."
    assert f"Low-field set main: {compared}" in experiment_note(rows, experiment())
    for name in ("steps.md", "steps.tex"):
        text = (metrics / name).read_text()
        assert "Low-field set main: Failures: sub-02 many (seed 2: diverged)." in text
        assert "set noisy:" not in text
    alone = experiment(sets=("main",))
    rows = write_experiment(metrics / "results.csv", alone, KEYS, metrics / "steps.csv", 500, 1)
    assert f" {compared}" in experiment_note(rows, alone)
    assert "Low-field set" not in (metrics / "steps.md").read_text()


def best_scores(rows: list[dict[str, str]]) -> list[str]:
    """PSNR of each set's method that leads over the scans that all of them have."""
    found = []
    for set_name in dict.fromkeys(row["set"] for row in rows):
        first = max((row for row in rows if row["set"] == set_name), key=lambda row: float(row["psnr_shared"]))
        found.append(f"{float(first['psnr']):.2f}")
    return found


def test_the_best_scores_of_a_set_are_bold_and_no_costs_are(metrics: Path) -> None:
    asked = experiment(metrics=("psnr", "train_seconds"))
    rows = write_experiment(metrics / "results.csv", asked, KEYS, metrics / "steps.csv", 500, 1)
    written = (metrics / "steps.md").read_text()
    assert re.findall(r"\*\*(\S+)\*\*", written) == best_scores(rows)
    assert re.findall(r"textbf\{(\S+)\}", (metrics / "steps.tex").read_text()) == best_scores(rows)


def test_what_a_method_has_not_is_shown_as_a_dash_and_never_dropped(metrics: Path) -> None:
    rows = write_experiment(metrics / "results.csv", experiment(), KEYS, metrics / "steps.csv", 500, 1)
    head, *lines = experiment_cells(rows, experiment())
    labels = [LABELS[name] for name in experiment().metrics]
    assert head == ["set", "method", "steps", "grid", *labels, "people", "failed"]
    cubic, one, many = lines[:3]
    assert cubic[:4] == ["main", "cubic", "–", "–"]
    assert cubic[5:8] == ["–", "–", "–"]
    assert one[:4] == ["main", "one", "1", "2 x 2 x 2"]
    assert one[6:8] == ["35 ± 7", "900 ± 0"]
    assert many[-2:] == ["3", "1"]
    assert experiment_cells(rows[:3], experiment())[0][0] == "method", "a single set is not named in every row"
    note = experiment_note(rows, experiment())
    assert f"Trained on: {MACHINE}." in note
    assert "2 training seeds" in note
    assert "Seams:" in note
    assert "coverage" not in note
    text = (metrics / "steps.md").read_text()
    assert text.startswith("Steps. How many steps?")
    assert text.count("| main | cubic | – | – |") == 1
    assert "Steps. How many steps?" in (metrics / "steps.tex").read_text()


def test_headings_are_the_shortest_that_tell_keys_apart() -> None:
    keys = ("method", "network.cross_batch.attention", "network.attention", "sampling.steps")
    assert _headings(keys) == ["method", "cross_batch.attention", "network.attention", "steps"]


def test_a_method_without_any_row_is_still_a_line(metrics: Path) -> None:
    asked = experiment(methods=(*METHODS, "absent"))
    keys = KEYS | {"absent": {"sampling.steps": 4, "patches.grid": None}}
    rows = write_experiment(metrics / "results.csv", asked, keys, metrics / "steps.csv", 500, 1)
    absent = next(row for row in rows if row["method"] == "absent")
    assert (absent["n_subjects"], absent["psnr"]) == ("0", "")
    for figure in ({}, {"figure": "lines", "x": "sampling.steps"}, {"figure": "reliability"}):
        draw(metrics, asked.model_copy(update=figure), metrics / "absent.svg", keys)


def draw(metrics: Path, asked: Experiment, out: Path, keys: dict = KEYS, methods: list[str] | None = None) -> str:
    rows = write_experiment(metrics / "results.csv", asked, keys, metrics / "drawn.csv", 500, 1)
    methods = methods or list(keys)
    plot_experiment(metrics / "results.csv", metrics / "reliability.csv", asked, keys, rows, methods, [out])
    return out.read_text() if out.suffix == ".svg" else ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"figure": "lines", "x": "sampling.steps"},
        {"figure": "lines", "x": "patches.grid", "sets": ("main",), "lines": "sampling.steps"},
        {"figure": "lines", "x": "set"},
        {"figure": "lines", "x": "psnr", "sets": ("main",)},
        {"figure": "reliability"},
        {"figure": "reliability", "methods": ("cubic",)},
    ],
    ids=["dots", "numbers", "words", "sets", "metric", "reliability", "nothing"],
)
def test_a_figure_is_redrawn_to_the_same_bytes(metrics: Path, tmp_path: Path, changes: dict) -> None:
    asked = experiment(**changes)
    for ending in ("svg", "png"):
        first, again = tmp_path / f"first.{ending}", tmp_path / f"again.{ending}"
        draw(metrics, asked, first)
        draw(metrics, asked, again)
        assert first.read_bytes() == again.read_bytes()
        assert first.stat().st_size > 2000


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would be written."""
    figures: list[Figure] = []
    monkeypatch.setattr(experiment_figures, "save_figure", lambda figure, _out: figures.append(figure))
    return figures


def test_an_axis_may_hold_numbers_and_words(metrics: Path, kept: list[Figure]) -> None:
    """As `tiling.tile` does: 32, 64 and auto."""
    keys = {"cubic": {"tiling.tile": None}, "one": {"tiling.tile": 32}, "many": {"tiling.tile": "auto"}}
    asked = experiment(figure="lines", x="tiling.tile", keys=("tiling.tile",), sets=("main",))
    rows = write_experiment(metrics / "results.csv", asked, keys, metrics / "tiles.csv", 500, 1)
    out = [metrics / "none.png"]
    plot_experiment(metrics / "results.csv", metrics / "reliability.csv", asked, keys, rows, METHODS, out)
    (figure,) = kept
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks == ["32", "auto"]


def test_a_figure_names_whoever_has_no_curve(metrics: Path, kept: list[Figure]) -> None:
    draw(metrics, experiment(figure="reliability"), metrics / "none.png")
    (figure,) = kept
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["cubic: –", "one: –", "many"]
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [0, 0, 2, 2], "the last is the diagonal"


def test_a_method_looks_as_in_the_runs_other_figures(metrics: Path, kept: list[Figure]) -> None:
    """Behind ten others, so that the last has the first colour again and marks of its own."""
    methods = [*(f"m{number}" for number in range(10)), *METHODS]
    looks = styles_of(methods)

    def lines(place: int = 0, **changes: object) -> dict:
        draw(metrics, experiment(**changes), metrics / "none.png", methods=methods)
        found = kept[-1].axes[place].lines
        return {line.get_label(): (line.get_color(), line.get_marker(), line.get_linestyle()) for line in found}

    draw(metrics, experiment(), metrics / "none.png", methods=methods)
    dots = [container.lines[0] for container in kept[-1].axes[0].containers]
    seen = [(dot.get_color(), dot.get_marker()) for dot in dots]
    assert seen == [looks[method][:2] for method in METHODS] * 2
    over_sets = lines(figure="lines", x="set")
    assert {method: over_sets[method] for method in METHODS} == {method: looks[method][:3] for method in METHODS}
    over_steps = lines(figure="lines", x="sampling.steps")
    assert over_steps["many, main"] == (*looks["many"][:2], LINES[0])
    assert over_steps["many, noisy"] == (*looks["many"][:2], LINES[1])
    assert over_steps["cubic, main"][0] == looks["cubic"].colour
    for place in (0, 1):
        assert lines(place, figure="reliability", sets=("main",))["many"] == looks["many"][:3]
    of_a_key = lines(figure="lines", x="patches.grid", lines="sampling.steps", sets=("main",))
    assert (of_a_key["steps 1"][0], of_a_key["steps 20"][0]) == COLOURS[:2], "a key's values are nobody's methods"
    assert of_a_key["cubic"][0] == "0.35"


def test_words_too_long_for_a_panel_are_slanted(metrics: Path, kept: list[Figure]) -> None:
    for sets, angle in ((("main", "noisy"), 0), (("main", "far_out_of_the_distribution"), 25)):
        draw(metrics, experiment(figure="lines", x="set", sets=sets), metrics / "none.png")
        assert {label.get_rotation() for label in kept[-1].axes[0].get_xticklabels()} == {angle}


def test_the_page_has_a_section_with_question_table_and_figure(made: Path, metrics: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(made, run)
    asked = experiment(question="What do <more> steps bring? Look at the seam.")
    rows = write_experiment(metrics / "results.csv", asked, KEYS, run / "tables/experiments/steps.csv", 500, 1)
    figure = run / "figures/experiment_steps.png"
    plot_experiment(metrics / "results.csv", metrics / "reliability.csv", asked, KEYS, rows, METHODS, [figure])
    facts = read_json(run / "metrics/run.json")
    write_json(run / "metrics/run.json", facts | {"methods": facts["methods"] | {"costly": {"kind": "unet"}}})
    write_page(run / "metrics", run / "tables", [figure], run / "report.html", experiments={"steps": asked})
    page = (run / "report.html").read_text()
    section = page.partition('<h2 id="experiments">')[2].partition('<h2 id="people">')[0]
    assert '<h3 id="experiment-steps">Steps</h3>' in section
    assert "What do &lt;more&gt; steps bring? Look at the seam." in section
    assert base64.b64encode(figure.read_bytes()).decode() in section
    head, *lines = experiment_cells(rows, asked)
    shown = section.replace("<strong>", "").replace("</strong>", "")
    for cell in (*head, *lines[0], *lines[-1]):
        assert f">{html.escape(cell, quote=False)}</t" in shown, cell
    assert re.findall(r"<strong>(\S+)</strong>", section) == best_scores(rows)
    assert f"Trained on: {MACHINE}." in section
    left_out = "Not run on this low-field set, which was made for the methods of “Steps” and for the reference alone"
    assert f"{left_out}: costly." in page.partition('id="benchmark"')[2].partition('id="similarity"')[0]
    write_page(run / "metrics", run / "tables", [], run / "plain.html")
    plain = (run / "plain.html").read_text()
    assert 'id="experiments"' not in plain
    assert "Not run on this low-field set: costly." in plain
    write_json(run / "metrics/run.json", facts)
    write_page(run / "metrics", run / "tables", [], run / "plain.html")
    assert "Not run on this" not in (run / "plain.html").read_text()
    with pytest.raises(UserError, match="no such table"):
        write_page(run / "metrics", run / "tables", [], run / "x.html", experiments={"other": asked})


@pytest.mark.slow
def test_another_value_makes_another_figure(metrics: Path, tmp_path: Path) -> None:
    for changes in ({}, {"figure": "lines", "x": "set"}):
        before = draw(metrics, experiment(**changes), tmp_path / "before.svg")
        rows = read_table(metrics / "results.csv")
        changed = [row | {"psnr": "27"} if row["method"] == "one" else row for row in rows]
        write_table(metrics / "results.csv", changed)
        assert draw(metrics, experiment(**changes), tmp_path / "after.svg") != before
        write_table(metrics / "results.csv", rows)


def test_a_value_that_is_no_number_is_named(metrics: Path) -> None:
    rows = read_table(metrics / "results.csv")
    rows[0]["psnr"] = "high"
    write_table(metrics / "results.csv", rows)
    with pytest.raises(UserError, match="psnr of sub-01 is 'high'"):
        read_results(metrics / "results.csv", experiment())


def test_every_quantity_of_the_configuration_is_scored_and_has_a_label() -> None:
    assert set(get_args(Quantity)) <= set(COLUMNS)
    assert set(get_args(Quantity)) <= set(LABELS)


ENTRY = {"title": "t", "question": "q", "methods": ["unet", "cubic"]}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"methods": ["unett"]}, ["experiments.a.methods names 'unett'", "did you mean unet?"]),
        ({"sets": ["mian"]}, ["experiments.a.sets names 'mian'", "did you mean main?"]),
        ({"keys": ["training.step"]}, ["experiments.a.keys names 'training.step'", "did you mean training.steps?"]),
        ({"metrics": ["psnrr"]}, ["experiments.a.metrics.0", "psnrr", "'psnr'"]),
        ({"metric": ["psnr"]}, ["experiments.a.metric", "did you mean metrics?"]),
        ({"figure": "lines"}, ["x None of figure lines must be one of"]),
        ({"figure": "lines", "x": "nfe"}, ["x 'nfe'", "set"]),
        ({"figure": "lines", "x": "set", "lines": "kind"}, ["lines 'kind' must be one of method"]),
        ({"x": "set"}, ["no effect with figure dots"]),
        ({"methods": ["unet", "unet"]}, ["names one twice"]),
        ({"methods": []}, ["experiments.a.methods", "at least 1"]),
    ],
)
def test_an_experiment_that_cannot_be_shown_is_refused_with_a_hint(changes: dict, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse_config({"experiments": {"a": ENTRY | changes}}, "my.yaml")
    assert all(part in str(caught.value) for part in ("my.yaml", *parts)), str(caught.value)


def test_names_that_would_collide_are_refused() -> None:
    with pytest.raises(UserError, match="benchmark"):
        parse_config({"experiments": {"benchmark_a": ENTRY}}, "my.yaml")
    with pytest.raises(UserError, match=r"lowfield\.experiments"):
        parse_config({"experiments": {"a": ENTRY}, "lowfield": {"main": {}, "experiments": {}}}, "my.yaml")


def test_a_set_that_experiments_name_is_made_for_their_methods_and_the_reference_alone() -> None:
    raw = {"lowfield": {"main": {}, "noisy": {}, "thick": {}}, "evaluate": {"reference": "diffusion_iqt"}}
    config = Config.model_validate(raw | {"experiments": {"a": ENTRY | {"sets": ["main", "noisy"]}}})
    assert Plan(config).methods_on("main") == Plan(config).methods_on("thick") == list(config.methods)
    assert Plan(config).methods_on("noisy") == ["cubic", "unet", "diffusion_iqt"]
    everywhere = Config.model_validate(raw | {"experiments": {"a": ENTRY | {"sets": "all"}}})
    assert everywhere.sets_of("a") == ("main", "noisy", "thick")
    assert Plan(everywhere).methods_on("thick") == ["cubic", "unet", "diffusion_iqt"]


def test_the_error_at_patch_borders_is_that_of_the_voxels_on_either_side() -> None:
    rng = np.random.default_rng(1)
    reference = rng.random((16, 12, 12))
    mask = np.zeros(reference.shape, bool)
    mask[1:, :, 1:] = True
    borders = [[8], [], [4]]
    near = np.zeros(reference.shape, bool)
    near[7:9] = True
    near[:, :, 3:5] = True
    error = np.where(near, 0.3, 0.1)
    error[~mask] = 99
    found, ratio = border_error(reference, reference + error, mask, borders)
    assert found == pytest.approx(0.3)
    assert ratio == pytest.approx(3)
    assert border_error(reference, reference + 0.1, mask, ([], [], [])) is None
    exact, nothing = border_error(reference, reference, mask, borders)
    assert exact == 0
    assert np.isnan(nothing), "0 over 0"
    even = border_error(reference, reference + 0.2, mask, borders)
    assert even == pytest.approx((0.2, 1))


def test_the_cost_is_what_cards_and_jobs_recorded(tmp_path: Path) -> None:
    card = {"seconds": 12.5, "gpu_gib": None, "machine": {"cpu": "a processor", "threads": 2, "gpu": None}}
    write_json(tmp_path / "models/unet/seed-2/model.json", card)
    write_table(tmp_path / "benchmarks/train/unet/seed-2.tsv", [{"s": "14", "max_rss": "612.5"}])
    for batch, size in ((0, "410.0"), (1, "NA"), (2, "455.25")):
        path = tmp_path / f"benchmarks/enhance/main/unet/seed-2/batch-{batch}.tsv"
        write_table(path, [{"s": "3", "max_rss": size}])
    cost = cost_of(tmp_path, "main", Result("unet/seed-2", 2), "unet", [0, 1, 2, 3])
    assert cost["machine"] == MACHINE
    assert (cost["train_seconds"], cost["train_mb"], cost["enhance_mb"]) == (12.5, 612.5, 455.25)
    assert cost["train_gpu_gib"] is None
    assert cost_of(tmp_path, "main", Result("cubic"), None, [0]) == {"enhance_mb": ""}, "whoever deleted benchmarks"
    kept = cost_of(tmp_path, "main", Result("unet/seed-2", 2), "unet", [0])
    assert kept["enhance_mb"] == 410, "batches that the run has no more do not count"
