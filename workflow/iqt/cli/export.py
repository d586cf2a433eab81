"""The command that hands models on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from iqt.cli.options import TRAINING, app


@app.command(rich_help_panel=TRAINING)
def export(
    model: Annotated[str, typer.Argument(help="Name of a shipped model (iqt models), or a folder.")],
    folder: Annotated[Path, typer.Argument(help="New folder to write to.")],
    format: Annotated[
        Literal["monai-bundle", "onnx"], typer.Option(help="A MONAI bundle (U-Nets), or ONNX (networks of one pass).")
    ] = "monai-bundle",
) -> None:
    """Write a trained model, with a card for the Hugging Face hub, so that it runs without iqt."""
    from iqt.io.shipped import find_model

    found = find_model(model, None)
    if format == "onnx":
        from iqt.export.onnx import write_onnx

        write_onnx(found, folder)
    else:
        from iqt.export.bundle import write_bundle

        write_bundle(found, folder)
    print(folder)
