"""Intervals, tests and agreement against published examples and independent computations; the tables made of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from iqt.config import parse_config
from iqt.errors import UserError
from iqt.io.files import read_table, write_table
from iqt.report.metrics import FACTS, FURTHER_METRICS, METRICS
from iqt.report.significance import (
    agreement,
    agreement_factors,
    compare,
    draws,
    holm,
    icc_of,
    mean_limits,
    people_needed,
)
from iqt.report.tables.comparisons import TESTED, write_statistics
from iqt.report.tables.structures import NEEDED, write_structures


def test_a_resample_draws_as_many_people_as_there_are() -> None:
    counts = draws(7, 3000, 1)
    assert (counts.sum(axis=1) == 7).all()
    assert counts.mean() == 1
    assert counts.var() == pytest.approx(1 - 1 / 7, rel=0.05), "as a multinomial draw"


def test_limits_of_the_mean_are_scipys() -> None:
    people = np.random.default_rng(0).gamma(2, size=15)
    expected = stats.bootstrap((people,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(3))
    assert mean_limits(people, 4000, 3) == pytest.approx(tuple(expected.confidence_interval))
    assert all(map(math.isnan, mean_limits(people[:1], 100, 1)))


def test_the_signed_rank_test_on_wilcoxons_own_kind_of_example() -> None:
    """Darwin's maize, 15 pairs (Fisher 1935): W+ = 96, W- = 24, exact two-sided p 0.0413 by counting all signs."""
    differences = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48.0])
    found = compare(differences, np.zeros(15), 1000, 1)
    ranks = stats.rankdata(np.abs(differences))
    signs = 2 * ((np.arange(2**15)[:, None] >> np.arange(15)) & 1) - 1
    every = np.abs(signs @ ranks)
    observed = abs(np.sign(differences) @ ranks)
    assert found.p == pytest.approx((every >= observed).mean())
    assert found.p == pytest.approx(0.0413, abs=1e-4)
    assert found.rank_biserial == pytest.approx((96 - 24) / 120)
    assert found.cohen_dz == pytest.approx(differences.mean() / differences.std(ddof=1))
    assert found.difference == pytest.approx(differences.mean())
    assert found.lo < found.difference < found.hi


def test_comparing_is_antisymmetric_and_leaves_missing_people_out() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(1, 1, 12), rng.normal(0, 1, 12)
    there, back = compare(x, y, 500, 1), compare(y, x, 500, 1)
    assert (there.p, there.rank_biserial, there.cohen_dz) == pytest.approx(
        (back.p, -back.rank_biserial, -back.cohen_dz)
    )
    gaps = np.where(np.arange(12) < 3, np.nan, x)
    assert compare(gaps, y, 500, 1)[:1] + compare(gaps, y, 500, 1)[4:] == pytest.approx(
        (9, *compare(x[3:], y[3:], 500, 1)[4:])
    )
    same = compare(x, x, 500, 1)
    assert (same.n, same.difference, same.p, same.rank_biserial) == (12, 0, 1, 0)
    assert math.isnan(same.cohen_dz), "0 / 0"
    nobody = compare(np.full(4, np.nan), y[:4], 500, 1)
    assert nobody.n == 0
    assert math.isnan(nobody.p)


def test_holms_adjustment_on_his_example_and_properties() -> None:
    """Holm (1979): p sorted, times m, m - 1, ..., never decreasing, at most 1; the order of the tests is kept."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1, 1]
    kept = holm([0.01, math.nan, 0.02])
    assert kept[::2] == pytest.approx([0.02, 0.02]), "what was not tested does not count"
    assert math.isnan(kept[1])


@pytest.mark.parametrize(("tests", "needed"), [(1, 6), (3, 7), (9, 9), (0, 0)])
def test_people_needed_for_any_p_to_pass(tests: int, needed: int) -> None:
    assert people_needed(tests) == needed
    if tests:
        best = [compare(np.arange(1.0, n + 1), np.zeros(n), 100, 1).p * tests for n in (needed - 1, needed)]
        assert best[0] > 0.05 >= best[1]


def test_icc_on_shrout_and_fleiss_scheme() -> None:
    """ICC(2,1) from the mean squares of a two-way analysis of variance, written out (Shrout and Fleiss 1979)."""
    table = np.array([[9, 2], [6, 1], [8, 4], [7, 1], [10, 5], [6, 2]], float)  # judges 1 and 2 of their table 2
    n, k = table.shape
    grand = table.mean()
    bms = k * ((table.mean(1) - grand) ** 2).sum() / (n - 1)
    jms = n * ((table.mean(0) - grand) ** 2).sum() / (k - 1)
    residual = table - table.mean(1, keepdims=True) - table.mean(0) + grand
    ems = (residual**2).sum() / ((n - 1) * (k - 1))
    expected = (bms - ems) / (bms + (k - 1) * ems + k * (jms - ems) / n)
    found = agreement(*table.T, 500, 1)
    assert found.icc == pytest.approx(expected)
    assert found.icc_lo <= found.icc <= found.icc_hi


def test_icc_falls_with_bias_and_with_noise_and_not_with_scale() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(5000, 300, 40)
    values = [agreement(truth + shift, truth, 200, 1).icc for shift in (0, 100, 1000)]
    assert values[0] == pytest.approx(1)
    assert values == sorted(values, reverse=True)
    other = truth + rng.normal(0, 100, 40)
    assert agreement(7 * other, 7 * truth, 200, 1).icc == pytest.approx(agreement(other, truth, 200, 1).icc)
    assert math.isnan(agreement(np.full(5, 3.0), np.full(5, 3.0), 200, 1).icc), "nothing varies"
    assert math.isnan(float(icc_of(3, *np.zeros(5))))


def test_bland_and_altmans_limits() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(100, 10, 4000)
    found = agreement(truth + rng.normal(5, 2, 4000), truth, 200, 1)
    assert found.bias == pytest.approx(5, abs=0.1)
    assert (found.loa_lower, found.loa_upper) == pytest.approx((5 - 3.92, 5 + 3.92), abs=0.2)
    assert found.bias_lo < found.bias < found.bias_hi
    one = agreement(np.array([3.0, np.nan]), np.array([1.0, 2.0]), 200, 1)
    assert (one.n, one.bias) == (1, 2)
    assert math.isnan(one.loa_lower)


# the tables


def subject(scan: str, method: str, gain: float, **changes: object) -> dict:
    row = {"scan": scan, "set": "main", "method": method, "status": "ok"} | dict.fromkeys(FACTS, 1)
    row |= dict.fromkeys((*METRICS, *FURTHER_METRICS), 0.5) | {"psnr": 20 + gain, "msssim": 0.9 + gain / 100}
    return row | {"miou": 0.5 + gain / 100} | changes


def people(n: int) -> list[str]:
    return [f"sub-{number:02d}" for number in range(n)]


def written(folder: Path, rows: list[dict], reference: str | None = "unet") -> dict[tuple[str, str], dict[str, str]]:
    write_table(folder / "subjects.csv", rows)
    write_statistics(folder / "subjects.csv", folder, "main", reference, 500, 1)
    return {(row["metric"], row["method"]): row for row in read_table(folder / "statistics.csv")}


def test_a_clear_difference_passes_and_none_does_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for scan in people(12):
        base, noise = rng.normal(), rng.normal()
        rows += [subject(scan, "cubic", base - 2 + noise / 9), subject(scan, "unet", base)]
        rows += [subject(scan, "flow", base + noise)]
    found = written(tmp_path, rows)
    assert list(found) == [(metric, method) for metric in TESTED for method in ("cubic", "flow")]
    worse = found["psnr", "cubic"]
    assert worse["verdict"] == "worse"
    assert float(worse["rank_biserial"]) == -1
    assert float(worse["p"]) == pytest.approx(2 / 2**12)
    assert float(worse["p_holm"]) == pytest.approx(6 * 2 / 2**12, rel=1e-4), "six tests are one family"
    assert found["psnr", "flow"]["verdict"] == "not shown to differ"
    text = (tmp_path / "statistics.md").read_text()
    assert text.count("**") == 6, "three differences pass"
    assert "against unet" in text
    latex = (tmp_path / "statistics.tex").read_text()
    assert r"\textbf{-" in latex
    assert len({line.count("&") for line in latex.splitlines() if line.endswith(r"\\")}) == 1


def test_too_few_people_is_said_instead_of_a_p(tmp_path: Path) -> None:
    rows = [subject(scan, method, gain) for scan in people(6) for gain, method in enumerate(["unet", "a", "b", "c"])]
    found = written(tmp_path, rows)
    assert {row["verdict"] for row in found.values()} == {"too few people"}
    lines = [line for line in (tmp_path / "statistics.md").read_text().splitlines() if line.startswith("| PSNR")]
    assert all("too few people: 9 or more are needed" in line and "| – |" in line for line in lines)


def test_a_person_without_a_result_is_counted_as_missing(tmp_path: Path) -> None:
    rows = [subject(scan, method, 0) for scan in people(8) for method in ("unet", "a", "b")]
    rows[1] |= dict.fromkeys((*METRICS, *FURTHER_METRICS), "") | {"status": "enhanced: diverged"}
    rows = [row for row in rows if row["method"] != "b" or row["scan"] == "sub-03"]
    for row in rows[-3:]:
        row["psnr"] = ""
    found = written(tmp_path, rows)
    assert (found["psnr", "a"]["n"], found["psnr", "a"]["n_missing"]) == ("5", "3")
    assert (found["msssim", "b"]["n"], found["msssim", "b"]["n_missing"]) == ("1", "7")
    assert "5 (3 missing)" in (tmp_path / "statistics.md").read_text()


def test_the_reference_must_be_a_method(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'nobody' has no row; it has unet"):
        written(tmp_path, [subject("sub-1", "unet", 0)], "nobody")
    with pytest.raises(UserError, match=r"evaluate\.reference 'nobody' names no method.*cubic"):
        parse_config({"evaluate": {"reference": "nobody"}})


def structure(scan: str, method: str, name: str, dice: object, volumes: tuple[object, object]) -> dict:
    index = ["one", "two", "nowhere"].index(name) + 1
    values = ("main", scan, method, index, name, dice, dice, *volumes)
    return dict(zip(NEEDED, values, strict=True))


def test_structures_that_are_absent_or_were_not_read_stay_in_the_table(tmp_path: Path) -> None:
    scans = people(4)
    rows = []
    for number, scan in enumerate(scans[:3]):
        rows += [structure(scan, "unet", "one", 0.5 + number / 10, (1000 + 50 * number, 1100 + 50 * number))]
        rows += [structure(scan, "unet", "two", *((0.0, (500, "")) if number else (0.9, (500, 400))))]
        rows += [structure(scan, "unet", "nowhere", "", (0, 0))]
    write_table(tmp_path / "structures.csv", rows)
    write_structures(tmp_path / "structures.csv", tmp_path / "out", "main", scans, ["cubic", "unet"], 500, 1)
    table = {(row["name"], row["method"]): row for row in read_table(tmp_path / "out/structures.csv")}
    assert list(table) == [(name, method) for name in ("one", "two", "nowhere") for method in ("cubic", "unet")]
    one, two, nowhere = (table[name, "unet"] for name in ("one", "two", "nowhere"))
    assert (one["n"], one["n_absent"], one["n_missing"]) == ("3", "0", "1")
    assert float(one["dice"]) == pytest.approx(0.6)
    assert [float(one[name]) for name in ("bias_mm3", "loa_lower", "loa_upper")] == [100, 100, 100]
    assert float(one["icc"]) < 0.5, "the bias is twice the spread"
    assert float(two["dice"]) == pytest.approx(0.3), "a failed parcellation scores 0"
    assert (two["n"], two["n_volumes"], two["icc"]) == ("3", "1", "")
    assert (nowhere["n"], nowhere["n_absent"], nowhere["dice"], nowhere["n_volumes"]) == ("0", "3", "", "0")
    assert table["one", "cubic"]["n_missing"] == "4", "a method that no scan was read of"
    text = (tmp_path / "out/structures.md").read_text()
    assert "| nowhere | unet | 0 of 4 (3 absent, 1 missing) | – |" in text
    assert r"\begin{longtable}" in (tmp_path / "out/structures.tex").read_text()


def test_a_run_in_which_everything_failed_still_has_its_tables(tmp_path: Path) -> None:
    nothing = dict.fromkeys((*METRICS, *FURTHER_METRICS), "") | {"status": "enhanced: diverged"}
    rows = [subject(scan, method, 0, **nothing) for scan in people(3) for method in ("unet", "a")]
    found = written(tmp_path, rows)
    assert {row["verdict"] for row in found.values()} == {"no pair"}
    assert {row["n_missing"] for row in found.values()} == {"3"}
    write_table(tmp_path / "structures.csv", [], NEEDED)
    assert write_structures(tmp_path / "structures.csv", tmp_path, "main", people(3), ["unet", "a"], 500, 1) == []
    assert "| structure |" in (tmp_path / "structures.md").read_text()


def test_only_scans_that_both_methods_have_are_compared(tmp_path: Path) -> None:
    """Everybody has an easy session and a hard one; `flow`, worse by 1 dB, fails on every hard one."""
    rows = []
    for number, person in enumerate(people(12)):
        for session, base in (("ses-1", 10.0), ("ses-2", 0.0)):
            scan, own = f"{person}_{session}", base + 0.1 * number
            rows.append(subject(scan, "unet", own))
            lost = {"status": "enhanced: diverged"} | dict.fromkeys((*METRICS, *FURTHER_METRICS), "")
            rows.append(subject(scan, "flow", own - 1, **(lost if session == "ses-2" else {})))
    row = written(tmp_path, rows)["psnr", "flow"]
    assert float(row["difference"]) == pytest.approx(-1)
    assert row["verdict"] == "worse"


def test_the_verdict_is_the_tests_and_not_the_means(tmp_path: Path) -> None:
    """Ahead on 19 of 20, and 0 where the parcellator failed: the ranks say better, the mean says worse."""
    rows = []
    for number, person in enumerate(people(20)):
        rows.append(subject(person, "unet", 0.0, miou=0.6))
        rows.append(subject(person, "flow", 0.0, miou=0.0 if number == 7 else 0.62 + 0.0001 * number))
    row = written(tmp_path, rows)["miou", "flow"]
    assert float(row["difference"]) < 0 < float(row["rank_biserial"])
    assert row["verdict"] == "better"


def test_a_method_with_too_few_pairs_of_its_own_is_told_so(tmp_path: Path) -> None:
    rows = []
    for number, person in enumerate(people(12)):
        rows += [subject(person, "unet", 0.1 * number), subject(person, "cubic", 0.1 * number - 1)]
        lost = {"status": "enhanced: diverged"} | dict.fromkeys((*METRICS, *FURTHER_METRICS), "")
        rows.append(subject(person, "flow", 0.1 * number + 1, **(lost if number > 3 else {})))
    found = written(tmp_path, rows)
    assert found["psnr", "cubic"]["verdict"] == "worse"
    assert found["psnr", "flow"]["verdict"] == "too few people"


def test_the_limits_of_agreement_have_exact_intervals() -> None:
    """Coverage by simulation for few people, where Bland and Altman's own interval holds too little."""
    rng = np.random.default_rng(4)
    n, runs = 6, 20_000
    upper = 1.96
    sample = rng.normal(size=(runs, n))
    bias, sd = sample.mean(axis=1), sample.std(axis=1, ddof=1)
    near, far = agreement_factors(n)
    exact = (bias + near * sd <= upper) & (upper <= bias + far * sd)
    assert exact.mean() == pytest.approx(0.95, abs=0.006)
    below, above = (upper < bias + near * sd).mean(), (upper > bias + far * sd).mean()
    assert (below, above) == pytest.approx((0.025, 0.025), abs=0.004), "as often missed on either side"
    half = stats.t.ppf(0.975, n - 1) * sd * math.sqrt(1 / n + 1.96**2 / (2 * (n - 1)))
    assert (np.abs(bias + 1.96 * sd - upper) <= half).mean() < 0.93


def test_the_intervals_of_agreement_on_bland_and_altmans_example() -> None:
    """Systolic blood pressure of 85 people (Bland and Altman 1999, section 2): differences of mean -16.29 and standard
    deviation 19.61 mmHg, limits -54.7 and 22.1, whose approximate 95 % intervals they give as -61.9 to -47.5 and 14.9
    to 29.3. The exact ones are theirs but for skewness, which moves both ends outwards by less than 2 mmHg."""
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=85)
    difference = -16.29 + 19.61 * (drawn - drawn.mean()) / drawn.std(ddof=1)
    found = agreement(500 + difference, np.full(85, 500.0), 200, 1)
    assert (found.loa_lower, found.loa_upper) == pytest.approx((-54.7, 22.1), abs=0.06)
    ends = (found.loa_lower_lo, found.loa_lower_hi, found.loa_upper_lo, found.loa_upper_hi)
    assert ends == pytest.approx((-61.9, -47.5, 14.9, 29.3), abs=2)
    assert ends[0] < -61.9
    assert ends[3] > 29.3
    assert found.loa_upper - found.bias == pytest.approx(found.bias - found.loa_lower)
    few = agreement(np.array([1.0, 2.0, 4.0]), np.zeros(3), 200, 1)
    assert few.loa_upper_lo < few.loa_upper < few.loa_upper_hi
    assert math.isnan(agreement(np.ones(1), np.zeros(1), 200, 1).loa_upper_hi)


def test_agreement_factors_for_thousands_of_people_near_the_normal_ones() -> None:
    near, far = agreement_factors(5000)
    half = 1.96 * math.sqrt(1 / 5000 + 1.96**2 / (2 * 4999))
    assert (near, far) == pytest.approx((1.96 - half, 1.96 + half), abs=2e-3)


def test_a_reference_that_nobody_named_is_said_so(tmp_path: Path) -> None:
    rows = [subject(scan, method, 0) for scan in people(3) for method in ("cubic", "unet")]
    written(tmp_path, rows, "unet")
    unnamed = written(tmp_path / "none", rows, None)
    assert {(row["method"], row["reference"], row["reference_named"]) for row in unnamed.values()} == {
        ("unet", "cubic", "no")
    }
    for ending in ("md", "tex"):
        assert "was not named before" in (tmp_path / f"none/statistics.{ending}").read_text()
        assert "was not named before" not in (tmp_path / f"statistics.{ending}").read_text()
    assert {row["reference_named"] for row in read_table(tmp_path / "statistics.csv")} == {"yes"}
