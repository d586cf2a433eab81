"""The low-field simulator: what it must do to known volumes, measured independently of how it does it."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from phantoms import CSF, GM, WM, affine_of, phantom

from iqt.config import LowField
from iqt.degrade import contrast, simulator, slices
from iqt.degrade.record import Draw
from iqt.degrade.run import degrade_scans
from iqt.degrade.single import Extras, degrade_file, replay_file
from iqt.degrade.tissues import TissueFiles
from iqt.errors import UserError
from iqt.io import naming
from iqt.io.files import read_json, write_json
from iqt.io.volumes import Volume, read_volume, save_volume

NOISELESS = Draw(1e9, 0.75e9, 0)


def pure(volume: Volume) -> dict[str, np.ndarray]:
    """White matter everywhere but for a corner of grey."""
    gm = np.zeros(volume.data.shape, np.float32)
    gm[:2] = 1
    return {"WM": 1 - gm, "GM": gm, "CSF": np.zeros_like(gm)}


def test_same_seed_same_volume_and_another_scan_another_draw():
    volume, tissues = phantom()
    settings = LowField()
    first, second = (simulator.draw(settings, 1, "sub-01") for _ in range(2))
    assert first == second
    one, two = (simulator.apply(volume, tissues, settings, drawn) for drawn in (first, second))
    assert one.thick.data.tobytes() == two.thick.data.tobytes()
    other = simulator.draw(settings, 1, "sub-02")
    assert (other.snr_wm, other.noise_seed) != (first.snr_wm, first.noise_seed)
    assert simulator.draw(settings, 2, "sub-01") != first
    assert not np.array_equal(simulator.apply(volume, tissues, settings, other).thick.data, one.thick.data)


def test_draws_follow_the_configured_distribution():
    settings = LowField().for_contrast("T1w")
    drawn = [simulator.draw(settings, 7, f"sub-{number}") for number in range(3000)]
    snr = np.array([(one.snr_wm, one.snr_gm) for one in drawn])
    np.testing.assert_allclose(snr.mean(0), settings.snr_mean, atol=0.8)
    np.testing.assert_allclose(np.cov(snr.T), settings.snr_covariance, rtol=0.1)


def test_draws_are_positive_even_where_the_distribution_is_not():
    settings = LowField(snr_mean=(1, 1), snr_covariance=((9, 0), (0, 9)))
    drawn = [simulator.draw(settings, 0, f"sub-{number}") for number in range(200)]
    assert min(min(one.snr_wm, one.snr_gm) for one in drawn) > 0


def test_zero_covariance_draws_the_mean():
    drawn = simulator.draw(LowField(snr_covariance=((0, 0), (0, 0))), 0, "sub-01")
    assert (drawn.snr_wm, drawn.snr_gm) == pytest.approx((64.50, 54.14))


@pytest.mark.parametrize("fixed", ["WM", "GM"])
def test_snr_of_the_thick_slices_is_the_drawn_one(fixed):
    volume, tissues = phantom(shape=(80, 60, 48))
    drawn = Draw(30.0, 18.0, 3)
    thick = simulator.apply(volume, tissues, LowField(fixed_tissue=fixed), drawn).thick.data
    for name, snr in (("WM", drawn.snr_wm), ("GM", drawn.snr_gm)):
        inside = thick[tissues[name][:, :, : thick.shape[2]] == 1]  # the phantom is the same in every slice
        assert inside.mean() / inside.std() == pytest.approx(snr, rel=0.05)


@pytest.mark.parametrize(("fixed", "value"), [("WM", WM), ("GM", GM)])
def test_fixed_tissue_stays_and_the_ratio_is_the_drawn_one(fixed, value):
    volume, tissues = phantom()
    drawn = Draw(1e6, 0.9e6, 0)
    result = simulator.apply(volume, tissues, LowField(fixed_tissue=fixed), drawn)
    found = {name: result.thick.data[tissues[name][:, :, :12] == 1].mean() for name in contrast.TISSUES}
    assert found[fixed] == pytest.approx(value, rel=1e-4)
    assert found["GM"] / found["WM"] == pytest.approx(0.9, rel=1e-4)
    assert found["CSF"] == pytest.approx(CSF, rel=1e-4)
    assert result.measured["sigma"] == pytest.approx(value / (drawn.snr_wm if fixed == "WM" else drawn.snr_gm))


@pytest.mark.parametrize("thickness", [3.0, 6.0])
def test_slice_profile_has_the_thickness_as_its_fwhm(thickness):
    impulse = np.zeros((5, 5, 81), np.float32)
    impulse[2, 2, 40] = 1
    blurred = slices.select_slices(impulse, thickness, axis=2)
    profile = blurred[2, 2]
    fine = np.linspace(0, 80, 80001)
    above = fine[np.interp(fine, np.arange(81), profile) >= profile.max() / 2]
    assert above[-1] - above[0] == pytest.approx(thickness, rel=0.05)
    assert blurred.sum() == pytest.approx(1, abs=1e-5)
    assert np.count_nonzero(blurred.sum(axis=2)) == 1


@pytest.mark.parametrize("axis", ["R", "A", "S"])
@pytest.mark.parametrize("codes", ["RAS", "LIA", "PSR", "LPS"])
@pytest.mark.parametrize("acquisition", [(3, 1), (2.5, 0.7)])
def test_a_landmark_stays_in_its_place_in_the_world(codes, axis, acquisition):
    """The centre of mass of a blob in world coordinates, in the thick slices and back on the grid, to 0.1 voxel."""
    shape = (37, 42, 45)
    centre = np.array([17.3, 22.6, 20.9])
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    blob = np.exp(-np.square(grid - centre[:, None, None, None]).sum(0) / (2 * 3.5**2)).astype(np.float32)
    volume = Volume(100 * blob, affine_of(codes))
    gm = np.zeros(shape, np.float32)
    gm[:, :, :] = blob > 0.5
    tissues = {"WM": 1 - gm, "GM": gm, "CSF": np.zeros(shape, np.float32)}
    neutral = Draw(1e9, 1e9, 0)
    settings = LowField(thickness=acquisition[0], gap=acquisition[1], axis=axis)
    clean = simulator.apply(volume, tissues, settings, neutral)
    ratio = clean.measured["mean_gm"] / clean.measured["mean_wm"]
    result = simulator.apply(volume, tissues, settings, Draw(1e9, 1e9 * ratio, 0))  # contrast left as it is

    def place(data, affine):
        index = [np.average(axis, weights=data) for axis in np.meshgrid(*map(np.arange, data.shape), indexing="ij")]
        return nib.affines.apply_affine(affine, index)

    wanted = nib.affines.apply_affine(volume.affine, centre)
    tolerance = 0.1 * volume.voxel_size[0]
    assert np.abs(place(result.thick.data, result.thick.affine) - wanted).max() < tolerance
    assert np.abs(place(result.upsampled, volume.affine) - wanted).max() < tolerance
    sliced = np.flatnonzero(result.thick.voxel_size > 2.01)
    assert nib.aff2axcodes(volume.affine)[sliced[0]] in {"R": "RL", "A": "AP", "S": "SI"}[axis]
    assert nib.aff2axcodes(result.thick.affine) == nib.aff2axcodes(volume.affine)


def test_a_volume_and_its_mirror_image_give_mirrored_slices():
    volume, _ = phantom(shape=(20, 20, 45))
    rng = np.random.default_rng(0)
    data = rng.random(volume.data.shape, dtype=np.float32) + 1
    straight = simulator.apply(Volume(data, affine_of("RAS")), pure(volume), LowField(), NOISELESS)
    turned = Volume(data[:, :, ::-1], affine_of("RAI"))
    mirrored = simulator.apply(turned, pure(volume), LowField(), NOISELESS)
    np.testing.assert_allclose(mirrored.upsampled[:, :, ::-1], straight.upsampled, rtol=1e-4)


@pytest.mark.parametrize(("extent", "spacing"), [(48, 4), (45, 4), (37, 3.2), (50, 8), (9, 1)])
def test_slices_cover_the_volume_and_are_no_more_than_needed(extent, spacing):
    centres = slices.slice_centres(extent, spacing)
    assert np.allclose(np.diff(centres), spacing)
    assert centres[0] - spacing / 2 <= -0.5 + 1e-9
    assert centres[-1] + spacing / 2 >= extent - 0.5 - 1e-9
    assert (len(centres) - 1) * spacing < extent


def test_one_voxel_slices_only_blur_by_one_voxel():
    rng = np.random.default_rng(0)
    data = rng.random((8, 9, 30), dtype=np.float32) + 1
    volume = Volume(data, affine_of("RAS"))
    settings = LowField(thickness=1, gap=0)
    tissues = pure(volume)
    neutral = simulator.apply(volume, tissues, settings, NOISELESS).measured
    snr_gm = 1e9 * neutral["mean_gm"] / neutral["mean_wm"]
    result = simulator.apply(volume, tissues, settings, Draw(1e9, snr_gm, 0))
    np.testing.assert_allclose(result.thick.affine, volume.affine)
    np.testing.assert_allclose(result.upsampled, result.thick.data, rtol=1e-5)
    # the same blur by hand: a Gaussian of FWHM 1 sampled at whole voxels
    kernel = np.exp(-4 * np.log(2) * np.arange(-3, 4) ** 2.0)
    expected = np.apply_along_axis(np.convolve, 2, data, kernel / kernel.sum(), mode="same")
    np.testing.assert_allclose(result.upsampled[..., 4:-4], expected[..., 4:-4], rtol=2e-3)


@pytest.mark.parametrize("signal", [0.0, 5.0])
def test_rician_noise_has_the_moments_of_the_rice_distribution(signal):
    from scipy.stats import rice

    sigma = 2.0
    noisy = contrast.add_noise(np.full((60, 60, 60), signal, np.float32), sigma, "rician", 5)
    mean, variance = rice.stats(signal / sigma, scale=sigma)
    assert noisy.min() >= 0
    assert noisy.mean() == pytest.approx(mean, rel=0.01)
    assert noisy.var() == pytest.approx(variance, rel=0.02)


def test_gaussian_noise_reaches_the_background_and_keeps_negative_values():
    volume, tissues = phantom()
    result = simulator.apply(volume, tissues, LowField(), Draw(20.0, 15.0, 1))
    background = result.thick.data[-8:]
    assert background.std() == pytest.approx(result.measured["sigma"], rel=0.05)
    assert background.min() < 0


def test_impure_tissue_is_measured_where_it_is_purest():
    volume, tissues = phantom()
    tissues = {"WM": tissues["WM"], "GM": 0.8 * tissues["GM"], "CSF": tissues["CSF"] + 0.2 * tissues["GM"]}
    measured = simulator.apply(volume, tissues, LowField(), NOISELESS).measured
    assert measured["threshold_gm"] == pytest.approx(0.72, rel=1e-3)
    assert measured["mean_gm"] == pytest.approx(GM, rel=1e-3)
    assert measured["threshold_wm"] == contrast.PURE
    tissues["GM"] *= 0.5
    with pytest.raises(UserError, match=r"GM.*0\.40"):
        simulator.apply(volume, tissues, LowField(), NOISELESS)


def test_input_is_left_alone():
    volume, tissues = phantom()
    before = [volume.data.copy(), *(data.copy() for data in tissues.values())]
    simulator.apply(volume, tissues, LowField(), Draw(20.0, 15.0, 1))
    assert all(np.array_equal(*pair) for pair in zip(before, [volume.data, *tissues.values()], strict=True))


def test_wrong_posteriors_are_refused():
    volume, tissues = phantom()
    with pytest.raises(UserError, match="GM is missing"):
        simulator.apply(volume, {"WM": tissues["WM"], "CSF": tissues["CSF"]}, LowField(), NOISELESS)
    with pytest.raises(UserError, match="has shape"):
        simulator.apply(volume, {**tissues, "GM": tissues["GM"][1:]}, LowField(), NOISELESS)
    with pytest.raises(UserError, match="0 to 100"):
        simulator.apply(volume, {**tissues, "GM": 100 * tissues["GM"]}, LowField(), NOISELESS)
    with pytest.raises(UserError, match="slices"):
        simulator.apply(volume, tissues, LowField(thickness=12, gap=6), NOISELESS)


def write_cohort(root, scans):
    volume, tissues = phantom()
    for scan in scans:
        save_volume(naming.anat(root, scan, "T1w.nii.gz"), volume.data, volume.affine)
        for name, data in tissues.items():
            save_volume(naming.anat(root, scan, f"label-{name}_probseg.nii.gz"), data, volume.affine)
        write_json(naming.anat(root, scan, "T1w.json"), {"status": "ok"})


def test_batch_writes_the_contract_and_replays_from_its_record(tmp_path):
    scans = ["sub-01", "sub-02_ses-1", "sub-03", "sub-04"]
    write_cohort(tmp_path / "cohort", scans)
    write_json(naming.anat(tmp_path / "cohort", "sub-03", "T1w.json"), {"status": "no brain"})
    naming.anat(tmp_path / "cohort", "sub-04", "label-CSF_probseg.nii.gz").unlink()
    out = tmp_path / "lowfield" / "main"
    degrade_scans(scans, tmp_path / "cohort", out, "T1w", 1, LowField(noise="rician"), "main")

    statuses = {scan: read_json(naming.anat(out, scan, "T1w.json"))["status"] for scan in scans}
    assert statuses["sub-01"] == statuses["sub-02_ses-1"] == "ok"
    assert statuses["sub-03"] == "cohort: no brain"
    assert "CSF" in statuses["sub-04"]
    assert not list(out.glob("sub-0[34]/**/*.nii.gz"))

    record = read_json(naming.anat(out, "sub-01", "T1w.json"))
    volume, tissues = phantom()
    settings = LowField.model_validate(record["settings"])
    replayed = simulator.apply(volume, tissues, settings, Draw.from_dict(record["draw"]))
    thick = read_volume(naming.anat(out, "sub-01", "T1w.nii.gz"))
    assert thick.data.tobytes() == replayed.thick.data.tobytes()
    np.testing.assert_allclose(thick.affine, replayed.thick.affine, atol=1e-4)
    upsampled = read_volume(naming.anat(out, "sub-01", "space-HQ_T1w.nii.gz"))
    assert upsampled.data.tobytes() == replayed.upsampled.tobytes()
    assert record["measured"] == replayed.measured
    assert (record["set"], record["seed"]) == ("main", 1)


def test_one_scan_from_the_command_line_is_the_benchmarks(tmp_path):
    write_cohort(tmp_path, ["sub-01"])
    degrade_scans(["sub-01"], tmp_path, tmp_path / "low", "T1w", 1, LowField(), "main")
    image = naming.anat(tmp_path, "sub-01", "T1w.nii.gz")
    probseg = {name: naming.anat(tmp_path, "sub-01", f"label-{name}_probseg.nii.gz") for name in contrast.TISSUES}
    out, space_hq = tmp_path / "one.nii.gz", tmp_path / "one_hq.nii.gz"
    degrade_file(image, out, TissueFiles(probseg), 1, LowField(), Extras(space_hq))
    assert out.read_bytes() == naming.anat(tmp_path / "low", "sub-01", "T1w.nii.gz").read_bytes()
    assert space_hq.read_bytes() == naming.anat(tmp_path / "low", "sub-01", "space-HQ_T1w.nii.gz").read_bytes()
    batch_record = read_json(naming.anat(tmp_path / "low", "sub-01", "T1w.json"))
    record = read_json(tmp_path / "one.json")
    assert "holds a few values in patches" in record["warnings"][0], "the phantom is flat"
    assert record.pop("files") == ["one_hq.nii.gz"]
    assert {**record, "set": "main", "tissues": "cohort", "warnings": []} == batch_record
    again = tmp_path / "two.nii.gz"
    for _ in range(2):  # its own record may be written again
        degrade_file(image, again, TissueFiles(probseg), 1, LowField())
        assert again.read_bytes() == out.read_bytes()
    for content in ("[1]", json.dumps({**record, "draw": {"snr_wm": 60, "noise_seed": 1}})):
        (tmp_path / "record.json").write_text(content)
        with pytest.raises(UserError, match=r"not the record|snr_gm is missing"):
            replay_file(tmp_path / "record.json", image, tmp_path / "three.nii.gz", TissueFiles(probseg))
        assert not (tmp_path / "three.nii.gz").exists()


def test_one_scan_refuses_to_overwrite_its_input(tmp_path):
    write_cohort(tmp_path, ["sub-01"])
    image = naming.anat(tmp_path, "sub-01", "T1w.nii.gz")
    probseg = {name: naming.anat(tmp_path, "sub-01", f"label-{name}_probseg.nii.gz") for name in contrast.TISSUES}
    before = image.read_bytes()
    link = tmp_path / "link.nii.gz"
    link.symlink_to(image)
    for out, space_hq in (
        (image, None),
        (link, None),
        (tmp_path / "a.nii", image),
        (tmp_path / "a.nii", tmp_path / "a.nii"),
    ):
        with pytest.raises(UserError, match="named twice among inputs and outputs"):
            degrade_file(image, out, TissueFiles(probseg), 1, LowField(), Extras(space_hq))
    with pytest.raises(UserError, match="must end"):
        degrade_file(image, tmp_path / "a.mgz", TissueFiles(probseg), 1, LowField())
    sidecar = image.with_name("sub-01_T1w.json")
    told = sidecar.read_text() if sidecar.exists() else '{"MagneticFieldStrength": 3}'
    sidecar.write_text(told)
    with pytest.raises(UserError, match=r"sub-01_T1w.json: is there already and no record of a simulation"):
        degrade_file(image, image.with_name("sub-01_T1w.nii"), TissueFiles(probseg), 1, LowField())
    assert sidecar.read_text() == told
    given = TissueFiles({name: path for name, path in probseg.items() if name != "CSF"})
    with pytest.raises(UserError, match="CSF"):
        degrade_file(image, tmp_path / "a.nii", given, 1, LowField())
    assert image.read_bytes() == before
