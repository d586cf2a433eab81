"""The 3D parcellator: what it is trained on, and that labels lie where the scan does."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from iqt.cli import app
from iqt.config import Painting, VolumetricNetwork, VolumetricParcellator
from iqt.errors import UserError
from iqt.io.files import read_json
from iqt.io.labels import LabelTable, read_lut
from iqt.io.volumes import Volume, save_volume
from iqt.networks.volumetric import build_volumetric
from iqt.parcellate.paint import LabelMap, PaintedVolumes, read_label_map
from iqt.parcellate.train_volumetric import train_volumetric, volume_loss
from iqt.parcellate.volumetric import TrainedVolumetric, load_volumetric, predict_volumetric
from people import person

LUT = Path(__file__).parents[2] / "resources" / "aseg_dseg.tsv"
PAINTING = Painting(voxel_size=4.0, region=(48, 56, 48))
NETWORK = VolumetricNetwork(channels=(4, 8), features=4, residual_units=0)


@pytest.fixture(scope="module")
def table() -> LabelTable:
    return read_lut(LUT)


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Label maps of two template people, one stored in another axis order."""
    folder = tmp_path_factory.mktemp("maps")
    for name, axes in (("sub-01", "RAS"), ("sub-02", "LIA")):
        made = person(name)
        image = nib.Nifti1Image(made.dseg.astype(np.int16), made.affine)
        turned = image.as_reoriented(
            nib.orientations.ornt_transform(nib.io_orientation(made.affine), nib.orientations.axcodes2ornt(axes))
        )
        nib.save(turned, folder / f"{name}_dseg.nii.gz")
    return folder


@pytest.fixture(scope="module")
def label_map(maps: Path, table: LabelTable) -> LabelMap:
    return read_label_map(maps / "sub-01_dseg.nii.gz", table)


def painted(label_map: LabelMap, table: LabelTable, seed: int = 1, augment: bool = True) -> PaintedVolumes:
    return PaintedVolumes([label_map], table, PAINTING, 10, seed, augment)


def test_an_item_is_drawn_from_seed_and_number_alone(label_map: LabelMap, table: LabelTable) -> None:
    one, again, other = (painted(label_map, table, seed)[3] for seed in (1, 1, 2))
    assert torch.equal(one["image"], again["image"])
    assert torch.equal(one["target"], again["target"])
    assert not torch.equal(one["image"], other["image"])
    assert not torch.equal(one["image"], painted(label_map, table)[4]["image"])
    with pytest.raises(IndexError):
        painted(label_map, table)[10]


def test_a_painted_volume_is_a_brain_on_the_intensity_scale(label_map: LabelMap, table: LabelTable) -> None:
    for number in range(4):
        item = painted(label_map, table)[number]
        image, target = item["image"][0], item["target"]
        assert image.shape == target.shape == PAINTING.region
        assert image.dtype == torch.float32
        assert (image >= 0).all()
        assert target.min() >= 0
        assert target.max() < table.n_classes
        litres = float((target > 0).sum()) * 4.0**3 / 1e6
        assert 0.5 < litres < 2.5
        assert np.percentile(image[image > 0], 99.5) == pytest.approx(1, abs=0.1)


def test_plain_volumes_have_a_t1w_scans_order_and_sides(label_map: LabelMap, table: LabelTable) -> None:
    item = painted(label_map, table, augment=False)[0]
    image, labels = item["image"][0].numpy(), table.to_labels(item["target"].numpy())
    means = {name: image[np.isin(labels, ids)].mean() for name, ids in {"wm": (2, 41), "gm": (3, 42)}.items()}
    assert means["wm"] > 1.15 * means["gm"]
    right, left = (np.argwhere(np.isin(labels, ids))[:, 0].mean() for ids in ((41, 42), (2, 3)))
    assert right > left + 10, "the first axis runs to the right"


def test_the_loss_is_that_of_its_definition_and_counts_nothing_outside() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 4, 5, 6, generator=generator)
    target = torch.randint(0, 3, (1, 4, 5, 6), generator=generator)
    seen = torch.rand(1, 4, 5, 6, generator=generator) > 0.3
    p = logits.softmax(1).movedim(1, -1)[seen]
    hot = torch.nn.functional.one_hot(target[seen], 3)
    dice = (2 * (p * hot).sum(0) / (p.sum(0) + hot.sum(0)))[1:].mean()
    wanted = -(p.log() * hot).sum(1).mean() + 1 - dice
    torch.testing.assert_close(volume_loss(logits, target, seen), wanted)
    changed = torch.where(seen[:, None], logits, 9.0)
    torch.testing.assert_close(volume_loss(changed, target, seen), wanted)


def test_labels_follow_the_scan_whatever_its_axes_and_voxels(table: LabelTable) -> None:
    torch.manual_seed(0)
    network = build_volumetric(NETWORK, table.n_classes).eval()
    parcellator = TrainedVolumetric(network, table, len(NETWORK.channels), "float32", 4.0)
    made = person("901")
    volume = Volume((made.T1w / made.T1w.max()).astype(np.float32), made.affine)
    labels = predict_volumetric(parcellator, volume, made.mask)
    assert labels.shape == made.mask.shape
    assert not labels[~made.mask].any()
    image = nib.Nifti1Image(volume.data, volume.affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(made.affine), nib.orientations.axcodes2ornt("PSL"))
    turned = image.as_reoriented(turn)
    mask = nib.orientations.apply_orientation(made.mask, turn)
    again = predict_volumetric(parcellator, Volume(np.asarray(turned.dataobj), turned.affine), mask)
    back = nib.orientations.apply_orientation(
        again, nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("PSL"), nib.io_orientation(made.affine))
    )
    assert (back == labels).mean() > 0.999
    finer = nib.Nifti1Image(np.kron(volume.data, np.ones((2, 2, 2), np.float32)), None)
    affine = made.affine @ np.diag([0.5, 0.5, 0.5, 1])
    affine[:3, 3] -= made.affine[:3, :3] @ np.full(3, 0.25)
    fine_mask = np.kron(made.mask, np.ones((2, 2, 2), bool))
    fine = predict_volumetric(parcellator, Volume(np.asarray(finer.dataobj), affine), fine_mask)
    assert fine.shape == fine_mask.shape
    assert not fine[~fine_mask].any()


def test_it_is_trained_from_a_folder_of_label_maps_and_reads_a_scan(maps: Path, tmp_path: Path) -> None:
    training = {"steps": 2, "batch_size": 1, "validate_every": 1, "validation_regions": 1, "learning_rate": 1e-3}
    settings = VolumetricParcellator(
        train=("sub-01",), val=("sub-02",), painting=PAINTING, network=NETWORK, training=training
    )
    train_volumetric(maps, LUT, tmp_path / "model", settings, 1, "float32", {"commit": "0" * 40})
    card = read_json(tmp_path / "model" / "model.json")
    assert (card["kind"], card["steps"], card["suffix"]) == ("volumetric_parcellator", 2, "T1w")
    assert card["data"]["licence"] == "Apache-2.0"
    assert card["recipe"]["commit"] == "0" * 40
    assert load_volumetric(tmp_path / "model", "float32").voxel_size == 4.0
    made = person("901", 2.0)
    save_volume(tmp_path / "T1w.nii.gz", made.T1w, made.affine)
    words = [
        "parcellate",
        str(tmp_path / "T1w.nii.gz"),
        str(tmp_path / "dseg.nii.gz"),
        "--model",
        str(tmp_path / "model"),
    ]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0
    labels = nib.load(tmp_path / "dseg.nii.gz")
    assert labels.shape == made.mask.shape
    np.testing.assert_allclose(labels.affine, made.affine, atol=1e-5)
    with pytest.raises(UserError, match=r"holds 0 label maps named sub-09"):
        train_volumetric(
            maps, LUT, tmp_path / "no", settings.model_copy(update={"train": ("sub-09",)}), 1, "float32", {}
        )
