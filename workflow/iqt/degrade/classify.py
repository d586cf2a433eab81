"""Tissue maps from intensities: dipy's hidden Markov random field classifier, and the classes that FSL FAST wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from iqt.config import HMRF
from iqt.degrade.contrast import TISSUES
from iqt.errors import UserError
from iqt.io.volumes import Volume, bounding_box, read_on_grid

DARK_TO_BRIGHT = {"T1w": ("CSF", "GM", "WM"), "T2w": ("WM", "GM", "CSF"), "FLAIR": ("CSF", "WM", "GM")}
"""The tissues in the order of their intensity."""
_FAINT = 1e-3
_SAMPLE = 200_000
_LARGEST_ML = 3000
"""No brain, with the CSF around it, is larger; a head is."""
_BRIGHTEST = 99.9
"""Percentile in the brain above which intensities are cut off: vessels and fat would widen the scale."""


def brain_of(volume: Volume, mask: np.ndarray | None) -> np.ndarray:
    """Where the brain is, bool: the mask, or the voxels above zero of a skull-stripped scan.

    Raises:
        UserError: there is no mask, and the scan is not skull-stripped: it has signal at its border, or too much of it.
    """
    if mask is not None:
        return mask > 0
    border = np.ones(volume.data.shape, bool)
    border[1:-1, 1:-1, 1:-1] = False
    share = float((volume.data[border] > 0).mean())
    millilitres = float((volume.data > 0).sum() * np.prod(volume.voxel_size) / 1000)
    if share > 0.25 or millilitres > _LARGEST_ML:
        raise UserError(
            f"the scan is not skull-stripped: {share:.0%} of its border and {millilitres:.0f} ml in all have signal; "
            "give a brain mask (--mask)"
        )
    return volume.data > 0


def tissues_by_hmrf(data: np.ndarray, brain: np.ndarray, suffix: str, settings: HMRF) -> dict[str, np.ndarray]:
    """Posteriors of WM, GM and CSF in the brain, (X, Y, Z) float32, by dipy's TissueClassifierHMRF (Zhang et al. 2001).

    dipy starts from evenly spaced intensities, wherever the tissues' are; so the scan's are first mapped, piecewise
    linearly, to where the centres of three clusters are evenly spaced.

    Raises:
        UserError: the brain is empty or holds one intensity only.
    """
    from dipy.segment.tissue import TissueClassifierHMRF

    box = bounding_box(brain, margin=1)
    inside = brain[box]
    values = data[box][inside]
    brightest = float(np.percentile(values, _BRIGHTEST))
    if brightest <= max(float(values.min()), 0):
        raise UserError("the scan has a single intensity in the brain, so tissues cannot be told apart")
    # dipy replaces zeros by random numbers that no seed controls; so the background gets its noise here
    image = _FAINT + 1e-4 * np.random.default_rng(0).standard_normal(inside.shape)
    values = np.clip(values / brightest, 2 * _FAINT, 1)
    image[inside] = np.interp(values, [0, *_centres(values), 1], [0, 0.25, 0.5, 0.75, 1])
    _, _, posteriors = TissueClassifierHMRF(verbose=False).classify(
        image, len(TISSUES), settings.beta, tolerance=settings.tolerance, max_iter=settings.iterations
    )
    posteriors = posteriors * inside[..., None]
    total = np.maximum(posteriors.sum(-1, keepdims=True), np.finfo(np.float32).tiny)
    return _named(posteriors / total, data[box], suffix, brain.shape, box)


def tissues_from_fast(files: Sequence[Path], volume: Volume, suffix: str) -> dict[str, np.ndarray]:
    """Posteriors from the three partial-volume maps of FSL FAST (`*_pve_0`, `_1`, `_2`).

    Which is which follows from their mean intensity in the scan, not from their number.

    Raises:
        UserError: a map is absent, on another grid, or empty.
    """
    maps = np.stack([np.clip(read_on_grid(path, volume), 0, 1) for path in files], axis=-1)
    for path, total in zip(files, maps.sum(axis=(0, 1, 2)), strict=True):
        if total == 0:
            raise UserError(f"{path}: is empty; FAST found fewer than three tissues")
    return _named(maps, volume.data, suffix, volume.data.shape, (slice(None),) * 3)


def _centres(values: np.ndarray) -> np.ndarray:
    """Centres of three clusters of intensities, ascending: k-means from the terciles' middles, so nothing is random."""
    from scipy.cluster.vq import kmeans2

    sample = values[:: max(1, values.size // _SAMPLE)].astype(float)
    start = np.percentile(sample, [100 / 6, 50, 500 / 6])[:, None]
    centres, _ = kmeans2(sample[:, None], start, iter=30, minit="matrix", missing="warn")
    return np.sort(centres[:, 0])


def _named(
    posteriors: np.ndarray, data: np.ndarray, suffix: str, shape: tuple[int, ...], box: tuple[slice, ...]
) -> dict[str, np.ndarray]:
    """Classes named after their mean intensity, on the whole grid."""
    weights = np.maximum(posteriors.sum(axis=(0, 1, 2)), np.finfo(np.float32).tiny)
    means = (posteriors * data[..., None]).sum(axis=(0, 1, 2)) / weights
    named = {}
    for name, number in zip(DARK_TO_BRIGHT[suffix], np.argsort(means), strict=True):
        whole = np.zeros(shape, np.float32)
        whole[box] = posteriors[..., number]
        named[name] = whole
    return named
