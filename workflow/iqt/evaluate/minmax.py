"""Measures as others define them, in which each volume is rescaled by its own minimum and maximum.

They compare with those authors' published figures and with nothing else: rescaling hides errors of brightness and
contrast, and an empty background counts as well restored. Volumes are set to 0 outside the brain mask first, as the
authors' skull-stripped scans and this workflow's results are.
"""

from __future__ import annotations

import math

import numpy as np
from skimage.metrics import structural_similarity

from iqt.io.volumes import bounding_box

SIDE = 192
"""Edge, in voxels, of the central cube that DiffusionIQT's code scores; smaller volumes are scored whole."""
WINDOW = 7
"""Edge, in voxels, of the cubic windows in which the ULF-EnC challenge measures SSIM (scikit-image's default)."""
ULFENC_PSNR = 32.0
"""PSNR, in dB, that the ULF-EnC challenge counts as 1."""


def rescaled(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The volume, 0 outside the mask, cut to its central 192^3 voxels and brought to [0, 1] by its own ends.

    DiffusionIQT's evaluation (arXiv 2311.06631, the authors' code). A constant volume becomes 0.
    """
    whole = np.where(mask, volume, 0).astype(np.float64)
    starts = [max(0, (side - SIDE) // 2) for side in whole.shape]
    return _to_unit(whole[tuple(slice(start, start + SIDE) for start in starts)])


def psnr_minmax(reference: np.ndarray, volume: np.ndarray) -> float:
    """PSNR in dB of two volumes in [0, 1], range 1, background included; infinite for identical volumes."""
    mse = float(np.mean(np.square(reference - volume)))
    return -10 * math.log10(mse) if mse else math.inf


def ulfenc_score(reference: np.ndarray, volume: np.ndarray, mask: np.ndarray) -> float:
    """Score of the ULF-EnC challenge 2025: 0.7 SSIM + 0.1 PSNR / 32 dB + 0.1 (1 - MAE) + 0.1 (1 - NMSE); 1 is good.

    Volumes (X, Y, Z) are rescaled to [0, 1]; every part is a mean over the mask of a map: SSIM in cubic windows of 7
    voxels, the absolute error, the squared error over the reference's mean square (the mean is cut at 1), and PSNR a
    voxel, with 1e-8 added to its squared error, which is not the PSNR of the mean squared error. Source: the
    challenge's final evaluation script (github.com/khtohidulislam/ULF-EnC-Challenge). The challenge averages the four
    parts over its scans first, which gives the same score, since the sum is linear.
    """
    # Masked again after it is rescaled, as in the script, so that a negative voxel does not lift the background.
    x, y = (np.where(mask, _to_unit(np.where(mask, data, 0).astype(np.float64)), 0) for data in (reference, volume))
    # What is further from the mask than a window's half counts for nothing, but takes most of the memory.
    near = bounding_box(mask, margin=WINDOW)
    x, y, mask = x[near], y[near], mask[near]
    _, ssim = structural_similarity(x, y, win_size=WINDOW, data_range=1.0, full=True)
    error = x[mask] - y[mask]
    psnr = -10 * np.log10(np.square(error) + 1e-8)
    nmse = min(float(np.square(error).mean() / np.square(x[mask]).mean()), 1.0)
    return float(
        0.7 * ssim[mask].mean() + 0.1 * psnr.mean() / ULFENC_PSNR + 0.1 * (1 - np.abs(error).mean()) + 0.1 * (1 - nmse)
    )


def _to_unit(data: np.ndarray) -> np.ndarray:
    low, high = data.min(), data.max()
    return (data - low) / (high - low) if high > low else np.zeros_like(data)
