"""A textured ball in the place of a brain, and label maps of noise, for the tests of scores."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

SHAPE = (34, 30, 32)


def textured_ball() -> tuple[np.ndarray, np.ndarray]:
    """A textured ball on an uneven background, and its mask, which touches no face."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE), indexing="ij"))
    mask = np.square(grid).sum(0) < 0.81
    data = gaussian_filter(rng.standard_normal(SHAPE), 1.2)
    return (0.5 + data / np.abs(data).max() / 2).astype(np.float32), mask


def noisy(data: np.ndarray, sd: float, seed: int = 1) -> np.ndarray:
    """`data` with Gaussian noise."""
    return data + np.float32(sd) * np.random.default_rng(seed).standard_normal(data.shape, dtype=np.float32)


def random_labels(seed: int) -> np.ndarray:
    """0, 1, 2 and 3, each rarer than the one before."""
    return np.random.default_rng(seed).choice(4, SHAPE, p=(0.4, 0.3, 0.2, 0.1)).astype(np.int16)
