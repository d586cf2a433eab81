"""How close a result is to its reference, voxel by voxel and in structure.

Both volumes are on the high-quality intensity scale and neither is rescaled. What lies outside the brain mask never
counts. The data range L is the reference's maximum minus its minimum inside the mask. Others' definitions, which do
rescale, are in `minmax`.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_laplace
from skimage.metrics import structural_similarity
from skimage.transform import downscale_local_mean

from iqt.errors import UserError
from iqt.evaluate.minmax import psnr_minmax, rescaled, ulfenc_score
from iqt.io.volumes import bounding_box

BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the five scales of MS-SSIM, finest first (Wang, Simoncelli and Bovik 2003)."""
WINDOW = 11
"""Edge of the Gaussian window of SSIM in voxels (sigma 1.5, cut at 3.5 sigma)."""


def similarity(
    reference: np.ndarray, volume: np.ndarray, mask: np.ndarray, highpass_sigma: float
) -> dict[str, float | int]:
    """All measures of one result: `psnr` (dB), `msssim`, `msssim_scales`, `ssim`, `hfcorr`, `nmse`, `mae`, `hfen`, and
    others' definitions: `psnr_minmax` (dB), `msssim_minmax`, `msssim_minmax_scales`, `ulfenc`.

    Args:
        reference, volume: (X, Y, Z) on the same grid.
        mask: (X, Y, Z), true in the brain.
        highpass_sigma: blur, in voxels, that `hfcorr` subtracts.

    Raises:
        UserError: the mask is empty or its box too small, or the reference is constant in it.
    """
    msssim, scales = multi_scale_ssim(reference, volume, mask)
    rescaled_pair = rescaled(reference, mask), rescaled(volume, mask)
    msssim_minmax, minmax_scales = msssim_of(*rescaled_pair, span=None)
    return {
        "psnr": masked_psnr(reference, volume, mask),
        "msssim": msssim,
        "msssim_scales": scales,
        "ssim": masked_ssim(reference, volume, mask),
        "hfcorr": highpass_correlation(reference, volume, mask, highpass_sigma),
        "nmse": masked_nmse(reference, volume, mask),
        "mae": masked_mae(reference, volume, mask),
        "hfen": high_frequency_error_norm(reference, volume, mask),
        "psnr_minmax": psnr_minmax(*rescaled_pair),
        "msssim_minmax": msssim_minmax,
        "msssim_minmax_scales": minmax_scales,
        "ulfenc": ulfenc_score(reference, volume, mask),
    }


def masked_psnr(reference: np.ndarray, volume: np.ndarray, mask: np.ndarray) -> float:
    """10 log10(L^2 / MSE) in dB with the mean squared error over the mask; infinite for identical volumes."""
    difference = reference[mask].astype(np.float64) - volume[mask]
    mse = float(np.mean(np.square(difference)))
    return 10 * math.log10(data_range(reference, mask) ** 2 / mse) if mse else math.inf


def masked_nmse(reference: np.ndarray, volume: np.ndarray, mask: np.ndarray) -> float:
    """Sum of squared errors over the sum of the reference's squares, both in the mask (Zbontar et al. 2018)."""
    true = reference[mask].astype(np.float64)
    energy = float(np.square(true).sum())
    if not energy:
        raise UserError("the reference is 0 everywhere inside the brain mask, so nothing can be scored against it")
    return float(np.square(true - volume[mask]).sum()) / energy


def masked_mae(reference: np.ndarray, volume: np.ndarray, mask: np.ndarray) -> float:
    """Mean absolute error over the mask, in units of the intensity scale (the reference's 99.5th percentile)."""
    return float(np.abs(reference[mask].astype(np.float64) - volume[mask]).mean())


def high_frequency_error_norm(reference: np.ndarray, volume: np.ndarray, mask: np.ndarray) -> float:
    """HFEN (Ravishankar and Bresler 2011, section IV-A) in 3D, over the reference's norm: 0 is best, a blur nears 1.

    The Laplacian of a Gaussian of sigma 1.5 voxels (15 voxels wide) of the error, over that of the reference, both with
    the background set to 0 and both norms over the mask.
    """

    def edges(data: np.ndarray) -> np.ndarray:
        return gaussian_laplace(np.where(mask, data, 0).astype(np.float64), 1.5, mode="constant", radius=7)[mask]

    return float(np.linalg.norm(edges(reference - volume)) / np.linalg.norm(edges(reference)))


def masked_ssim(reference: np.ndarray, volume: np.ndarray, mask: np.ndarray) -> float:
    """Structural similarity in 3D (Wang et al. 2004): Gaussian windows of sigma 1.5 voxels, K1 0.01, K2 0.03.

    Both volumes are set to 0 outside the mask and cut to its bounding box. The value is the mean over the windows that
    lie wholly inside the box, that is over the box less 5 voxels at each face (scikit-image's definition).
    """
    cut_reference, cut_volume = _boxed(reference, volume, mask)
    return float(
        structural_similarity(
            cut_reference,
            cut_volume,
            data_range=data_range(reference, mask),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def multi_scale_ssim(reference: np.ndarray, volume: np.ndarray, mask: np.ndarray) -> tuple[float, int]:
    """Multi-scale SSIM in 3D (Wang, Simoncelli and Bovik 2003) and its number of scales, on `masked_ssim`'s volumes.

    Each scale's contrast-structure term, averaged over the windows that lie wholly inside the box, enters with its
    weight as an exponent, and so does the last scale's SSIM (over all windows, the box mirrored at its faces); between
    scales 2x2x2 voxels are averaged. Of the five
    standard scales as many are used as leave the box at least one window wide on every side; the weights of those are
    divided by their sum. Values from other numbers of scales do not compare.

    The same as torchmetrics' function, as a test shows, but its windows are separable, so it takes a fraction of the
    time, and it needs no torch.
    """
    return msssim_of(*_boxed(reference, volume, mask), data_range(reference, mask))


def msssim_of(reference: np.ndarray, volume: np.ndarray, span: float | None) -> tuple[float, int]:
    """`multi_scale_ssim` of two whole arrays (X, Y, Z), each side at least a window wide, with data range `span`.

    None is torchmetrics' default, which the authors' code has: at each scale the larger of the two volumes' ranges.
    """
    boxed = (reference, volume)
    scales = n_scales(min(reference.shape))
    value = 1.0
    for scale, beta in enumerate(BETAS[:scales]):
        ssim, contrast = _ssim_terms(*boxed, max(map(np.ptp, boxed)) if span is None else span)
        term = ssim if scale == scales - 1 else contrast
        value *= max(term, 0.0) ** (beta / sum(BETAS[:scales]))
        boxed = tuple(_halved(data) for data in boxed)
    return value, scales


def n_scales(side: int) -> int:
    """Scales of MS-SSIM that a box with this shortest side holds, from 1 to 5; all five need 176 voxels."""
    return max(n for n in range(1, len(BETAS) + 1) if n == 1 or side // 2 ** (n - 1) >= WINDOW)


def _ssim_terms(x: np.ndarray, y: np.ndarray, span: float) -> tuple[float, float]:
    """Mean of SSIM over all windows, and of its contrast-structure part over those inside the box."""
    radius = WINDOW // 2

    def windowed(data: np.ndarray) -> np.ndarray:
        return gaussian_filter(data, 1.5, radius=radius, mode="mirror")

    x, y = x.astype(np.float64), y.astype(np.float64)
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    mean_x, mean_y = windowed(x), windowed(y)
    covariance = windowed(x * y) - mean_x * mean_y
    variances = windowed(x * x) - mean_x**2 + windowed(y * y) - mean_y**2
    contrast = (2 * covariance + c2) / (variances + c2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float((luminance * contrast).mean()), float(contrast[(slice(radius, -radius),) * 3].mean())


def _halved(data: np.ndarray) -> np.ndarray:
    """Means of 2x2x2 voxels; an odd voxel at the far end is dropped."""
    return downscale_local_mean(data[tuple(slice(size // 2 * 2) for size in data.shape)], (2, 2, 2))


def highpass_correlation(reference: np.ndarray, volume: np.ndarray, mask: np.ndarray, sigma: float) -> float:
    """Pearson correlation in the mask of the two volumes' high-pass parts: the share of fine detail that is right.

    The high-pass part is the volume minus its Gaussian blur over the brain alone, blur(mask x volume) / blur(mask)
    (normalised convolution, Knutsson and Westin 1993): a plain blur would mix in the background, and the brain's rim,
    which every result has, would dominate. A result without any detail correlates with nothing: 0.
    """
    weight = gaussian_filter(mask.astype(np.float64), sigma, mode="constant")[mask]

    def highpass(data: np.ndarray) -> np.ndarray:
        inside = np.where(mask, data, 0).astype(np.float64)
        detail = data[mask] - gaussian_filter(inside, sigma, mode="constant")[mask] / weight
        return detail - detail.mean()

    x, y = highpass(reference), highpass(volume)
    energy = np.linalg.norm(x) * np.linalg.norm(y)
    floor = 1e-10 * x.size * data_range(reference, mask) ** 2  # what rounding leaves of a constant volume
    return float(x @ y / energy) if energy > floor else 0.0


def data_range(reference: np.ndarray, mask: np.ndarray) -> float:
    """The reference's maximum minus its minimum inside the mask; UserError where that is nothing."""
    if not mask.any():
        raise UserError("the brain mask is empty")
    span = float(reference[mask].max() - reference[mask].min())
    if span <= 0:
        raise UserError("the reference is constant inside the brain mask, so nothing can be scored against it")
    return span


def _boxed(reference: np.ndarray, volume: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    box = bounding_box(mask)
    if min(side.stop - side.start for side in box) < WINDOW:
        sides = " x ".join(str(side.stop - side.start) for side in box)
        raise UserError(f"the brain mask spans {sides} voxels, but SSIM's window needs {WINDOW} along each axis")
    return tuple(np.where(mask[box], data[box], 0).astype(np.float32) for data in (reference, volume))
