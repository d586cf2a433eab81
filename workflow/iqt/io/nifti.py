"""Image files from outside, opened without trust: bounded, complete, and with what their header leaves in doubt.

nibabel reads the formats. What it lets pass is caught here: sizes that a header claims and the file does not hold,
checksums of compressed files (it stops reading before them), quaternions that are off by a rounding, units other than
millimetres, and headers that place a voxel in two ways.
"""

from __future__ import annotations

import gzip
import io
import itertools
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from iqt.compute.free import free_bytes

LARGEST = 2**29
"""Voxels of the largest volume that is read, 800 a side; a header that names more is damaged."""
LARGEST_BYTES = 8 * LARGEST
"""Of such a volume, in the largest voxels that it can have."""
TAIL = 2**26
"""Bytes that may follow a volume's values, such as MGH's tags; more is nothing that an image has."""
CHUNK = 2**22
NO_AFFINE = (
    "it has no affine (qform_code and sform_code are 0): its axes are taken to run left, front and up, so left and "
    "right may be swapped"
)
UNITS_MM = {"meter": 1000.0, "micron": 0.001}
AGREEING = 0.1
"""Distance, in voxels, up to which qform and sform count as the same."""
LONG_QUATERNION = 1e-3
"""By how much the squared length of a quaternion's stored part may exceed 1: people write it with three digits."""
for _header in (nib.Nifti1Header, nib.Nifti2Header):
    _header.quaternion_threshold = -LONG_QUATERNION


class Opened(NamedTuple):
    """`data` as stored and scaled, `affine` (4, 4) to world mm, what is doubtful about where its voxels lie
    (sentences), and the step in which scaled integers were stored (0 for what is not scaled)."""

    data: np.ndarray
    affine: np.ndarray
    doubts: tuple[str, ...]
    step: float


def open_image(path: Path) -> Opened:
    """A volume (X, Y, Z), or with more axes of length 1, from a file that nibabel knows.

    Raises:
        UnusableError: it is no single volume, too large a one, or its integers ran over.
        Exception: whatever nibabel raises of files that are cut off, damaged, or that a header lies about.
    """
    try:
        image = _load(path)
    except ValueError as error:
        if "w2 should be positive" not in str(error):
            raise
        raise UnusableError("its quaternion is no rotation: its parts are too large; correct its header") from None
    shape = tuple(image.shape)
    proxy = image.dataobj
    data = np.asanyarray(proxy)
    if data.ndim > 3:
        data = data.reshape(shape[:3])
    slope, inter = (getattr(proxy, name, default) for name, default in (("slope", 1.0), ("inter", 0.0)))
    scaled = (slope, inter) != (1.0, 0.0)
    if not scaled:
        _refuse_wrapped(data)
    affine, doubts = _place(image)
    doubts += _sizes_missing(path, image)
    return Opened(data, affine, tuple(doubts), abs(float(slope)) if scaled else 0.0)


def _load(path: Path) -> nib.spatialimages.SpatialImage:
    """The image, of a size that can be read; a compressed one is read to its end, where its checksum is, and no further
    than its header says."""
    name = path.name.lower()
    if not name.endswith((".nii.gz", ".mgz")):
        if name.endswith(".gz"):  # an Analyze pair, of which nibabel opens both
            _read_to_the_end(path)
        image = nib.load(path)
        _check_size(tuple(image.shape), image.get_data_dtype().itemsize)
        return image
    if os.stat(path).st_size == 0:
        raise ValueError("the file is empty")
    with gzip.open(path) as stream:
        start = stream.read(540)
        kind, most = _expected(path, start)
        content = io.BytesIO()
        content.write(start)
        while content.tell() <= most and (more := stream.read(min(CHUNK, most + 1 - content.tell()))):
            content.write(more)
    if content.tell() > most:
        raise ValueError(f"it holds more than the {(most - TAIL) / 1e6:.0f} MB that its header asks for")
    content.seek(0)
    return kind.from_stream(content)


def _read_to_the_end(path: Path) -> None:
    """Have gzip compare the checksum; an error where it does not fit, or more comes out than any volume has."""
    total = 0
    with gzip.open(path) as stream:
        while more := stream.read(CHUNK):
            total += len(more)
            if total > LARGEST_BYTES:
                raise ValueError(f"it holds more than {LARGEST_BYTES / 1e9:.0f} GB")


def _expected(path: Path, start: bytes) -> tuple[type, int]:
    """The class of a compressed image, and the most bytes it can have, from its first bytes."""
    if path.name.lower().endswith(".mgz"):
        header = nib.freesurfer.mghformat.MGHHeader(start[:284], check=False)
        kind, offset = nib.MGHImage, 284
    else:
        kind = nib.Nifti2Image if start[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nib.Nifti1Image
        header = kind.header_class(start[: kind.header_class.template_dtype.itemsize], check=False)
        if header["magic"] not in (b"n+1", b"n+2", b"ni1", b"ni2"):
            raise ValueError("it is no NIfTI file")
        offset = float(header["vox_offset"])
        if not 0 <= offset <= TAIL:
            raise ValueError(f"its header puts the values at byte {offset:g}")
    shape = tuple(int(side) for side in header.get_data_shape())
    stored = header.get_data_dtype().itemsize
    _check_size(shape, stored)
    return kind, int(offset) + math.prod(shape) * stored + TAIL


def _check_size(shape: tuple[int, ...], stored: int) -> None:
    """That a header with `stored` bytes a voxel claims a single volume, of a size that fits into memory.

    Raises:
        ValueError, UnusableError: it claims no volume, several, or one that is too large.
        MemoryError: the values as they are stored, as they are scaled (float64) and as float32 exceed what is free: the
            kernel would end the process, and with it the scans after this one.
    """
    if min(shape, default=0) < 1:
        raise ValueError(f"its header says the shape {shape}")
    if len(shape) < 3 or math.prod(shape[3:]) != 1:
        raise UnusableError(f"has shape {shape}, but a single 3D volume is needed; extract one volume")
    if math.prod(shape) > LARGEST:
        raise UnusableError(
            f"has shape {shape}: {math.prod(shape):.3g} voxels, and at most {LARGEST:.3g} are read; correct its header"
        )
    needed, free = math.prod(shape) * (stored + 12), free_bytes()
    if needed > free:
        raise MemoryError(f"shape {shape} takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")


class UnusableError(Exception):
    """The file is whole and yet holds no usable volume; the message says why."""


def _refuse_wrapped(data: np.ndarray) -> None:
    """UnusableError where integers of 16 bits ran over: far below zero right beside the largest ones."""
    if data.dtype.kind != "i" or data.dtype.itemsize != 2 or data.max() < 24000 or data.min() > -16000:
        return
    bright, dark = data > 24000, data < -16000
    touching = 0
    for axis in range(3):
        first, second = [slice(None)] * 3, [slice(None)] * 3
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        for one, other in ((bright, dark), (dark, bright)):
            touching += np.count_nonzero(one[tuple(first)] & other[tuple(second)])
    if touching >= 3:
        raise UnusableError(
            f"its 16-bit integers ran over: values down to {data.min()} lie right beside ones of {data.max()}; export "
            "it again as floating point"
        )


def _place(image: nib.spatialimages.SpatialImage) -> tuple[np.ndarray, list[str]]:
    """The affine to world mm, and what is doubtful about it."""
    header, doubts = image.header, []
    affine = np.asarray(image.affine, dtype=float)
    if isinstance(header, nib.Nifti1Header):
        affine, doubts = _nifti_place(image)
        unit = _unit(header)
        if unit in UNITS_MM:
            affine = affine.copy()
            affine[:3] *= UNITS_MM[unit]
            doubts.append(f"its header gives lengths in units of a {unit}; they are taken so")
    elif isinstance(header, nib.AnalyzeHeader):
        doubts.append(
            "it is an Analyze file, whose format does not say which side is left: left and right may be swapped"
        )
    elif isinstance(header, nib.freesurfer.mghformat.MGHHeader) and not int(header["goodRASFlag"]):
        doubts.append("its header has no affine: FreeSurfer's default is taken, so left and right may be swapped")
    return affine, doubts


def _sizes_missing(path: Path, image: nib.spatialimages.SpatialImage) -> list[str]:
    """A sentence where a NIfTI header that places voxels by their sizes gives none, for which nibabel takes 1 mm."""
    if not isinstance(image, nib.Nifti1Image) or int(image.header["sform_code"]) > 0:
        return []
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as stream:
        kind = type(image.header)
        raw = kind(stream.read(kind.template_dtype.itemsize), check=False)
    if (np.asarray(raw["pixdim"][1:4], dtype=float) > 0).all():
        return []
    return ["its header gives no size of its voxels along an axis, for which 1 mm is taken; correct its header"]


def _unit(header: nib.Nifti1Header) -> str:
    try:
        return header.get_xyzt_units()[0]
    except KeyError:  # a code that the standard does not have
        return "unknown"


def _nifti_place(image: nib.Nifti1Image) -> tuple[np.ndarray, list[str]]:
    header, doubts = image.header, []
    codes = {name: int(header[f"{name}_code"]) > 0 for name in ("sform", "qform")}
    sform = header.get_sform() if codes["sform"] else None
    qform = None
    if codes["qform"]:
        excess = float(np.square([float(header[f"quatern_{part}"]) for part in "bcd"]).sum()) - 1
        qform = header.get_qform() if excess <= LONG_QUATERNION else None
        if qform is None or not _usable(qform):
            doubts.append("its qform is no rotation and is passed over")
            qform = None
        elif excess > 1e-5:
            doubts.append(f"its quaternion's squared length exceeds 1 by {excess:.1g}, which is taken for a rounding")
    if sform is not None and not _usable(sform):
        doubts.append("its sform is not invertible and is passed over")
        sform = None
    if sform is not None and qform is not None:
        doubts += _disagreement(sform, qform, image.shape[:3])
    if not any(codes.values()):
        doubts.append(NO_AFFINE)
    found = sform if sform is not None else qform if qform is not None else np.asarray(image.affine, dtype=float)
    return np.asarray(found, dtype=float), doubts


def _usable(affine: np.ndarray) -> bool:
    return bool(np.isfinite(affine).all()) and abs(np.linalg.det(affine[:3, :3])) > 1e-12


def _disagreement(sform: np.ndarray, qform: np.ndarray, shape: tuple[int, ...]) -> list[str]:
    """How far apart the two put the volume's corners, as a sentence; nothing where it is a rounding."""
    corners = np.array(list(itertools.product(*((0, side - 1) for side in shape))), dtype=float)
    apart = np.linalg.norm(nib.affines.apply_affine(sform, corners) - nib.affines.apply_affine(qform, corners), axis=1)
    if apart.max() <= AGREEING * nib.affines.voxel_sizes(sform).min():
        return []
    mirrored = np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0
    sizes = [nib.affines.voxel_sizes(each) for each in (sform, qform)]
    scaled = not np.allclose(*sizes, rtol=0.01)
    how = " and they are mirror images, so left and right may be swapped" if mirrored else ""
    how += f" and their voxels differ ({in_mm(sizes[0])} against {in_mm(sizes[1])})" if scaled else ""
    return [f"its sform and qform put it up to {apart.max():.1f} mm apart{how}; the sform is used"]


def in_mm(values: Iterable[float]) -> str:
    """Lengths along three axes, as a person reads them."""
    return " x ".join(f"{value:.3g}" for value in values) + " mm"
