"""The simulator's richer model and its artefacts: every part against an independent measure."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
from phantoms import ALL_ARTEFACTS, CSF, GM, WM, affine_of, phantom
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from iqt.config import PRESETS, LowField, Relaxation
from iqt.degrade import apply, artefacts, contrast, draw, slices
from iqt.errors import UserError
from iqt.imaging.resample import on_grid
from iqt.io.volumes import Volume

OFF = {"contrast": "none", "noise": "none"}
STILL = {
    "artefacts": {
        "kspace": [1, 1],
        "bias_field": [0, 0],
        "distortion": [0, 0],
        "rotation": [0, 0],
        "translation": [0, 0],
    }
}


def smooth_phantom(shape=(40, 44, 48), codes="RAS", voxel_size=2.0):
    """The slabs with soft borders, so that interpolation has something fair to do."""
    _, tissues = phantom(shape, codes)
    tissues = {name: gaussian_filter(data, 1.5) for name, data in tissues.items()}
    data = WM * tissues["WM"] + GM * tissues["GM"] + CSF * tissues["CSF"]
    return Volume(data, affine_of(codes, voxel_size)), tissues


def blob(centre, shape=(48, 50, 46), codes="RAS", sigma=4.0, voxel_size=2.0):
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    distance = np.square(grid - np.reshape(centre, (3, 1, 1, 1))).sum(0)
    return Volume(np.exp(-distance / (2 * sigma**2)).astype(np.float32), affine_of(codes, voxel_size))


def place(volume: Volume) -> np.ndarray:
    """Centre of mass in the world, in mm."""
    grids = np.meshgrid(*map(np.arange, volume.data.shape), indexing="ij")
    return nib.affines.apply_affine(volume.affine, [np.average(grid, weights=volume.data) for grid in grids])


def simulate(volume, tissues, **settings):
    section = LowField(**settings)
    return apply(volume, tissues, section, draw(section, 1, "sub-01"))


@pytest.mark.parametrize("codes", ["RAS", "LIA", "PSR"])
def test_with_everything_off_the_simulator_is_the_identity(codes):
    volume, _ = phantom(codes=codes)
    result = simulate(volume, None, slices=False, **OFF)
    assert result.thick.data.tobytes() == result.upsampled.tobytes() == volume.data.tobytes()
    np.testing.assert_array_equal(result.thick.affine, volume.affine)


@pytest.mark.parametrize("preset", PRESETS)
def test_snr_of_the_thick_slices_is_the_drawn_one(preset):
    """In white and grey matter, before upsampling, to 5 %; the artefacts are off, since they are no noise."""
    volume, tissues = phantom(shape=(80, 60, 48))
    settings = LowField(preset=preset, **STILL)
    drawn = draw(settings, 3, "sub-01")
    result = apply(volume, tissues, settings, drawn)
    wanted = {"WM": drawn.snr_wm, "GM": drawn.snr_gm}
    if settings.contrast == "relaxation":
        signals = contrast.relaxation_signals(drawn.relaxation, settings.relaxation, "T1w")
        wanted["GM"] = drawn.snr_wm * signals["GM"] / signals["WM"]
    for name, snr in wanted.items():
        whole = tissues[name][:, :, 0] == 1
        inside = result.thick.data[whole]  # the phantom is the same in every slice, and its columns are slices
        assert inside.size > 1000
        assert inside.mean() / inside.std() == pytest.approx(snr, rel=0.05)


@pytest.mark.parametrize(("unit", "voxel_size"), [("voxel", 2.0), ("mm", 1.5)])
@pytest.mark.parametrize("thickness", [3.0, 6.0])
def test_slice_profile_of_the_whole_simulation(thickness, unit, voxel_size):
    """What one slice sees of an impulse that is moved through it: FWHM as asked, to 5 %."""
    extent = 64
    volume = Volume(np.zeros((8, extent, extent), np.float32), affine_of("RAS", voxel_size))
    for position in range(extent):  # one impulse a row, each a voxel further up
        volume.data[4, position, position] = 1
    thick = simulate(volume, None, thickness=thickness, gap=1, unit=unit, **OFF).thick.data
    profile = thick[4, :, thick.shape[2] // 2]
    fine = np.linspace(0, extent - 1, 100 * extent)
    profile = CubicSpline(np.arange(extent), profile)(fine)
    above = fine[profile >= profile.max() / 2]
    wanted = thickness / (voxel_size if unit == "mm" else 1)
    assert above[-1] - above[0] == pytest.approx(wanted, rel=0.05, abs=0.02)


def test_noise_within_a_slice_of_fewer_voxels_is_the_drawn_one():
    """A scan of 1 mm, which the portable scanner acquires at 1.6 mm: in white matter, to 5 %."""
    _, tissues = phantom(shape=(80, 60, 48))
    tissues = {name: gaussian_filter(data, 1.5) for name, data in tissues.items()}
    data = WM * tissues["WM"] + GM * tissues["GM"] + CSF * tissues["CSF"]
    volume, settings = Volume(data, affine_of("RAS", 1.0)), LowField(preset="64mT", **STILL)
    drawn = draw(settings, 3, "sub-01")
    noisy, clean = (
        apply(volume, tissues, each, drawn).thick for each in (settings, settings.model_copy(update={"noise": "none"}))
    )
    assert sorted(noisy.voxel_size.round(1)) == [1.6, 1.6, 5.0]
    white = on_grid(Volume(tissues["WM"], volume.affine), noisy.data.shape, noisy.affine, order=1).data > 0.99
    assert white.sum() > 1000
    noise = (noisy.data - clean.data)[white].std()
    assert clean.data[white].mean() / noise == pytest.approx(drawn.snr_wm, rel=0.05)


@pytest.mark.parametrize("voxel_size", [2.0, 1.0])
@pytest.mark.parametrize("preset", PRESETS)
def test_blur_and_resampling_keep_the_mean(preset, voxel_size):
    volume = blob((20, 20, 48), shape=(40, 40, 96), sigma=5.0, voxel_size=voxel_size)
    result = simulate(volume, None, preset=preset, **{**OFF, **STILL})
    size = np.prod(nib.affines.voxel_sizes(volume.affine))
    total = volume.data.sum(dtype=float) * size
    assert result.thick.data.sum(dtype=float) * np.prod(result.thick.voxel_size) == pytest.approx(total, rel=0.005)
    assert result.upsampled.sum(dtype=float) * size == pytest.approx(total, rel=0.005)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("axis", ["R", "A", "S"])
def test_no_nan_anywhere_with_signal_up_to_the_border(preset, axis):
    rng = np.random.default_rng(0)
    shape = (33, 40, 37)
    data = 500 + 100 * rng.random(shape, dtype=np.float32)
    gm = np.zeros(shape, np.float32)
    gm[:, :, :15] = 1
    tissues = {"WM": 1 - gm, "GM": gm, "CSF": np.zeros_like(gm)}
    for voxel_size in (2.0, 1.0):
        result = simulate(Volume(data, affine_of("LPS", voxel_size)), tissues, preset=preset, axis=axis)
        assert np.isfinite(result.thick.data).all()
        assert np.isfinite(result.upsampled).all()
        assert result.upsampled.shape == shape


@pytest.mark.parametrize("codes", ["RAS", "LIA", "PSR"])
@pytest.mark.parametrize("axis", ["R", "A", "S"])
def test_an_anisotropic_acquisition_keeps_a_landmark_in_its_place(codes, axis):
    """Voxels of 3.2 x 3.2 x 5 mm of a scan of 2 mm: to 0.1 voxel of the scan, in the slices and back on the grid."""
    volume = blob((23.3, 25.6, 21.9), codes=codes)
    settings = {"unit": "mm", "thickness": 5, "gap": 0, "in_plane": 3.2, "axis": axis, **OFF}
    result = simulate(volume, None, **settings)
    assert sorted(result.thick.voxel_size.round(1)) == [3.2, 3.2, 5.0]
    assert np.abs(place(result.thick) - place(volume)).max() < 0.2
    assert np.abs(place(Volume(result.upsampled, volume.affine)) - place(volume)).max() < 0.2


@pytest.mark.parametrize("voxel_size", [2.0, 1.0])
@pytest.mark.parametrize("codes", ["LIA", "PSR", "ASL"])
def test_a_scan_stored_in_another_orientation_is_simulated_alike(codes, voxel_size):
    """All parts at once, without noise, which is drawn in the order of the array."""
    volume, tissues = smooth_phantom(voxel_size=voxel_size)
    settings = LowField(preset="64mT", noise="none", **ALL_ARTEFACTS)
    drawn = draw(settings, 1, "sub-01")
    straight = apply(volume, tissues, settings, drawn)

    def turned(data, affine):
        turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes))
        moved = affine @ nib.orientations.inv_ornt_aff(turn, data.shape)
        return Volume(np.ascontiguousarray(nib.orientations.apply_orientation(data, turn)), moved)

    other = turned(volume.data, volume.affine)
    assert "".join(nib.aff2axcodes(other.affine)) == codes
    maps = {name: turned(data, volume.affine).data for name, data in tissues.items()}
    found = apply(other, maps, settings, drawn)
    expected = turned(straight.upsampled, volume.affine).data
    # Fewer voxels within a slice are a cut of the spectrum, which takes one border for the neighbour of the other.
    inner = (slice(None),) * 3 if voxel_size == 2.0 else (slice(8, -8),) * 3
    np.testing.assert_allclose(found.upsampled[inner], expected[inner], atol=0.02 * expected.max())


@pytest.mark.parametrize(
    ("shape", "size", "words"),
    [((64, 64, 4), 2.0, "only 4 along one axis"), ((64, 64, 20), (1.0, 1.0, 5.0), "consists of thick slices")],
)
def test_thin_input_is_refused(shape, size, words):
    volume = Volume(np.ones(shape, np.float32), np.diag([*np.broadcast_to(size, 3), 1.0]))
    with pytest.raises(UserError, match=words):
        simulate(volume, None, **OFF)


def test_slices_finer_than_the_scans_are_refused():
    volume = Volume(np.ones((40, 40, 40), np.float32), affine_of("RAS", 3.0))
    with pytest.raises(UserError, match="finer than the scan's own"):
        simulate(volume, None, unit="mm", thickness=2, gap=0, **OFF)


def test_in_plane_voxels_are_never_finer_than_the_scans():
    volume, tissues = phantom()
    assert simulate(volume, tissues, preset="64mT").thick.data.shape[:2] == volume.data.shape[:2]


def test_bias_field_multiplies_by_the_drawn_field():
    volume = Volume(np.full((20, 24, 28), 100, np.float32), affine_of("LPS"))
    coefficients = np.zeros(len(artefacts.BIAS))
    coefficients[artefacts.BIAS.index((0, 0, 1))] = 0.2  # linear from bottom to top
    found = artefacts.apply_bias(volume.data, volume.affine, coefficients)
    np.testing.assert_allclose(found[3, 4], 100 * np.exp(0.2 * np.linspace(-1, 1, 28)), rtol=1e-5)
    coefficients[:] = 0
    coefficients[artefacts.BIAS.index((1, 0, 0))] = 0.2  # brighter on the right, which is where this array begins
    found = artefacts.apply_bias(volume.data, volume.affine, coefficients)
    assert found[0, 0, 0] > found[-1, 0, 0]


@pytest.mark.parametrize("codes", ["RAS", "LPS"])
def test_distortion_moves_along_the_read_axis_and_keeps_the_signal(codes):
    centre = (24, 25, 23)
    volume = blob(centre, codes=codes, sigma=2.0)
    coefficients = np.zeros(len(artefacts.DISTORTION))
    coefficients[artefacts.DISTORTION.index((0, 0, 2))] = -6  # -6 (3 z^2 - 1) / 2: +3 mm in the middle
    found = artefacts.apply_distortion(volume.data, volume.affine, coefficients, read_axis=1)
    moved = place(Volume(np.maximum(found, 0), volume.affine)) - place(volume)
    assert moved == pytest.approx([0, 3, 0], abs=0.15)  # towards anterior, whichever way the array runs
    assert found.sum() == pytest.approx(volume.data.sum(), rel=0.01)


def test_what_distortion_pushes_together_gets_brighter():
    volume = Volume(np.ones((9, 64, 9), np.float32), affine_of("RAS", 1.0))
    coefficients = np.zeros(len(artefacts.DISTORTION))
    coefficients[artefacts.DISTORTION.index((0, 2, 0))] = 4  # 4 (3 y^2 - 1) / 2 mm: slope 12 y per half field of view
    found = artefacts.apply_distortion(volume.data, volume.affine, coefficients, read_axis=1)[4, :, 4]
    y = np.linspace(-1, 1, 64)
    np.testing.assert_allclose(found[2:-2], (1 - 12 * y / 31.5)[2:-2], atol=0.02)


def test_a_movement_before_everything_is_read_moves_the_head():
    volume = blob((24, 25, 23), sigma=3.0)
    pose = [{"start": 0.0, "end": 1.0, "rotation": [0, 0, 0], "translation": [3.0, -2.0, 1.0]}]
    found = Volume(artefacts.apply_motion(volume.data, volume.affine, pose, phase_axis=0), volume.affine)
    assert place(found) - place(volume) == pytest.approx([3, -2, 1], abs=0.05)
    off = blob((34, 25, 23), sigma=3.0)
    pose = [{"start": 0.0, "end": 1.0, "rotation": [0, 0, 10.0], "translation": [0, 0, 0]}]
    turned = Volume(artefacts.apply_motion(off.data, off.affine, pose, phase_axis=0), off.affine)
    centre = nib.affines.apply_affine(off.affine, (np.array(off.data.shape) - 1) / 2)
    arm = place(off) - centre
    angle = np.radians(10)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    assert place(turned) - centre == pytest.approx(rotation @ arm, abs=0.05)


def test_a_small_movement_leaves_the_outermost_slices_what_they_were():
    """A head is cut by the field of view more often than it ends within."""
    data = np.full((12, 14, 9), 100, np.float32)
    for pose in (
        {"rotation": [0, 0, 0], "translation": [0.2, 0, 0.2]},
        {"rotation": [0.5, 0, 0.5], "translation": [0] * 3},
    ):
        moved = artefacts.move(data, np.diag([1, 1, 5, 1.0]), **pose)
        np.testing.assert_allclose(moved, 100, atol=0.1)


def test_motion_during_the_acquisition_ghosts_along_the_phase_axis_alone():
    volume = blob((24, 25, 23), sigma=1.5)
    still = {"rotation": [0, 0, 0], "translation": [0, 0, 0]}
    poses = [
        {"start": 0.0, "end": 0.6, **still},
        {"start": 0.6, "end": 1.0, "rotation": [0, 0, 0], "translation": [1.0, 0, 0]},
    ]
    resting = artefacts.apply_motion(volume.data, volume.affine, [{"start": 0.0, "end": 1.0, **still}], phase_axis=0)
    np.testing.assert_allclose(resting, volume.data, atol=1e-5)
    found = artefacts.apply_motion(volume.data, volume.affine, poses, phase_axis=0)
    error = np.abs(found - volume.data)
    assert error.max() > 0.01
    assert error[:, 0].max() < 1e-3, "nothing where the blob has no row"
    assert np.unravel_index(found.argmax(), found.shape) == (24, 25, 23), "the head stays where the centre was read"


def test_kspace_truncation_keeps_low_and_removes_high_frequencies():
    x = np.arange(64) / 64
    wave = {cycles: np.cos(2 * np.pi * cycles * x).astype(np.float32) for cycles in (0, 10, 30)}
    data = np.tile((1 + wave[10] + wave[30])[:, None, None], (1, 3, 3))
    found = slices.truncate_kspace(data, 0.5, axis=0)
    np.testing.assert_allclose(found[:, 1, 1], 1 + wave[10], atol=1e-5)
    np.testing.assert_allclose(slices.truncate_kspace(data, 1.0, axis=0), data, atol=1e-5)


def test_fewer_in_plane_voxels_sample_what_they_can_resolve_exactly():
    x = np.arange(60) / 60
    data = np.tile((2 + np.cos(2 * np.pi * 7 * x + 0.4)).astype(np.float32)[:, None, None], (1, 3, 3))
    found = slices.acquire_matrix(data, {0: 36})[:, 1, 1]
    np.testing.assert_allclose(found, 2 + np.cos(2 * np.pi * 7 * np.arange(36) / 36 + 0.4), atol=1e-5)


def test_inversion_recovery_nulls_at_its_known_time():
    """With TR >> T1 the signal is null at TI = T1 ln 2, and full at TI -> infinity."""
    t1 = 300.0
    assert contrast.signal(t1, 1e9, 1.0, (1e6, 0.0, t1 * np.log(2))) == pytest.approx(0, abs=1e-9)
    assert contrast.signal(t1, 1e9, 0.8, (1e6, 0.0, 1e5)) == pytest.approx(0.8)
    assert contrast.signal(t1, 100.0, 1.0, (t1, 100.0, 0.0)) == pytest.approx((1 - np.exp(-1)) * np.exp(-1))


@pytest.mark.parametrize("fixed", ["WM", "GM"])
@pytest.mark.parametrize("suffix", ["T1w", "T2w", "FLAIR"])
def test_relaxation_gives_every_tissue_its_low_field_intensity(suffix, fixed):
    volume, tissues = phantom()
    settings = LowField(contrast="relaxation", noise="none", fixed_tissue=fixed)
    drawn = draw(settings, 1, "sub-01", suffix)
    thick = apply(volume, tissues, settings, drawn, suffix).thick.data
    found = {name: thick[tissues[name][:, :, :12] == 1].mean() for name in contrast.TISSUES}
    signals = contrast.relaxation_signals(drawn.relaxation, settings.relaxation, suffix)
    assert found[fixed] == pytest.approx({"WM": WM, "GM": GM}[fixed], rel=1e-3)
    for name in contrast.TISSUES:
        assert found[name] / found[fixed] == pytest.approx(signals[name] / signals[fixed], rel=1e-3)
    assert (signals["CSF"] > signals["WM"]) == (suffix == "T2w"), "CSF is bright in T2w alone"


def test_less_snr_is_more_noise_and_nothing_else():
    volume, tissues = phantom()
    main, low = LowField(), LowField(shift={"snr": 0.25})
    drawn = draw(main, 1, "sub-01")
    clean = apply(volume, tissues, LowField(noise="none"), drawn).thick.data
    noise = [apply(volume, tissues, settings, drawn).thick.data - clean for settings in (main, low)]
    np.testing.assert_allclose(noise[1], 4 * noise[0], atol=0.05)


@pytest.mark.parametrize(("kind", "fixed"), list(itertools.product(["snr", "relaxation"], ["WM", "GM"])))
def test_contrast_is_moved_to_equality_and_past_it(kind, fixed):
    volume, tissues = phantom()
    ratios = []
    for shift in (0, 1, 2):
        settings = LowField(contrast=kind, noise="none", fixed_tissue=fixed, shift={"contrast": shift})
        thick = apply(volume, tissues, settings, draw(settings, 1, "sub-01")).thick.data
        moved = "GM" if fixed == "WM" else "WM"
        ratios.append(thick[tissues[moved][:, :, :12] == 1].mean() / thick[tissues[fixed][:, :, :12] == 1].mean())
    assert ratios[1] == pytest.approx(1, rel=1e-4)
    assert ratios[2] - 1 == pytest.approx(1 - ratios[0], rel=1e-3)
    assert abs(ratios[0] - 1) > 0.01


def test_relaxation_never_inverts_the_contrast_of_t1w():
    settings = Relaxation()
    ratios = []
    for seed in range(2000):
        drawn = contrast.draw_relaxation(settings, np.random.default_rng(seed))
        signals = contrast.relaxation_signals(drawn, settings, "T1w")
        ratios.append(signals["GM"] / signals["WM"])
    assert max(ratios) < 1
    assert np.std(ratios) > 0.01, "people still differ"
    drawn = [contrast.draw_relaxation(settings, np.random.default_rng(seed)) for seed in range(2000)]
    deviation = np.array([one["t1"] for one in drawn]) / settings.t1 - 1
    np.testing.assert_allclose(deviation.std(0), settings.spread, rtol=0.1)
    assert abs(np.corrcoef(deviation[:, 0], deviation[:, 2])[0, 1]) < 0.1, "CSF has nothing to do with it"


def test_csf_keeps_its_intensity_only_where_no_slice_shows_it_pure():
    volume, tissues = smooth_phantom()
    settings = LowField(preset="64mT", noise="none", in_plane=0, **STILL)
    measured = apply(volume, tissues, settings, draw(settings, 1, "sub-01")).measured
    assert measured["intensity_ratio_csf"] not in (None, 1.0)
    thin = {**tissues, "CSF": 0.3 * tissues["CSF"]}
    assert apply(volume, thin, settings, draw(settings, 1, "sub-01")).measured["intensity_ratio_csf"] is None
    negative = Volume(volume.data - 2 * CSF * tissues["CSF"], volume.affine)
    with pytest.raises(UserError, match=r"CSF: its mean intensity .* not positive"):
        apply(negative, tissues, settings, draw(settings, 1, "sub-01"))


@pytest.mark.parametrize("axis", ["R", "A", "S"])
def test_a_landmark_stays_in_its_place_in_an_oblique_scan(axis):
    """Rotated by 8 to 25 degrees against the world, as scans usually are."""
    volume = blob((20, 23, 22))
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", (25, -8, 15), degrees=True).as_matrix()
    volume = Volume(volume.data, turn @ volume.affine)
    result = simulate(volume, None, thickness=3.0, gap=1, axis=axis, **OFF)
    tolerance = 0.1 * volume.voxel_size[0]
    assert np.abs(place(result.thick) - place(volume)).max() < tolerance
    assert np.abs(place(Volume(result.upsampled, volume.affine)) - place(volume)).max() < tolerance
    # Its axes point as before, one of them in longer steps.
    np.testing.assert_allclose(
        result.thick.affine[:3, :3] / result.thick.voxel_size, volume.affine[:3, :3] / volume.voxel_size, atol=1e-6
    )
