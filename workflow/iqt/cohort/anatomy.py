"""The MNI152 template on a 1 mm grid: tissue maps, and which structure each place belongs to.

The maps are those that nilearn bundles (ICBM 2009a symmetric; Fonov et al., NeuroImage 54, 2011). Structures grow from
coordinates that nilearn bundles too (Seitzman et al., NeuroImage 206, 2020) and stop at the borders seen in the T1 map.
The template is mirror symmetric: everything is decided in the left half.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.segmentation import watershed

from iqt.errors import UserError
from iqt.io.files import checksum, read_table
from iqt.io.shipped import table_file
from iqt.io.volumes import bounding_box, read_volume

LUT = table_file("template")

FILES = (
    *(f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz" for name in ("t1", "gm", "wm")),
    "seitzman_2018_ROIs_300inVol_MNI_allInfo.txt",
    "seitzman_2018_ROIs_anatomicalLabels.txt",
)
"""What is read from nilearn's folder of data: T1, grey and white matter, then coordinates and their names."""
DEEP = ("Lateral-Ventricle", "Thalamus", "Caudate", "Putamen", "Hippocampus", "Amygdala")
KINDS = ("Cortex", *DEEP, "Cerebellum", "Brain-Stem")
"""Anatomy decides their borders; the cortex is not divided, since no border that an image shows divides it."""
KIND = {name: number for number, name in enumerate(KINDS)}
MIXED = ("Thalamus", "Putamen", "Brain-Stem")
"""Grey structures so full of fibres that their voxels hold both tissues."""

REACH_MM = {"Thalamus": 14, "Caudate": 18, "Putamen": 18, "Hippocampus": 13, "Amygdala": 9}
"""How far a structure may lie from its nearest coordinate; what the flood takes beyond is cortex or white matter."""

UNNAMED_MM = {
    "Brain-Stem": ((0, -25, -12), (0, -28, -32), (-8, -28, -25), (-6, -30, -40), (0, -40, -52)),
    "Hypothalamus": ((-5, -3, -10), (-10, -15, -9)),
}
"""Places that no bundled table names, in the left half: midbrain, pons, medulla; hypothalamus and subthalamic region,
counted as brain stem."""
HYPOTHALAMUS_REACH_MM = 10
WHITE_MATTER_MM = {"cerebrum": (-26, -20, 30), "Cerebellum": (-26, -58, -40)}
VENTRICLE_MM = (-6, 8, 10)
RIM_MM = 3
"""Voxels this close to the ventricle look grey where white matter and CSF share them; they are white matter."""


class Anatomy(NamedTuple):
    """The template, cut to the brain's box; arrays are (X, Y, Z) at 1 mm, and `origin` is voxel (0, 0, 0) in MNI mm."""

    gm: np.ndarray
    """Probability of grey matter; what `gm` and `wm` leave is CSF."""
    wm: np.ndarray
    inside: np.ndarray
    """1 in the brain, 0 outside."""
    kind: np.ndarray
    """Number in `KINDS` of the structure that a place belongs to, whatever its tissue."""
    mixed: np.ndarray
    """1 in the structures of `MIXED`, falling to 0 over a voxel."""
    origin: np.ndarray

    def box(self, margin: float) -> np.ndarray:
        """The brain's box, `margin` mm wider on each side, (2, 3): lowest and highest corner in MNI mm."""
        return np.stack([self.origin - margin, self.origin + np.array(self.gm.shape) - 1 + margin])

    def sample(self, name: str, points: np.ndarray, order: int) -> np.ndarray:
        """The named map at `points` (3, ...) in MNI mm, order 0 (nearest) or 1 (linear); 0 outside the box."""
        at = points - self.origin.reshape(3, *[1] * (points.ndim - 1)).astype(points.dtype)
        values = getattr(self, name)
        return ndimage.map_coordinates(values, at, output=values.dtype, order=order, mode="constant", cval=0)


@functools.lru_cache(maxsize=1)
def load_anatomy() -> Anatomy:
    """The template with its structures, built once a process."""
    folder = _nilearn_data()
    maps = [read_volume(folder / name) for name in FILES[:3]]
    (t1, gm, wm), affine = (each.data for each in maps), maps[0].affine
    box = bounding_box(t1)
    origin = affine[:3, 3] + [side.start for side in box]
    t1, gm, wm = t1[box], gm[box] / 255, wm[box] / 255
    inside = (t1 > 0) | ndimage.binary_closing(t1 > 0, iterations=3)  # the map has pinholes in the basal cisterns
    inside = ndimage.binary_fill_holes(inside).astype(np.uint8)
    half = (slice(0, round(-origin[0]) + 1),)  # up to and including x = 0
    left = grow_structures(t1[half], gm[half], wm[half], origin)
    kind = np.concatenate([left, left[-2::-1]])
    mixed = np.isin(kind, [KIND[name] for name in MIXED]).astype(np.float32)
    return Anatomy(gm, wm, inside, kind, ndimage.gaussian_filter(mixed, 1.0, truncate=2), origin)


@functools.lru_cache(maxsize=1)
def sources() -> dict[str, str]:
    """SHA-256 of the files that the template is read from, by their place in nilearn."""
    return {f"nilearn/datasets/data/{name}": checksum(_nilearn_data() / name) for name in FILES}


def grow_structures(t1: np.ndarray, gm: np.ndarray, wm: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """The structure that each voxel of the left half belongs to, as a number in `KINDS` (uint8), everywhere.

    A watershed of the T1 map's gradient, flooded from the named coordinates, from the core of cerebral and cerebellar
    white matter and from the CSF.
    """
    rois = _coordinates()
    csf = np.where(t1 > 0, 1 - gm - wm, 0)
    cerebrum, liquid, unknown = KIND["Cortex"], len(KINDS), len(KINDS) + 1
    markers = np.zeros(t1.shape, np.int32)
    markers[csf > 0.7] = liquid + 1
    markers[_component(csf > 0.7, VENTRICLE_MM, origin)] = KIND["Lateral-Ventricle"] + 1
    markers[_cerebral_white_matter(wm, rois, origin)] = cerebrum + 1
    markers[_component(wm > 0.8, WHITE_MATTER_MM["Cerebellum"], origin)] = KIND["Cerebellum"] + 1
    for name, points in rois.items():
        for centre in _voxels(points, origin):
            ball = tuple(slice(max(c - 1, 0), c + 2) for c in centre)
            markers[ball] = KIND[name] + 1
    edges = ndimage.gaussian_gradient_magnitude(t1, 0.7)
    kind = watershed(edges, markers, mask=t1 > 0) - 1
    for name, reach in REACH_MM.items():
        kind[_beyond(kind == KIND[name], rois[name], reach, origin)] = cerebrum
    hypothalamus = (kind == cerebrum) & (wm < 0.8)
    hypothalamus &= ~_beyond(hypothalamus, np.array(UNNAMED_MM["Hypothalamus"]), HYPOTHALAMUS_REACH_MM, origin)
    kind[hypothalamus] = KIND["Brain-Stem"]
    rim = ndimage.binary_dilation(kind == KIND["Lateral-Ventricle"], iterations=RIM_MM)
    kind[rim & np.isin(kind, (cerebrum, liquid))] = KIND["Lateral-Ventricle"]
    kind[(t1 == 0) | (kind == liquid)] = unknown
    nearest = ndimage.distance_transform_edt(kind == unknown, return_distances=False, return_indices=True)
    return kind[tuple(nearest)].astype(np.uint8)


def read_structures() -> dict[str, int]:
    """Label of each structure's name, from `resources/template_dseg.tsv`."""
    return {row["name"]: int(row["index"]) for row in read_table(LUT, required=("index", "name"))}


@functools.lru_cache(maxsize=1)
def label_table() -> np.ndarray:
    """Label of (structure in `KINDS`, tissue, hemisphere): tissues are GM, WM, CSF; hemispheres left, right."""
    index = read_structures()
    table = np.empty((len(KINDS), 3, 2), np.int16)
    for number, name in enumerate(KINDS):
        for side, hemisphere in enumerate(("Left", "Right")):
            white, grey = f"{hemisphere}-Cerebral-White-Matter", f"{hemisphere}-{name}"
            liquid = "CSF"
            if name == "Cortex":
                grey = f"{hemisphere}-Cerebral-Cortex"
            elif name == "Lateral-Ventricle":
                grey, liquid = white, grey
            elif name == "Cerebellum":
                grey, white = f"{hemisphere}-Cerebellum-Cortex", f"{hemisphere}-Cerebellum-White-Matter"
            elif name == "Brain-Stem":
                grey = white = name
            elif name in MIXED:
                white = grey
            table[number, :, side] = index[grey], index[white], index[liquid]
    return table


def _nilearn_data() -> Path:
    """The folder of nilearn's bundled data, without importing nilearn.datasets, which takes seconds."""
    spec = importlib.util.find_spec("nilearn")
    folder = Path(spec.origin).parent / "datasets" / "data" if spec and spec.origin else None
    if folder is None or not folder.is_dir():
        raise UserError("nilearn: its bundled MNI152 template was not found; the template cohort needs nilearn")
    return folder


def _coordinates() -> dict[str, np.ndarray]:
    """Coordinates in MNI mm of each structure, mirrored to the left."""
    folder = _nilearn_data()
    points = np.loadtxt(folder / FILES[3], skiprows=1, usecols=(0, 1, 2))
    part = np.loadtxt(folder / FILES[4], skiprows=1, dtype=int)
    points[:, 0] = -np.abs(points[:, 0])
    depth, basal = -points[:, 0], part == 5
    return {
        "Cortex": points[part <= 2],
        "Hippocampus": points[part == 3],
        "Amygdala": points[part == 4],
        "Caudate": points[basal & (depth < 16)],
        "Putamen": points[basal & (depth > 22)],  # those between lie in the pallidum, which the maps call white matter
        "Thalamus": points[part == 6],
        "Cerebellum": points[part == 7],
        "Brain-Stem": np.array(UNNAMED_MM["Brain-Stem"], float),
    }


def _voxels(points: np.ndarray, origin: np.ndarray) -> np.ndarray:
    return np.rint(np.atleast_2d(points) - origin).astype(int)


def _component(mask: np.ndarray, point: tuple, origin: np.ndarray) -> np.ndarray:
    """The connected part of a mask that holds a point."""
    parts, _ = ndimage.label(mask)
    number = parts[tuple(_voxels(point, origin)[0])]
    return (parts == number) & (number > 0)


def _cerebral_white_matter(wm: np.ndarray, rois: dict[str, np.ndarray], origin: np.ndarray) -> np.ndarray:
    """The core of the cerebral white matter, cut where its fibres enter the brain stem."""
    core = _component(wm > 0.8, WHITE_MATTER_MM["cerebrum"], origin)
    return _beyond(core, rois["Brain-Stem"], 12, origin)


def _beyond(mask: np.ndarray, points: np.ndarray, reach: float, origin: np.ndarray) -> np.ndarray:
    """The part of a mask that lies more than `reach` mm from every point."""
    where = np.argwhere(mask)
    distance, _ = cKDTree(points).query(where + origin, distance_upper_bound=reach)
    left = np.zeros_like(mask)
    left[tuple(where[np.isinf(distance)].T)] = True
    return left
