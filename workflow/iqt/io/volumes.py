"""Reading, checking and writing NIfTI volumes, and the one intensity scale of the project."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from iqt.errors import MemoryShortError, StopError, UserError
from iqt.imaging.kinds import kind_of
from iqt.io.files import DISK, missing_file, read_json, replacing
from iqt.io.naming import SCAN_PATTERN
from iqt.io.nifti import NO_AFFINE, Opened, UnusableError, open_image

SCALE_PERCENTILE = 99.5
SAME_PLACE = 0.05
"""Distance in voxels up to which two grids are the same: what writing an affine with few digits leaves."""
ROUNDING = 1e-3
"""How far from an integer a label may be stored."""
COARSEST_STEP = 0.5
"""The largest slope of scaled integers at which labels are told from an image: half of it is how far off a label may be
stored, and an image's values lie anywhere between."""
CERTAIN = (100, 255)
"""What stands for certainty in a map of probabilities that holds integers."""
SURE = 0.8
"""Share of certainty that most voxels of a brain reach in such a map: a brain's image, of which what is not 0 is brain,
has but few as bright."""


class Volume(NamedTuple):
    """`data` (X, Y, Z) and `affine` (4, 4), voxel indices to world millimetres (RAS+)."""

    data: np.ndarray
    affine: np.ndarray
    doubts: tuple[str, ...] = ()
    """What the file's header leaves in doubt about where its voxels lie, sentences."""

    @property
    def voxel_size(self) -> np.ndarray:
        """Edge lengths of a voxel along the array's axes, in mm."""
        return nib.affines.voxel_sizes(self.affine)

    @property
    def slice_mm(self) -> float:
        """Distance of the slices in mm, if these are what a scan has furthest apart."""
        return float(self.voxel_size.max())


def read_volume(path: str | Path, dtype: type = np.float32) -> Volume:
    """A 3D volume as `dtype`, with what its header leaves in doubt.

    As integers, values within a thousandth of one (or half a step of a scaled integer file) are rounded to it.

    Raises:
        UserError: absent, unreadable, incomplete, not 3D, not finite, beyond what `dtype` holds, without a usable
            affine, or no labels where integers are wanted.
    """
    path = Path(path)
    try:
        opened = open_image(path)
    except FileNotFoundError:
        record = None if path.is_symlink() else _record_of(path)
        gone = f"; it was made once and deleted: run snakemake again with --forcerun {record}" if record else ""
        raise UserError(f"{missing_file(path)}{gone}") from None
    except UnusableError as error:
        raise UserError(f"{path}: {error}") from None
    except MemoryError as error:
        raise MemoryShortError(f"{path}: does not fit into this machine's memory ({error})") from None
    except OSError as error:
        if error.errno is None:
            raise UserError(f"{path}: not readable as an image ({error}); is it complete?") from None
        kind = StopError if error.errno in DISK else UserError
        raise kind(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # a damaged header makes nibabel and numpy raise what they may
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: not readable as an image ({reason}); is it complete?") from None
    data, affine = opened.data, opened.affine
    if data.dtype.names or np.iscomplexobj(data):
        kind = "colours" if data.dtype.names else "complex numbers"
        raise UserError(f"{path}: holds {kind}, but a magnitude image with one number a voxel is needed")
    if not np.isfinite(data).all():
        raise UserError(f"{path}: holds {np.count_nonzero(~np.isfinite(data))} voxels that are NaN or infinite")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise UserError(f"{path}: its affine is not invertible, so voxels have no place in the world; fix the header")
    converted = _as_labels(path, opened, dtype) if np.issubdtype(dtype, np.integer) else _as_numbers(path, data, dtype)
    return Volume(np.ascontiguousarray(converted), affine, opened.doubts)


def _record_of(path: Path) -> Path | None:
    """The record of a volume that the workflow made: it knows a volume by that alone, and would not make it again."""
    scan = re.match(SCAN_PATTERN, path.name)
    for record in path.parent.glob(f"{scan.group()}_*.json") if scan else ():
        with contextlib.suppress(UserError):
            known = read_json(record)
            # A command for one scan writes its record, too, with a list of files.
            if isinstance(known, dict) and "status" in known and not isinstance(known.get("files"), list):
                return record
    return None


def _as_numbers(path: Path, data: np.ndarray, dtype: type) -> np.ndarray:
    """The values as floating point; UserError where that cannot hold them."""
    with np.errstate(over="ignore", under="ignore"):
        converted = data.astype(dtype)
    if not np.isfinite(converted).all():
        raise UserError(
            f"{path}: holds values up to {np.abs(data).max():.3g}, more than 32-bit numbers can; rescale it"
        )
    if data.any() and not converted.any():
        raise UserError(f"{path}: its values, up to {np.abs(data).max():.3g}, are 0 as 32-bit numbers; rescale it")
    return converted


def _as_labels(path: Path, opened: Opened, dtype: type) -> np.ndarray:
    """The values as integers; UserError where they are none, or more than `dtype` holds."""
    data = opened.data
    if not np.issubdtype(data.dtype, np.integer):
        rounded = np.rint(data)
        off = np.abs(data - rounded)
        tolerance = max(ROUNDING, 0.51 * opened.step if opened.step <= COARSEST_STEP else 0)
        if off.max(initial=0) > tolerance:
            example = data.flat[int(off.argmax())]
            raise UserError(
                f"{path}: holds values between integers, such as {example:.6g}, which are no labels; was it resampled "
                "by interpolation, or is it another image? Use nearest neighbour"
            )
        data = rounded
    limits = np.iinfo(dtype)
    if data.size and (data.min() < limits.min or data.max() > limits.max):
        raise UserError(
            f"{path}: holds labels from {data.min():g} to {data.max():g}, beyond {limits.min} to {limits.max}"
        )
    return data.astype(dtype)


def same_place(volume: Volume, reference: Volume) -> bool:
    """Whether two volumes have the same voxels, as far as a header written with few digits tells."""
    if volume.data.shape != reference.data.shape:
        return False
    outermost = corners(reference.data.shape)
    there = nib.affines.apply_affine(np.linalg.inv(reference.affine) @ volume.affine, outermost)
    return bool(np.abs(there - outermost).max() <= SAME_PLACE)


def as_stored_in(volume: Volume, reference: Volume) -> Volume | None:
    """The volume with its axes in the order and direction of `reference`'s, if it then has the same voxels, on exactly
    its affine; None where it lies on another grid. No value changes. A volume of the same shape without an affine is
    taken to be stored as `reference` is."""
    placeless = NO_AFFINE in volume.doubts and volume.data.shape == reference.data.shape
    if placeless or same_place(volume, reference):
        return Volume(volume.data, reference.affine, volume.doubts)
    own, wanted = (nib.io_orientation(each.affine) for each in (volume, reference))
    if np.isnan(own).any() or np.isnan(wanted).any():
        return None
    turn = nib.orientations.ornt_transform(own, wanted)
    data = nib.orientations.apply_orientation(volume.data, turn)
    turned = Volume(data, volume.affine @ nib.orientations.inv_ornt_aff(turn, volume.data.shape))
    if not same_place(turned, reference):
        return None
    return Volume(np.ascontiguousarray(data), reference.affine, volume.doubts)


def read_on_grid(path: str | Path, reference: Volume, dtype: type = np.float32) -> np.ndarray:
    """The data of a volume that must have `reference`'s voxels, in whatever order its axes are stored; UserError where
    it lies on another grid."""
    return read_like(path, reference, dtype).data


def read_like(path: str | Path, reference: Volume, dtype: type = np.float32) -> Volume:
    """The same as a volume, with what its header leaves in doubt."""
    volume = read_volume(path, dtype)
    found = as_stored_in(volume, reference)
    if found is None:
        raise UserError(
            f"{path}: lies on another grid than its reference: shape {volume.data.shape} against "
            f"{reference.data.shape}, or another affine; resample it first"
        )
    return found


def cut_mask(data: np.ndarray, where: object) -> np.ndarray:
    """What a file of a brain mask marks, bool (X, Y, Z): a half and more of a map of probabilities (up to 1, or whole
    numbers up to 100 or 255), else, of a mask, a label map or an image of the brain, what is not 0.

    Raises:
        UserError: it is empty, has negative values, or is neither a mask nor probabilities.
    """
    highest, lowest = float(data.max(initial=0)), float(data.min(initial=0))
    if highest <= 0 and lowest == 0:
        raise UserError(f"{where}: the brain mask is empty")
    if lowest < -ROUNDING * max(highest, 1):
        raise UserError(f"{where}: has values down to {lowest:.3g}, so it is no brain mask; give another file")
    if highest <= 1 + ROUNDING:
        inside = data >= 0.5
    elif np.abs(data - np.rint(data)).max() <= ROUNDING:
        certain = next((value for value in CERTAIN if highest <= value), None)
        soft = certain is not None and kind_of(data) == "image" and (data[data > 0] >= SURE * certain).mean() > 0.5
        inside = data >= (certain / 2 if soft else 0.5)
    else:
        raise UserError(
            f"{where}: has values between integers up to {highest:.3g}, so it is neither a mask nor probabilities from "
            "0 to 1; give a mask"
        )
    if not inside.any():
        raise UserError(f"{where}: nothing of the brain mask reaches one half, its largest value is {highest:.3g}")
    return inside


def read_mask(path: str | Path, reference: Volume) -> Volume:
    """A brain mask (bool) on `reference`'s grid, with its header's doubts: as `read_on_grid` and `cut_mask`."""
    found = read_like(path, reference)
    return found._replace(data=cut_mask(found.data, path))


def say_doubts(path: str | Path, doubts: Sequence[str]) -> list[str]:
    """The doubts of a file as warnings that name it."""
    return [f"{Path(path).name}: {doubt}" for doubt in doubts]


def save_volume(path: str | Path, data: np.ndarray, affine: np.ndarray) -> None:
    """Write a NIfTI file under a temporary name, then rename.

    Images are float32 without a slope (an integer file with a slope makes FastSurfer skip its own rescaling), masks
    uint8 and label maps int16.
    """
    if data.dtype == bool:
        data = data.astype(np.uint8)
    elif np.issubdtype(data.dtype, np.integer):
        if data.size and not -(2**15) <= data.min() <= data.max() < 2**15:
            raise UserError(f"{path}: labels from {data.min()} to {data.max()} do not fit into 16 bits; renumber")
        data = data.astype(data.dtype if data.dtype == np.uint8 else np.int16)
    else:
        data = data.astype(np.float32)
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        nib.save(image, temporary)


def intensity_scale(data: np.ndarray, mask: np.ndarray) -> float:
    """The value that a volume is divided by: its own 99.5th percentile inside the brain mask.

    Raises:
        UserError: the mask is empty, or the percentile is not positive.
    """
    inside = data[mask > 0]
    if inside.size == 0:
        raise UserError("the brain mask is empty")
    scale = float(np.percentile(inside, SCALE_PERCENTILE))
    if scale <= 0:
        raise UserError(f"the {SCALE_PERCENTILE}th percentile inside the brain mask is {scale:g}, not positive")
    return scale


def corners(shape: Sequence[int]) -> np.ndarray:
    """(8, 3) indices of a volume's outermost voxels."""
    return np.stack(np.meshgrid(*((0, side - 1) for side in shape)), axis=-1).reshape(-1, 3)


def bounding_box(mask: np.ndarray, margin: int | Sequence[int] = 0) -> tuple[slice, slice, slice]:
    """The smallest box around a mask, widened by `margin` voxels (along each axis) and cut at the volume's border."""
    margins = np.broadcast_to(margin, 3)
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(mask.any(axis=others))
        if filled.size == 0:
            raise UserError("the brain mask is empty")
        wider = int(margins[axis])
        box.append(slice(max(0, filled[0] - wider), min(mask.shape[axis], filled[-1] + 1 + wider)))
    return tuple(box)
