"""The slices and small volumes that figures and the page need, cut once so that they redraw without the scans."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from zipfile import BadZipFile

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to
from scipy.ndimage import center_of_mass
from skimage.transform import downscale_local_mean

from iqt.errors import UserError
from iqt.io.batch import OK, status_of
from iqt.io.files import replacing
from iqt.io.naming import anat, flat
from iqt.io.volumes import Volume, bounding_box, intensity_scale, read_on_grid, read_volume

PLANES = ("sagittal", "coronal", "axial")
"""In the order of the axis that is fixed: right, anterior, superior."""
WINDOW = 1.1
"""Upper end of the grey window in units of the 99.5th percentile."""
VIEWED = 112
"""Longest edge, in voxels, of the volumes that the page's viewer shows; larger ones are averaged in blocks."""


def extract_panels(
    scan: str,
    suffix: str,
    cohort: Path,
    lowfield: Path,
    enhanced: dict[str, Path],
    parcellation: dict[str, Path],
    out: Path,
) -> None:
    """Write one scan's slices through the centre of mass of its brain mask, cropped to the mask's box, as NPZ.

    Keys: `<what>__<plane>`, what being `lowfield`, `hq`, `<method>`, `sd-<method>` (float16) and `seg-hq`,
    `seg-<method>` (int16). A slice is (rows, columns) as displayed: superior or anterior in the first row, right or
    (sagittal) anterior in the last column. Beside them: `scan`, `methods` and `planes` in order, `voxel_size` (mm along
    R, A, S), and `missing` with `reasons`: what a stage could not make, and why. `volume-<what>` is the whole box (X,
    Y, Z along R, A, S; uint8 over the grey window) of `lowfield`, `hq` and `<method>`, in blocks of `block` voxels.

    The low-field volume is shown as it was acquired, thick slices and all, by its nearest voxels on the reference's
    grid. Reference and low-field are divided by their own 99.5th percentile in the mask; results are on that scale as
    saved. What lies outside the mask is set to 0, as it is in the results.

    Args:
        enhanced: each method's folder, in the order of the tables.
        parcellation: the folder of `hq` (the reference) and of each method.

    Raises:
        UserError: a volume that its sidecar calls ok is absent, unreadable or on another grid.
    """
    slices: dict[str, np.ndarray] = {}
    missing: dict[str, str] = {}

    def available(what: str, sidecar: Path) -> bool:
        status = status_of(sidecar)
        if status != OK:
            missing[what] = status
        return status == OK

    voxel_size, block = np.full(3, np.nan), 1
    if available("hq", anat(cohort, scan, f"{suffix}.json")):
        reference = read_volume(anat(cohort, scan, f"{suffix}.nii.gz"))
        mask = read_on_grid(anat(cohort, scan, "desc-brain_mask.nii.gz"), reference, np.uint8) > 0
        cut = _Cut(mask, reference.affine)
        voxel_size, block = cut.voxel_size, cut.block
        slices |= cut.whole("hq", reference.data / intensity_scale(reference.data, mask))
        if available("lowfield", anat(lowfield, scan, f"{suffix}.json")):
            thick = as_acquired(read_volume(anat(lowfield, scan, f"{suffix}.nii.gz")), reference)
            slices |= cut.whole("lowfield", thick / intensity_scale(thick, mask))
        for method, folder in enhanced.items():
            if not available(method, flat(folder, scan, f"{suffix}.json")):
                continue
            slices |= cut.whole(method, read_on_grid(flat(folder, scan, f"{suffix}.nii.gz"), reference))
            spread = flat(folder, scan, f"desc-sd_{suffix}.nii.gz")
            if spread.exists():
                slices |= cut.through(f"sd-{method}", read_on_grid(spread, reference))
        for what, folder in parcellation.items():
            if what not in missing and available(f"seg-{what}", flat(folder, scan, "dseg.json")):
                labels = read_on_grid(flat(folder, scan, "dseg.nii.gz"), reference, np.int16)
                slices |= cut.through(f"seg-{what}", labels)

    # numpy stamps every member of the archive with 1980-01-01, so that equal slices give equal bytes
    with replacing(out) as temporary:
        np.savez_compressed(
            temporary,
            **slices,
            scan=np.array(scan),
            methods=np.array(list(enhanced), dtype=str),
            planes=np.array(PLANES),
            voxel_size=voxel_size,
            block=np.array(block),
            missing=np.array(list(missing), dtype=str),
            reasons=np.array(list(missing.values()), dtype=str),
        )


class Panel:
    """A scan's slices as `extract_panels` wrote them."""

    def __init__(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as archive:
                content = {key: archive[key] for key in archive.files}
            self.scan = str(content["scan"])
            self.methods: list[str] = content["methods"].tolist()
            self.voxel_size: np.ndarray = content["voxel_size"]
            self.missing: dict[str, str] = dict(
                zip(content["missing"].tolist(), content["reasons"].tolist(), strict=True)
            )
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; run the evaluate stage first") from None
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise UserError(f"{path}: not readable as a panel ({error}); delete it and run again") from None
        self._content = content

    def __contains__(self, what: str) -> bool:
        return f"{what}__{PLANES[0]}" in self._content

    def slice(self, what: str, plane: str) -> np.ndarray:
        """One slice (rows, columns); images as float32, labels as int16."""
        found = self._content[f"{what}__{plane}"]
        return found.astype(np.float32) if found.dtype == np.float16 else found

    def volume(self, what: str) -> np.ndarray | None:
        """The whole box (X, Y, Z; uint8 over the grey window); None where there is none."""
        return self._content.get(f"volume-{what}")

    @property
    def volume_voxel_size(self) -> np.ndarray:
        """Edges, in mm along R, A, S, of a voxel of `volume`."""
        return self.voxel_size * int(self._content["block"])

    def pixel(self, plane: str) -> tuple[float, float]:
        """Height and width of a plane's pixel in mm."""
        right, anterior, superior = (float(edge) for edge in self.voxel_size)
        return {"sagittal": (superior, anterior), "coronal": (superior, right), "axial": (anterior, right)}[plane]


class _Cut:
    """The three slices through a mask's centre of mass, in the closest canonical (RAS) orientation."""

    def __init__(self, mask: np.ndarray, affine: np.ndarray) -> None:
        self.affine = affine
        self.mask = mask
        turned = nib.as_closest_canonical(nib.Nifti1Image(mask.astype(np.uint8), affine))
        canonical = np.asarray(turned.dataobj)
        self.voxel_size = nib.affines.voxel_sizes(turned.affine)
        self.box = bounding_box(canonical)
        self.centre = [round(place) for place in center_of_mass(canonical)]
        self.block = math.ceil(max(side.stop - side.start for side in self.box) / VIEWED)

    def whole(self, what: str, data: np.ndarray) -> dict[str, np.ndarray]:
        """The three slices, and the box as the viewer shows it."""
        box = downscale_local_mean(self._canonical(data, np.float32)[self.box], self.block)
        grey = np.clip(np.rint(box / WINDOW * 255), 0, 255).astype(np.uint8)
        return {**self.through(what, data), f"volume-{what}": grey}

    def _canonical(self, data: np.ndarray, kind: type) -> np.ndarray:
        turned = nib.as_closest_canonical(nib.Nifti1Image(np.where(self.mask, data, 0).astype(kind), self.affine))
        return np.asarray(turned.dataobj)

    def through(self, what: str, data: np.ndarray) -> dict[str, np.ndarray]:
        kind = np.int16 if np.issubdtype(data.dtype, np.integer) else np.float32
        canonical = self._canonical(data, kind)
        stored = np.int16 if kind is np.int16 else np.float16
        found = {}
        for axis, plane in enumerate(PLANES):
            index = tuple(self.centre[axis] if other == axis else self.box[other] for other in range(3))
            found[f"{what}__{plane}"] = np.ascontiguousarray(canonical[index].T[::-1].astype(stored))
        return found


def as_acquired(thick: Volume, reference: Volume) -> np.ndarray:
    """A volume's nearest voxels on the reference's grid, so that thick slices stay visible as blocks."""
    image = nib.Nifti1Image(thick.data, thick.affine)
    return np.asarray(
        resample_from_to(image, (reference.data.shape, reference.affine), order=0, mode="nearest").dataobj,
        dtype=np.float32,
    )
