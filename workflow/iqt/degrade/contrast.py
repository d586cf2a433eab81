"""The contrast between tissues at low field, and the noise.

Both start from the mean intensity of each tissue in the scan, measured where its posterior exceeds 0.9.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from iqt.config import LowField, Relaxation
from iqt.errors import UserError

TISSUES = ("WM", "GM", "CSF")
PURE = 0.9
"""Posterior above which a voxel counts as one tissue."""
ALIKE = 0.9
"""Correlation of white and grey matter's deviations from their mean relaxation times; our choice."""

SEQUENCES = {"T1w": (880.0, 5.0, 354.0), "T2w": (2000.0, 170.0, 0.0), "FLAIR": (4000.0, 170.0, 1400.0)}
"""TR, TE and TI in ms of a 64 mT scanner's contrasts; TI 0 means no inversion."""


class TissueMean(NamedTuple):
    """Mean intensity, the number of voxels behind it, and the posterior that they exceed."""

    value: float
    voxels: int
    threshold: float


def measurable(posterior: np.ndarray) -> bool:
    """Whether a tissue is somewhere so much the larger part of a voxel that `tissue_mean` can measure it."""
    return PURE * float(posterior.max()) > 0.5


def tissue_mean(data: np.ndarray, posterior: np.ndarray, name: str) -> TissueMean:
    """Mean intensity where the posterior exceeds 0.9.

    Thick slices of coarse data may hold no voxel that pure: then the threshold is 0.9 of the highest posterior found,
    as long as that tissue is the larger part of such a voxel.

    Raises:
        UserError: it is nowhere the larger part, or its mean is not positive.
    """
    threshold = PURE
    highest = float(posterior.max())
    if highest <= PURE:
        threshold = PURE * highest
        if not measurable(posterior):
            raise UserError(
                f"{name}: its posterior reaches only {highest:.2f} in the thick slices, so its intensity cannot be "
                "measured; choose thinner slices, or check the posteriors"
            )
    pure = posterior > threshold
    value = float(data[pure].mean(dtype=np.float64))
    if value <= 0:
        raise UserError(f"{name}: its mean intensity in the thick slices is {value:g}, not positive; check the scan")
    return TissueMean(value, int(np.count_nonzero(pure)), threshold)


def signal(t1: float, t2: float, density: float, sequence: tuple[float, float, float]) -> float:
    """Magnitude of a spin echo, inverted beforehand where TI > 0, from relaxation times in ms.

    S = PD |1 - 2 exp(-TI / T1) + exp(-TR / T1)| exp(-TE / T2) with inversion, PD (1 - exp(-TR / T1)) exp(-TE / T2)
    without (Brown et al., Magnetic Resonance Imaging, 2nd ed., chapter 8; refocusing pulses taken as instantaneous).
    """
    repetition, echo, inversion = sequence
    recovered = 1 - np.exp(-repetition / t1)
    if inversion > 0:
        recovered = abs(1 - 2 * np.exp(-inversion / t1) + np.exp(-repetition / t1))
    return float(density * recovered * np.exp(-echo / t2))


def draw_relaxation(settings: Relaxation, rng: np.random.Generator) -> dict[str, list[float]]:
    """T1 and T2 in ms of (WM, GM, CSF) for one person, at most three standard deviations from their means.

    White and grey matter deviate together (correlation `ALIKE`): what moves the one, age, temperature or the magnet's
    field, moves the other. Drawn independently, 7 % of the people would have grey matter brighter than white in T1w.
    """
    drawn = {}
    for name in ("t1", "t2"):
        own, shared = rng.standard_normal(3), rng.standard_normal()
        own[:2] = np.sqrt(ALIKE) * shared + np.sqrt(1 - ALIKE) * own[:2]
        deviation = settings.spread * np.clip(own, -3, 3)
        drawn[name] = [float(value) for value in np.array(getattr(settings, name)) * (1 + deviation)]
    return drawn


def relaxation_signals(drawn: Mapping, settings: Relaxation, suffix: str) -> dict[str, float]:
    """Signal of each tissue from its drawn relaxation times.

    Raises:
        UserError: the contrast has no sequence of its own and the settings give none.
    """
    sequence = settings.sequence or SEQUENCES.get(suffix)
    if sequence is None:
        raise UserError(f"relaxation.sequence: none is known for {suffix}; give [TR, TE, TI] in ms")
    properties = zip(TISSUES, drawn["t1"], drawn["t2"], settings.density, strict=True)
    signals = {name: signal(t1, t2, density, sequence) for name, t1, t2, density in properties}
    for name in ("WM", "GM"):
        if signals[name] <= 0:
            raise UserError(f"relaxation: {name} gives no signal with the sequence {sequence}; change its TI")
    return signals


def shifted_ratio(ratio: float, settings: LowField) -> float:
    """The ratio of the moved tissue's intensity to the fixed one's, moved towards 1 (and beyond) by `shift.contrast`.

    Raises:
        UserError: nothing of the moved tissue would be left.
    """
    if not settings.shift.contrast:
        return ratio
    moved = ratio + settings.shift.contrast * (1 - ratio)
    if moved <= 0:
        raise UserError(f"shift.contrast {settings.shift.contrast:g}: turns the ratio {ratio:.3g} into {moved:.3g}")
    return moved


def add_noise(data: np.ndarray, sigma: float, kind: str, seed: int) -> np.ndarray:
    """`gaussian`: I + n. `rician`: |I + n + i m|, the magnitude of a complex signal (Gudbjartsson and Patz 1995)."""
    rng = np.random.default_rng(seed)
    real = data + sigma * rng.standard_normal(data.shape, dtype=np.float32)
    if kind == "rician":
        real = np.hypot(real, sigma * rng.standard_normal(data.shape, dtype=np.float32))
    return real.astype(np.float32)
