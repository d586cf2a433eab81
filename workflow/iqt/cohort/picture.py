"""A picture of a brain mask that looks wrong, for a person to judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from iqt.io.files import replacing
from iqt.io.naming import anat
from iqt.io.volumes import Volume


def picture_path(out: Path, scan: str, suffix: str) -> Path:
    """`out/sub-X[/ses-Y]/figures/<scan>_desc-mask_<suffix>.png`."""
    return anat(out, scan, "x").parents[1] / "figures" / f"{scan}_desc-mask_{suffix}.png"


def plot_mask(image: Volume, mask: np.ndarray, path: Path) -> None:
    """Three planes through the middle of the mask (of the volume, where it is empty), with the mask's outline."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    where = np.argwhere(mask)
    centre = np.rint(where.mean(axis=0)).astype(int) if len(where) else np.array(mask.shape) // 2
    top = np.percentile(image.data[mask > 0], 99.5) if len(where) else image.data.max()
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
    for axis, panel in enumerate(axes):
        aspect = [size for number, size in enumerate(image.voxel_size) if number != axis]
        plane = np.take(image.data, centre[axis], axis).T
        outline = np.take(mask > 0, centre[axis], axis).T
        panel.imshow(plane, cmap="gray", origin="lower", vmin=0, vmax=top, aspect=aspect[1] / aspect[0])
        if outline.any() and not outline.all():
            panel.contour(outline, levels=[0.5], colors="red", linewidths=0.8)
        panel.axis("off")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)
