"""Statistics over people: intervals, paired tests and agreement; without torch, and blind to what is measured.

NaN marks a person without a value. Nothing here fills in a missing person.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ALPHA = 0.05
"""Two-sided level of every test and interval."""
Z = 1.96
"""Bland and Altman's limits of agreement lie this many standard deviations from the bias."""


class Comparison(NamedTuple):
    """A paired comparison of a method (x) with the reference (y) over `n` people that both have.

    `p` is NaN where there is no pair; `rank_biserial` is in [-1, 1], positive where x is larger.
    """

    n: int
    difference: float
    lo: float
    hi: float
    p: float
    rank_biserial: float
    cohen_dz: float


class Agreement(NamedTuple):
    """Agreement of two measurements of the same `n` people; each value with its limits (lo, hi) where it has any."""

    n: int
    bias: float
    bias_lo: float
    bias_hi: float
    loa_lower: float
    loa_lower_lo: float
    loa_lower_hi: float
    loa_upper: float
    loa_upper_lo: float
    loa_upper_hi: float
    icc: float
    icc_lo: float
    icc_hi: float


@functools.lru_cache(maxsize=4)
def draws(n: int, n_resamples: int, seed: int) -> np.ndarray:
    """How often each of n people is in each bootstrap resample: (n_resamples, n) counts, each row summing to n."""
    chosen = np.random.default_rng(seed).integers(0, n, (n_resamples, n))
    places = (chosen + n * np.arange(n_resamples)[:, None]).ravel()
    return np.bincount(places, minlength=n * n_resamples).reshape(n_resamples, n).astype(np.float64)


def mean_limits(people: np.ndarray, n_resamples: int, seed: int) -> tuple[float, float]:
    """95 % percentile bootstrap limits of the mean over people (Efron and Tibshirani 1993, section 13.3).

    NaN for fewer than two people.

    Args:
        people: (n,) one value a person, none NaN.
    """
    if people.size < 2:
        return math.nan, math.nan
    return _percentiles(draws(people.size, n_resamples, seed) @ people / people.size)


def compare(x: np.ndarray, y: np.ndarray, n_resamples: int, seed: int) -> Comparison:
    """Wilcoxon's signed-rank test of paired values, two-sided, with effect sizes.

    Pairs that differ by nothing are dropped from the test (Wilcoxon 1945) and count in `n`; p is exact for up to 50
    pairs without ties, and 1 where no pair differs. `difference` is the mean of x - y with bootstrap limits,
    `rank_biserial` the matched-pairs rank-biserial correlation (W+ - W-) / (W+ + W-) (Kerby 2014), and `cohen_dz` the
    mean difference over its standard deviation, NaN for fewer than two pairs or where all differ by the same.

    Args:
        x, y: (n,) one value per person in the same order; NaN where there is none.
    """
    pairs = (x - y)[~(np.isnan(x) | np.isnan(y))]
    pairs = pairs[np.isfinite(pairs)]
    if not pairs.size:
        return Comparison(0, *[math.nan] * 6)
    differing = pairs[pairs != 0]
    p, biserial = 1.0, 0.0
    if differing.size:
        from scipy.stats import rankdata, wilcoxon  # imported here: it takes as long as a figure takes to be drawn

        p = float(wilcoxon(differing, zero_method="wilcox", alternative="two-sided").pvalue)
        ranks = rankdata(np.abs(differing))
        biserial = float(np.sign(differing) @ ranks / ranks.sum())
    spread = float(np.std(pairs, ddof=1)) if pairs.size > 1 else 0.0
    effect = float(pairs.mean()) / spread if spread > 1e-12 * float(np.abs(pairs).max()) else math.nan
    return Comparison(pairs.size, float(pairs.mean()), *mean_limits(pairs, n_resamples, seed), p, biserial, effect)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979) of a family of p values, in their order; NaN stays and does not count."""
    order = sorted((place for place, value in enumerate(p) if not math.isnan(value)), key=lambda place: p[place])
    adjusted, highest = [math.nan] * len(p), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p[place]))
        adjusted[place] = highest
    return adjusted


def people_needed(n_tests: int) -> int:
    """The fewest differing pairs with which the best possible p, 2 / 2^n, passes Holm's first step of a family."""
    return math.ceil(1 + math.log2(n_tests / ALPHA)) if n_tests else 0


def agreement(measured: np.ndarray, truth: np.ndarray, n_resamples: int, seed: int) -> Agreement:
    """Bland and Altman's (1986) bias and limits of agreement, and the intraclass correlation ICC(2,1).

    The limits are the bias and 1.96 standard deviations of the differences to either side, each with its exact
    interval (`agreement_factors`), which supposes that the differences are normal. The ICC is Shrout and Fleiss's
    (1979) for absolute agreement of single measurements, two raters. Bias and ICC have bootstrap limits over people.
    What needs two people is NaN for one; the ICC is NaN where nothing varies.

    Args:
        measured, truth: (n,) one value per person in the same order; NaN where there is none.
    """
    kept = ~(np.isnan(measured) | np.isnan(truth))
    x, y = measured[kept], truth[kept]
    n = x.size
    if n < 2:
        return Agreement(n, float(x[0] - y[0]) if n else math.nan, *[math.nan] * 11)
    difference = x - y
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    near, far = agreement_factors(n)
    weights = draws(n, n_resamples, seed)
    shift = y.mean()  # so that squares of large volumes keep their digits
    moments = np.stack([x - shift, y - shift, (x - shift) ** 2, (y - shift) ** 2, (x - shift) * (y - shift)], axis=1)
    resampled = icc_of(n, *(weights @ moments / n).T)
    return Agreement(
        n,
        bias,
        *_percentiles(weights @ difference / n),
        *(bias - Z * sd, bias - far * sd, bias - near * sd),
        *(bias + Z * sd, bias + near * sd, bias + far * sd),
        float(icc_of(n, *moments.mean(axis=0))),
        *_percentiles(resampled[np.isfinite(resampled)]),
    )


@functools.lru_cache(maxsize=64)
def agreement_factors(n: int) -> tuple[float, float]:
    """(near, far): the 95 % interval of the upper limit of agreement of n people is bias + near to far x SD.

    Exact for normal differences (Carkeet 2015, Optometry and Vision Science 92: e71): the estimate of the mean plus
    1.96 standard deviations follows a noncentral t distribution with n - 1 degrees of freedom and noncentrality
    1.96 sqrt(n). Bland and Altman's own (1999, section 2.1) is its limit for many people and too narrow for few.
    """
    from scipy.stats import nct

    low, high = nct.ppf([ALPHA / 2, 1 - ALPHA / 2], n - 1, Z * math.sqrt(n)) / math.sqrt(n)
    return float(low), float(high)


def icc_of(n: int, x: np.ndarray, y: np.ndarray, xx: np.ndarray, yy: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """ICC(2,1) of two raters of n people from the means of x, y, their squares and their product; NaN for 0 / 0."""
    grand = (x + y) / 2
    between = 2 * n * ((xx + 2 * xy + yy) / 4 - grand**2) / (n - 1)
    raters = n * ((x - grand) ** 2 + (y - grand) ** 2)
    total = n * (xx + yy - 2 * grand**2)
    error = np.maximum(total - between * (n - 1) - raters, 0) / (n - 1)
    denominator = between + error + 2 * (raters - error) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 1e-12 * (xx + yy), (between - error) / denominator, np.nan)


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    if not values.size:
        return math.nan, math.nan
    low, high = np.percentile(values, [100 * ALPHA / 2, 100 * (1 - ALPHA / 2)])
    return float(low), float(high)
