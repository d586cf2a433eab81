"""A brain of known tissues for the tests of the simulator, and a cohort of it."""

from __future__ import annotations

import numpy as np
from phantoms import affine_of
from scipy.ndimage import gaussian_filter

from iqt.io import naming
from iqt.io.files import write_json
from iqt.io.volumes import Volume, save_volume

INTENSITY = {
    "T1w": {"WM": 1000, "GM": 700, "CSF": 250},
    "T2w": {"WM": 300, "GM": 450, "CSF": 1000},
    "FLAIR": {"WM": 600, "GM": 850, "CSF": 150},
}


def brain(suffix="T1w", shape=(44, 48, 40), codes="RAS"):
    """A ball of white matter in a shell of grey in a shell of CSF: scan, true posteriors and FreeSurfer's labels."""
    grid = np.stack(np.meshgrid(*[np.arange(size) - (size - 1) / 2 for size in shape], indexing="ij"))
    radius = np.sqrt(np.square(grid).sum(0))
    truth = {"WM": radius < 10, "GM": (radius >= 10) & (radius < 14), "CSF": (radius >= 14) & (radius < 17)}
    soft = {name: gaussian_filter(mask.astype(np.float32), 0.7) for name, mask in truth.items()}
    inside = radius < 17
    total = sum(soft.values())
    soft = {name: np.where(inside, data / np.maximum(total, 1e-6), 0).astype(np.float32) for name, data in soft.items()}
    data = sum(INTENSITY[suffix][name] * soft[name] for name in soft)
    data = data + np.where(inside, np.random.default_rng(0).normal(0, 20, shape), 0)
    dseg = np.zeros(shape, np.int32)
    left = grid[0] < 0
    dseg[truth["WM"]] = 2
    dseg[truth["WM"] & ~left] = 41
    dseg[truth["GM"]] = 1024
    dseg[truth["GM"] & ~left] = 2024
    return Volume(np.maximum(data, 0).astype(np.float32), affine_of(codes)), soft, dseg, inside


def dice(one, other):
    one, other = one > 0.5, other > 0.5
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def assert_partition(found, inside):
    total = sum(found.values())
    np.testing.assert_allclose(total[inside], 1, atol=1e-4)
    assert total[~inside].max() == 0
    assert all(data.dtype == np.float32 and data.min() >= 0 for data in found.values())


def write_cohort(root, scans, suffix="T1w"):
    volume, soft, dseg, inside = brain(suffix)
    for scan in scans:
        save_volume(naming.anat(root, scan, f"{suffix}.nii.gz"), volume.data, volume.affine)
        save_volume(naming.anat(root, scan, "desc-brain_mask.nii.gz"), inside, volume.affine)
        save_volume(naming.anat(root, scan, "dseg.nii.gz"), dseg, volume.affine)
        for name, data in soft.items():
            save_volume(naming.anat(root, scan, f"label-{name}_probseg.nii.gz"), data, volume.affine)
        write_json(naming.anat(root, scan, f"{suffix}.json"), {"status": "ok"})
    return volume, soft, inside
