"""Training seeds: from the rows of each seed to a person's mean and the spread over seeds."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from iqt.config import Config, parse_config
from iqt.errors import UserError
from iqt.evaluate.run import CALIBRATION_COLUMNS
from iqt.io.files import read_table, write_table
from iqt.io.naming import Result
from iqt.planning.plan import Plan
from iqt.report.data import read_scores, read_trainings
from iqt.report.figures import slices
from iqt.report.metrics import FURTHER_METRICS, METRICS
from iqt.report.page.assessments import calibration_table
from iqt.report.page.structures import mean_over_seeds
from iqt.report.significance import mean_limits
from iqt.report.tables.benchmark import write_tables
from iqt.report.tables.comparisons import write_statistics
from iqt.report.tables.structures import read_structures, write_structures

SCANS = [f"sub-{number:02d}" for number in range(1, 6)]
SEEDS = ("3", "4", "8")
PSNR = {
    "cubic": {"": [18.0, 20.0, 17.0, 19.0, 16.0]},
    "unet": {
        "3": [21.0, 22.5, 20.0, 21.5, 19.0],
        "4": [21.4, 22.1, 20.8, 21.9, 19.2],
        "8": [20.5, 22.0, 19.9, 21.0, 18.1],
    },
}
"""PSNR by method, training seed and scan."""


def row(scan: str, method: str, seed: str, psnr: float | str, status: str = "ok") -> dict:
    values = dict.fromkeys((*METRICS, *FURTHER_METRICS), 0.5) | {"psnr": psnr}
    facts = {"msssim_scales": 3, "msssim_minmax_scales": 2, "seconds": 1, "nfe": 1, "samples": 1, "n_parameters": 9}
    return {"scan": scan, "set": "main", "method": method, "status": status} | values | facts | {"seed": seed}


def subjects(folder: Path, lost: tuple[str, str, str] | None = None) -> Path:
    """subjects.csv of two methods, one of them with three seeds; `lost` is a scan, method and seed that failed."""
    rows = []
    for method, by_seed in PSNR.items():
        for seed, values in by_seed.items():
            for scan, value in zip(SCANS, values, strict=True):
                failed = lost == (scan, method, seed)
                rows.append(row(scan, method, seed, "" if failed else value, "diverged" if failed else "ok"))
    write_table(folder / "subjects.csv", rows)
    return folder / "subjects.csv"


def test_the_table_has_the_mean_of_the_seeds_means_and_their_spread(tmp_path: Path) -> None:
    write_tables(subjects(tmp_path), tmp_path, "main", 500, 1)
    rows = {row["method"]: row for row in read_table(tmp_path / "benchmark.csv")}
    values = np.array([PSNR["unet"][seed] for seed in SEEDS])
    unet = rows["unet"]
    assert float(unet["psnr"]) == pytest.approx(values.mean(axis=1).mean(), rel=1e-5)
    assert float(unet["psnr_seed_sd"]) == pytest.approx(values.mean(axis=1).std(ddof=1), rel=1e-5)
    assert unet["n_seeds"] == "3"
    assert unet["n_subjects"] == "5"
    assert float(unet["ssim_seed_sd"]) == 0
    assert rows["cubic"]["n_seeds"] == "1"
    assert rows["cubic"]["psnr_seed_sd"] == ""
    # The interval is over people, of each person's mean over seeds.
    assert float(unet["psnr_hi"]) < values.mean(axis=0).max()
    text = (tmp_path / "benchmark.md").read_text()
    spread = f"{values.mean(axis=1).std(ddof=1):.2f}"
    assert f"**{values.mean():.2f}** (± {spread}; " in text
    assert "trained with 3 seeds" in text
    assert rf"$\pm$ {spread};" in (tmp_path / "benchmark.tex").read_text()


def score_of(table: Path, scan: str, method: str) -> pd.Series:
    scores = read_scores(table, "main")
    return scores[(scores["scan"] == scan) & (scores["method"] == method)].iloc[0]


def test_intervals_and_tests_are_over_people_of_each_ones_mean(tmp_path: Path) -> None:
    table = subjects(tmp_path)
    found = write_statistics(table, tmp_path, "main", "cubic", 500, 1)
    psnr = next(row for row in found if row["metric"] == "psnr")
    means = np.array([PSNR["unet"][seed] for seed in SEEDS]).mean(axis=0)
    pairs = means - np.array(PSNR["cubic"][""])
    assert psnr["n"] == "5", "people, not people times seeds"
    assert float(psnr["difference"]) == pytest.approx(pairs.mean(), rel=1e-5)
    assert float(psnr["cohen_dz"]) == pytest.approx(pairs.mean() / pairs.std(ddof=1), rel=1e-5)
    scores = read_scores(table, "main").query("method == 'unet'")["psnr"].to_numpy()
    assert scores == pytest.approx(means)
    assert mean_limits(scores, 500, 1)[0] >= means.min()


def test_a_scan_that_a_seed_lost_is_told_and_left_out_of_every_seeds_mean(tmp_path: Path) -> None:
    """The last scan is the hardest, so that the seed that lost it would look better than the others for that alone."""
    table = subjects(tmp_path, lost=(SCANS[4], "unet", "4"))
    score = score_of(table, SCANS[4], "unet")
    assert score["failed"]
    assert score["status"] == "seed 4: diverged"
    assert math.isnan(score["psnr"])
    write_tables(table, tmp_path, "main", 500, 1)
    found = {row["method"]: row for row in read_table(tmp_path / "benchmark.csv")}
    unet, kept = found["unet"], np.array([PSNR["unet"][seed][:4] for seed in SEEDS])
    assert (unet["n_failed"], unet["psnr_n"], unet["n_subjects"], unet["n_seeds"]) == ("1", "4", "5", "3")
    assert float(unet["psnr"]) == pytest.approx(kept.mean(), rel=1e-5)
    assert float(unet["psnr_seed_sd"]) == pytest.approx(kept.mean(axis=1).std(ddof=1), rel=1e-5)
    assert float(unet["psnr_shared"]) == pytest.approx(kept.mean(), rel=1e-5)
    assert float(found["cubic"]["psnr_shared"]) == pytest.approx(18.5)
    text = (tmp_path / "benchmark.md").read_text()
    assert "Over the 4 people whose scans all methods have: PSNR (dB) cubic 18.50, unet 21.22." in text
    assert f"Failures: {SCANS[4]} unet (seed 4: diverged)." in text


def test_a_seed_that_lost_everything_takes_no_scan_from_the_others(tmp_path: Path) -> None:
    table = subjects(tmp_path)
    write_table(table, [row | ({"psnr": ""} if row["seed"] == "8" else {}) for row in read_table(table)])
    write_tables(table, tmp_path, "main", 500, 1)
    unet = next(row for row in read_table(tmp_path / "benchmark.csv") if row["method"] == "unet")
    kept = np.array([PSNR["unet"][seed] for seed in SEEDS[:2]])
    assert (unet["n_failed"], unet["psnr_n"]) == ("5", "5")
    assert {row["miou_common_n"] for row in read_table(tmp_path / "benchmark.csv")} == {"5"}
    assert float(unet["psnr"]) == pytest.approx(kept.mean(), rel=1e-5)
    assert float(unet["psnr_seed_sd"]) == pytest.approx(kept.mean(axis=1).std(ddof=1), rel=1e-5)


def test_a_seed_of_which_nothing_could_be_read_is_not_in_the_common_mean(tmp_path: Path) -> None:
    """A failed parcellation scores 0 in mIoU, and has no part in mIoU common."""
    table = subjects(tmp_path)
    unread = {"miou": "0", "status": "parcellation: no white matter"}
    rows = [row | ({"miou": "0.8"} if row["seed"] != "8" else unread) for row in read_table(table)]
    write_table(table, rows)
    write_tables(table, tmp_path, "main", 500, 1)
    unet = next(row for row in read_table(tmp_path / "benchmark.csv") if row["method"] == "unet")
    assert float(unet["miou"]) == pytest.approx(1.6 / 3, rel=1e-4)
    assert (float(unet["miou_common"]), unet["miou_common_n"]) == (pytest.approx(0.8), "5")


def test_the_samples_spread_is_a_mean_of_the_scans_that_every_seed_has(tmp_path: Path) -> None:
    values = {(SCANS[0], "3"): 0.4, (SCANS[0], "4"): 0.6, (SCANS[1], "3"): 1.0, (SCANS[1], "4"): ""}
    names = [
        name for name in CALIBRATION_COLUMNS if name.startswith(("correlation", "ratio", "coverage", "calibrated"))
    ]
    rows = [
        {"scan": scan, "method": "mean", "status": "ok" if value else "lost", "samples": 4, "seed": seed}
        | dict.fromkeys(names, value)
        for (scan, seed), value in values.items()
    ]
    write_table(tmp_path / "calibration/main.csv", rows)
    lines = calibration_table(tmp_path, "main", ["mean"], 2)["lines"]
    figures = ["1 of 2", "4", "0.50", "0.50", "50 %", "50 %", "50 %", "50 %"]
    assert lines == [["mean", *figures], ["mean, calibrated", *figures]]


def test_a_row_that_one_seed_lacks_is_a_failure(tmp_path: Path) -> None:
    table = subjects(tmp_path)
    rows = [row for row in read_table(table) if (row["scan"], row["seed"]) != (SCANS[1], "8")]
    write_table(table, rows)
    trainings = read_trainings(table, "main")
    lacking = trainings[trainings["psnr"].isna()]
    assert lacking[["scan", "method", "seed"]].to_numpy().tolist() == [[SCANS[1], "unet", "8"]]
    assert "seed 8: not evaluated" in score_of(table, SCANS[1], "unet")["status"]


def test_one_seed_gives_the_table_it_gave_without_seeds(tmp_path: Path) -> None:
    table = subjects(tmp_path)
    one = [row for row in read_table(table) if row["seed"] in ("", "3")]
    write_table(tmp_path / "one.csv", one)
    write_table(tmp_path / "none.csv", [{key: value for key, value in row.items() if key != "seed"} for row in one])
    for name in ("one", "none"):
        write_tables(tmp_path / f"{name}.csv", tmp_path / name, "main", 500, 1)
    for name in ("benchmark.csv", "benchmark.md", "similarity.tex"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "none" / name).read_bytes()
    assert "±" not in (tmp_path / "one/benchmark.md").read_text()


def test_a_structures_overlap_is_the_mean_over_seeds(tmp_path: Path) -> None:
    base = {"set": "main", "scan": "sub-01", "method": "unet", "name": "thalamus", "volume_reference_mm3": "9"}
    base |= {"index": 1, "volume_mm3": 9}
    rows = [base | {"seed": seed, "dice": dice, "iou": "0.4"} for seed, dice in (("3", "0.5"), ("4", "0.8"), ("8", ""))]
    write_table(tmp_path / "parts.csv", rows)
    (mean,) = mean_over_seeds(read_structures(tmp_path / "parts.csv")).to_dict("records")
    assert mean["dice"] == pytest.approx(0.65)
    assert mean["iou"] == pytest.approx(0.4)


def test_structures_of_a_scan_that_a_seed_lost_are_in_no_mean(tmp_path: Path) -> None:
    rows = [
        {"scan": scan, "set": "main", "method": "unet", "seed": seed, "index": 1, "name": "thalamus", "dice": dice,
         "iou": 0.5, "volume_reference_mm3": 1000, "volume_mm3": 1000}
        for scan, seed, dice in ((SCANS[0], "3", 0.9), (SCANS[0], "4", 0.8), (SCANS[1], "3", 0.1))
    ]  # fmt: skip
    write_table(tmp_path / "parts.csv", rows)
    (kept,) = mean_over_seeds(read_structures(tmp_path / "parts.csv")).to_dict("records")
    assert (kept["scan"], kept["dice"]) == (SCANS[0], pytest.approx(0.85))
    (found,) = write_structures(tmp_path / "parts.csv", tmp_path, "main", SCANS[:2], ["unet"], 100, 1)
    assert (found["n"], found["n_missing"], float(found["dice"])) == ("1", "1", pytest.approx(0.85))


def test_volumes_are_compared_as_one_training_measures_them(tmp_path: Path) -> None:
    """Two seeds whose errors cancel: their mean would agree with the reference to the voxel."""
    rows = [
        {"scan": scan, "set": "main", "method": "unet", "seed": seed, "index": 1, "name": "thalamus", "dice": 0.8,
         "iou": 0.7, "volume_reference_mm3": 1000 + number, "volume_mm3": 1000 + number + sign * error}
        for number, (scan, error) in enumerate(zip(SCANS, (10, -20, 30, -40, 25), strict=True))
        for seed, sign in (("3", 1), ("4", -1))
    ]  # fmt: skip
    write_table(tmp_path / "parts.csv", rows)
    (found,) = write_structures(tmp_path / "parts.csv", tmp_path, "main", SCANS, ["unet"], 100, 1)
    errors = np.array([10, -20, 30, -40, 25])
    assert float(found["bias_mm3"]) == pytest.approx(errors.mean())
    assert float(found["loa_upper"]) == pytest.approx(errors.mean() + 1.96 * errors.std(ddof=1), rel=1e-3)


def test_a_scan_without_a_reading_is_not_in_the_references_volume_either(tmp_path: Path) -> None:
    """Two sessions of each person, the second smaller; of the first person's no result could be read."""
    rows = [
        {"scan": f"{scan}_ses-{session}", "set": "main", "method": "unet", "seed": "1", "index": 1, "name": "thalamus",
         "dice": 0.8, "iou": 0.7, "volume_reference_mm3": size, "volume_mm3": size}
        for scan in SCANS for session, size in ((1, 4000), (2, 3000))
    ]  # fmt: skip
    rows[1] |= {"dice": 0, "iou": 0, "volume_mm3": ""}
    write_table(tmp_path / "parts.csv", rows)
    (found,) = write_structures(tmp_path / "parts.csv", tmp_path, "main", SCANS, ["unet"], 100, 1)
    assert (float(found["bias_mm3"]), float(found["loa_upper"])) == (0, 0)


def test_a_picture_bears_the_scores_of_the_seed_that_it_shows(tmp_path: Path) -> None:
    found = slices._scores(subjects(tmp_path), "main", SCANS[0])
    assert found["unet"]["psnr"] == PSNR["unet"][SEEDS[0]][0]


def test_results_of_the_first_seed_bear_the_methods_name_alone() -> None:
    config = Config.model_validate({"seeds": [5, 6], "methods": {"cubic": {"kind": "cubic"}, "unet": {"kind": "unet"}}})
    assert [result.text for result in Plan(config).results()] == ["cubic", "unet=5", "unet/seed-6=6"]
    assert [Result.parse(result.text) for result in Plan(config).results()] == Plan(config).results()
    assert [result.method for result in Plan(config).results()] == ["cubic", "unet", "unet"]
    assert Plan(config).facts().results("main") == Plan(config).results()
    assert [result.text for result in Plan(Config()).results()][:2] == ["cubic", "unet=1"]


@pytest.mark.parametrize(("seeds", "message"), [([1, 1], "names one twice"), ([], "at least 1"), ([-1], "seeds")])
def test_seeds_that_make_no_sense_are_refused(seeds: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_config({"seeds": seeds}, "my.yaml")
