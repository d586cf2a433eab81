"""Whether the spread of a method's samples says how wrong their mean is.

If the reference and the K samples were draws from one posterior, the squared error of the samples' mean would be
(1 + 1/K) times their variance on average (Fortin et al. 2014), and the error over the root of that would follow
Student's t with K - 1 degrees of freedom. What is compared is therefore the error with `expected`, that root.
"""

from __future__ import annotations

import math

import numpy as np

from iqt.config.experiments import CALIBRATED, COVERAGES
from iqt.diffusion.spread import Intervals, in_neighbourhood
from iqt.errors import UserError

BINS = 10
SMOOTHING = 3.0
"""Voxels, the standard deviation of the neighbourhood by which the reliability curve orders voxels."""


def calibration(
    reference: np.ndarray,
    mean: np.ndarray,
    sd: np.ndarray,
    mask: np.ndarray,
    samples: int,
    calibrated: Intervals | None = None,
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Figures of one result over its brain, and its reliability curve.

    The figures are `correlation` (Spearman's, of the spread and the size of the error), `ratio` (root mean square of
    the expected error over that of the true one: below 1 the method is too sure of itself), and each of `COVERAGES`.
    The curve has a row for each tenth of the voxels in the order of the spread around them: `bin`, `n_voxels`, and the
    root mean squares `expected` and `error`. The order is that of the neighbourhood's variance: in the order of their
    own spread, known from a few samples only, voxels whose spread is small or large by chance would gather at the ends
    and tilt the curve.

    Args:
        reference, mean, sd: (X, Y, Z) on one grid and intensity scale; `sd` with K - 1 in its denominator.
        mask: (X, Y, Z), true in the brain.
        samples: K, at least 2.
        calibrated: what validation people told of the spread (`Spread.intervals`); with it the figures also hold
            `calibrated_correlation`, `calibrated_ratio` and each of `CALIBRATED`.

    Raises:
        UserError: the mask is empty, or the spread is the same everywhere.
        ValueError: there are fewer than 2 samples.
    """
    from scipy import stats  # which takes as long to import as a scan to score, and few results have a spread

    if samples < 2:
        raise ValueError(f"{samples} sample has no spread")
    error = np.abs(mean[mask].astype(np.float64) - reference[mask])
    expected = sd[mask].astype(np.float64) * math.sqrt(1 + 1 / samples)
    if error.size == 0:
        raise UserError("the brain mask is empty")
    if np.ptp(expected) == 0:
        raise UserError(f"the samples' standard deviation is {sd[mask][0]:g} in the whole brain")
    figures = {
        "correlation": float(stats.spearmanr(expected, error).statistic),
        "ratio": _rms(expected) / max(_rms(error), 1e-12),
    }
    for name, level in COVERAGES.items():
        width = stats.t.ppf(0.5 + level / 2, samples - 1)
        figures[name] = float((error <= width * expected).mean())
    if calibrated is not None:
        told = calibrated.expected[mask].astype(np.float64)
        figures["calibrated_correlation"] = float(stats.spearmanr(told, error).statistic) if np.ptp(told) else 0.0
        figures["calibrated_ratio"] = _rms(told) / max(_rms(error), 1e-12)
        for name, level in CALIBRATED.items():
            figures[name] = float((error <= calibrated.widths[level] * told).mean())
    parts = np.array_split(np.argsort(in_neighbourhood(sd, mask, SMOOTHING)[mask], kind="stable"), BINS)
    curve = [
        {"bin": number, "n_voxels": len(part), "expected": _rms(expected[part]), "error": _rms(error[part])}
        for number, part in enumerate(parts, start=1)
        if len(part)
    ]
    return figures, curve


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))
