"""The statistics table: every method against the one that the configuration names, over people."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from iqt.errors import UserError
from iqt.io.files import write_table, write_text
from iqt.io.naming import seed_of
from iqt.report.data import as_rows, methods_of, parcellator_of, people_of, read_scores
from iqt.report.metrics import measured, named, signed
from iqt.report.significance import ALPHA, compare, holm, people_needed
from iqt.report.tables.formats import bracketed, latex, markdown

TESTED = ("psnr", "msssim", "miou")
"""Metrics that are tested: fixed here, so that none is chosen by its result."""
COLUMNS = (
    *("set", "metric", "method", "reference", "n", "n_missing", "difference", "difference_lo", "difference_hi"),
    *("p", "p_holm", "n_tests", "n_needed", "rank_biserial", "cohen_dz", "verdict", "reference_named"),
)
UNNAMED = (
    "The configuration names no reference (evaluate.reference): the first method was taken, which was not named before "
    "the results were known."
)
TOO_FEW = "too few people"
VERDICTS = ("better", "worse", "not shown to differ", TOO_FEW, "no pair")
NOTE = (
    "Difference: method minus reference, mean over people who have both, in brackets 95 % percentile bootstrap limits. "
    "p: Wilcoxon's signed-rank test, paired and two-sided, adjusted by Holm's method over all rows of this table. "
    "Effect: matched-pairs rank-biserial correlation, 1 where the method is ahead on everybody, -1 where the "
    "reference is; d_z: mean difference over its standard deviation. Differences that pass in bold."
)


def write_statistics(
    subjects_csv: Path, out: Path, set_name: str, reference: str | None, bootstrap: int, seed: int
) -> list[dict[str, str]]:
    """Write statistics.csv, .md and .tex of one low-field set into the folder `out`; the rows.

    The tests of all methods and `TESTED` metrics are one family (Holm 1979). The scans of one person that both methods
    have are averaged first.
    A person without a value for either method makes no pair and counts in `n_missing`. Where even people who all
    differ the same way could not pass the correction, `verdict` says `too few people` and no adjusted p is shown.

    Args:
        reference: the method that the others are compared with; None takes the first one, and the tables say that
            nobody named it beforehand (`reference_named` no).
        bootstrap: resamplings of the people.

    Raises:
        UserError: subjects.csv lacks a column or the set, or `reference` has no row.
    """
    scores = read_scores(subjects_csv, set_name)
    methods = methods_of(scores)
    named_beforehand, reference = reference is not None, reference or methods[0]
    if reference not in methods:
        raise UserError(
            f"{subjects_csv}: the reference method {reference!r} has no row; it has {', '.join(methods)}. "
            "Hint: set evaluate.reference to one of them"
        )
    people = sorted(scores["person"].unique())
    draw = seed_of(seed, "bootstrap", set_name)
    found = {
        (metric, method): compare(*_pairs(scores, method, reference, metric, people), bootstrap, draw)
        for metric in measured(TESTED, parcellator_of(scores))
        for method in methods
        if method != reference
    }
    adjusted = holm([one.p for one in found.values()])
    n_tests = sum(not math.isnan(one.p) for one in found.values())
    needed = people_needed(n_tests)
    enough = max((one.n for one in found.values()), default=0) >= needed
    rows = as_rows(
        {"set": set_name, "metric": metric, "method": method, "reference": reference, "n": one.n}
        | {"n_missing": len(people) - one.n, "difference": one.difference}
        | {"difference_lo": one.lo, "difference_hi": one.hi, "p": one.p, "p_holm": p_holm, "n_tests": n_tests}
        | {"n_needed": needed, "rank_biserial": one.rank_biserial, "cohen_dz": one.cohen_dz}
        | {"verdict": _verdict(one.n, one.rank_biserial, p_holm, enough and one.n >= people_needed(1))}
        | {"reference_named": "yes" if named_beforehand else "no"}
        for ((metric, method), one), p_holm in zip(found.items(), adjusted, strict=True)
    )
    write_table(out / "statistics.csv", rows, COLUMNS)
    note = NOTE if named_beforehand else f"{NOTE} {UNNAMED}"
    title = f"Every method against {reference}, low-field set {set_name}."

    def cells(bold: Callable[[str], str]) -> list[list[str]]:
        return statistics_cells(rows, bold)

    write_text(out / "statistics.md", markdown(cells, title, note, n_text=2))
    write_text(out / "statistics.tex", latex(cells, title, note, n_text=2))
    return rows


def statistics_cells(rows: list[dict[str, str]], bold: Callable[[str], str] = str) -> list[list[str]]:
    """A heading and one line per comparison, for people."""
    lines = [["metric", "method", "people", "difference (95 %)", "p (Holm)", "effect", "d_z", "verdict"]]
    for row in rows:
        metric = row["metric"]
        low, middle, high = (signed(metric, row[f"difference{end}"]) for end in ("_lo", "", "_hi"))
        difference = bracketed(middle, (low, high))
        passed = row["verdict"] in VERDICTS[:2]
        verdict = row["verdict"] if row["verdict"] != TOO_FEW else f"{TOO_FEW}: {row['n_needed']} or more are needed"
        shown_p = "–" if row["verdict"] in VERDICTS[3:] or not row["p_holm"] else _p(float(row["p_holm"]))
        effects = [f"{float(row[name]):+.2f}" if row[name] else "–" for name in ("rank_biserial", "cohen_dz")]
        people = row["n"] + (f" ({row['n_missing']} missing)" if row["n_missing"] != "0" else "")
        shown_difference = bold(difference) if passed else difference
        lines.append([named(metric, ""), row["method"], people, shown_difference, shown_p, *effects, verdict])
    return lines


def _pairs(
    scores: pd.DataFrame, method: str, reference: str, metric: str, people: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """One value per person of either method, each the mean over the scans that both have; NaN where there is none."""
    held = scores.dropna(subset=[metric])
    own, other = (held[held["method"] == name] for name in (method, reference))
    both = set(own["scan"]) & set(other["scan"])
    first, second = (people_of(some[some["scan"].isin(both)], metric).reindex(people) for some in (own, other))
    return first.to_numpy(), second.to_numpy()


def _verdict(n: int, rank_biserial: float, p_holm: float, enough: bool) -> str:
    """What the test says, by the ranks that it is about: a failure's 0 can pull the mean the other way."""
    if not n or math.isnan(p_holm):
        return "no pair"
    if not enough:
        return TOO_FEW
    if p_holm >= ALPHA:
        return "not shown to differ"
    return "better" if rank_biserial > 0 else "worse"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
