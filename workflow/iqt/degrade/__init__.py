"""The low-field simulator, which can be used alone.

    from iqt.degrade import LowField, apply, draw
    from iqt.io.volumes import read_volume

    settings = LowField(preset="iqt-8x")
    drawn = draw(settings, seed=1, scan="sub-01")
    result = apply(read_volume("T1w.nii.gz"), {"WM": wm, "GM": gm, "CSF": csf}, settings, drawn)

`result.thick` holds the slices as acquired and their affine, `result.upsampled` the same on the scan's grid.
`tissues_from_labels` and `tissues_by_hmrf` make posteriors where there are none.
"""

from iqt.config import LowField
from iqt.degrade.classify import tissues_by_hmrf
from iqt.degrade.labels import tissues_from_labels
from iqt.degrade.record import Draw
from iqt.degrade.simulator import LowFieldResult, apply, draw

__all__ = ["Draw", "LowField", "LowFieldResult", "apply", "draw", "tissues_by_hmrf", "tissues_from_labels"]
