"""Whether the spread of a method's samples says how wrong their mean is.

If the reference and the K samples were draws from one posterior, the squared error of the samples' mean would be
(1 + 1/K) times their variance on average (Fortin et al. 2014), and the error over the root of that would follow
Student's t with K - 1 degrees of freedom. What is compared is therefore the error with `expected`, that root.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_filter

from iqt.config.experiments import CALIBRATED, COVERAGES
from iqt.diffusion.spread import Spread
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
    spread: Spread | None = None,
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Figures of one result over its brain, and its reliability curve.

    The figures are `correlation` (Spearman's, of the spread and the size of the error), `ratio` (root mean square of
    the expected error over that of the true one: below 1 the method is too sure of itself), and each of `COVERAGES`.
    The curve has a row for each tenth of the voxels in the order of the spread around them: `bin`, `n_voxels`, and the
    root mean squares `expected` and `error`. The order is that of the variance smoothed over the neighbourhood: in the
    order of their own spread, known from a few samples only, voxels whose spread is small or large by chance would
    gather at the ends and tilt the curve.

    Args:
        reference, mean, sd: (X, Y, Z) on one grid and intensity scale; `sd` with K - 1 in its denominator.
        mask: (X, Y, Z), true in the brain.
        samples: K, at least 2.
        spread: what validation people told; with it the figures also hold `calibrated_ratio` and each of `CALIBRATED`.

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
    if spread is not None:
        calibrated = spread.expected(sd[mask].astype(np.float64))
        figures["calibrated_ratio"] = _rms(calibrated) / max(_rms(error), 1e-12)
        for name, level in CALIBRATED.items():
            figures[name] = float((error <= spread.widths[level] * calibrated).mean())
    inside = mask.astype(np.float64)
    smooth = gaussian_filter(np.square(sd) * inside, SMOOTHING) / np.maximum(gaussian_filter(inside, SMOOTHING), 1e-12)
    parts = np.array_split(np.argsort(smooth[mask], kind="stable"), BINS)
    curve = [
        {"bin": number, "n_voxels": len(part), "expected": _rms(expected[part]), "error": _rms(error[part])}
        for number, part in enumerate(parts, start=1)
        if len(part)
    ]
    return figures, curve


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))
