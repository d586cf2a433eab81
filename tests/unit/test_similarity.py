"""Measures of similarity against independent computations, and the properties they must have."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from textured import SHAPE, noisy, textured_ball

from iqt.errors import UserError
from iqt.evaluate import minmax
from iqt.evaluate.minmax import psnr_minmax, rescaled, ulfenc_score
from iqt.evaluate.similarity import (
    BETAS,
    high_frequency_error_norm,
    highpass_correlation,
    masked_mae,
    masked_nmse,
    masked_psnr,
    masked_ssim,
    msssim_of,
    multi_scale_ssim,
    n_scales,
    similarity,
)

MEASURES = (
    masked_psnr,
    masked_ssim,
    lambda *volumes: multi_scale_ssim(*volumes)[0],
    lambda *volumes: highpass_correlation(*volumes, 1.5),
    lambda *volumes: 1 - masked_nmse(*volumes),
    lambda *volumes: 1 - masked_mae(*volumes),
    lambda *volumes: 1 - high_frequency_error_norm(*volumes),
    ulfenc_score,
    lambda reference, volume, mask: psnr_minmax(rescaled(reference, mask), rescaled(volume, mask)),
)
"""Measures that grow as a result gets better."""


@pytest.fixture(scope="module")
def brain():
    return textured_ball()


def boxed(data, mask):
    filled = np.argwhere(mask)
    low, high = filled.min(0), filled.max(0) + 1
    return np.where(mask, data, 0)[tuple(slice(*ends) for ends in zip(low, high, strict=True))].astype(np.float64)


def test_psnr_is_scikit_images_on_the_masked_voxels(brain):
    from skimage.metrics import peak_signal_noise_ratio

    reference, mask = brain
    result = noisy(reference, 0.05)
    span = reference[mask].max() - reference[mask].min()
    expected = peak_signal_noise_ratio(reference[mask], result[mask], data_range=span)
    assert masked_psnr(reference, result, mask) == pytest.approx(expected, rel=1e-6)
    assert masked_psnr(reference, reference + 0.1 * span, mask) == pytest.approx(20, rel=1e-4)
    assert masked_psnr(reference, reference, mask) == np.inf


def test_errors_are_scikit_images_and_torchmetrics(brain):
    import torch
    from skimage.metrics import normalized_root_mse
    from torchmetrics.functional import mean_absolute_error

    reference, mask = brain
    result = noisy(reference, 0.05)
    expected = normalized_root_mse(reference[mask], result[mask], normalization="euclidean") ** 2
    assert masked_nmse(reference, result, mask) == pytest.approx(expected, rel=1e-5)
    pair = (torch.from_numpy(data[mask]) for data in (result, reference))
    assert masked_mae(reference, result, mask) == pytest.approx(float(mean_absolute_error(*pair)), rel=1e-5)
    assert masked_nmse(reference, np.zeros_like(reference), mask) == 1
    with pytest.raises(UserError, match="0 everywhere"):
        masked_nmse(np.zeros_like(reference), reference, mask)


def test_high_frequency_error_norm_by_a_convolution(brain):
    """The kernel written out (Ravishankar and Bresler's: 15 voxels, sigma 1.5) and convolved by torch."""
    import torch

    reference, mask = brain
    result = noisy(reference, 0.05)
    axis = np.arange(-7, 8)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    square, variance = x**2 + y**2 + z**2, 1.5**2
    gauss = np.exp(-square / (2 * variance))
    kernel = torch.from_numpy((square - 3 * variance) / variance**2 * gauss / gauss.sum())[None, None]

    def norm(data):
        volume = torch.from_numpy(np.where(mask, data, 0).astype(np.float64))[None, None]
        return np.linalg.norm(torch.nn.functional.conv3d(volume, kernel, padding=7)[0, 0].numpy()[mask])

    expected = norm(result - reference) / norm(reference)
    assert high_frequency_error_norm(reference, result, mask) == pytest.approx(expected, rel=1e-3)
    assert high_frequency_error_norm(reference, 0 * reference, mask) == 1
    blurred = [gaussian_filter(reference, sigma) for sigma in (0.5, 1, 2)]
    values = [high_frequency_error_norm(reference, data, mask) for data in blurred]
    assert values == sorted(values), "more blur, more missing detail"


def test_the_authors_definitions_are_torchmetrics_on_their_cropping(monkeypatch):
    """The central voxels (here 44, for time), background included, each volume by its own minimum and maximum."""
    import torch
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure,
        peak_signal_noise_ratio,
    )

    assert minmax.SIDE == 192
    monkeypatch.setattr(minmax, "SIDE", 44)
    rng = np.random.default_rng(0)
    shape = (54, 25, 24)
    reference = 300 + 90 * gaussian_filter(rng.standard_normal(shape), 1.5)
    mask = np.zeros(shape, bool)
    mask[8:-8, 3:-3, 3:-3] = True
    result = 3 * reference + noisy(np.zeros(shape), 20) - 50
    pair = []
    for data in (result, reference):
        cut = torch.from_numpy(np.where(mask, data, 0)[5:-5])[None, None]
        pair.append((cut - cut.min()) / (cut.max() - cut.min()))
    ours = rescaled(reference, mask), rescaled(result, mask)
    assert ours[0].shape == (44, 25, 24)
    expected = peak_signal_noise_ratio(*pair, data_range=1.0)
    assert psnr_minmax(*ours) == pytest.approx(float(expected), abs=1e-4)
    value, scales = msssim_of(*ours, None)
    betas = tuple(np.array(BETAS[:scales]) / sum(BETAS[:scales]))
    expected = multiscale_structural_similarity_index_measure(*pair, betas=betas)
    assert value == pytest.approx(float(expected), abs=1e-5)


def test_the_authors_definitions_forgive_brightness_and_contrast(brain):
    reference, mask = brain
    darker = np.where(mask, 0.3 * reference, 0)
    assert psnr_minmax(rescaled(reference, mask), rescaled(darker, mask)) > 100
    assert masked_psnr(reference, darker, mask) < 10
    assert not rescaled(np.full(SHAPE, 0), mask).any(), "a constant volume has no ends to scale by"


def test_the_challenges_score_from_its_parts(brain):
    """Each part from scikit-image or torchmetrics, added up with the challenge's weights."""
    import torch
    from skimage.metrics import normalized_root_mse, structural_similarity
    from torchmetrics.functional import mean_absolute_error
    from torchmetrics.functional.image import peak_signal_noise_ratio

    reference, mask = brain
    result = noisy(reference, 0.05)
    result[tuple(np.argwhere(mask)[7])] = -0.3  # less than the background
    stripped = [np.where(mask, data, 0).astype(float) for data in (reference, result)]
    x, y = (((data - data.min()) / np.ptp(data)) * mask for data in stripped)
    ssim = structural_similarity(x, y, data_range=1.0, full=True)[1][mask].mean()
    pair = [torch.from_numpy(data[mask]) for data in (y, x)]
    squares = torch.sqrt((pair[0] - pair[1]) ** 2 + 1e-8)
    psnr = np.mean([float(peak_signal_noise_ratio(one, torch.tensor(0.0), data_range=1.0)) for one in squares[:300]])
    decibels = psnr_of_voxels(x, y, mask)
    assert decibels[:300].mean() == pytest.approx(psnr, rel=1e-5)
    nmse = normalized_root_mse(x[mask], y[mask], normalization="euclidean") ** 2
    mae = float(mean_absolute_error(*pair))
    expected = 0.7 * ssim + 0.1 * decibels.mean() / 32 + 0.1 * (1 - mae) + 0.1 * (1 - nmse)
    assert ulfenc_score(reference, result, mask) == pytest.approx(expected, rel=1e-5)
    assert ulfenc_score(reference, 7 * result, mask) == pytest.approx(expected, rel=1e-5)


def psnr_of_voxels(x, y, mask):
    """PSNR of every voxel of the mask, in dB."""
    return 10 * np.log10(1 / ((x[mask] - y[mask]) ** 2 + 1e-8))


def test_ssim_is_torchmetrics_without_the_border(brain):
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    reference, mask = brain
    result = noisy(reference, 0.05)
    volumes = [torch.from_numpy(boxed(data, mask))[None, None] for data in (result, reference)]
    span = float(reference[mask].max() - reference[mask].min())
    _, full = structural_similarity_index_measure(*volumes, data_range=span, return_full_image=True)
    expected = float(full[0, 0, 5:-5, 5:-5, 5:-5].mean())
    assert masked_ssim(reference, result, mask) == pytest.approx(expected, abs=1e-4)


def test_multi_scale_ssim_is_the_product_of_its_scales(brain):
    """Wang et al. 2003 in numpy: contrast and structure at all scales but the coarsest, full SSIM there."""
    reference, mask = brain
    result = noisy(reference, 0.1)
    x, y = boxed(reference, mask), boxed(result, mask)
    span = float(reference[mask].max() - reference[mask].min())
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2

    def blur(data):
        return gaussian_filter(data, 1.5, truncate=3.5, mode="mirror")

    def halve(data):
        even = data[tuple(slice(0, side // 2 * 2) for side in data.shape)]
        return even.reshape(*(part for side in even.shape for part in (side // 2, 2))).mean((1, 3, 5))

    value, weights = 1.0, np.array(BETAS[:2]) / sum(BETAS[:2])
    for scale in range(2):
        mx, my = blur(x), blur(y)
        cs = (2 * (blur(x * y) - mx * my) + c2) / (blur(x * x) - mx**2 + blur(y * y) - my**2 + c2)
        luminance = (2 * mx * my + c1) / (mx**2 + my**2 + c1)
        last = scale == 1
        value *= (np.mean(cs * luminance) if last else np.mean(cs[5:-5, 5:-5, 5:-5])) ** weights[scale]
        x, y = halve(x), halve(y)
    found, scales = multi_scale_ssim(reference, result, mask)
    assert scales == 2
    assert found == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize(("side", "scales"), [(11, 1), (21, 1), (22, 2), (43, 2), (44, 3), (87, 3), (88, 4), (176, 5)])
def test_as_many_scales_as_fit(side, scales):
    assert n_scales(side) == scales


@pytest.mark.parametrize("side", [22, 45])
def test_multi_scale_ssim_is_torchmetrics(side):
    import torch
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    data = gaussian_filter(np.random.default_rng(0).random((side,) * 3, dtype=np.float32), 1.0)
    result = noisy(data, 0.05)
    value, scales = multi_scale_ssim(data, result, np.ones(data.shape, bool))
    betas = tuple(np.array(BETAS[:scales]) / sum(BETAS[:scales]))
    target, preds = (torch.from_numpy(volume).double()[None, None] for volume in (data, result))
    expected = multiscale_structural_similarity_index_measure(
        preds, target, data_range=float(data.max() - data.min()), sigma=1.5, kernel_size=11, betas=betas
    )
    assert scales == n_scales(side)
    assert value == pytest.approx(float(expected), abs=1e-6)


def test_highpass_correlation_with_a_full_mask_is_the_plain_one(brain):
    """Away from the border the normalised blur is the Gaussian blur."""
    reference, _ = brain
    result = noisy(reference, 0.1)
    inner = (slice(8, -8),) * 3
    parts = [(data - gaussian_filter(data, 1.5))[inner].ravel() for data in (reference, result)]
    whole = np.zeros(SHAPE, bool)
    whole[inner] = True
    expected = np.corrcoef(*parts)[0, 1]
    assert highpass_correlation(reference, result, whole, 1.5) == pytest.approx(expected, abs=0.02)


def test_highpass_correlation_by_hand(brain):
    reference, mask = brain
    result = noisy(reference, 0.1)
    details = []
    for data in (reference, result):
        blurred = gaussian_filter(mask * data.astype(float), 2.0) / gaussian_filter(mask.astype(float), 2.0).clip(1e-9)
        details.append((data - blurred)[mask])
    expected = np.corrcoef(*details)[0, 1]
    assert highpass_correlation(reference, result, mask, 2.0) == pytest.approx(expected, rel=1e-5)


def test_identical_volumes_score_one(brain):
    reference, mask = brain
    for measure in MEASURES[1:7]:
        assert measure(reference, reference.copy(), mask) == pytest.approx(1, abs=1e-6)
    assert ulfenc_score(reference, reference.copy(), mask) == pytest.approx(0.9 + 0.1 * 80 / 32), (
        "80 dB a voxel at most"
    )
    assert psnr_minmax(rescaled(reference, mask), rescaled(reference, mask)) == np.inf


@pytest.mark.parametrize("measure", MEASURES)
def test_what_lies_outside_the_mask_never_counts(brain, measure):
    reference, mask = brain
    result = noisy(reference, 0.05)
    changed = np.where(mask, result, 7).astype(np.float32)
    assert measure(np.where(mask, reference, -3).astype(np.float32), changed, mask) == measure(reference, result, mask)


@pytest.mark.parametrize("measure", MEASURES)
def test_more_noise_scores_lower(brain, measure):
    reference, mask = brain
    scores = [measure(reference, noisy(reference, sd), mask) for sd in (0.02, 0.05, 0.1, 0.3)]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 4


def test_highpass_correlation_ignores_scale_and_offset_and_rewards_no_noise(brain):
    reference, mask = brain
    result = noisy(reference, 0.1)
    value = highpass_correlation(reference, result, mask, 1.5)
    assert highpass_correlation(reference, result + 5, mask, 1.5) == pytest.approx(value, abs=1e-5)
    assert highpass_correlation(reference, 3 * result, mask, 1.5) == pytest.approx(value, abs=1e-6)
    assert abs(highpass_correlation(reference, noisy(0 * reference, 1), mask, 1.5)) < 0.05
    assert highpass_correlation(reference, np.full(SHAPE, 0.3, np.float32), mask, 1.5) == 0
    assert highpass_correlation(reference, -reference, mask, 1.5) == pytest.approx(-1)


def test_nothing_to_score_is_said_so(brain):
    reference, mask = brain
    with pytest.raises(UserError, match="empty"):
        similarity(reference, reference, np.zeros(SHAPE, bool), 1.5)
    with pytest.raises(UserError, match="constant"):
        masked_psnr(np.ones(SHAPE), reference, mask)
    small = np.zeros(SHAPE, bool)
    small[5:25, 5:25, 5:10] = True
    with pytest.raises(UserError, match="20 x 20 x 5"):
        masked_ssim(reference, reference, small)
