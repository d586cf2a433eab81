"""A model's card as Markdown, with the fields that Hugging Face's hub reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iqt import __version__
from iqt.enhance.listing import acquired_in_words
from iqt.io.nifti import in_mm

PAPER = """@article{kim2023diffusioniqt,
  title={A 3D Conditional Diffusion Model for Image Quality Transfer - An Application to Low-Field MRI},
  author={Kim, Seunghoi and Tregidgo, Henry F. J. and Eldaly, Ahmed K. and Figini, Matteo and Alexander, Daniel C.},
  journal={arXiv preprint arXiv:2311.06631}, year={2023}}"""
UNKNOWN = "not recorded"
TEXT = """---
{licence}library_name: iqt
pipeline_tag: image-to-image
tags: [medical, mri, brain, low-field, image-quality-transfer, {kind}]
---

# {name}

Enhances low-field brain MRI ({suffix}): it writes {voxels}, brain alone, where the scan lies.

**Not for diagnosis**: a lesion may vanish or be invented. {limits}

## Use

{use}
## What it was trained on

- Data: {data}
- Acquisitions: {acquired}
- Network: {kind}, {n_parameters:,} parameters; {steps} steps
- Intensities: {scale}

## What was measured

{measured}

## What it is

- Weights: SHA-256 {weights}
- Made with: {versions}; written by iqt {iqt}
- Recipe: {recipe}

## Citation

```bibtex
{paper}
```
"""


def model_card(card: Mapping[str, Any], use: str = "") -> str:
    """The Markdown of a card (`model.json`); `use` says how to run the form that it lies beside."""
    release = card.get("release", {})
    recipe = release.get("recipe")
    licence = release.get("licence")
    return TEXT.format(
        licence=f"license: {licence.lower()}\n" if licence else "",
        name=card.get("name") or card["kind"],
        kind=card["kind"],
        suffix=card.get("suffix") or UNKNOWN,
        voxels=f"voxels of {in_mm(card['grid']['voxel_size_mm'])}",
        limits=f"Trained on {release['limits']}." if "limits" in release else "",
        use=use or f"    iqt enhance IN.nii.gz OUT.nii.gz --model {card.get('name') or 'FOLDER'}\n",
        data=release.get("data") or _data(card.get("data", {})),
        acquired=acquired_in_words(card["grid"].get("acquired")),
        n_parameters=card["n_parameters"],
        steps=card.get("steps", UNKNOWN),
        scale=card.get("intensity_scale", UNKNOWN),
        measured=release.get("measured", "Nothing beside its validation loss."),
        weights=card["weights_sha256"],
        versions=", ".join(f"{name} {value}" for name, value in card.get("versions", {}).items()) or UNKNOWN,
        iqt=__version__,
        recipe=f"{recipe['config']} at commit {recipe['commit']}" if recipe else UNKNOWN,
        paper=PAPER,
    )


def _data(data: Mapping[str, Any]) -> str:
    if "n_train" not in data:
        return UNKNOWN
    source = data.get("source") or "a cohort without a name"
    return f"{source}, {data['n_train']} scans to train on and {data.get('n_val')} for validation"
