"""Calibration of the samples' spread, and seams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from iqt.config import Evaluate
from iqt.config.experiments import LEVELS
from iqt.diffusion.spread import Spread
from iqt.errors import UserError
from iqt.evaluate.calibration import BINS, calibration
from iqt.evaluate.run import _slice_periods, evaluate_result
from iqt.evaluate.seams import border_error, seam_energy
from iqt.io.files import read_table, write_json, write_table
from iqt.io.naming import Result, anat, flat
from iqt.io.volumes import save_volume
from iqt.report.figures.sampling import plot_reliability, plot_sweep
from iqt.report.figures.styles import styles_of

SHAPE = (48, 40, 44)


def ensemble(samples: int, sure: float = 1.0) -> tuple[np.ndarray, ...]:
    """A reference and samples drawn from one distribution with a spread that differs between places; `sure` narrows
    the samples' spread alone."""
    rng = np.random.default_rng(1)
    field = gaussian_filter(rng.normal(size=SHAPE), 5)
    spread, centre = np.exp(0.7 * field / field.std() - 2), rng.random(SHAPE)
    drawn = centre + spread * sure * rng.normal(size=(samples, *SHAPE))
    return centre + spread * rng.normal(size=SHAPE), drawn.mean(0), drawn.std(0, ddof=1)


MASK = np.ones(SHAPE, bool)


@pytest.mark.parametrize("samples", [2, 4, 20])
def test_a_posteriors_own_samples_are_calibrated_however_few(samples: int) -> None:
    figures, curve = calibration(*ensemble(samples), MASK, samples)
    assert figures["ratio"] == pytest.approx(1, abs=0.03)
    for level in (50, 68, 90, 95):
        assert figures[f"coverage_{level}"] == pytest.approx(level / 100, abs=0.01)
    assert figures["correlation"] > 0.2
    assert len(curve) == BINS
    assert sum(row["n_voxels"] for row in curve) == MASK.sum()
    assert [row["expected"] for row in curve] == sorted(row["expected"] for row in curve)
    assert curve[-1]["expected"] > 3 * curve[0]["expected"]
    for row in curve:
        assert row["error"] == pytest.approx(row["expected"], rel=0.1)


def test_samples_too_sure_of_themselves_show_and_so_does_a_spread_that_means_nothing() -> None:
    figures, curve = calibration(*ensemble(20, sure=0.5), MASK, 20)
    assert figures["ratio"] == pytest.approx(0.5, abs=0.05)
    assert figures["coverage_95"] < 0.8
    assert all(row["expected"] < row["error"] for row in curve)
    reference, mean, sd = ensemble(20)
    shuffled = np.random.default_rng(2).permutation(sd.ravel()).reshape(SHAPE)
    figures, curve = calibration(reference, mean, shuffled, MASK, 20)
    assert abs(figures["correlation"]) < 0.02
    assert curve[-1]["error"] < 2 * curve[0]["error"], "a spread that tells makes it three times as large"


def test_the_mask_alone_counts() -> None:
    reference, mean, sd = ensemble(50)
    figures, _ = calibration(reference, mean, sd, MASK, 50)
    mask = np.zeros(SHAPE, bool)
    mask[10:30, 10:30, 10:30] = True
    inside, _ = calibration(reference, mean, sd, mask, 50)
    changed = np.where(mask, mean, 99)
    assert calibration(reference, changed, sd, mask, 50)[0] == inside
    assert inside != figures
    with pytest.raises(UserError, match="standard deviation is 0 in the whole brain"):
        calibration(reference, mean, 0 * sd, mask, 50)
    with pytest.raises(UserError, match="mask is empty"):
        calibration(reference, mean, sd, ~MASK, 50)


def test_seams_show_at_the_borders_and_nowhere_else() -> None:
    rng = np.random.default_rng(0)
    reference = rng.random(SHAPE)
    error = 0.05 * rng.normal(size=SHAPE)
    borders = [[16, 32], [20], [22]]
    found, noise = seam_energy(reference, reference + error, MASK, borders)
    assert found == pytest.approx(1, abs=4 * noise)
    assert noise < 0.05
    # A step of twice the error's size at the first axis's borders.
    stepped = error + 0.1 * (np.arange(SHAPE[0]) // 16 % 2)[:, None, None]
    seen, _ = seam_energy(reference, reference + stepped, MASK, borders)
    # A squared difference is 2 x 0.05^2 elsewhere, and 0.1^2 more at two of the four planes.
    area = 2 * 40 * 44
    share = area / (area + 48 * 44 + 48 * 40)
    assert seen == pytest.approx(1 + share * 0.1**2 / (2 * 0.05**2), rel=0.05)
    elsewhere, _ = seam_energy(reference, reference + stepped, MASK, [[10, 24], [10], [12]])
    assert elsewhere < 1
    assert seam_energy(reference, reference + stepped, MASK, [[], [], []]) is None
    hidden = np.zeros(SHAPE, bool)
    hidden[:10, :10, :10] = True
    assert seam_energy(reference, reference + stepped, hidden, borders) is None


def test_a_pattern_of_slices_is_no_seam() -> None:
    """Errors that repeat with the slices' distance, and patches that all begin at one place in it."""
    rng = np.random.default_rng(0)
    reference = rng.random(SHAPE)
    pattern = 0.03 * np.array([0, 1, 2, 1])[np.arange(SHAPE[0]) % 4][:, None, None]
    error = rng.normal(size=SHAPE) * (0.02 + pattern)
    borders, periods = [[16, 32], [20], [22]], (4.0000001, 1, 1)
    blind, _ = seam_energy(reference, reference + error, MASK, borders)
    assert blind < 0.9, "compared with the other places between slices, borders look too good"
    found, noise = seam_energy(reference, reference + error, MASK, borders, periods)
    assert found == pytest.approx(1, abs=4 * noise)
    blind_error, blind_ratio = border_error(reference, reference + error, MASK, [[16, 32], [], []])
    rms, ratio = border_error(reference, reference + error, MASK, [[16, 32], [], []], periods)
    assert rms == blind_error
    assert abs(blind_ratio - 1) > 0.05
    assert ratio == pytest.approx(1, abs=0.02)
    stepped = error + 0.1 * (np.arange(SHAPE[0]) // 16 % 2)[:, None, None]
    seen, _ = seam_energy(reference, reference + stepped, MASK, borders, periods)
    assert seen > 1.5, "and a seam is one still"
    assert seam_energy(reference, reference + error, MASK, [range(4, 48, 4), [], []], periods) is None, (
        "nothing else of its kind"
    )
    everywhere = [range(0, SHAPE[0] + 1, 4), [], []]
    known, compared = border_error(reference, reference + error, MASK, everywhere, periods)
    assert known == border_error(reference, reference + error, MASK, everywhere)[0] > 0
    assert np.isnan(compared), "the error is known, but not what to compare it with"


def test_slices_have_a_distance_along_the_axis_that_they_are_stacked_on_unless_they_are_tilted() -> None:
    thick, grid = np.diag([1.0, 1.5, 7.0, 1.0]), np.diag([0.5, 0.5, 0.5, 1.0])
    assert _slice_periods(thick, grid) == pytest.approx([2, 3, 14])
    turned = grid[:, [2, 0, 1, 3]] * [-1, 1, 1, 1]
    assert _slice_periods(thick, turned) == pytest.approx([14, 2, 3])
    for degrees, expected in ((0.5, [2, 3, 14]), (10, [2, 1, 1])):
        angle = np.deg2rad(degrees)
        tilt = np.eye(4)
        tilt[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        assert _slice_periods(tilt @ thick, grid) == pytest.approx(expected)


@pytest.mark.parametrize("period", [1.0, 4.0, 4.0000001, 3.9999999, 7.142857])
def test_the_error_at_borders_is_that_of_the_voxels_beside_them(period: float) -> None:
    rng = np.random.default_rng(3)
    error = 0.1 * rng.normal(size=SHAPE)
    error[15:17] *= 2
    reference = rng.random(SHAPE)
    rms, ratio = border_error(reference, reference + error, MASK, [[16], [], []], (period, 1, 1))
    assert rms == pytest.approx(0.2, rel=0.05)
    assert ratio == pytest.approx(2, rel=0.05)


def test_results_are_assessed_and_failures_recorded(tmp_path: Path) -> None:
    reference, mean, sd = ensemble(4)
    affine = np.diag([2.0, 2, 2, 1])
    for scan in ("sub-a", "sub-b"):
        write_json(anat(tmp_path / "cohort", scan, "T1w.json"), {"status": "ok"})
        save_volume(anat(tmp_path / "cohort", scan, "T1w.nii.gz"), reference + 5, affine)
        save_volume(anat(tmp_path / "cohort", scan, "desc-brain_mask.nii.gz"), MASK, affine)
        save_volume(anat(tmp_path / "lowfield/main", scan, "T1w.nii.gz"), mean[..., ::4], np.diag([2.0, 2, 8, 1]))
    scale = np.percentile((reference + 5).astype(np.float32), 99.5)
    several = {"status": "ok", "n_parameters": 9, "samples": 4, "tiles": 8, "tile_borders": [[16, 32], [20], [22]]}
    lut = tmp_path / "dseg.tsv"
    write_table(lut, [{"index": 1, "name": "one"}])
    # The spread itself, times 1.5 where slices are 8 mm apart, as they are here.
    widths = dict.fromkeys(LEVELS, 1e6)
    spread = Spread({}, "main", 2, (0.0, 1.0), (0.0, 1.0), (2.0, 8.0), (0.5, 1.5), (2.0, 8.0), 0.01, widths)
    write_json(tmp_path / "spread.json", spread.written())
    found: dict[str, dict[str, list[dict[str, str]]]] = {}
    for method, record in {
        "cubic": {"status": "ok", "n_parameters": 0, "samples": 1},
        "many": several,
        "one": {"status": "ok", "n_parameters": 9, "samples": 1, "patch_borders": [[16], [], []]},
        "same": several,  # every sample alike
    }.items():
        for scan in ("sub-a", "sub-b"):
            folder = tmp_path / "enhanced/main" / method
            failed = (method, scan) in (("many", "sub-b"), ("cubic", "sub-b"))
            write_json(flat(folder, scan, "T1w.json"), {"status": "lowfield: lost"} if failed else record)
            save_volume(flat(folder, scan, "T1w.nii.gz"), (mean + 5) / scale, affine)
            save_volume(flat(folder, scan, "desc-sd_T1w.nii.gz"), sd / scale * (method != "same"), affine)
        result, out = Result(method, None if method == "cubic" else 1), tmp_path / method
        told = None if method == "cubic" else tmp_path / "spread.json"
        evaluate_result(["sub-a", "sub-b"], "main", result, "T1w", tmp_path, lut, Evaluate(), out, told)
        names = ("calibration", "reliability", "seams")
        found[method] = {name: read_table(out / f"{name}.csv") for name in names}
    assert found["cubic"] == {"calibration": [], "reliability": [], "seams": []}, "an interpolation has neither"
    spread = found["many"]["calibration"]
    assert [(row["scan"], row["status"]) for row in spread] == [("sub-a", "ok"), ("sub-b", "enhanced: lowfield: lost")]
    assert float(spread[0]["coverage_95"]) == pytest.approx(0.95, abs=0.01)
    assert float(spread[0]["calibrated_coverage_50"]) == 1
    ratio = float(spread[0]["ratio"]) / np.sqrt(1 + 1 / 4)  # without what four samples' mean has of error itself
    assert float(spread[0]["calibrated_ratio"]) == pytest.approx(1.5 * ratio, rel=1e-3)
    assert len(found["many"]["reliability"]) == BINS
    seams = found["many"]["seams"]
    assert [row["status"] for row in seams] == ["ok", "enhanced: lowfield: lost"]
    assert float(seams[0]["tile_seam"]) == pytest.approx(1, abs=0.1)
    assert seams[0]["patch_seam"] == ""
    assert found["one"]["calibration"] == []
    assert found["one"]["seams"][0]["tile_seam"] == ""
    assert found["one"]["seams"][0]["patch_seam"] != ""
    same = found["same"]
    assert {row["status"] for row in same["calibration"]} == {"the samples' standard deviation is 0 in the whole brain"}
    assert [row["status"] for row in same["seams"]] == ["ok", "ok"], "a spread that cannot be judged takes no seam"
    anat(tmp_path / "lowfield/main", "sub-a", "T1w.nii.gz").unlink()
    evaluate_result(["sub-a"], "main", Result("one", 1), "T1w", tmp_path, lut, Evaluate(), tmp_path / "again")
    lost = read_table(tmp_path / "again/seams.csv")[0]
    assert "no such file" in lost["status"]
    assert read_table(tmp_path / "again/subjects.csv")[0]["psnr"], "what could be measured is kept"


def test_the_reliability_figure_pools_people_by_their_voxels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"method": "m", "bin": 1, "n_voxels": 300, "expected": 0.1, "error": 0.2},
        {"method": "m", "bin": 1, "n_voxels": 100, "expected": 0.1, "error": 0.4},
        {"method": "m", "bin": 2, "n_voxels": 100, "expected": 0.3, "error": 0.3},
    ]
    write_table(tmp_path / "reliability.csv", rows)
    kept = []
    monkeypatch.setattr("iqt.report.figures.sampling.save_figure", lambda figure, _out: kept.append(figure))
    plot_reliability(tmp_path / "reliability.csv", ["unet", "m"], [])
    line, diagonal = kept[0].axes[0].lines
    np.testing.assert_allclose(line.get_xdata(), [0.1, 0.3])
    np.testing.assert_allclose(line.get_ydata(), [np.sqrt((300 * 0.04 + 100 * 0.16) / 400), 0.3])
    assert diagonal.get_label() == "calibrated"
    assert line.get_color() == styles_of(["unet", "m"])["m"].colour, "the colour that it has in every figure"


def test_the_sweep_has_a_line_for_each_sampler_and_for_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"msssim_shared": 0.9, "hfcorr_shared": 0.5, "miou_shared": 0.5}
    rows = [
        {"method": name, "nfe": nfe, "seconds_per_volume": 3 * nfe, "psnr_shared": psnr, **values}
        for name, nfe, psnr in (("cubic", 0, 18), ("b", 4, 21), ("a", 1, 20), ("am", 4, 22))
    ]
    write_table(tmp_path / "benchmark.csv", rows)
    kept = []
    monkeypatch.setattr("iqt.report.figures.sampling.save_figure", lambda figure, _out: kept.append(figure))
    plot_sweep(tmp_path / "benchmark.csv", {"a": "ddim", "b": "ddim", "am": "ddim mean"}, [])
    single, mean = kept[0].axes[0].lines
    assert (list(single.get_xdata()), list(single.get_ydata())) == ([1, 4], [20, 21])
    assert (list(mean.get_xdata()), mean.get_linestyle()) == ([4], "--")
    assert single.get_color() == mean.get_color()
    by_seconds = kept[0].axes[4].lines[0]
    assert list(by_seconds.get_xdata()) == [3, 12]
    with pytest.raises(UserError, match="holds no method of a sweep"):
        plot_sweep(tmp_path / "benchmark.csv", {"x": "ddim"}, [])
