"""What `iqt models` prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iqt.enhance.intake import between
from iqt.io.nifti import in_mm
from iqt.io.shipped import DEFAULTS, enhancement_models
from iqt.training.checkpoints import load_card


def list_models() -> str:
    """The shipped models that enhance, a paragraph each."""
    found = enhancement_models()
    if not found:
        return "No model that enhances ships with this version."
    return "\n\n".join(_describe(name, folder) for name, folder in found.items())


def _describe(name: str, folder: Path) -> str:
    card = load_card(folder)
    release: Mapping[str, Any] = card.get("release", {})
    default = " (the default)" if DEFAULTS.get(card.get("suffix")) == name else ""
    size = (folder / "model.safetensors").stat().st_size / 1e6
    facts = {
        "contrast": f"{card.get('suffix')}{default}",
        "network": f"{card['kind']}, {card['n_parameters']:,} parameters, {size:.1f} MB",
        "writes": in_mm(card["grid"]["voxel_size_mm"]),
        "trained on": acquired_in_words(card["grid"].get("acquired")),
        **({"draws": f"{drawn_in_words(drawn)}; --sd says how sure it is"} if (drawn := card.get("sampling")) else {}),
        "people": release.get("data", "not recorded"),
        "measured": release.get("measured", "not recorded"),
        "limits": release.get("limits", "not recorded"),
        "licence": release.get("licence", "not recorded"),
        "checksum": card["weights_sha256"],
    }
    width = max(map(len, facts))
    return "\n".join([name, *(f"  {key.ljust(width)}  {value}" for key, value in facts.items())])


def drawn_in_words(sampling: Mapping[str, Any]) -> str:
    """How a model's samples are drawn where a user says nothing: the `sampling` of its card."""
    steps, samples = f" in {sampling['steps']} steps each" if "steps" in sampling else "", sampling.get("samples", 1)
    return f"the mean of {samples} samples{steps}" if samples > 1 else f"one sample{steps}"


def acquired_in_words(acquired: Mapping[str, Any] | None) -> str:
    """What scans a model knows: the `acquired` of its card's grid."""
    if acquired is None:
        return "not recorded"
    axes = ", ".join(acquired["slice_axes"])
    thickness, spacing, plane = (
        between(acquired[key]) for key in ("slice_thickness_mm", "slice_spacing_mm", "in_plane_mm")
    )
    return f"slices {thickness} mm thick, {spacing} mm apart, along {axes}; voxels of {plane} mm within a slice"
