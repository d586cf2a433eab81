"""What ships with the package, in a checkout and installed alike: look-up tables and trained models."""

from __future__ import annotations

from pathlib import Path

from iqt.errors import UserError

RESOURCES = Path(__file__).resolve().parents[1] / "resources"
"""A link to the checkout's `resources/`; a folder where the package is installed."""
MODELS = RESOURCES / "models"
"""A folder for each trained model."""
DEFAULTS = {"T1w": "t1w-unet"}
"""Name of the model that enhances a scan of a contrast, where none is named."""
PARCELLATOR = MODELS / "parcellator"
"""The 3D parcellator of T1w scans."""
PARCELLATOR_TABLE = "aseg"
"""Name of the look-up table of its labels."""


def table_file(name: str) -> Path:
    """A look-up table: `resources/<name>_dseg.tsv`, or a user's own file where the name ends in .tsv."""
    return Path(name) if name.endswith(".tsv") else RESOURCES / f"{name}_dseg.tsv"


def enhancement_models() -> dict[str, Path]:
    """The folders of the shipped models that enhance, by name."""
    folders = sorted(path.parent for path in MODELS.glob("*/model.json"))
    return {folder.name: folder for folder in folders if folder != PARCELLATOR}


def is_own_model(named: str) -> bool:
    """Whether a folder of the user's is meant. One with the name of a model that ships is only if it is a model."""
    return Path(named).is_dir() and (named not in enhancement_models() or Path(named, "model.json").is_file())


def find_model(named: str | None, contrast: str | None) -> Path:
    """The folder of a model that enhances: one of the shipped by its name, a user's own, or without a name the shipped
    one for a contrast (T1w where nothing tells it).

    Raises:
        UserError: there is none of that name or for that contrast.
    """
    shipped = enhancement_models()
    if named is not None:
        if is_own_model(named):
            return Path(named)
        if named in shipped:
            return shipped[named]
        raise UserError(f"--model {named}: neither a folder nor one of the shipped models, {', '.join(shipped)}")
    contrast = contrast or "T1w"
    name = DEFAULTS.get(contrast)
    if name not in shipped:
        known = ", ".join(key for key, value in DEFAULTS.items() if value in shipped) or "none"
        raise UserError(
            f"no shipped model enhances {contrast} scans (there are some for: {known}); train one, and name its folder "
            "with --model"
        )
    return shipped[name]
