"""Settings of the simulator: what is drawn, presets, sets based on others, ranges, and records."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from phantoms import ALL_ARTEFACTS, phantom
from pydantic import ValidationError

from iqt.config import PRESETS, Artefacts, Config, LowField, Relaxation, parse_config
from iqt.degrade import Draw, artefacts, draw, simulator
from iqt.errors import UserError


@pytest.mark.parametrize("suffix", ["T1w", "FLAIR"])
def test_presets_have_the_published_snr_distribution(suffix):
    published = {"T1w": (64.50, 54.14), "FLAIR": (35.03, 42.33)}[suffix]
    for preset in ("iqt-4x", "iqt-8x"):
        settings = LowField(preset=preset)
        drawn = [draw(settings, 1, f"sub-{number}", suffix) for number in range(1000)]
        snr = np.array([(one.snr_wm, one.snr_gm) for one in drawn])
        np.testing.assert_allclose(snr.mean(0), published, rtol=0.02)
    assert LowField(preset="64mT").for_contrast(suffix).snr_mean[0] < published[0] / 2


def test_t2w_needs_an_snr_distribution_and_the_error_says_so():
    with pytest.raises(UserError, match=r"snr_mean.*T2w.*not published.*give"):
        draw(LowField(preset="iqt-8x"), 1, "sub-01", "T2w")
    given = LowField(preset="iqt-8x", snr_mean=(20, 25), snr_covariance=((1, 0), (0, 1)))
    assert draw(given, 1, "sub-01", "T2w").snr_wm == pytest.approx(20, abs=5)
    with pytest.raises(ValueError, match=r"lowfield\.low\.snr_mean.*T2w"):
        Config.model_construct(suffix="T2w", lowfield={"main": given, "low": LowField()})._snr()


def test_a_part_that_is_off_draws_nothing_and_leaves_the_others_draws_alone():
    rng = np.random.default_rng
    everything = artefacts.draw_artefacts(Artefacts(**ALL_ARTEFACTS["artefacts"]), rng(5))
    assert set(everything) == {"kspace", "bias_field", "distortion", "motion"}
    assert artefacts.draw_artefacts(Artefacts(), rng(5)) == {}
    parts = {"kspace": {"kspace": (1, 1)}, "bias_field": {"bias_field": (0, 0)}, "distortion": {"distortion": (0, 0)}}
    for part, change in parts.items():
        fewer = artefacts.draw_artefacts(Artefacts(**{**ALL_ARTEFACTS["artefacts"], **change}), rng(5))
        assert fewer == {name: value for name, value in everything.items() if name != part}


def test_draws_lie_in_their_ranges():
    settings = Artefacts(**ALL_ARTEFACTS["artefacts"])
    for seed in range(30):
        drawn = artefacts.draw_artefacts(settings, np.random.default_rng(seed))
        assert 0.7 <= drawn["kspace"] <= 0.9
        field = artefacts.field((40, 40, 40), np.eye(4), artefacts.BIAS, drawn["bias_field"])
        assert 0.09 < field.std() < 0.34  # the ends of the sampled field weigh a little more than a continuous one's
        shift = artefacts.field((41, 41, 41), np.eye(4), artefacts.DISTORTION, drawn["distortion"])
        assert 1.99 <= np.abs(shift).max() <= 4.01
        still = [pose for pose in drawn["motion"] if pose["start"] <= 0.5 < pose["end"]]
        assert [pose["rotation"] for pose in still] == [[0.0, 0.0, 0.0]]
        for pose in (pose for pose in drawn["motion"] if pose not in still):
            assert all(1 <= abs(angle) <= 3 for angle in pose["rotation"])
            assert all(1 <= abs(shift) <= 2 for shift in pose["translation"])


def test_relaxation_times_vary_from_person_to_person_by_the_spread():
    settings = LowField(contrast="relaxation", relaxation=Relaxation(spread=0.1))
    t1 = np.array([draw(settings, 1, f"sub-{number}").relaxation["t1"] for number in range(800)])
    np.testing.assert_allclose(t1.mean(0), settings.relaxation.t1, rtol=0.02)
    np.testing.assert_allclose(t1.std(0) / t1.mean(0), 0.1, rtol=0.1)


def test_a_shifted_set_shares_the_draw_of_main():
    main, low = (LowField(preset="64mT", shift={"snr": factor}) for factor in (1, 0.5))
    assert draw(main, 1, "sub-01") == draw(low, 1, "sub-01")
    assert draw(main, 1, "sub-01", number=2) != draw(main, 1, "sub-01")


def test_a_preset_sets_what_is_not_given():
    assert LowField(preset="iqt-8x").thickness == 6
    changed = LowField(preset="64mT", thickness=4, artefacts={"rotation": [0, 0]})
    assert (changed.thickness, changed.in_plane, changed.noise) == (4, 1.6, "rician")
    assert changed.artefacts.rotation == (0, 0)
    assert changed.artefacts.distortion == tuple(PRESETS["64mT"]["artefacts"]["distortion"])
    assert LowField.model_validate(changed.model_dump(mode="json")) == changed


def test_a_set_is_based_on_another():
    raw = {
        "main": {"preset": "iqt-8x", "draws": 3},
        "noisy": {"base": "main", "shift": {"snr": 0.5}},
        "noisier": {"base": "noisy", "noise": "rician"},
    }
    sets = parse_config({"lowfield": raw}).lowfield
    assert sets["noisier"].thickness == 6
    assert (sets["noisier"].shift.snr, sets["noisier"].noise) == (0.5, "rician")
    for wrong, words in (
        ({"base": "mian"}, "did you mean main"),
        ({"base": "main", "preset": "64mT"}, "both base and preset"),
        ({"base": "wrong"}, "circle"),
    ):
        with pytest.raises(UserError, match=words):
            parse_config({"lowfield": {"main": {}, "wrong": wrong}}, "my.yaml")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"preset": "iqt-2x"}, "preset"),
        ({"artefacts": {"rotation": [2, 1]}}, "lowest, highest"),
        ({"axis": "A", "read_axis": "A"}, "read_axis A"),
        ({"contrast": "flair"}, "contrast"),
        ({"shift": {"snr": 0}}, "snr"),
    ],
)
def test_wrong_settings_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        parse_config({"lowfield": {"main": settings}})


def test_parts_given_as_objects_change_the_preset_and_do_not_replace_it():
    asked = LowField(preset="64mT", artefacts=Artefacts(rotation=(0, 0)))
    assert asked == LowField(preset="64mT", artefacts={"rotation": (0, 0)})
    assert asked.artefacts.bias_field == LowField(preset="64mT").artefacts.bias_field != (0, 0)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"noise_seed": None}, "draw.noise_seed"),
        ({"snr_wm": "bright"}, "draw.snr_wm"),
        ({"snr_gm": -3.0}, "draw.snr_gm"),
        ({"relaxation": {"t1": [275.0, 327.0], "t2": [1.0, 1.0, 1.0]}}, "draw.relaxation.t1"),
        ({"artefacts": {"bias_field": [0.1]}}, "draw.artefacts.bias_field"),
        ({"artefacts": {"ghosts": 3}}, "draw.artefacts.ghosts"),
        ({"artefacts": {"motion": [{"start": 0.0, "end": 2.0}]}}, "draw.artefacts.motion.0"),
    ],
)
def test_a_record_that_is_none_is_refused_where_it_is_wrong(change, where):
    record = draw(LowField(preset="64mT"), 1, "sub-01").to_dict()
    assert Draw.from_dict(record).to_dict() == record
    with pytest.raises(UserError, match=re.escape(where)):
        Draw.from_dict({**record, **change})


RANGES = {
    "unit": "mm", "thickness": [2, 6], "gap": [0, 1], "in_plane": [0, 3], "axis": ["R", "A", "S"],
    "contrast": ["snr", "relaxation", "none"], "noise": ["gaussian", "rician"],
    "shift": {"snr": [0.5, 2], "contrast": [0, 1]},
}  # fmt: skip


def test_an_acquisition_is_drawn_within_its_ranges_and_replayed_from_its_record():
    volume, tissues = phantom()
    settings = LowField.model_validate(RANGES)
    drawn = [simulator.draw(settings, 1, "sub-01", "T1w", number) for number in range(1, 200)]
    values = {key: [each.acquisition[key] for each in drawn] for key in settings.drawn_keys()}
    for key, (low, high) in settings.drawn_evenly().items():
        assert low <= min(values[key]) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < max(values[key]) <= high
    assert np.median(values["shift.snr"]) == pytest.approx(1.0, rel=0.2)
    for key in ("axis", "contrast", "noise"):
        counts = [values[key].count(choice) for choice in settings.choices(key)]
        assert min(counts) > 0.6 * len(drawn) / len(counts)
    for each in drawn[:6]:
        again = Draw.from_dict(json.loads(json.dumps(each.to_dict())))
        assert again == each
        first, second = (simulator.apply(volume, tissues, settings, one) for one in (each, again))
        np.testing.assert_array_equal(first.thick.data, second.thick.data)
        alone = simulator.acquisition_of(settings, each)
        assert alone.drawn_keys() == ()
        np.testing.assert_array_equal(first.thick.data, simulator.apply(volume, tissues, alone, each).thick.data)
        assert first.measured["slice_thickness_mm"] == pytest.approx(each.acquisition["thickness"])


def test_a_range_changes_nothing_else_that_is_drawn():
    plain, ranged = LowField(preset="64mT"), LowField(preset="64mT", thickness=[2, 8])
    one, other = (simulator.draw(settings, 1, "sub-01") for settings in (plain, ranged))
    assert one.acquisition == {}
    assert list(other.acquisition) == ["thickness"]
    assert {**one.to_dict(), "acquisition": other.acquisition} == other.to_dict()
    further = simulator.draw(LowField(preset="64mT", thickness=[2, 8], gap=[0, 1]), 1, "sub-01")
    assert further.acquisition["thickness"] == other.acquisition["thickness"]


def test_slices_drawn_finer_than_the_scans_are_as_thick_as_these():
    volume, tissues = phantom()  # voxels of 2 mm
    settings = LowField(unit="mm", thickness=[1, 1.5], gap=0, contrast="none", noise="none")
    result = simulator.apply(volume, tissues, settings, simulator.draw(settings, 1, "sub-01"))
    assert result.measured["slice_thickness_mm"] == pytest.approx(2.0)
    assert result.thick.data.shape == volume.data.shape


def test_a_range_that_the_record_lacks_is_refused():
    volume, tissues = phantom()
    drawn = simulator.draw(LowField(), 1, "sub-01")
    with pytest.raises(UserError, match=r"draw: acquisition\.thickness is missing"):
        simulator.apply(volume, tissues, LowField(thickness=[2, 4]), drawn)


@pytest.mark.parametrize("changes", [{"thickness": [4, 2]}, {"shift": {"snr": [2, 1]}}, {"axis": []}, {"axis": ["X"]}])
def test_ranges_that_are_none_are_refused(changes):
    with pytest.raises(ValidationError):
        LowField.model_validate(changes)
