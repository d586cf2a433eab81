"""Model folders that are damaged or absurd: refused before anything is built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from damaged_files import GRID, ball, save

from iqt.enhance.single import enhance_file
from iqt.errors import UserError
from iqt.training.checkpoints import load_card
from stand_in import save_stand_in


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stand_in(tmp_path_factory.mktemp("model"), spread=0.0, grid=GRID)


def set_in(card: dict, place: str, value: object) -> dict:
    *path, last = place.split(".")
    target = card
    for key in path:
        target = target.setdefault(key, {})
    target[last] = value
    return card


CARDS: dict[str, object] = {
    "format": 99, "kind": "cubic", "n_parameters": 0, "weights_sha256": "x", "settings": {}, "suffix": "bold",
    "settings.network.channels": 10**6, "settings.network.blocks": 10**9, "settings.network.multipliers": [1] * 50,
    "settings.network.groups": 7, "settings.patches.patch": 10**6, "settings.patches.grid": [0, 0, 0],
    "settings.network.tokens": [3], "settings.target": "x",
    "grid.voxel_size_mm": [-2, -2, -2], "grid.axes": "LPS",
    "grid.acquired": {"slice_axes": ["S"], "slice_spacing_mm": [1e-9, 1]},
    "standardisation.input_sd": 0, "standardisation.target_sd": -1, "standardisation.input_mean": "a",
    "standardisation": [], "grid": {"axes": "RAS", "voxel_size_mm": [1e6, 1e6, 1e6]},
    "settings.network.head_dim": 4096,
    "sampling": [], "sampling.samples": "4", "sampling.steps": 0,
}  # fmt: skip


@pytest.mark.parametrize("place", CARDS)
def test_a_card_that_is_not_sound_is_refused_before_anything_is_built(model: Path, tmp_path: Path, place: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(model / "model.safetensors")
    card = set_in(json.loads((model / "model.json").read_text()), place, CARDS[place])
    (folder / "model.json").write_text(json.dumps(card))
    image = save(tmp_path / "scan.nii.gz", ball()[0])
    with pytest.raises(UserError, match=r"model\.json"):
        enhance_file(image, tmp_path / "out.nii.gz", folder, {"steps": 1}, {}, precision="float32")
    assert not list(tmp_path.glob("out*"))


FILES = {
    "deep": ("model.json", "[" * 100_000),
    "no JSON": ("model.json", "{"),
    "a list": ("model.json", "[]"),
    "no text": ("model.json", "\ud800"),
    "no weights": ("model.safetensors", "hello"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_model_folder_that_is_damaged_is_refused(model: Path, tmp_path: Path, case: str) -> None:
    name, content = FILES[case]
    for other in ("model.json", "model.safetensors"):
        (tmp_path / other).write_bytes((model / other).read_bytes())
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogatepass"))
    image = save(tmp_path / "scan.nii.gz", ball()[0])
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        enhance_file(image, tmp_path / "out.nii.gz", tmp_path, {"steps": 1}, {}, precision="float32")
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        enhance_file(image, tmp_path / "out.nii.gz", tmp_path, {"steps": 1}, {}, precision="float32")


def test_a_number_of_thousands_of_digits_is_no_card(model: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(model / "model.safetensors")
    (tmp_path / "model.json").write_text(f'{{"format": {"3" * 5000}}}')
    with pytest.raises(UserError, match=r"model\.json: not readable as JSON"):
        load_card(tmp_path)
