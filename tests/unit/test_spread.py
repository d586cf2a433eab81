"""The samples' spread, calibrated: what validation people tell holds for people like them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from iqt.diffusion.spread import LEVELS, Spread, fit_spread, read_spread, spread_of
from iqt.enhance.calibrate import calibrate_spread
from iqt.enhance.run import Result
from iqt.errors import UserError
from iqt.evaluate.calibration import calibration
from iqt.io.files import write_json
from iqt.io.naming import anat
from iqt.io.volumes import save_volume

USAGE = {"kind": "diffusion_iqt", "sampling": {"sampler": "ddim", "steps": 2, "samples": 4}, "tiling": {"tile": "auto"}}


def people(count: int, seed: int, floor: float = 0.02, size: int = 40_000) -> list[tuple[np.ndarray, np.ndarray]]:
    """Scans whose error grows with the samples' spread, and has heavier tails and a floor that the spread lacks."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        sd = rng.gamma(2, 0.02, size)
        found.append((sd, (floor + 1.8 * sd) * rng.standard_t(5, size) / np.sqrt(5 / 3)))
    return found


def test_intervals_hold_on_others_what_they_held_on_those_learnt_from() -> None:
    spread = fit_spread(people(3, 1), USAGE, "main")
    for sd, error in people(3, 2):
        assert np.sqrt(np.square(spread.expected(sd)).mean() / np.square(error).mean()) == pytest.approx(1, abs=0.05)
        for level in LEVELS:
            held = np.mean(np.abs(error) <= spread.widths[level] * spread.expected(sd))
            assert held == pytest.approx(level / 100, abs=0.01)


def test_the_expected_error_is_the_truths_at_every_spread() -> None:
    spread = fit_spread(people(4, 1), USAGE, "main")
    for sd in (0.01, 0.04, 0.1):
        assert spread.expected(np.array(sd)) == pytest.approx(0.02 + 1.8 * sd, rel=0.1)
    assert list(spread.error) == sorted(spread.error)
    top = spread.sd[-1]
    assert spread.expected(np.array(2 * top)) == pytest.approx(2 * spread.error[-1]), "it grows on beyond what was seen"
    assert spread.expected(np.zeros((2, 3))).shape == (2, 3)


def test_scoring_has_both_the_spread_as_it_is_and_calibrated() -> None:
    spread = fit_spread(people(3, 1), USAGE, "main")
    (sd, error), shape = people(1, 5)[0], (40, 50, 20)
    mean = np.ones(shape)
    figures, _ = calibration(mean + error.reshape(shape), mean, sd.reshape(shape), mean > 0, 4, spread)
    assert figures["coverage_95"] < 0.92
    assert figures["calibrated_coverage_95"] == pytest.approx(0.95, abs=0.01)
    assert figures["calibrated_coverage_50"] == pytest.approx(0.5, abs=0.01)
    assert figures["calibrated_ratio"] == pytest.approx(1, abs=0.05)
    plain, _ = calibration(mean + error.reshape(shape), mean, sd.reshape(shape), mean > 0, 4)
    assert plain.items() < figures.items(), "nothing else moves"


def test_what_was_learnt_lies_with_the_model_and_is_for_one_way_of_drawing(tmp_path: Path) -> None:
    spread = fit_spread(people(2, 1), USAGE, "main")
    (tmp_path / "spread_mean.json").write_text(json.dumps(spread.written()))
    assert spread_of(tmp_path, USAGE | {"tiling": {"tile": 64}}) == spread
    assert spread_of(tmp_path, USAGE | {"sampling": {**USAGE["sampling"], "samples": 8}}) is None
    assert spread_of(tmp_path / "elsewhere", USAGE) is None


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
    assert spread_of(tmp_path, USAGE) is None
    with pytest.raises(UserError, match="no validation scan"):
        fit_spread([], USAGE, "main")
    with pytest.raises(UserError, match=r"is 0\.1 everywhere"):
        fit_spread([(np.full(9, 0.1), np.ones(9))], USAGE, "main")
    assert isinstance(fit_spread(people(1, 1), USAGE, "main"), Spread)


@pytest.mark.parametrize("sd", [0.0, 0.05])
def test_what_cannot_be_calibrated_is_recorded_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sd: float
) -> None:
    """A scan that failed is left out; samples that are all alike say nothing of the error."""
    rng = np.random.default_rng(1)
    image, affine = rng.random((12, 14, 10), dtype=np.float32) + 1, np.eye(4)
    for folder, ending in (("cohort", "T1w"), ("cohort", "desc-brain_mask"), ("main", "T1w"), ("main", "space-HQ_T1w")):
        data = np.ones(image.shape, np.uint8) if ending == "desc-brain_mask" else image
        save_volume(anat(tmp_path / folder, "sub-1", f"{ending}.nii.gz"), data, affine)
    for folder in ("cohort", "main"):
        write_json(anat(tmp_path / folder, "sub-1", "T1w.json"), {"status": "ok"})
        write_json(anat(tmp_path / folder, "sub-2", "T1w.json"), {"status": "lost"})

    def method(data: np.ndarray, *_: object) -> Result:
        return Result(data, sd * rng.random(data.shape, dtype=np.float32), data, {})

    monkeypatch.setattr("iqt.enhance.calibrate.load_method", lambda *_: method)
    paths = (tmp_path / "cohort", tmp_path / "main", tmp_path / "model", tmp_path / "spread_x.json")
    calibrate_spread(["sub-1", "sub-2"], *paths, "T1w", USAGE, 1, "auto")
    found = read_spread(tmp_path / "spread_x.json")
    if sd:
        assert (found.set, found.n_scans) == ("main", 1)
    else:
        assert found is None
        assert "standard deviation is 0 everywhere" in json.loads((tmp_path / "spread_x.json").read_text())["status"]
