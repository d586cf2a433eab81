"""Volumes of known content for the tests of the simulator."""

from __future__ import annotations

import numpy as np

from iqt.degrade import contrast
from iqt.io.volumes import Volume

WM, GM, CSF = 1000.0, 700.0, 200.0
ALL_ARTEFACTS = {
    "artefacts": {
        "kspace": [0.7, 0.9],
        "bias_field": [0.1, 0.3],
        "distortion": [2, 4],
        "rotation": [1, 3],
        "translation": [1, 2],
    }
}
"""Settings with every artefact on."""


def affine_of(codes: str, voxel_size: float = 2.0) -> np.ndarray:
    """An affine whose array axes point to the named directions, with the origin off the centre."""
    axes = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, code in enumerate(codes):
        affine[axes[code], column] = voxel_size * (1 if code in "RAS" else -1)
    affine[:3, 3] = (-31.0, 17.0, 5.0)
    return affine


def phantom(shape=(40, 40, 48), codes: str = "RAS") -> tuple[Volume, dict[str, np.ndarray]]:
    """Three homogeneous slabs side by side in the first axis, with a background of zero around them."""
    tissues = {name: np.zeros(shape, np.float32) for name in contrast.TISSUES}
    third = shape[0] // 4
    for position, name in enumerate(contrast.TISSUES):
        tissues[name][2 + position * third : 2 + (position + 1) * third, 3:-3] = 1
    data = WM * tissues["WM"] + GM * tissues["GM"] + CSF * tissues["CSF"]
    return Volume(data, affine_of(codes)), tissues
