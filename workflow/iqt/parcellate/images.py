"""The volumes that a parcellator reads: a cohort's high-quality scans, or a method's results."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from iqt.io.batch import require_ok, warnings_of
from iqt.io.naming import anat, flat
from iqt.io.volumes import Volume, intensity_scale, read_on_grid, read_volume


class Images(NamedTuple):
    """Where they are: `layout: anat` is the cohort's, `flat` a folder of enhanced results. Masks are the cohort's."""

    folder: Path
    layout: Literal["anat", "flat"]
    suffix: str
    cohort: Path

    def read(self, scan: str) -> tuple[Volume, np.ndarray]:
        """A volume on the high-quality intensity scale and its brain mask (X, Y, Z); the doubts are those of
        the scan that it comes from.

        High-quality scans are divided by their own percentile; results are on that scale and never rescaled.

        Raises:
            UserError: an earlier stage failed on the scan (`<stage>: <reason>`), or a file is not usable.
        """
        name, stage = (anat, "cohort") if self.layout == "anat" else (flat, "enhance")
        record = require_ok(name(self.folder, scan, f"{self.suffix}.json"), stage)
        volume = read_volume(name(self.folder, scan, f"{self.suffix}.nii.gz"))
        volume = volume._replace(doubts=tuple(warnings_of(record)))
        mask = read_on_grid(anat(self.cohort, scan, "desc-brain_mask.nii.gz"), volume, np.uint8) > 0
        if self.layout == "anat":
            volume = volume._replace(data=volume.data / intensity_scale(volume.data, mask))
        return volume, mask
