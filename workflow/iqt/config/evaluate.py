"""How results are scored."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from iqt.config.section import Name, Section

LPIPS_FILES = ("alexnet-owt-7be5be79.pth", "alex.pth")
"""AlexNet trained on ImageNet, as torchvision names the file, and LPIPS's weights of each feature (version 0.1), as the
packages lpips and torchmetrics do."""


class Evaluate(Section):
    """How results are scored."""

    highpass_sigma: Annotated[float, Field(gt=0)] = 1.5
    """Gaussian blur, in voxels, that `hfcorr` subtracts."""
    bootstrap: Annotated[int, Field(ge=100, le=1_000_000)] = 2000
    """Resamplings of the people behind each 95 % interval."""
    lpips: str | None = None
    """Folder with the weights of LPIPS, which are not shipped: `alexnet-owt-7be5be79.pth` (torchvision's AlexNet) and
    `alex.pth` (of the package lpips, version 0.1). With it that perceptual distance is in metrics/subjects.csv and in
    the table of further similarity, and experiments can show it; null: it is nowhere."""
    reference: Name | None = None
    """Method that the statistics compare every other with, named before any result is seen; null: the first one, and
    the tables and the page say that it was not named."""
