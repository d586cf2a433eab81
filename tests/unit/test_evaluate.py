"""Scores against independent computations and the properties they must have; failures must stay in the tables."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from iqt.config import Config, Evaluate, LowField
from iqt.config.facts import RunFacts
from iqt.errors import UserError
from iqt.evaluate import minmax
from iqt.evaluate.gather import HISTORY_COLUMNS, gather
from iqt.evaluate.minmax import psnr_minmax, rescaled, ulfenc_score
from iqt.evaluate.parcellator_qc import score_parcellator
from iqt.evaluate.run import SUBJECT_COLUMNS, TABLES, evaluate_result
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
from iqt.imaging.overlap import mean_overlap, missed, n_present, overlap
from iqt.io.files import read_json, read_table, write_json, write_table
from iqt.io.naming import Result, anat, flat, part_folder
from iqt.io.volumes import SCALE_PERCENTILE, read_volume, save_volume
from iqt.planning.plan import Plan
from iqt.report.page.structures import judge
from iqt.report.tables.benchmark import write_tables
from iqt.report.tables.comparisons import write_statistics
from iqt.report.tables.structures import write_structures

SHAPE = (34, 30, 32)
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
    """A textured ball on an uneven background, and its mask, which touches no face."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE), indexing="ij"))
    mask = np.square(grid).sum(0) < 0.81
    data = gaussian_filter(rng.standard_normal(SHAPE), 1.2)
    return (0.5 + data / np.abs(data).max() / 2).astype(np.float32), mask


def noisy(data, sd, seed=1):
    return data + np.float32(sd) * np.random.default_rng(seed).standard_normal(data.shape, dtype=np.float32)


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


NAMES = {1: "one", 2: "two", 3: "three", 9: "nowhere"}


def labels(seed):
    return np.random.default_rng(seed).choice(4, SHAPE, p=(0.4, 0.3, 0.2, 0.1)).astype(np.int16)


def test_overlap_is_scikit_learns():
    from sklearn.metrics import f1_score, jaccard_score

    reference, result = labels(1), labels(2)
    affine = np.diag([-2.0, 1.5, 3.0, 1.0])
    found = overlap(reference, result, affine, NAMES)
    assert [structure.index for structure in found] == [1, 2, 3, 9]
    assert np.isnan([found[3].iou, found[3].dice]).all(), "neither map holds it"
    assert n_present(found) == 3
    found = found[:3]
    truth = {"labels": [1, 2, 3], "average": None}
    np.testing.assert_allclose([one.iou for one in found], jaccard_score(reference.ravel(), result.ravel(), **truth))
    np.testing.assert_allclose([one.dice for one in found], f1_score(reference.ravel(), result.ravel(), **truth))
    np.testing.assert_allclose([one.volume_mm3 for one in found], [9 * (result == k).sum() for k in (1, 2, 3)])
    np.testing.assert_allclose(
        [one.volume_reference_mm3 for one in found], [9 * (reference == k).sum() for k in (1, 2, 3)]
    )


def test_structures_in_one_map_count_as_zero_and_in_neither_not_at_all():
    reference = np.zeros(SHAPE, np.int16)
    reference[:5] = 1
    reference[5:10] = 2
    result = np.where(reference == 2, 3, reference)
    found = overlap(reference, result, np.eye(4), NAMES)
    present = [one for one in found if one.index != 9]
    assert [(one.index, one.iou, one.dice) for one in present] == [(1, 1, 1), (2, 0, 0), (3, 0, 0)]
    assert mean_overlap(found) == pytest.approx((1 / 3, 1 / 3))
    lost = missed(reference, np.eye(4), NAMES)
    assert [(one.index, one.iou) for one in lost if one.volume_reference_mm3 > 0] == [(1, 0), (2, 0)]
    assert all(np.isnan(one.volume_mm3) for one in lost)
    assert n_present(lost) == 2
    with pytest.raises(UserError, match="label 3"):
        overlap(reference, result, np.eye(4), {1: "one", 2: "two"})


SCANS = [f"sub-test00{number}" for number in range(1, 5)]
METHODS = ["cubic", "unet"]
RESULTS = Result("cubic"), Result("unet", 1)
JUDGED = {"status": "ok", "engine": "builtin", "version": "9"}


@pytest.fixture
def run(tmp_path, brain):
    """A run with every kind of failure, as the earlier stages leave it. The first scan by `cubic` is flawless."""
    reference, mask = brain
    root = tmp_path / "run"
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    rows = [
        {"participant_id": scan, "scan": scan, "split": "test", "status": "ok", "voxel_size": "2.0"} for scan in SCANS
    ]
    rows.append({**rows[0], "participant_id": "sub-train001", "scan": "sub-train001", "split": "train"})
    rows[3]["status"] = "no brain"
    write_table(root / "cohort" / "participants.tsv", rows)
    lut = [{"index": 0, "name": "background"}, *({"index": index, "name": name} for index, name in NAMES.items())]
    write_table(root / "cohort" / "dseg.tsv", lut)
    for row in rows:
        scan = row["scan"]
        write_json(anat(root / "cohort", scan, "T1w.json"), {"status": row["status"]})
        save_volume(anat(root / "cohort", scan, "T1w.nii.gz"), 800 * reference, affine)
        save_volume(anat(root / "cohort", scan, "desc-brain_mask.nii.gz"), mask, affine)
        write_json(anat(root / "lowfield/main", scan, "T1w.json"), {"status": "ok"})
    scale = np.percentile(reference[mask], SCALE_PERCENTILE)
    for scan in SCANS[:3]:
        write_json(flat(root / "parcellation/hq", scan, "dseg.json"), JUDGED)
        save_volume(flat(root / "parcellation/hq", scan, "dseg.nii.gz"), labels(1), affine)
        for method in METHODS:
            enhanced, parcellation = root / "enhanced/main" / method, root / "parcellation/main" / method
            cost = {"seconds": 1.5, "nfe": 4, "samples": 2, "n_parameters": 10}
            write_json(flat(enhanced, scan, "T1w.json"), {"status": "ok", **cost})
            save_volume(flat(enhanced, scan, "T1w.nii.gz"), np.where(mask, noisy(reference, 0.05) / scale, 0), affine)
            write_json(flat(parcellation, scan, "dseg.json"), JUDGED)
            save_volume(flat(parcellation, scan, "dseg.nii.gz"), labels(2), affine)
    write_json(flat(root / "parcellation/main/unet", SCANS[0], "dseg.json"), {"status": "no white matter"})
    write_json(flat(root / "parcellation/hq", SCANS[1], "dseg.json"), {"status": "out of luck"})
    write_json(flat(root / "enhanced/main/cubic", SCANS[2], "T1w.json"), {"status": "diverged"})
    hollow = np.where(mask, reference, np.nan).astype(np.float32)
    save_volume(flat(root / "enhanced/main/unet", SCANS[2], "T1w.nii.gz"), hollow, affine)
    return root


def evaluate(root, scans=SCANS, batch=0):
    """The scores of a batch of both methods, method by method: paths of subjects.csv and structures.csv."""
    found = {"subjects": [], "structures": []}
    for result in RESULTS:
        out = part_folder(root, "main", result.folder, batch)
        evaluate_result(scans, "main", result, "T1w", root, root / "cohort/dseg.tsv", Evaluate(), out)
        for name, rows in found.items():
            rows += read_table(out / f"{name}.csv", required=TABLES[name])
    for name, rows in found.items():
        write_table(root / f"{name}.csv", rows, TABLES[name])
    return root / "subjects.csv", root / "structures.csv"


def test_every_scan_and_method_has_a_row_whatever_failed(run, brain):
    reference, mask = brain
    subjects, structures = evaluate(run)
    rows = read_table(subjects, required=SUBJECT_COLUMNS)
    assert SUBJECT_COLUMNS[-1] == "seed"
    assert [(row["method"], row["scan"]) for row in rows] == [(method, scan) for method in METHODS for scan in SCANS]
    by = {(row["scan"], row["method"]): row for row in rows}

    good = by[SCANS[0], "cubic"]
    assert good["status"] == "ok"
    scale = np.percentile(reference[mask], SCALE_PERCENTILE)  # a prediction is on the reference's scale already
    assert float(good["psnr"]) == pytest.approx(
        masked_psnr(reference / scale, noisy(reference, 0.05) / scale, mask), abs=1e-3
    )
    found = overlap(labels(1), labels(2), 2 * np.eye(4), NAMES)
    assert (float(good["miou"]), float(good["dice"])) == pytest.approx(mean_overlap(found), abs=1e-6)
    assert [good[name] for name in ("n_structures", "seconds", "nfe", "samples", "n_parameters")] == [
        "3",
        "1.5",
        "4",
        "2",
        "10",
    ]
    assert good["msssim_scales"] == "2"

    judged = by[SCANS[0], "unet"]
    assert judged["status"] == "parcellation: no white matter"
    assert float(judged["miou"]) == float(judged["dice"]) == 0
    assert float(judged["psnr"]) == float(good["psnr"])

    untrue = by[SCANS[1], "unet"]
    assert untrue["status"] == "parcellation: out of luck"
    assert untrue["miou"] == untrue["dice"] == untrue["n_structures"] == ""
    assert float(untrue["psnr"]) > 0

    for scan, method, status in (
        (2, "cubic", "enhanced: diverged"),
        (2, "unet", "NaN"),
        (3, "unet", "cohort: no brain"),
    ):
        row = by[SCANS[scan], method]
        assert status in row["status"]
        assert all(row[name] == "" for name in SUBJECT_COLUMNS[4 : SUBJECT_COLUMNS.index("seconds")])

    table = read_table(structures)
    assert [row["index"] for row in table] == ["1", "2", "3", "9"] * 2
    assert {row["iou"] for row in table if row["name"] == "nowhere"} == {""}, "in neither map"
    table = [row for row in table if row["name"] != "nowhere"]
    assert {row["iou"] for row in table if row["method"] == "unet"} == {"0.0"}
    assert all(row["volume_mm3"] == "" for row in table if row["method"] == "unet")
    first = table[0]
    assert (first["name"], float(first["volume_reference_mm3"])) == ("one", 8 * (labels(1) == 1).sum())


def test_a_result_on_another_grid_or_absent_is_recorded(run):
    path = flat(run / "enhanced/main/cubic", SCANS[0], "T1w.nii.gz")
    save_volume(path, np.zeros((4, 4, 4), np.float32), np.eye(4))
    flat(run / "enhanced/main/unet", SCANS[0], "T1w.json").unlink()
    rows = read_table(evaluate(run, SCANS[:1])[0])
    assert "another grid" in rows[0]["status"]
    assert "no such file" in rows[1]["status"]


def model(root, name, card):
    folder = root / "models" / name / "seed-1"
    machine = {"cpu": "abacus", "threads": 2, "gpu": None, "python": "3.11", "torch": "2"}
    write_json(folder / "model.json", {"n_parameters": 10, "machine": machine, **card})
    line = {"step": 5, "seconds": 1, "learning_rate": 0.1, "train_loss": 2, "val_loss": 3}
    metric = "val_dice" if name == "parcellator" else "val_psnr"
    write_table(folder / "history.csv", [{**line, metric: 0.5}, {**line, "step": 10, metric: 0.7}])
    return folder / "history.csv"


def facts():
    return Plan(Config.model_validate({"methods": {"cubic": {"kind": "cubic"}, "unet": {"kind": "unet"}}})).facts()


def test_gathering_orders_parts_and_lists_every_failure_once(run):
    evaluate(run, SCANS[2:], 0)
    evaluate(run, SCANS[:2], 1)
    metrics = {"val_loss": 3.0, "val_psnr": 0.7}
    histories = {
        "unet": model(run, "unet", {"kind": "unet", "steps": 10, "seconds": 1.0, "metrics": metrics}),
        "parcellator": model(run, "parcellator", {"kind": "builtin", "steps": 10, "metrics": {"val_dice": 0.7}}),
    }
    gather(run, [0, 1], histories, facts(), run / "cohort/dseg.tsv", run / "metrics")

    rows = read_table(run / "metrics/subjects.csv")
    assert [(row["method"], row["scan"]) for row in rows] == [(method, scan) for method in METHODS for scan in SCANS]
    assert list(rows[0]) == list(SUBJECT_COLUMNS)
    structures = read_table(run / "metrics/structures.csv")
    assert [row["index"] for row in structures] == ["1", "2", "3", "9"] * 2
    history = read_table(run / "metrics/history.csv")
    assert tuple(history[0]) == HISTORY_COLUMNS
    assert [(row["model"], row["step"]) for row in history] == [
        *(("unet", "5"), ("unet", "10")),
        *(("parcellator", "5"), ("parcellator", "10")),
    ]
    assert (history[1]["val_psnr"], history[1]["val_dice"]) == ("0.7", "")

    told = read_json(run / "metrics/run.json")
    cohort = told["cohort"]
    assert (cohort["voxel_size_mm"], cohort["n_train"], cohort["n_val"], cohort["n_test"]) == (2.0, 1, 0, 3)
    skipped = [(entry["scan"], entry["stage"]) for entry in cohort["skipped"]]
    assert sorted(skipped) == [
        (SCANS[0], "parcellation/main/unet"),
        (SCANS[1], "parcellation/hq"),
        (SCANS[2], "enhanced/main/cubic"),
        (SCANS[2], "evaluate/main/unet"),
        (SCANS[3], "cohort"),
    ]
    assert told["lowfield"]["main"] == LowField().model_dump(mode="json", exclude={"registration"})
    assert told["models"]["unet"]["val_psnr"] == told["models"]["parcellator"]["val_dice"] == 0.7
    assert told["methods"]["unet"] == {"kind": "unet", "model": "unet", "nfe": 4, "samples": 2}
    assert told["methods"]["cubic"]["model"] is None
    assert told["parcellator"] == {"engine": "builtin", "version": "9", "n_structures": 4}
    assert told["machine"]["cpu"] == "abacus"

    before = (run / "metrics/run.json").read_bytes()
    gather(run, [1, 0], histories, facts(), run / "cohort/dseg.tsv", run / "metrics")
    assert (run / "metrics/run.json").read_bytes() == before


def test_gathering_refuses_what_is_not_of_the_run(run):
    for batch in (0, 1):
        evaluate(run, SCANS[:1], batch)
    arguments = {}, facts(), run / "cohort/dseg.tsv", run / "metrics"
    gather(run, [0], *arguments)
    with pytest.raises(UserError, match=f"{SCANS[0]} is in another batch too"):
        gather(run, [0, 1], *arguments)
    foreign = part_folder(run, "main", RESULTS[1].folder, 0) / "subjects.csv"
    for column, value in (("scan", "sub-99"), ("set", "thick"), ("method", "cubic"), ("seed", "2")):
        rows = read_table(foreign)
        write_table(foreign, [{**rows[0], column: value}, *rows[1:]], SUBJECT_COLUMNS)
        with pytest.raises(UserError, match=f"{foreign}.*{value}.* is not of this result and run"):
            gather(run, [0], *arguments)
        write_table(foreign, rows, SUBJECT_COLUMNS)


def test_a_set_without_a_method_has_no_failure_of_it(run):
    """What an earlier configuration made on the set lies there still."""
    evaluate(run)
    told = facts()
    told.made["main"] = ("cubic",)
    gather(run, [0], {}, told, run / "cohort/dseg.tsv", run / "metrics")
    stages = {entry["stage"] for entry in read_json(run / "metrics/run.json")["cohort"]["skipped"]}
    assert "enhanced/main/cubic" in stages
    assert not [stage for stage in stages if "unet" in stage]


def test_facts_pass_through_json():
    assert RunFacts.model_validate(json.loads(facts().model_dump_json())) == facts()


def test_readings_of_different_parcellators_are_not_compared(run):
    write_json(flat(run / "parcellation/main/cubic", SCANS[0], "dseg.json"), {**JUDGED, "version": "10"})
    subjects, structures = evaluate(run, [SCANS[0]])
    rows = read_table(subjects)
    cubic = next(row for row in rows if row["method"] == "cubic")
    assert cubic["status"].startswith("parcellation: read by builtin 10, but the reference by builtin 9")
    assert (cubic["miou"], cubic["parcellator"]) == ("", "builtin 9")
    assert cubic["psnr"]
    assert not [row for row in read_table(structures) if row["method"] == "cubic"]


def test_the_parcellator_is_scored_against_the_scans_own_labels(run, brain):
    """Merged labels are read as their structure, and nothing outside the mask counts."""
    _, mask = brain
    reading = read_volume(flat(run / "parcellation/hq", SCANS[0], "dseg.nii.gz"), np.int32)
    own = np.where(reading.data == 1, 7, reading.data)
    own[~mask] = 2
    save_volume(anat(run / "cohort", SCANS[0], "dseg.nii.gz"), own.astype(np.int16), reading.affine)
    lut = [{"index": 0, "name": "BG", "mirror": 0, "merges": ""}]
    lut += [{"index": index, "name": str(index), "mirror": index, "merges": ""} for index in (1, 2, 3)]
    lut[1]["merges"] = "7"
    write_table(run / "merged.tsv", lut)
    out = run / "metrics/parcellator.csv"
    score_parcellator(
        run / "cohort/participants.tsv", run / "cohort", run / "parcellation/hq", "T1w", run / "merged.tsv", out
    )
    rows = read_table(out)
    assert {row["scan"] for row in rows} == {SCANS[0]}, "the others bring no labels"
    inside = np.where(mask, reading.data, 0)
    for row in rows:
        k = int(row["index"])
        expected = 2 * (inside == k).sum() / ((inside == k).sum() + (reading.data == k).sum())
        assert float(row["dice"]) == pytest.approx(expected, abs=1e-6)


def test_a_scan_that_the_parcellator_failed_on_counts_as_zero(run):
    volume = read_volume(flat(run / "parcellation/hq", SCANS[0], "dseg.nii.gz"), np.int32)
    save_volume(anat(run / "cohort", SCANS[0], "dseg.nii.gz"), volume.data.astype(np.int16), volume.affine)
    write_json(flat(run / "parcellation/hq", SCANS[0], "dseg.json"), {"status": "no white matter"})
    lut = [{"index": index, "name": str(index), "mirror": index, "merges": ""} for index in range(4)]
    write_table(run / "plain.tsv", lut)
    out = run / "metrics/parcellator.csv"
    score_parcellator(
        run / "cohort/participants.tsv", run / "cohort", run / "parcellation/hq", "T1w", run / "plain.tsv", out
    )
    rows = read_table(out)
    assert {float(row["dice"]) for row in rows} == {0.0}
    assert {row["scan"] for row in rows} == {SCANS[0]}


def test_an_empty_mask_and_a_result_with_infinities_are_recorded(run, brain):
    """Each is one scan's status in the table; the other results of the batch are scored."""
    reference, mask = brain
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    save_volume(anat(run / "cohort", SCANS[1], "desc-brain_mask.nii.gz"), np.zeros_like(mask), affine)
    endless = np.where(mask, reference, 0).astype(np.float32)
    endless[tuple(np.argwhere(mask)[0])] = np.inf
    save_volume(flat(run / "enhanced/main/unet", SCANS[2], "T1w.nii.gz"), endless, affine)
    rows = {(row["scan"], row["method"]): row for row in read_table(evaluate(run)[0])}
    for method in METHODS:
        assert "mask" in rows[SCANS[1], method]["status"]
        assert rows[SCANS[1], method]["psnr"] == rows[SCANS[1], method]["ulfenc"] == ""
    assert rows[SCANS[2], "unet"]["status"] != "ok"
    assert rows[SCANS[2], "unet"]["psnr"] == ""
    assert rows[SCANS[0], "cubic"]["status"] == "ok"
    assert all(rows[SCANS[0], "cubic"][name] for name in SUBJECT_COLUMNS[:-1] if name != "lpips"), (
        "every measure is there, but that which needs weights"
    )


def test_a_perceptual_distance_that_cannot_be_measured_costs_nothing_else(run, monkeypatch):
    def broken(*images):
        raise UserError("out of colours")

    monkeypatch.setattr("iqt.evaluate.run._lpips", lambda settings: broken)
    rows = {row["method"]: row for row in read_table(evaluate(run, SCANS[:1])[0])}
    assert rows["cubic"]["status"] == "LPIPS: out of colours"
    assert rows["cubic"]["lpips"] == ""
    assert float(rows["cubic"]["miou"]) > 0
    assert rows["unet"]["status"].startswith("parcellation: no white matter")
    assert rows["unet"]["status"].endswith("; LPIPS: out of colours")


def test_a_parcellation_without_any_structure_scores_zero(run):
    """A reading that holds nothing is the worst one, not an absent one."""
    path = flat(run / "parcellation/main/cubic", SCANS[0], "dseg.nii.gz")
    save_volume(path, np.zeros(SHAPE, np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
    subjects, structures = evaluate(run, SCANS[:1])
    row = read_table(subjects)[0]
    assert (row["status"], float(row["miou"]), float(row["dice"])) == ("ok", 0, 0)
    held = [one for one in read_table(structures) if one["method"] == "cubic" and one["name"] != "nowhere"]
    assert [(float(one["dice"]), float(one["volume_mm3"])) for one in held] == [(0, 0)] * 3


def test_every_kind_of_failure_stands_in_the_written_tables(run, brain, tmp_path):
    """A NaN result, an empty mask, a failed parcellation, a row that is not there, a structure that nobody has."""
    _, mask = brain
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    save_volume(anat(run / "cohort", SCANS[1], "desc-brain_mask.nii.gz"), np.zeros_like(mask), affine)
    save_volume(flat(run / "enhanced/main/cubic", SCANS[2], "T1w.nii.gz"), np.where(mask, 0.5, 0), affine)
    write_json(flat(run / "enhanced/main/cubic", SCANS[2], "T1w.json"), {"status": "ok"})
    subjects, structures = evaluate(run)
    rows = read_table(subjects)
    write_table(subjects, [row for row in rows if (row["scan"], row["method"]) != (SCANS[3], "unet")])
    write_tables(subjects, tmp_path, "main", 100, 1)
    write_statistics(subjects, tmp_path, "main", "cubic", 100, 1)
    write_structures(structures, tmp_path, "main", SCANS, METHODS, 100, 1)
    cubic, unet = read_table(tmp_path / "benchmark.csv")
    assert (cubic["n_subjects"], cubic["n_failed"], cubic["psnr_n"]) == ("4", "2", "2")
    assert (unet["n_subjects"], unet["n_failed"], unet["psnr_n"], unet["miou_n"]) == ("4", "4", "1", "1")
    assert (unet["miou"], unet["miou_common"], unet["miou_common_n"]) == ("0", "", "0")
    assert cubic["psnr_n_shared"] == "1"
    for name in ("benchmark.md", "similarity.md", "benchmark.tex"):
        text = " ".join((tmp_path / name).read_text().replace("\n% ", " ").split())
        for scan, method, why in (
            (SCANS[0], "unet", "parcellation: no white matter"),
            (SCANS[1], "cubic", "the brain mask is empty"),
            (SCANS[1], "unet", "the brain mask is empty"),
            (SCANS[2], "unet", "NaN"),
            (SCANS[3], "cubic", "cohort: no brain"),
            (SCANS[3], "unet", "has no row for it"),
        ):
            assert f"{scan} {method} (" in text, (name, scan, method)
            assert why in text.partition(f"{scan} {method} (")[2].partition(")")[0], (name, scan, method)
    table = [line for line in (tmp_path / "benchmark.md").read_text().splitlines() if line.startswith("| unet")]
    assert "[1 of 4]" in table[0]
    assert "| 1 of 4 | 4 |" in table[0]
    assert "– [0 of 4]" in table[0], "mIoU common: no scan on which both succeeded"
    tested = {row["metric"]: row for row in read_table(tmp_path / "statistics.csv")}
    assert {(row["n"], row["n_missing"]) for row in tested.values()} == {("1", "3")}
    overlaps = (tmp_path / "structures.md").read_text()
    assert "| nowhere | cubic | 0 of 4 (2 absent, 2 missing) | – |" in overlaps
    assert "| nowhere | unet | 0 of 4 (1 absent, 3 missing) | – |" in overlaps
    assert "| 1 of 4 (3 missing) | 0.000" in overlaps, "a failed parcellation is 0, not absent"
    assert "cubic 2, unet 1 (all methods have 1)" in overlaps


def test_a_corrupt_label_map_is_a_recorded_failure_of_the_judges_score(run):
    """One scan is whole, one truncated, one on another grid; the fourth failed in the cohort."""
    lut = [{"index": index, "name": str(index), "mirror": index, "merges": ""} for index in range(4)]
    write_table(run / "plain.tsv", lut)
    volume = read_volume(flat(run / "parcellation/hq", SCANS[0], "dseg.nii.gz"), np.int32)
    for scan in SCANS[:2]:
        save_volume(anat(run / "cohort", scan, "dseg.nii.gz"), volume.data.astype(np.int16), volume.affine)
    truncated = anat(run / "cohort", SCANS[1], "dseg.nii.gz")
    truncated.write_bytes(truncated.read_bytes()[:200])
    save_volume(anat(run / "cohort", SCANS[2], "dseg.nii.gz"), volume.data[1:].astype(np.int16), volume.affine)
    out = run / "metrics/parcellator.csv"
    score_parcellator(
        run / "cohort/participants.tsv", run / "cohort", run / "parcellation/hq", "T1w", run / "plain.tsv", out
    )
    rows = {row["scan"]: row for row in read_table(out)}
    assert list(rows) == SCANS[:3]
    assert rows[SCANS[0]]["status"] == "ok"
    for scan in SCANS[1:3]:
        assert str(anat(run / "cohort", scan, "dseg.nii.gz")) in rows[scan]["status"]
        assert rows[scan]["dice"] == ""
    shown = judge(run / "metrics", {})
    assert set(shown["failures"]) == {SCANS[1], SCANS[2]}
    assert shown["n_scans"] == 1
    whole = [float(row["dice"]) for row in read_table(out) if row["scan"] == SCANS[0]]
    assert shown["dice"] == pytest.approx(np.mean(whole)), "what could not be compared is in no mean"
