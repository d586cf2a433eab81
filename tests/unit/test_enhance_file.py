"""`iqt enhance` on one scan of a user's own."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from damaged_files import ACQUIRED, GRID
from nibabel.affines import apply_affine, from_matvec
from nibabel.eulerangles import euler2mat
from nibabel.processing import resample_from_to
from typer.testing import CliRunner

from iqt.cli import app
from iqt.config import Mask
from iqt.diffusion.spread import Spread
from iqt.enhance.single import enhance_file, usage_of
from iqt.errors import StopError, UserError
from iqt.imaging.resample import over_field
from iqt.io.files import read_json, write_json
from iqt.io.volumes import Volume, read_volume
from stand_in import save_stand_in

BEAD = np.array([22.0, -14.0, 9.0])
"""World place of a bright spot in the phantom."""
RADIUS = 58.0
OBLIQUE = euler2mat(0.25, -0.15, 0.3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that returns its input."""
    return save_stand_in(tmp_path_factory.mktemp("model"), spread=0.0, grid=GRID)


def phantom(path: Path, axes: str = "RAS", turn: np.ndarray | None = None, dtype: type = np.int16) -> Path:
    """A ball with a bead in it, voxels of 3 x 3 x 5 mm (right x front x up), skull-stripped."""
    shape, size = np.array([50, 48, 30]), np.array([3.0, 3.0, 5.0])
    linear = (np.eye(3) if turn is None else turn) @ np.diag(size)
    affine = from_matvec(linear, [3.0, -5.0, 8.0] - linear @ ((shape - 1) / 2))
    world = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    distance = np.linalg.norm(world - [3.0, -5.0, 8.0], axis=-1)
    bead = 400 * np.exp(-np.square(world - BEAD).sum(-1) / (2 * 7.0**2))
    data = np.where(distance < RADIUS, 300 + bead + world[..., 0] * 0.1, 0).astype(dtype)
    image = nib.Nifti1Image(data, affine)
    start, end = nib.io_orientation(affine), nib.orientations.axcodes2ornt(axes)
    nib.save(image.as_reoriented(nib.orientations.ornt_transform(start, end)), path)
    return path


def bead_of(volume: Volume) -> np.ndarray:
    """World place of the bright spot: the centre of what stands out."""
    level = np.percentile(volume.data[volume.data > 0], 80)
    weight = np.where(volume.data > 1.2 * level, volume.data - 1.2 * level, 0)
    indices = np.moveaxis(np.indices(weight.shape), 0, -1).reshape(-1, 3)
    return apply_affine(volume.affine, np.average(indices, axis=0, weights=weight.ravel()))


def go(image: Path, out: Path, model: Path, **more: object) -> dict:
    settings = {"sampling": {"steps": 1}, "extras": {}, "stripped": True, "precision": "float32", **more}
    enhance_file(image, out, model, **settings)
    return read_json(out.with_name(out.name.removesuffix(".nii.gz") + ".json"))


@pytest.mark.parametrize(
    ("axes", "turn", "dtype"),
    [
        ("RAS", None, np.int16),
        ("LPI", None, np.uint16),
        ("PSR", None, np.float64),
        ("SAL", OBLIQUE, np.int32),
        ("RAS", OBLIQUE, np.float32),
    ],
)
def test_a_landmark_keeps_its_place_in_the_world(
    model: Path, tmp_path: Path, axes: str, turn: np.ndarray | None, dtype: type
) -> None:
    image = phantom(tmp_path / "scan.nii.gz", axes, turn, dtype)
    np.testing.assert_allclose(bead_of(read_volume(image)), BEAD, atol=1.0)
    record = go(image, tmp_path / "out.nii.gz", model)
    result = read_volume(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(result.voxel_size, 4, atol=1e-4)
    assert nib.aff2axcodes(result.affine) == ("R", "A", "S")
    np.testing.assert_allclose(bead_of(result), BEAD, atol=1.0)
    # The ball's centre too, and its volume.
    inside = result.data > 0
    np.testing.assert_allclose(apply_affine(result.affine, np.argwhere(inside)).mean(0), [3, -5, 8], atol=0.6)
    assert inside.sum() * 64 == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.05)
    assert record["warnings"] == []
    assert sorted(record["input_voxel_size_mm"]) == pytest.approx([3, 3, 5])
    assert record["mask"] == "image not 0"


def test_the_grid_covers_the_field_of_view_and_interpolates_exactly() -> None:
    """A ramp along each axis stays the function of the world that it is, away from the ends."""
    affine = from_matvec(OBLIQUE @ np.diag([2.0, 3.0, 6.0]), [5, 6, 7])
    world = apply_affine(affine, np.moveaxis(np.indices((20, 16, 12)), 0, -1))
    moved = over_field(Volume((world @ [1.0, 2.0, -1.5]).astype(np.float32), affine), [2.0, 2.0, 2.0])
    assert moved.data.shape == (20, 24, 36)
    expected = apply_affine(moved.affine, np.moveaxis(np.indices(moved.data.shape), 0, -1)) @ [1.0, 2.0, -1.5]
    inner = (slice(2, -2), slice(3, -3), slice(4, -4))
    np.testing.assert_allclose(moved.data[inner], expected[inner], atol=1e-2)


@pytest.mark.parametrize("slices", [(3.0, 5.0), (5.5, 8.0), (9.0, 12.0)])
def test_the_error_to_be_expected_is_written_where_the_model_is_calibrated(
    tmp_path: Path, slices: tuple[float, float]
) -> None:
    """The scan's slices are 5 mm apart, which the last spread has not seen."""
    model = save_stand_in(tmp_path / "model", grid=GRID)
    image, sampling = phantom(tmp_path / "scan.nii.gz", "SAL", OBLIQUE), {"steps": 2, "samples": 3}
    found = {}
    for name in ("plain", "calibrated"):
        paths = {key: tmp_path / f"{name}_{key}.nii.gz" for key in ("sd", "mask")}
        record = go(image, tmp_path / f"{name}.nii.gz", model, sampling=sampling, extras=paths)
        found[name] = (read_volume(paths["sd"]), record)
        usage = usage_of(read_json(model / "model.json"), sampling)
        spread = Spread(
            usage, "main", 6, (0.0, 1.0), (0.1, 0.6), slices, (0.5, 1.5), slices, 2.0, {50: 0.5, 68: 1, 90: 2, 95: 3}
        )
        weights = read_json(model / "model.json")["weights_sha256"]
        write_json(model / "spread_x.json", {"weights_sha256": weights, **spread.written()})
    (drawn, plain), (expected, record) = found.values()
    mask = read_volume(tmp_path / "plain_mask.nii.gz").data > 0
    wanted = spread.intervals(drawn.data, mask, drawn.voxel_size, 5.0).expected
    np.testing.assert_allclose(expected.data, wanted, rtol=1e-5)
    assert (expected.data[mask] >= 0.05).all()
    assert (expected.data[~mask] == 0).all()
    assert plain["sd"] == {"meaning": "of the samples, not calibrated: true errors may be larger"}
    assert any("not calibrated: true errors may be several times larger" in text for text in plain["warnings"])
    assert record["sd"]["interval_half_width_in_sd"] == {"50": 0.5, "68": 1, "90": 2, "95": 3}
    told = [
        text for text in record["warnings"] if "calibrated on slices 9 to 12 mm apart, and this scan's are 5 mm" in text
    ]
    assert len(told) == (slices == (9.0, 12.0))


def test_a_runs_model_is_sampled_as_it_was_calibrated(tmp_path: Path) -> None:
    """Its card does not say how; another number of samples is not what was calibrated, and that is said."""
    model = save_stand_in(tmp_path / "model", grid=GRID)
    image, card = phantom(tmp_path / "scan.nii.gz"), read_json(model / "model.json")
    steps = usage_of(card, {})["sampling"]["steps"] + 1
    usage = usage_of(card, {"steps": steps, "samples": 3})
    nothing = ((0.0, 1.0), (0.1, 0.6), (5.0,), (1.0,), (5.0, 5.0), 2.0, {50: 0.5, 68: 1, 90: 2, 95: 3})
    written = Spread(usage, "main", 6, *nothing).written()
    write_json(model / "spread_x.json", {"weights_sha256": card["weights_sha256"], **written})
    found = {
        samples: go(
            image,
            tmp_path / f"{samples}.nii.gz",
            model,
            sampling={"samples": samples},
            extras={"sd": tmp_path / f"{samples}_sd.nii.gz"},
        )
        for samples in (2, 3)
    }
    assert {record["steps"] for record in found.values()} == {steps}
    assert "interval_half_width_in_sd" in found[3]["sd"]
    assert "interval_half_width_in_sd" not in found[2]["sd"]
    assert any(f"Calibrated with this model: sampler ddim, steps {steps}" in text for text in found[2]["warnings"])
    assert go(image, tmp_path / "once.nii.gz", model, sampling={})["steps"] == steps
    assert go(image, tmp_path / "other.nii.gz", model, sampling={"steps": 1})["steps"] == 1


def test_samples_spread_and_record_come_with_the_result(model: Path, tmp_path: Path) -> None:
    model = save_stand_in(tmp_path / "model", grid=GRID)
    image = phantom(tmp_path / "scan.nii.gz")
    extras = {"sd": tmp_path / "sd.nii.gz", "sample": tmp_path / "first.nii.gz"}
    record = go(image, tmp_path / "out.nii.gz", model, sampling={"steps": 2, "samples": 3}, extras=extras, seed=5)
    mean, sd, first = (read_volume(tmp_path / f"{name}.nii.gz") for name in ("out", "sd", "first"))
    assert (sd.data[mean.data != 0] > 0).mean() > 0.99
    assert not np.allclose(mean.data, first.data)
    assert {key: record[key] for key in ("status", "seed", "steps", "samples", "nfe", "sampler")} == {
        "status": "ok",
        "seed": 5,
        "steps": 2,
        "samples": 3,
        "nfe": 6,
        "sampler": "ddim",
    }
    assert record["model"]["weights_sha256"] == read_json(model / "model.json")["weights_sha256"]
    assert record["version"]
    again = tmp_path / "again.nii.gz"
    go(image, again, model, sampling={"steps": 2, "samples": 1}, seed=5)
    np.testing.assert_allclose(read_volume(again).data, first.data, atol=1e-5)


def bad_inputs(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that cannot be enhanced, and what is said of each."""
    whole = nib.load(phantom(folder / "whole.nii.gz"))
    data, affine = np.asarray(whole.dataobj, np.float32), whole.affine

    def save(name: str, data: np.ndarray, affine: np.ndarray = affine) -> Path:
        nib.save(nib.Nifti1Image(data, affine), folder / name)
        return folder / name

    (folder / "text.nii.gz").write_bytes(gzip.compress(b"not an image at all" * 100))
    (folder / "cut.nii.gz").write_bytes((folder / "whole.nii.gz").read_bytes()[:-400])
    noise = np.random.default_rng(0).normal(size=data.shape).astype(np.float32)
    return {
        "absent": (folder / "absent.nii.gz", "no such file"),
        "4D": (save("4d.nii.gz", np.stack([data, data], -1)), "a single 3D volume is needed"),
        "NaN": (save("nan.nii.gz", np.where(data > 600, np.nan, data)), "NaN or infinite"),
        "constant": (save("constant.nii.gz", np.full_like(data, 7)), "is constant: every voxel is 7"),
        "no image": (folder / "text.nii.gz", "not readable as an image"),
        "truncated": (folder / "cut.nii.gz", "not readable as an image"),
        "4 slices": (save("few.nii.gz", data[..., :4]), "has 50 x 48 x 4 voxels, and at least 8 are needed"),
        "labels": (save("labels.nii.gz", (data > 0).astype(np.uint8)), "holds 2 different values, so it is a mask"),
        "not MRI": (save("ct.nii.gz", noise), "no MRI scanner's magnitude image"),
        "complex": (save("complex.nii.gz", data.astype(np.complex64)), "holds complex numbers"),
        "identity affine": (save("eye.nii.gz", data, np.eye(4)), "spans 50 x 48 x 30 mm"),
    }


def test_input_that_cannot_be_used_ends_in_one_message(model: Path, tmp_path: Path) -> None:
    for name, (path, message) in bad_inputs(tmp_path).items():
        with pytest.raises(UserError) as error:
            go(path, tmp_path / "out.nii.gz", model)
        assert message in str(error.value), name
        assert str(path) in str(error.value), name
    assert not list(tmp_path.glob("*out*"))


def test_what_is_doubtful_is_a_warning_in_record_and_on_stderr(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thick = save_stand_in(
        tmp_path / "model", spread=0.0, grid={**GRID, "acquired": {**ACQUIRED, "slice_spacing_mm": [16.0, 16.0]}}
    )
    record = go(phantom(tmp_path / "a.nii.gz", "PSR"), tmp_path / "out.nii.gz", thick)
    (warning,) = record["warnings"]
    assert "3 x 3 x 5 mm" in warning
    assert "slices 16 mm apart" in warning
    assert f"warning: {warning}" in capsys.readouterr().err

    image = nib.load(phantom(tmp_path / "b.nii.gz"))
    image.set_qform(None, 0)
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "b.nii.gz")
    (warning,) = go(tmp_path / "b.nii.gz", tmp_path / "out.nii.gz", model)["warnings"]
    assert "b.nii.gz: it has no affine" in warning
    assert "left and right may be swapped" in warning


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SCAN", "out.png"], "must end in .nii.gz or .nii"),
        (["SCAN", "SCAN"], "named twice"),
        (["SCAN", "out.nii.gz", "--sd", "sd.nii.gz"], "--sd: a standard deviation needs several samples"),
        (["SCAN", "out.nii.gz", "--steps", "5000"], "--steps: Input should be less than or equal to 1000"),
        (["SCAN", "out.nii.gz", "--sampler", "euler"], "--sampler"),
        (["SCAN", "out.nii.gz", "--mask", "SCAN", "--skull-stripped"], "--skull-stripped: goes without --mask"),
        (["SCAN", "out.nii.gz", "--skull-stripped", "--fraction", "0.4"], "--fraction: finds a mask"),
    ],
)
def test_options_that_would_have_no_effect_are_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    phantom(tmp_path / "scan.nii.gz")
    words = [word.replace("SCAN", "scan.nii.gz") for word in arguments]
    result = CliRunner().invoke(app, ["enhance", *words, "--model", str(model)])
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)


def test_a_mask_can_be_given_and_one_that_is_not_found_is_asked_for(model: Path, tmp_path: Path) -> None:
    image = phantom(tmp_path / "scan.nii.gz")
    scan = read_volume(image)
    half = (scan.data > 0) & (np.arange(scan.data.shape[0]) < 25)[:, None, None]
    nib.save(nib.Nifti1Image(half.astype(np.uint8), scan.affine), tmp_path / "mask.nii.gz")
    given = {"stripped": False, "mask": tmp_path / "mask.nii.gz"}
    with pytest.raises(UserError, match=r"0\.41 l, outside 0\.7 to 2\.2 l.*--keep-doubtful-mask"):
        go(image, tmp_path / "out.nii.gz", model, **given)
    assert not (tmp_path / "out.nii.gz").exists()
    record = go(image, tmp_path / "out.nii.gz", model, **given, keep_doubtful_mask=True)
    result = read_volume(tmp_path / "out.nii.gz")
    assert apply_affine(result.affine, np.argwhere(result.data > 0))[:, 0].max() < 6
    assert record["mask"] == str(tmp_path / "mask.nii.gz")
    assert "0.41 l, outside" in record["warnings"][0]
    nib.save(nib.Nifti1Image(half[:-1].astype(np.uint8), scan.affine), tmp_path / "mask.nii.gz")
    with pytest.raises(UserError, match="lies on another grid"):
        go(image, tmp_path / "out.nii.gz", model, stripped=False, mask=tmp_path / "mask.nii.gz")


def test_an_engine_that_fails_leads_to_the_options_that_help(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_head: Volume, _settings: Mask, notice: bool) -> Volume:
        raise UserError("brainextractor finds no brain")

    monkeypatch.setattr("iqt.enhance.intake.find_brain", fails)
    with pytest.raises(UserError, match=r"scan.nii.gz: .*finds no brain.*--mask FILE.*, or --skull-stripped"):
        go(phantom(tmp_path / "scan.nii.gz"), tmp_path / "out.nii.gz", model, stripped=False)


def test_ctrl_c_leaves_no_file(model: Path, tmp_path: Path) -> None:
    image = phantom(tmp_path / "scan.nii.gz")
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-m", "iqt", "enhance", str(image), str(tmp_path / "out" / "x.nii.gz")]
    options = ["--model", str(model), "--skull-stripped", "--steps", "1000", "--precision", "float32"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "workflow")}
    process = subprocess.Popen([*command, *options], env=environment, stderr=subprocess.PIPE, text=True)
    assert "runs on" in process.stderr.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.real_data
def test_real_low_field_scans_without_voxel_sizes_are_refused_with_the_reason(
    model: Path, tmp_path: Path, real: Path
) -> None:
    """Four slices are too few; ten with an identity affine span 10 mm."""
    scans = sorted((real / "lowfield_0.055T").glob("*_lf0055_*.nii.gz"))
    stacks = sorted((real / "lowfield_0.055T").glob("*_T[12]w_[cs]*.nii.gz"))
    assert len(scans) == 9
    assert len(stacks) == 4
    for path in scans:
        with pytest.raises(UserError, match="x 4 voxels, and at least 8 are needed"):
            go(path, tmp_path / "out.nii.gz", model)
    for path in stacks:
        with pytest.raises(UserError, match="x 10 mm, and a head's scan 80 to 450 mm; correct its header"):
            go(path, tmp_path / "out.nii.gz", model)


def test_somebody_elses_record_is_not_replaced_and_ones_own_is(model: Path, tmp_path: Path) -> None:
    """A scanner's JSON, as dcm2niix writes it, lies where the record would."""
    image = phantom(tmp_path / "scan.nii.gz")
    taken = tmp_path / "out.json"
    for theirs in ('[{"model": "a list"}]', '{"model": null}', '{"MagneticFieldStrength": 0.064}'):
        taken.write_text(theirs)
        with pytest.raises(UserError, match=r"out\.json: is there already and no record of an enhancement"):
            go(image, tmp_path / "out.nii.gz", model)
        assert taken.read_text() == theirs
    assert not (tmp_path / "out.nii.gz").exists()
    taken.unlink()
    go(image, tmp_path / "out.nii.gz", model)
    assert go(image, tmp_path / "out.nii.gz", model)["status"] == "ok"
    (tmp_path / "folder.nii.gz").mkdir()
    with pytest.raises(UserError, match="name of a folder"):
        go(image, tmp_path / "folder.nii.gz", model)
    assert not (tmp_path / "folder.json").exists()


def test_somebody_elses_scan_is_not_overwritten(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by `iqt enhance *.nii.gz` where there are two, without sidecars."""
    image, other = phantom(tmp_path / "sub-01.nii.gz"), phantom(tmp_path / "sub-02.nii.gz")
    before = other.read_bytes()
    with pytest.raises(UserError, match=r"sub-02\.nii\.gz: is there already, and no sub-02\.json says"):
        go(image, other, model)
    assert other.read_bytes() == before
    out, second = tmp_path / "out.nii.gz", {"sample": tmp_path / "second.nii.gz"}
    for _ in range(2):  # its own files may be written again
        assert go(image, out, model, extras=second)["files"] == ["second.nii.gz"]
    assert go(image, out, model)["files"] == ["second.nii.gz"], "of a run before"
    assert go(image, out, model, extras=second)["files"] == ["second.nii.gz"]
    with pytest.raises(UserError, match=r"sub-02\.nii\.gz: is there already, and no out\.json says"):
        go(image, out, model, extras={"sample": other})
    (tmp_path / "unfetched.nii.gz").symlink_to(tmp_path / ".git/annex/objects/x")
    with pytest.raises(UserError, match=r"unfetched\.nii\.gz: is there already"):
        go(image, tmp_path / "unfetched.nii.gz", model)
    (tmp_path / "empty.nii.gz").touch()  # mktemp
    assert go(image, tmp_path / "empty.nii.gz", model)["status"] == "ok"
    assert other.read_bytes() == before
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    with pytest.raises(StopError, match="nothing can be written into that folder"):
        go(image, tmp_path / "out.nii.gz", model)


def test_a_name_that_is_no_utf8_is_enhanced(model: Path, tmp_path: Path) -> None:
    image = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller.nii.gz"))
    os.rename(phantom(tmp_path / "scan.nii.gz"), image)
    assert go(image, tmp_path / "out.nii.gz", model)["status"] == "ok"


def test_an_engine_that_was_asked_for_is_asked(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole head in zeros may be as small as a brain, and be taken for one."""
    image = phantom(tmp_path / "scan.nii.gz")
    asked = []

    def engine(head: Volume, settings: Mask) -> np.ndarray:
        asked.append(settings.fraction)
        return head.data > 0

    monkeypatch.setattr("iqt.imaging.brain_mask._deepbet", engine)
    words = ["enhance", str(image), str(tmp_path / "out.nii.gz"), "--model", str(model)]
    for more, times in (([], 0), (["--mask-engine", "deepbet"], 1), (["--fraction", "0.4"], 2)):
        done = CliRunner().invoke(app, [*words, *more])
        assert done.exit_code == 0, done.exception
        assert len(asked) == times
    assert asked[-1] == 0.4
    for more in (["--mask-engine", "synthstrip"], ["--fraction", "2"]):
        done = CliRunner().invoke(app, [*words, *more])
        assert "--mask-engine and --fraction: " in str(done.exception)


@pytest.mark.parametrize("dim", [(3, 32000, 32000, 32000), (3, -4, 5, 5), (9, 4, 4, 4)])
def test_a_header_that_cannot_be_true_ends_in_one_message(tmp_path: Path, dim: tuple[int, ...]) -> None:
    path = tmp_path / "damaged.nii"
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)), path)
    content = bytearray(path.read_bytes())
    content[40 : 40 + 2 * len(dim)] = np.array(dim, "<i2").tobytes()
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged\.nii: (not readable as an image|has shape)"):
        read_volume(path)
    content[70:72] = np.array([999], "<i2").tobytes()
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged\.nii: not readable as an image"):
        read_volume(path)


@pytest.mark.parametrize("preset", ["iqt-4x", "iqt-8x", "64mT"])
def test_what_degrade_writes_can_be_enhanced(
    model: Path, tmp_path: Path, preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The README's two commands in sequence, on a brain of the template."""
    from iqt.io.volumes import save_volume
    from people import person

    made = person("901", 2.0)
    save_volume(tmp_path / "T1w_brain.nii.gz", made.T1w, made.affine)
    low, out = str(tmp_path / "low.nii.gz"), str(tmp_path / "out.nii.gz")
    commands = (
        ["degrade", str(tmp_path / "T1w_brain.nii.gz"), low, "--preset", preset],
        ["enhance", low, out, "--model", str(model), "--steps", "1"],
    )
    for words in commands:
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    record = read_json(tmp_path / "out.json")
    assert record["mask"] == "noticed to be skull-stripped"
    found = read_volume(out)
    wanted = resample_from_to(
        nib.Nifti1Image(made.mask.astype(np.float32), made.affine), (found.data.shape, found.affine), order=1
    )
    truth, inside = np.asarray(wanted.dataobj) >= 0.5, found.data != 0
    assert 2 * (truth & inside).sum() / (truth.sum() + inside.sum()) > 0.9
