"""The shipped models that enhance: found by name and contrast, described, sound, and better than interpolation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from iqt.cli import app
from iqt.config import LowField
from iqt.degrade import simulator
from iqt.diffusion.spread import spread_of
from iqt.enhance.single import usage_of
from iqt.errors import UserError
from iqt.evaluate.similarity import masked_psnr
from iqt.imaging.resample import linear
from iqt.io.files import checksum, read_json, read_table
from iqt.io.shipped import DEFAULTS, enhancement_models, find_model
from iqt.io.volumes import Volume, intensity_scale, read_on_grid, read_volume, save_volume
from iqt.training.card import method_of
from iqt.training.checkpoints import load_card
from people import person

RELEASE = Path(__file__).parents[2] / "tests" / "measurements" / "release.py"
SPLIT = Path(__file__).parents[2] / "config" / "release" / "t1w_split.tsv"


def test_each_is_sound_small_and_says_what_it_is() -> None:
    found = enhancement_models()
    assert set(DEFAULTS.values()) <= set(found)
    for name, folder in found.items():
        card, weights = load_card(folder), folder / "model.safetensors"
        method = method_of(folder, card)
        if method.samples > 1:
            found = spread_of(folder, usage_of(card, {}), card["weights_sha256"])
            assert found is not None, "what its samples' spread says is known"
        assert weights.stat().st_size <= 10_000_000
        assert checksum(weights) == card["weights_sha256"]
        assert card["name"] == name
        assert card["release"]["licence"] == "Apache-2.0"
        assert "ds002748" in card["release"]["data"]
        assert "not for diagnosis" in card["release"]["limits"]
        assert len(card["release"]["recipe"]["commit"]) == 40
        assert card["grid"]["acquired"]["slice_axes"] == ["R", "A", "S"]


def test_a_model_is_found_by_name_by_folder_and_by_contrast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = find_model(None, "T1w")
    assert default == find_model(None, None) == find_model(DEFAULTS["T1w"], "T2w")
    assert find_model(str(tmp_path), "T1w") == tmp_path
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEFAULTS["T1w"]).mkdir()  # what `iqt export` made of it, say
    assert find_model(DEFAULTS["T1w"], None) == default
    with pytest.raises(UserError, match="no shipped model enhances FLAIR scans"):
        find_model(None, "FLAIR")
    with pytest.raises(UserError, match=f"neither a folder nor one of the shipped models, .*{DEFAULTS['T1w']}"):
        find_model("no-such", "T1w")


def test_shipping_writes_what_was_measured_into_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures of the card from rows of known content; a spread of other weights does not stay behind."""
    monkeypatch.syspath_prepend(str(RELEASE.parent))
    import release

    source, folder = find_model("t1w-unet", None), tmp_path / "t1w-new"
    folder.mkdir()
    (folder / "spread_release.json").write_text("{}")
    rows = [
        {"acquisition": name, "scan": f"sub-{n}", "psnr_cubic": 20.0, "psnr_model": 20 + gain, "unexplained": left}
        for n, (name, gain, left) in enumerate((("a", 1.0, 0.2), ("a", 2.0, 0.3), ("b", 3.0, 0.4)))
    ]
    rows.append({"acquisition": release.CLEAN, "scan": "sub-0", "psnr_cubic": 99.0, "psnr_model": 39.0})
    card = {key: value for key, value in load_card(source).items() if key not in ("release", "consistency", "name")}
    release.ship(source, folder, rows, card, ["sub-0", "sub-1", "sub-2"], Path("docs/page.md"), None)
    shipped = load_card(folder)
    assert shipped["name"] == "t1w-new"
    assert "+2.25 dB over cubic interpolation on 3 people" in shipped["release"]["measured"], "of 1.5 and 3"
    assert "(+1.50 to +3.00 over 2 acquisitions; docs/page.md)" in shipped["release"]["measured"]
    assert shipped["consistency"] == {"limit": 0.4, "n_scans": 3, "measured_in": "docs/page.md"}
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "model.json"}
    assert checksum(folder / "model.safetensors") == shipped["weights_sha256"]


def test_the_list_names_contrast_training_and_checksum() -> None:
    done = CliRunner().invoke(app, ["models"])
    assert done.exit_code == 0
    for name, folder in enhancement_models().items():
        card = read_json(folder / "model.json")
        assert f"{name}\n" in done.stdout
        assert card["weights_sha256"] in done.stdout
    assert "T1w (the default)" in done.stdout
    assert "1 to 8 mm thick" in done.stdout


@pytest.mark.parametrize("axis", ["R", pytest.param("S", marks=pytest.mark.slow)])
def test_a_scan_is_enhanced_without_naming_a_model(tmp_path: Path, axis: str) -> None:
    """A person of the template at 2 mm, in slices along either axis: 1 mm comes out, where the brain was."""
    made = person("902", 2.0)
    settings = LowField(unit="mm", thickness=6, gap=0, axis=axis, contrast="none", noise="none")
    volume = Volume(made.T1w, made.affine)
    low = simulator.apply(volume, None, settings, simulator.draw(settings, 1, "sub-902")).thick
    save_volume(tmp_path / "low_T1w.nii.gz", low.data, low.affine)
    brain = low.data > 0.3 * np.median(low.data[low.data > 0])
    save_volume(tmp_path / "mask.nii.gz", brain.astype(np.uint8), low.affine)
    files = [str(tmp_path / name) for name in ("low_T1w.nii.gz", "out.nii.gz")]
    mask_given = ["--mask", str(tmp_path / "mask.nii.gz"), "--keep-doubtful-mask"]
    done = CliRunner().invoke(app, ["enhance", *files, *mask_given])
    assert done.exit_code == 0, done.output
    record, result = read_json(tmp_path / "out.json"), read_volume(tmp_path / "out.nii.gz")
    assert record["model"]["name"] == DEFAULTS["T1w"]
    assert record["voxel_size_mm"] == [1.0, 1.0, 1.0]
    there = linear(result, volume).data
    mask = made.mask > 0
    assert np.corrcoef(there[mask], volume.data[mask])[0, 1] > 0.9
    assert (there[~mask] > 0.1).mean() < 0.05


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize(("axis", "thickness"), [("S", 5), ("R", 3)])
def test_a_real_brain_that_it_never_saw_gains_over_interpolation(
    tmp_path: Path, real: Path, axis: str, thickness: float
) -> None:
    """One of the six people of ds002748 whom the recipe keeps apart, through the commands that a user types."""
    kept = {row["participant_id"]: row["split"] for row in read_table(SPLIT)}
    assert kept["sub-25"] == "test"
    image = real / "ds002748/sub-25/anat/sub-25_T1w.nii.gz"
    settings = json.dumps({"unit": "mm", "thickness": thickness, "gap": 0, "axis": axis})
    low, hq, out = (tmp_path / f"{name}.nii.gz" for name in ("low_T1w", "hq", "out"))
    runner = CliRunner()
    done = runner.invoke(app, ["degrade", str(image), str(low), "--settings", settings, "--space-hq", str(hq)])
    assert done.exit_code == 0, done.output
    done = runner.invoke(app, ["enhance", str(low), str(out)])
    assert done.exit_code == 0, done.output
    truth = read_volume(image)
    mask = truth.data > 0
    reference = truth.data * mask / intensity_scale(truth.data, mask)
    cubic = read_on_grid(hq, truth) * mask
    cubic = cubic / intensity_scale(cubic, mask)
    result = linear(read_volume(out), truth).data * mask
    own, plain = (masked_psnr(reference, each, mask) for each in (result, cubic))
    assert own > plain + 0.5, f"{own:.2f} against {plain:.2f} dB"
