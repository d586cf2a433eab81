"""A trained U-Net as a MONAI bundle: https://docs.monai.io/en/stable/mb_specification.html

    python -m monai.bundle run --config_file FOLDER/configs/inference.json --bundle_root FOLDER --image IN.nii.gz

needs MONAI, nibabel, scipy and fire. The configuration does what `iqt enhance` does with a skull-stripped scan: RAS
order, the model's voxels, the brain's box, intensities on the model's scale. Only the interpolation of scans with other
voxels is MONAI's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iqt.enhance.run import MARGIN
from iqt.errors import UserError
from iqt.export.card import model_card
from iqt.io.files import new_folder, write_json, write_text
from iqt.io.volumes import SCALE_PERCENTILE
from iqt.methods.unet import UNetMethod
from iqt.training.card import method_of
from iqt.training.checkpoints import load_card, load_weights

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
RUN = (
    "python -m monai.bundle run --config_file {folder}/configs/inference.json --bundle_root {folder} --image IN.nii.gz"
)
SCALED = f"$lambda d: {{**d, 'image': d['image'] / np.percentile(d['image'][d['mask'] > 0], {SCALE_PERCENTILE})}}"
"""The intensity scale: what the percentile in the brain is becomes 1."""
USE = """With MONAI 1.4 or newer, nibabel, scipy and fire, and without iqt, on a skull-stripped scan:

    {run}

It writes `eval/IN_enhanced.nii.gz` (`--output_dir` names another folder). A scan that has the model's voxels gives what
`iqt enhance --skull-stripped` gives; others are interpolated by MONAI, a little differently.

"""


def write_bundle(model: Path, out: Path) -> None:
    """Write a bundle to the folder `out`.

    Raises:
        UserError: the model is no U-Net, or the folder is there already.
    """
    import torch

    card = load_card(model)
    method = method_of(model, card)
    if not isinstance(method, UNetMethod):
        raise UserError(
            f"{model}: a model of kind {card['kind']} has no network that MONAI knows; a bundle is made of a unet alone"
        )
    network = method.build()
    load_weights(model, network)
    with new_folder(out) as folder:
        write_json(folder / "configs" / "metadata.json", _metadata(card, method))
        write_json(folder / "configs" / "inference.json", _inference(card, method))
        write_text(folder / "docs" / "README.md", model_card(card, USE.format(run=RUN.format(folder=out.name))))
        (folder / "models").mkdir()
        torch.save(network.state_dict(), folder / "models" / "model.pt")


def _metadata(card: Mapping[str, Any], method: UNetMethod) -> dict[str, Any]:
    import monai
    import nibabel
    import numpy
    import scipy
    import torch

    release, factor = card.get("release", {}), method.patches.region
    volume = {
        "type": "image",
        "format": "magnitude",
        "modality": "MR",
        "num_channels": 1,
        "spatial_shape": [f"{edge}*{name}" for edge, name in zip(factor, "hwd", strict=True)],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
    }
    packages = {"nibabel": nibabel.__version__, "scipy": scipy.__version__}
    version = card.get("versions", {}).get("iqt", "0.0.0")
    return {
        "schema": SCHEMA,
        "version": version,
        "changelog": {version: "as trained"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": numpy.__version__,
        "required_packages_version": packages,
        "optional_packages_version": {},
        "name": card.get("name") or card["kind"],
        "task": "Enhancement of low-field brain MRI",
        "description": f"A residual U-Net that enhances low-field {card.get('suffix') or 'brain'} scans",
        "authors": "The iqt contributors",
        "copyright": release.get("licence", "not stated"),
        "data_source": release.get("data", "not recorded"),
        "data_type": "nifti",
        "intended_use": "Research alone, not for diagnosis: lesions may vanish or be invented",
        "references": ["Kim et al. 2023, arXiv:2311.06631", "Kerfoot et al. 2018, doi:10.1007/978-3-030-12029-0_40"],
        "network_data_format": {
            "inputs": {"image": {**volume, "channel_def": {"0": "low-field volume, standardised"}}},
            "outputs": {"pred": {**volume, "channel_def": {"0": f"{method.wanted}, standardised"}}},
        },
    }


def _inference(card: Mapping[str, Any], method: UNetMethod) -> dict[str, Any]:
    standard, channels = card["standardisation"], list(method.network.channels)
    keys = ["image", "mask"]
    residual = " + @data['lowfield']" if method.target == "residual" else ""
    return {
        "imports": ["$import numpy as np", "$import torch"],
        "bundle_root": ".",
        "image": "IN.nii.gz",
        "output_dir": "eval",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": {
            "_target_": "UNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 1,
            "channels": channels,
            "strides": [2] * (len(channels) - 1),
            "num_res_units": method.network.residual_units,
            "norm": "batch",
            "act": "prelu",
        },
        "weights": "$torch.load(@bundle_root + '/models/model.pt', map_location='cpu', weights_only=True)",
        "network": "$(@network_def.load_state_dict(@weights), @network_def.eval().to(@device))[1]",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelReader"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
                {"_target_": "CopyItemsd", "keys": "image", "names": "mask"},
                {"_target_": "Lambdad", "keys": "mask", "func": "$lambda x: (x != 0).float()"},
                {"_target_": "FillHolesd", "keys": "mask", "connectivity": 1},
                {
                    "_target_": "Spacingd",
                    "keys": keys,
                    "pixdim": card["grid"]["voxel_size_mm"],
                    "mode": [3, 1],
                    "padding_mode": "nearest",
                },
                {"_target_": "Lambdad", "keys": "mask", "func": "$lambda x: (x >= 0.5).float()"},
                {"_target_": "MaskIntensityd", "keys": "image", "mask_key": "mask"},
                {
                    "_target_": "CropForegroundd",
                    "keys": keys,
                    "source_key": "mask",
                    "margin": MARGIN,
                    "allow_smaller": True,
                },
                {"_target_": "Lambda", "func": SCALED},
                {"_target_": "DivisiblePadd", "keys": keys, "k": list(method.patches.region), "method": "end"},
                {"_target_": "CopyItemsd", "keys": "image", "names": "lowfield"},
                {
                    "_target_": "Lambdad",
                    "keys": "image",
                    "func": f"$lambda x: (x - {standard['input_mean']}) / {standard['input_sd']}",
                },
            ],
        },
        "data": "$@preprocessing({'image': @image})",
        "inferer": {"_target_": "SimpleInferer"},
        "pred": "$torch.inference_mode()(lambda: @inferer(@data['image'][None].to(@device), @network)[0].cpu())()",
        "result": f"$@data['mask'] * (@pred * {standard['target_sd']} + {standard['target_mean']}{residual})",
        "saver": {
            "_target_": "SaveImage",
            "output_dir": "@output_dir",
            "output_postfix": "enhanced",
            "separate_folder": False,
            "resample": False,
        },
        "run": ["$@saver(@result)"],
    }
