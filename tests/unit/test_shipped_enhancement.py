"""The shipped models that enhance: found by name and contrast, described, sound, and better than interpolation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from iqt.cli import app
from iqt.config import LowField
from iqt.degrade import simulator
from iqt.errors import UserError
from iqt.evaluate.similarity import masked_psnr
from iqt.io.files import checksum, read_json
from iqt.io.shipped import DEFAULTS, enhancement_models, find_model
from iqt.io.volumes import Volume, intensity_scale, read_volume, save_volume
from iqt.training.card import method_of
from iqt.training.checkpoints import load_card
from people import person


def test_each_is_sound_small_and_says_what_it_is() -> None:
    found = enhancement_models()
    assert set(DEFAULTS.values()) <= set(found)
    for name, folder in found.items():
        card, weights = load_card(folder), folder / "model.safetensors"
        method_of(folder, card)
        assert weights.stat().st_size <= 10_000_000
        assert checksum(weights) == card["weights_sha256"]
        assert card["name"] == name
        assert card["release"]["licence"] == "Apache-2.0"
        assert "ds002748" in card["release"]["data"]
        assert "not for diagnosis" in card["release"]["limits"]
        assert len(card["release"]["recipe"]["commit"]) == 40
        assert card["grid"]["acquired"]["slice_axes"] == ["R", "A", "S"]


def test_a_model_is_found_by_name_by_folder_and_by_contrast(tmp_path: Path) -> None:
    default = find_model(None, "T1w")
    assert default == find_model(None, None) == find_model(DEFAULTS["T1w"], "T2w")
    assert find_model(str(tmp_path), "T1w") == tmp_path
    with pytest.raises(UserError, match="no shipped model enhances FLAIR scans"):
        find_model(None, "FLAIR")
    with pytest.raises(UserError, match=f"neither a folder nor one of the shipped models, .*{DEFAULTS['T1w']}"):
        find_model("no-such", "T1w")


def test_the_list_names_contrast_training_and_checksum() -> None:
    done = CliRunner().invoke(app, ["models"])
    assert done.exit_code == 0
    for name, folder in enhancement_models().items():
        card = read_json(folder / "model.json")
        assert f"{name}\n" in done.stdout
        assert card["weights_sha256"] in done.stdout
    assert "T1w (the default)" in done.stdout
    assert "1 to 8 mm thick" in done.stdout


@pytest.mark.parametrize("axis", ["R", "S"])
def test_a_scan_is_enhanced_without_naming_a_model(tmp_path: Path, axis: str) -> None:
    """A person of the template at 2 mm, whom it never saw: thick slices along either axis gain over interpolation."""
    made = person("902", 2.0)
    volume = Volume(made.T1w, made.affine)
    settings = LowField(unit="mm", thickness=6, gap=0, axis=axis, contrast="none", noise="none")
    low = simulator.apply(volume, None, settings, simulator.draw(settings, 1, "sub-902"))
    save_volume(tmp_path / "low_T1w.nii.gz", low.thick.data, low.thick.affine)
    done = CliRunner().invoke(app, ["enhance", str(tmp_path / "low_T1w.nii.gz"), str(tmp_path / "out.nii.gz")])
    assert done.exit_code == 0, done.output
    record, result = read_json(tmp_path / "out.json"), read_volume(tmp_path / "out.nii.gz")
    assert record["model"]["name"] == DEFAULTS["T1w"]
    assert record["voxel_size_mm"] == [1.0, 1.0, 1.0]
    mask = made.mask > 0
    reference = volume.data * mask / intensity_scale(volume.data, mask)
    from iqt.imaging.resample import linear

    there = linear(result, volume).data * mask
    cubic = low.upsampled * mask / intensity_scale(low.upsampled, mask)
    own, plain = (masked_psnr(reference, each.astype(np.float32), mask) for each in (there, cubic))
    assert own > plain, f"{own:.2f} against {plain:.2f} dB"
