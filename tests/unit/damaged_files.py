"""Scans with headers and contents as they come from outside: doubtful, damaged, or absurd."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine

ACQUIRED = {
    "slice_axes": ["S"], "slice_spacing_mm": [5.0, 5.0], "slice_thickness_mm": [5.0, 5.0], "in_plane_mm": [3.0, 3.0]
}  # fmt: skip
GRID = {"axes": "RAS", "voxel_size_mm": [4.0, 4.0, 4.0], "acquired": ACQUIRED}
BEAD = np.array([22.0, -14.0, 9.0])


def ball(noise: float = 10.0, shape: tuple[int, ...] = (50, 48, 30)) -> tuple[np.ndarray, np.ndarray]:
    """A skull-stripped ball (0.8 l) with a bright bead, voxels of 3 x 3 x 5 mm, and its affine."""
    affine = nib.affines.from_matvec(np.diag([3.0, 3, 5]), [-73.5, -70.5, -72.5])
    world = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    bead = 500 * np.exp(-np.square(world - BEAD).sum(-1) / (2 * 6.0**2))
    values = 300 + bead + noise * np.random.default_rng(0).standard_normal(shape)
    return np.where(np.linalg.norm(world, axis=-1) < 58, values, 0).astype(np.float32), affine


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = None, kind: type = nib.Nifti1Image) -> Path:
    nib.save(kind(data, ball()[1] if affine is None else affine), path)
    return path


def claim(path: Path, shape: tuple[int, ...], dtype: type = np.float32, content: bytes = b"") -> Path:
    """A compressed NIfTI file whose header claims a shape, followed by `content`."""
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(dtype)
    raw = bytearray(header.binaryblock + bytes(4))
    raw[344:348] = b"n+1\0"
    struct.pack_into("<f", raw, 108, 352.0)
    path.write_bytes(gzip.compress(bytes(raw) + content))
    return path


def patched(path: Path, at: int, content: bytes) -> Path:
    raw = bytearray(path.read_bytes())
    raw[at : at + len(content)] = content
    path.write_bytes(raw)
    return path


def wrapped(path: Path) -> Path:
    """Values up to 45,000, stored in 16 bits with a sign."""
    data = ball()[0] * 50
    return save(path, data.astype(np.int64).astype(np.int16))


HEADERS = (
    *("both", "sform alone", "qform alone", "mirrored", "shifted", "scaled", "microns", "metres", "quaternion", "none"),
    *("analyze", "mgh", "nifti 2", "another order"),
)
"""Headers that are accepted."""


def headers(folder: Path) -> dict[str, tuple[Path, str, np.ndarray]]:
    """For each of `HEADERS` a file with the ball, what is said of it, and the affine that it is meant to have."""
    data, affine = ball()
    mirrored, far, larger = np.diag([-1.0, 1, 1, 1]) @ affine, affine.copy(), np.diag([1.2, 1.2, 1.2, 1]) @ affine
    far[2, 3] += 40

    def written(name: str, sform: np.ndarray | None, qform: np.ndarray | None) -> Path:
        image = nib.Nifti1Image(data, affine)
        image.set_sform(sform, 0 if sform is None else 1)
        image.set_qform(qform, 0 if qform is None else 1)
        nib.save(image, folder / f"{name}.nii")
        return folder / f"{name}.nii"

    def in_units(unit: str, mm: float) -> Path:
        image = nib.Nifti1Image(data, np.diag([1 / mm, 1 / mm, 1 / mm, 1]) @ affine)
        image.header.set_xyzt_units(unit)
        nib.save(image, folder / f"{unit}.nii")
        return folder / f"{unit}.nii"

    # Half a turn about the vertical axis, with a length that is off by a rounding.
    turned = affine @ np.diag([-1.0, -1, 1, 1])
    quaternion = patched(written("quaternion", None, turned), 256, struct.pack("<3f", 0, 0, 1.00002))
    placeless = written("none", None, None)
    analyze = folder / "a.img"
    nib.save(nib.AnalyzeImage(data, affine), analyze)
    other = np.array([[1, -1], [0, 1], [2, -1]])
    reordered = nib.Nifti1Image(data, affine).as_reoriented(other)
    nib.save(reordered, folder / "order.nii.gz")
    swapped = "left and right may be swapped"
    return {
        "both": (written("both", affine, affine), "", affine),
        "sform alone": (written("sform", affine, None), "", affine),
        "qform alone": (written("qform", None, affine), "", affine),
        "mirrored": (written("mirrored", affine, mirrored), f"mirror images, so {swapped}", affine),
        "shifted": (written("shifted", affine, far), "up to 40.0 mm apart; the sform is used", affine),
        "scaled": (
            written("scaled", affine, larger), "their voxels differ (3 x 3 x 5 mm against 3.6 x 3.6 x 6 mm)", affine
        ),
        "microns": (in_units("micron", 0.001), "units of a micron", affine),
        "metres": (in_units("meter", 1000.0), "units of a meter", affine),
        "quaternion": (quaternion, "taken for a rounding", turned),
        # Without any affine nibabel takes the voxels' sizes, the first axis to the left, and the middle as origin.
        "none": (placeless, swapped, nib.load(placeless).affine),
        "analyze": (analyze, "Analyze", nib.load(analyze).affine),
        "mgh": (save(folder / "m.mgz", data, kind=nib.MGHImage), "", affine),
        "nifti 2": (save(folder / "two.nii.gz", data, kind=nib.Nifti2Image), "", affine),
        "another order": (folder / "order.nii.gz", "", affine),
    }  # fmt: skip
