"""What else a low-field scan shows: the coil's bias field, distortion by B0, and motion. Drawn here, applied here.

Smooth fields are sums of Legendre polynomials of world coordinates that run from -1 to 1 over the field of view, so
that a volume stored in another orientation has the same field.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import nibabel as nib
import numpy as np
from numpy.polynomial import legendre
from scipy.fft import fft, ifft
from scipy.ndimage import map_coordinates

from iqt.config import Artefacts
from iqt.imaging.orientation import array_from_ras

ORDER = 3
"""Highest total degree of a smooth field."""
BIAS = [index for index in np.ndindex((ORDER + 1,) * 3) if 1 <= sum(index) <= ORDER]
DISTORTION = [index for index in BIAS if sum(index) >= 2]  # a magnet's linear terms are shimmed by its gradients
"""Degrees in (X, Y, Z) of the polynomials of each field, in the order of their coefficients."""


def draw_artefacts(settings: Artefacts, rng: np.random.Generator) -> dict:
    """What is drawn of each part, as JSON-able numbers; a part that is off is absent.

    Each part has a generator of its own, so that turning one off leaves the others' draws alone.
    """
    kspace, bias, distortion, motion = rng.spawn(4)
    drawn: dict = {}
    if settings.kspace[0] < 1:
        drawn["kspace"] = float(kspace.uniform(*settings.kspace))
    if settings.bias_field[1] > 0:
        drawn["bias_field"] = _draw_bias(bias.uniform(*settings.bias_field), bias)
    if settings.distortion[1] > 0:
        drawn["distortion"] = _draw_distortion(distortion.uniform(*settings.distortion), distortion)
    if settings.motion:
        drawn["motion"] = _draw_motion(settings, motion)
    return drawn


def apply_bias(data: np.ndarray, affine: np.ndarray, coefficients: Sequence[float]) -> np.ndarray:
    """Multiply by exp(sum of Legendre polynomials), the coil's sensitivity (Van Leemput et al. 1999)."""
    return data * np.exp(field(data.shape, affine, BIAS, coefficients)).astype(np.float32)


def apply_distortion(data: np.ndarray, affine: np.ndarray, coefficients: Sequence[float], read_axis: int) -> np.ndarray:
    """Displace along the read axis by a smooth field d in mm: I'(x) = I(x - d(x)) (1 - d'(x)).

    What is pushed together gets brighter, so the signal's sum is kept (Jezzard and Balaban 1995, eq. 2 and 3).
    """
    step = nib.affines.voxel_sizes(affine)[read_axis]
    displacement = field(data.shape, affine, DISTORTION, coefficients) / step
    # the field is of world coordinates: positive means towards the positive end of the world's axis
    displacement = displacement * _direction(affine, read_axis)
    at = list(np.meshgrid(*map(np.arange, data.shape), indexing="ij", sparse=False))
    at[read_axis] = at[read_axis] - displacement
    moved = map_coordinates(data, at, order=3, mode="nearest", output=np.float32)
    return (moved * (1 - np.gradient(displacement, axis=read_axis))).astype(np.float32)


def apply_motion(data: np.ndarray, affine: np.ndarray, poses: Sequence[Mapping], phase_axis: int) -> np.ndarray:
    """k-space put together of lines read while the head was in different poses, as a magnitude image.

    Lines are read one after another along the phase-encoding axis. Each pose holds from `start` to `end` of the
    acquisition (0 to 1) and is a rotation in degrees about the world's axes through the volume's centre and a
    translation in mm (after Shaw et al. 2020, and TorchIO's RandomMotion).
    """
    count = data.shape[phase_axis]
    # the time at which each line is read, from the world's lowest negative frequency to its highest positive one
    time = 0.5 + np.fft.fftfreq(count) * _direction(affine, phase_axis)
    shape = [1, 1, 1]
    shape[phase_axis] = count
    spectrum = np.zeros(data.shape, np.complex64)
    for pose in poses:
        lines = ((time >= pose["start"]) & ((time < pose["end"]) | (pose["end"] >= 1))).reshape(shape)
        spectrum += lines * fft(move(data, affine, pose["rotation"], pose["translation"]), axis=phase_axis)
    return np.abs(ifft(spectrum, axis=phase_axis)).astype(np.float32)


def move(data: np.ndarray, affine: np.ndarray, rotation: Sequence[float], translation: Sequence[float]) -> np.ndarray:
    """The volume with the head rotated (degrees) and shifted (mm) in the world; beyond an end the end's value."""
    if not any((*rotation, *translation)):
        return data
    from fsl.data.image import Image
    from fsl.transform import affine as transform
    from fsl.utils.image.resample import resampleToReference

    image = Image(data, xform=affine)
    centre = nib.affines.apply_affine(affine, (np.array(data.shape) - 1) / 2)
    pose = transform.compose([1, 1, 1], list(translation), list(np.radians(rotation)), origin=list(centre))
    moved, _ = resampleToReference(image, image, matrix=pose, order=3, smooth=False, mode="nearest")
    return moved


def field(
    shape: tuple[int, ...], affine: np.ndarray, terms: Sequence[tuple[int, ...]], coefficients: Sequence[float]
) -> np.ndarray:
    """A sum of Legendre polynomials of the world's coordinates over a volume, (X, Y, Z)."""
    cube = np.zeros((ORDER + 1,) * 3)
    for index, value in zip(terms, coefficients, strict=True):
        cube[index] = value
    world_shape = [0, 0, 0]
    for axis, (world, _) in enumerate(nib.io_orientation(affine)):
        world_shape[int(world)] = shape[axis]
    values = legendre.leggrid3d(*(np.linspace(-1, 1, size) for size in world_shape), cube)
    return array_from_ras(values, affine)


def _direction(affine: np.ndarray, axis: int) -> float:
    return float(nib.io_orientation(affine)[axis, 1])


def _draw_bias(deviation: float, rng: np.random.Generator) -> list[float]:
    """Coefficients whose field has a standard deviation of `deviation` over the field of view."""
    coefficients = np.array([rng.standard_normal() / sum(index) for index in BIAS])
    # over [-1, 1] the polynomials are orthogonal with variance 1 / (2 n + 1)
    variances = np.array([np.prod([1 / (2 * degree + 1) for degree in index]) for index in BIAS])
    return [float(value) for value in coefficients * deviation / np.sqrt(np.sum(coefficients**2 * variances))]


def _draw_distortion(largest: float, rng: np.random.Generator) -> list[float]:
    """Coefficients in mm whose field reaches `largest` in the field of view."""
    coefficients = np.array([rng.standard_normal() / sum(index) for index in DISTORTION])
    values = field((21, 21, 21), np.eye(4), DISTORTION, coefficients)
    return [float(value) for value in coefficients * largest / np.abs(values).max()]


def _draw_motion(settings: Artefacts, rng: np.random.Generator) -> list[dict]:
    """Poses one after another; the one that holds at half time, when k-space's centre is read, is the head's own."""
    times = [0.0, *sorted(float(time) for time in rng.uniform(size=settings.movements)), 1.0]
    poses = []
    for start, end in itertools.pairwise(times):
        drawn = {
            name: [float(value) for value in rng.uniform(*getattr(settings, name), size=3) * rng.choice([-1, 1], 3)]
            for name in ("rotation", "translation")
        }
        if start <= 0.5 < end:
            drawn = {"rotation": [0.0] * 3, "translation": [0.0] * 3}
        poses.append({"start": start, "end": end, **drawn})
    return poses
