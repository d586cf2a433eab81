"""The samples' spread, calibrated: what validation people tell holds for people like them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtr

from iqt.diffusion.spread import (
    LEVELS,
    NEIGHBOURHOOD_MM,
    Intervals,
    Seen,
    Spread,
    calibrated_samplings,
    fit_spread,
    in_neighbourhood,
    read_spread,
    spread_of,
)
from iqt.enhance.calibrate import calibrate_spread
from iqt.enhance.run import Result
from iqt.errors import StopError, UserError
from iqt.evaluate.calibration import calibration
from iqt.io.files import write_json
from iqt.io.naming import anat
from iqt.io.volumes import save_volume

USAGE = {"kind": "diffusion_iqt", "sampling": {"sampler": "ddim", "steps": 2, "samples": 4}, "tiling": {"tile": "auto"}}


def people(count: int, seed: int, slice_mm: float = 4, size: int = 40_000) -> list[Seen]:
    """Scans whose error grows with the samples' spread and the slices' distance, of which the samples say nothing, and
    has heavier tails and a floor that the spread lacks."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        sd = rng.gamma(2, 0.02, size)
        error = slice_mm / 4 * (0.02 + 1.8 * sd) * rng.standard_t(5, size) / np.sqrt(5 / 3)
        found.append(Seen(sd, error, slice_mm))
    return found


def test_intervals_hold_on_others_what_they_held_on_those_learnt_from() -> None:
    spread = fit_spread(people(3, 1), USAGE, "main")
    for sd, error, slice_mm in people(3, 2):
        expected = spread.expected(sd, slice_mm)
        assert np.sqrt(np.square(expected).mean() / np.square(error).mean()) == pytest.approx(1, abs=0.05)
        for level in LEVELS:
            held = np.mean(np.abs(error) <= spread.widths[level] * expected)
            assert held == pytest.approx(level / 100, abs=0.01)


def test_intervals_hold_for_each_distance_of_slices() -> None:
    """Thick slices make larger errors of samples that look the same."""
    spread = fit_spread([*people(3, 1, 3), *people(3, 2, 5), *people(3, 3, 7)], USAGE, "main")
    assert spread.slice_mm == (3, 5, 7)
    assert np.divide(spread.factor, spread.factor[1]) == pytest.approx([3 / 5, 1, 7 / 5], rel=0.05)
    for distance in (3, 4, 6, 7):
        ((sd, error, _),) = people(1, 9, distance)
        for level in LEVELS:
            held = np.mean(np.abs(error) <= spread.widths[level] * spread.expected(sd, distance))
            assert held == pytest.approx(level / 100, abs=0.015)
    some = np.array(0.03)
    assert spread.expected(some, 9) == spread.expected(some, 7)
    assert spread.expected(some, 1) == spread.expected(some, 3)
    falling = fit_spread([*people(3, 1, 7), *[each._replace(slice_mm=8.0) for each in people(3, 2, 5)]], USAGE, "main")
    assert falling.factor[0] == falling.factor[1], "that thicker slices are easier is taken for chance"


def test_people_are_not_taken_for_distances() -> None:
    """An oblique scan's slices are 4 mm apart to within rounding; a drawn distance may be one person's alone."""
    apart = [4 - 2e-7, 4 - 1e-7, 4.0, 4 + 1e-7]
    errors = [1.5, 0.8, 1.3, 1.0]
    scans = [scan._replace(error=by * scan.error) for scan, by in zip(people(4, 1), errors, strict=True)]
    rounded = [scan._replace(slice_mm=mm) for scan, mm in zip(scans, apart, strict=True)]
    assert fit_spread(rounded, USAGE, "main").factor == pytest.approx(fit_spread(scans, USAGE, "main").factor)
    alone = [scan._replace(slice_mm=mm) for scan, mm in zip(people(8, 1), (2, 3, 4, 5, 6, 6, 6, 7), strict=True)]
    spread = fit_spread(alone, USAGE, "main")
    assert spread.slice_mm == pytest.approx([3, 6]), "at least three people each"
    assert spread.seen_mm == (2, 7)


def test_a_neighbourhoods_spread_is_that_of_a_field_which_few_samples_blur() -> None:
    """Of four samples a voxel's standard deviation is noisy; over the neighbourhood it finds the field again."""
    rng = np.random.default_rng(1)
    field = 0.02 + 0.01 * np.sin(np.arange(60) / 6)[:, None, None] * np.ones((60, 40, 40))
    sd = (field * rng.standard_normal((4, *field.shape))).std(0, ddof=1)
    mask = np.ones(field.shape, bool)
    mask[:, :10] = False
    around = in_neighbourhood(np.where(mask, sd, 99), mask, 2.0)
    noise, left = (np.abs(each / field - 1)[mask].mean() for each in (sd, around))
    assert left < 0.3 * noise
    level = np.full(field.shape, 0.03)
    assert in_neighbourhood(level, mask, 2.0)[mask] == pytest.approx(0.03), "the brain's border is no edge"


def test_intervals_of_a_volume_go_by_millimetres_and_end_at_the_brain() -> None:
    """The same brain on a grid twice as fine: the same expected error where the spread is the same."""
    spread = fit_spread(people(3, 1), USAGE, "main")
    place = np.arange(40.0)
    for voxel in (1.0, 2.0):
        step = ((place * voxel > 20) * 0.04 + 0.01)[:, None, None] * np.ones((40, 8, 8))
        mask = np.ones(step.shape, bool)
        mask[-1] = False
        told = spread.intervals(step, mask, np.full(3, voxel), 4.0)
        assert told.widths == spread.widths
        assert (told.expected[-1] == 0).all()
        beside = int(np.flatnonzero(place * voxel > 20)[0])  # the first voxel of the larger spread
        at = beside - round(2 / voxel)
        share = ndtr((at - beside + 0.5) * voxel / NEIGHBOURHOOD_MM)  # of the window that lies beyond the edge
        wanted = spread.expected(np.sqrt(0.01**2 + share * (0.05**2 - 0.01**2)), 4.0)
        assert told.expected[at, 4, 4] == pytest.approx(wanted, rel=0.05)


def test_the_expected_error_is_the_truths_at_every_spread() -> None:
    spread = fit_spread(people(4, 1), USAGE, "main")
    for sd in (0.01, 0.04, 0.1):
        assert spread.expected(np.array(sd), 4) == pytest.approx(0.02 + 1.8 * sd, rel=0.1)
    assert list(spread.error) == sorted(spread.error)
    top = np.array(spread.sd[-1])
    assert spread.expected(2 * top, 4) == pytest.approx(2 * spread.expected(top, 4)), "it grows on beyond what was seen"
    assert spread.expected(np.zeros((2, 3)), 4).shape == (2, 3)


def test_scoring_has_both_the_spread_as_it_is_and_calibrated() -> None:
    spread = fit_spread(people(3, 1), USAGE, "main")
    (sd, error, slice_mm), shape = people(1, 5)[0], (40, 50, 20)
    mean = np.ones(shape)
    told = Intervals(spread.expected(sd, slice_mm).reshape(shape), spread.widths)
    figures, _ = calibration(mean + error.reshape(shape), mean, sd.reshape(shape), mean > 0, 4, told)
    assert figures["coverage_95"] < 0.92
    assert figures["calibrated_coverage_95"] == pytest.approx(0.95, abs=0.01)
    assert figures["calibrated_coverage_50"] == pytest.approx(0.5, abs=0.01)
    assert figures["calibrated_ratio"] == pytest.approx(1, abs=0.05)
    assert figures["calibrated_correlation"] == pytest.approx(figures["correlation"], abs=0.01), "a rising function"
    plain, _ = calibration(mean + error.reshape(shape), mean, sd.reshape(shape), mean > 0, 4)
    assert plain.items() < figures.items(), "nothing else moves"


def test_what_was_learnt_lies_with_the_model_and_is_for_one_way_of_drawing(tmp_path: Path) -> None:
    spread = fit_spread(people(2, 1), USAGE, "main")
    of = {"weights_sha256": "abc"}
    (tmp_path / "spread_mean.json").write_text(json.dumps(of | spread.written()))
    assert spread_of(tmp_path, USAGE | {"tiling": {"tile": 64}}, "abc") == spread
    assert spread_of(tmp_path, USAGE | {"sampling": {**USAGE["sampling"], "samples": 8}}, "abc") is None
    assert spread_of(tmp_path, USAGE, "weights of another training") is None
    assert spread_of(tmp_path / "elsewhere", USAGE, "abc") is None
    assert calibrated_samplings(tmp_path, "abc") == [USAGE["sampling"]]
    assert calibrated_samplings(tmp_path, "other") == []
    older = {key: value for key, value in spread.written().items() if key not in ("slice_mm", "factor")}
    (tmp_path / "spread_eight.json").write_text(
        json.dumps(of | older | {"usage": USAGE | {"sampling": {**USAGE["sampling"], "samples": 8}}})
    )
    assert spread_of(tmp_path, USAGE, "abc") == spread, "an earlier version's file of another usage is no obstacle"


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"widths": {"50": 1}, "sd": [1], "error": [1], "usage": {}, "set": ""}']
)
def test_another_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "spread_mean.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"spread_mean.json: holds no calibrated spread"):
        read_spread(path)


def test_nothing_to_learn_from_is_said(tmp_path: Path) -> None:
    (tmp_path / "spread_x.json").write_text('{"status": "no validation scan could be enhanced"}')
    assert read_spread(tmp_path / "spread_x.json") is None
    assert spread_of(tmp_path, USAGE, "abc") is None
    with pytest.raises(UserError, match="no validation scan"):
        fit_spread([], USAGE, "main")
    with pytest.raises(UserError, match=r"is 0\.1 everywhere"):
        fit_spread([Seen(np.full(9, 0.1), np.ones(9), 4)], USAGE, "main")
    assert isinstance(fit_spread(people(1, 1), USAGE, "main"), Spread)


def test_a_machine_without_memory_leaves_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StopError("the GPU is full")

    monkeypatch.setattr("iqt.enhance.calibrate.load_method", lambda *_: None)
    monkeypatch.setattr("iqt.enhance.calibrate.enhance_scan", full)
    with pytest.raises(StopError, match="the GPU is full"):
        calibrate_spread(["sub-1"], *[tmp_path] * 3, tmp_path / "spread_x.json", "T1w", USAGE, 1, "auto")
    assert not (tmp_path / "spread_x.json").exists()


@pytest.mark.parametrize("sd", [0.0, 0.05])
def test_what_cannot_be_calibrated_is_recorded_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sd: float
) -> None:
    """A scan that failed is left out; samples that are all alike say nothing of the error."""
    rng = np.random.default_rng(1)
    image, affine = rng.random((12, 14, 10), dtype=np.float32) + 1, np.diag([1.0, 3.0, 1.0, 1.0])
    for folder, ending in (("cohort", "T1w"), ("cohort", "desc-brain_mask"), ("main", "T1w"), ("main", "space-HQ_T1w")):
        data = np.ones(image.shape, np.uint8) if ending == "desc-brain_mask" else image
        slices = (folder, ending) == ("main", "T1w")
        save_volume(anat(tmp_path / folder, "sub-1", f"{ending}.nii.gz"), data, affine if slices else np.eye(4))
    for folder in ("cohort", "main"):
        write_json(anat(tmp_path / folder, "sub-1", "T1w.json"), {"status": "ok"})
        write_json(anat(tmp_path / folder, "sub-2", "T1w.json"), {"status": "lost"})

    def method(data: np.ndarray, *_: object) -> Result:
        return Result(data, sd * rng.random(data.shape, dtype=np.float32), data, {})

    monkeypatch.setattr("iqt.enhance.calibrate.load_method", lambda *_: method)
    write_json(tmp_path / "model" / "model.json", {"weights_sha256": "abc"})
    paths = (tmp_path / "cohort", tmp_path / "main", tmp_path / "model", tmp_path / "spread_x.json")
    calibrate_spread(["sub-1", "sub-2"], *paths, "T1w", USAGE, 1, "auto")
    found = read_spread(tmp_path / "spread_x.json")
    if sd:
        assert calibrated_samplings(tmp_path, "abc") == [USAGE["sampling"]]
        assert (found.set, found.n_scans, found.slice_mm) == ("main", 1, (3.0,))
    else:
        assert found is None
        assert "standard deviation is 0 everywhere" in json.loads((tmp_path / "spread_x.json").read_text())["status"]
