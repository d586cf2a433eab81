"""Models that run without iqt: a MONAI bundle and ONNX give the voxels that `iqt enhance` gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from iqt.cli import app
from iqt.enhance.single import enhance_file
from iqt.errors import UserError
from iqt.export.bundle import write_bundle
from iqt.export.onnx import write_onnx
from iqt.io.files import read_json
from iqt.io.shipped import find_model
from iqt.io.volumes import intensity_scale, read_volume, save_volume
from people import person
from stand_in import save_stand_in

TENSOR = {
    "type": "object",
    "required": [
        "type",
        "format",
        "num_channels",
        "spatial_shape",
        "dtype",
        "value_range",
        "is_patch_data",
        "channel_def",
    ],
    "properties": {
        "type": {"enum": ["image", "series", "tuples", "probabilities"]},
        "format": {"enum": ["magnitude", "labels", "segmentation", "classes"]},
        "num_channels": {"type": "integer"},
        "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}},
        "value_range": {"type": "array"},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object"},
    },
}
"""A tensor's description as the specification of MONAI bundles has it; MONAI's own schema is on the network alone."""
SCHEMA = {
    "type": "object",
    "required": [
        "version",
        "monai_version",
        "pytorch_version",
        "numpy_version",
        "required_packages_version",
        "task",
        "description",
        "authors",
        "copyright",
        "network_data_format",
    ],
    "properties": {
        **{key: {"type": "string"} for key in ("version", "monai_version", "pytorch_version", "task", "description")},
        "required_packages_version": {"type": "object", "additionalProperties": {"type": "string"}},
        "changelog": {"type": "object", "additionalProperties": {"type": "string"}},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": {side: {"type": "object", "additionalProperties": TENSOR} for side in ("inputs", "outputs")},
        },
    },
}


@pytest.fixture(scope="module")
def shipped() -> Path:
    return find_model("t1w-unet", None)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A template person at the model's 1 mm, the brain alone, stored from left to right."""
    made = person("01", 1.0)
    path = tmp_path_factory.mktemp("scan") / "sub-01_T1w.nii.gz"
    image = nib.Nifti1Image(np.where(made.mask, made.T1w, 0).astype(np.float32), made.affine)
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(made.affine), nib.orientations.axcodes2ornt("LPS"))
    )
    save_volume(path, np.ascontiguousarray(turned.get_fdata(dtype=np.float32)), turned.affine)
    return path


@pytest.mark.slow
def test_a_bundle_gives_the_same_voxels_with_monai_alone(shipped: Path, scan: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    write_bundle(shipped, bundle)
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", bundle / "configs/inference.json"]
    command += ["--bundle_root", bundle, "--image", scan, "--output_dir", tmp_path / "eval"]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    theirs = nib.load(tmp_path / "eval" / "sub-01_T1w_enhanced.nii.gz")
    alike = {"stripped": True, "keep_doubtful_mask": True, "precision": "float32"}  # MONAI's
    enhance_file(scan, tmp_path / "ours.nii.gz", shipped, {}, {}, **alike)
    ours = nib.load(tmp_path / "ours.nii.gz")
    # Theirs is the brain's box alone; where it lies in ours its affine says.
    corner = np.linalg.inv(ours.affine) @ theirs.affine
    assert np.abs(corner[:3, :3] - np.eye(3)).max() < 1e-4
    first = np.rint(corner[:3, 3]).astype(int)
    assert np.abs(corner[:3, 3] - first).max() < 1e-3
    shape = np.minimum(theirs.shape, np.array(ours.shape) - first)
    box = tuple(slice(at, at + size) for at, size in zip(first, shape, strict=True))
    inside = tuple(slice(0, size) for size in shape)
    wanted, found = ours.get_fdata()[box], theirs.get_fdata()[inside]
    assert wanted.std() > 0.2
    assert np.abs(found - wanted).max() < 2e-3
    assert np.count_nonzero(ours.get_fdata()) == np.count_nonzero(wanted), "the box holds the whole brain"


def test_a_bundles_metadata_is_what_the_specification_asks_for(shipped: Path, tmp_path: Path) -> None:
    write_bundle(shipped, tmp_path / "bundle")
    metadata = read_json(tmp_path / "bundle" / "configs" / "metadata.json")
    assert list(Draft202012Validator(SCHEMA).iter_errors(metadata)) == []
    assert (tmp_path / "bundle" / "models" / "model.pt").stat().st_size > 1e6
    with pytest.raises(UserError, match="is there already; name a new folder"):
        write_bundle(shipped, tmp_path / "bundle")


def test_onnx_gives_torchs_voxels(shipped: Path, scan: Path, tmp_path: Path) -> None:
    import onnxruntime

    write_onnx(shipped, tmp_path / "onnx")
    volume = read_volume(scan)
    box = tuple(slice(size // 2 - 32, size // 2 + 32) for size in volume.data.shape)
    mask = volume.data != 0
    lowfield = (volume.data / intensity_scale(volume.data, mask))[box][None, None]
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"lowfield": lowfield})
    import torch

    from iqt.enhance.models import Enhancer

    enhancer = Enhancer(shipped, {"kind": "unet"}, "float32")
    wanted = enhancer(torch.from_numpy(lowfield[0, 0]), 1).mean.numpy()
    assert np.abs(found[0, 0] - wanted).max() < 1e-3
    assert found.std() > 0.1


def test_what_has_no_such_form_is_refused(tmp_path: Path) -> None:
    sampler = save_stand_in(tmp_path / "model", spread=0.1)
    with pytest.raises(UserError, match="has no network that MONAI knows"):
        write_bundle(sampler, tmp_path / "bundle")
    with pytest.raises(UserError, match="calls its network several times"):
        write_onnx(sampler, tmp_path / "onnx")
    assert not (tmp_path / "bundle").exists()
    assert not (tmp_path / "onnx").exists()


def test_the_card_has_what_a_hub_reads(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", "t1w-unet", str(tmp_path / "bundle")])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "bundle" / "docs" / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    fields = yaml.safe_load(head)
    assert fields["license"] == "apache-2.0"
    assert fields["pipeline_tag"] == "image-to-image"
    assert "Not for diagnosis" in body
    card = read_json(find_model("t1w-unet", None) / "model.json")
    assert card["weights_sha256"] in body
    assert card["release"]["data"] in body
    assert json.dumps(None) not in body
