"""The low-field simulator of stochastic image quality transfer (Lin et al., arXiv 2304.13385).

What is drawn for a scan (`draw`) is separate from its application (`apply`), so that it can be recorded and replayed.

Given a high-quality volume I and the posteriors WM, GM and CSF on its grid:

1. (SNR_WM, SNR_GM) is drawn from a bivariate normal distribution.
2. I and the posteriors are blurred along the sliced axis by a Gaussian whose FWHM is the slice thickness.
3. All four are resampled by cubic splines to slices that lie thickness + gap apart.
4. With white matter fixed, sigma = mean(I where WM > 0.9) / SNR_WM and
   I <- (WM + CSF + GM SNR_GM sigma / mean(I where GM > 0.9)) I. With grey matter fixed the two change places.
5. Noise of standard deviation sigma is added to every voxel of the thick slices, background included.
6. The thick slices are brought back to the high-quality grid by cubic splines.

Three consequences of these definitions. A thickness of 1 still blurs, by a FWHM of one voxel. Where posteriors sum to
less than one, as at the brain's border after the blur, step 4 darkens. Splines and Gaussian noise give negative values,
which are kept: cutting them off would bias the noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy.interpolate import make_interp_spline
from scipy.ndimage import gaussian_filter1d

from iqt.config import LowField
from iqt.errors import UserError
from iqt.naming import seed_of
from iqt.volumes import Volume

TISSUES = ("WM", "GM", "CSF")
PURE = 0.9
"""Posterior above which a voxel counts as one tissue."""

_WORLD_AXES = {"R": 0, "A": 1, "S": 2}
_FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))
_MAX_DRAWS = 10_000


@dataclass(frozen=True)
class Draw:
    """Everything random about one simulated scan."""

    snr_wm: float
    snr_gm: float
    noise_seed: int

    def to_dict(self) -> dict[str, float | int]:
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping) -> Draw:
        return cls(float(record["snr_wm"]), float(record["snr_gm"]), int(record["noise_seed"]))


class LowFieldResult(NamedTuple):
    """`thick`: the noisy slices; `upsampled` (X, Y, Z): the same on the high-quality grid; `measured`: numbers."""

    thick: Volume
    upsampled: np.ndarray
    measured: dict


def draw(settings: LowField, seed: int, scan: str) -> Draw:
    """SNRs and the seed of the noise for one scan; drawn again while either SNR is not positive.

    The draw follows from `seed` and `scan` alone: adding people changes nobody, and low-field sets with the same SNR
    distribution share a person's draw, so that they differ only in the acquisition.

    Raises:
        UserError: the distribution practically never gives two positive SNRs.
    """
    rng = np.random.default_rng(seed_of(seed, scan, "lowfield"))
    noise_seed = int(rng.integers(2**53))  # the largest integers that every reader of JSON keeps exact
    for _ in range(_MAX_DRAWS):
        snr_wm, snr_gm = rng.multivariate_normal(settings.snr_mean, settings.snr_covariance)
        if snr_wm > 0 and snr_gm > 0:
            return Draw(float(snr_wm), float(snr_gm), noise_seed)
    raise UserError(
        f"snr_covariance: {settings.snr_covariance} around snr_mean {settings.snr_mean} gave no pair of positive SNRs "
        f"in {_MAX_DRAWS} draws; make the covariance smaller"
    )


def apply(volume: Volume, tissues: Mapping[str, np.ndarray], settings: LowField, draw: Draw) -> LowFieldResult:
    """Simulate the acquisition that `settings` and `draw` describe.

    Args:
        volume: high-quality scan (X, Y, Z), any orientation; the array axis closest to the world axis is sliced.
        tissues: posteriors `WM`, `GM` and `CSF`, each (X, Y, Z) between 0 and 1 on the scan's grid.

    Returns:
        Thick slices that cover the whole volume (centred, if its extent is not a multiple of their distance) with the
        affine that keeps every voxel in its place in the world, the volume upsampled from them, and the measured
        `sigma`, the factor `intensity_ratio` of the tissue that is not fixed, the mean intensity of each tissue before
        that factor, the number of voxels behind each mean and the posterior they exceed.

    Raises:
        UserError: a posterior is missing, on another grid or out of range; too few slices; a tissue without signal.
    """
    posteriors = _checked(tissues, volume.data.shape)
    axis = sliced_axis(volume.affine, settings.axis)
    extent = volume.data.shape[axis]
    spacing = settings.thickness + settings.gap
    centres = slice_centres(extent, spacing)
    if len(centres) < 4:
        raise UserError(
            f"thickness {settings.thickness:g} + gap {settings.gap:g}: {extent} voxels along {settings.axis} give "
            f"{len(centres)} slices, and cubic interpolation needs 4; choose thinner slices"
        )

    def acquire(data: np.ndarray) -> np.ndarray:
        return resample_axis(select_slices(data, settings.thickness, axis), centres, axis)

    clean = acquire(volume.data)
    slices = {name: np.clip(acquire(data), 0, 1) for name, data in posteriors.items()}
    fixed, moved = ("WM", "GM") if settings.fixed_tissue == "WM" else ("GM", "WM")
    snr = {"WM": draw.snr_wm, "GM": draw.snr_gm}
    mean = {name: _tissue_mean(clean, slices[name], name) for name in (fixed, moved)}
    sigma = mean[fixed].value / snr[fixed]
    ratio = snr[moved] * sigma / mean[moved].value
    contrasted = (slices[fixed] + slices["CSF"] + slices[moved] * ratio) * clean
    noisy = add_noise(contrasted, sigma, settings.noise, draw.noise_seed)

    to_grid = np.eye(4)
    to_grid[axis, axis], to_grid[axis, 3] = spacing, centres[0]
    upsampled = resample_axis(noisy, (np.arange(extent) - centres[0]) / spacing, axis)
    measured = {
        "sigma": sigma,
        "intensity_ratio": ratio,
        **{f"mean_{name.lower()}": mean[name].value for name in ("WM", "GM")},
        **{f"voxels_{name.lower()}": mean[name].voxels for name in ("WM", "GM")},
        **{f"threshold_{name.lower()}": mean[name].threshold for name in ("WM", "GM")},
        "slices": len(centres),
        "slice_distance_mm": float(spacing * volume.voxel_size[axis]),
        "slice_thickness_mm": float(settings.thickness * volume.voxel_size[axis]),
    }
    return LowFieldResult(Volume(noisy, volume.affine @ to_grid), upsampled, measured)


def sliced_axis(affine: np.ndarray, world_axis: str) -> int:
    """The array axis closest to a world axis (`R`, `A` or `S`), whichever way it runs."""
    return int(np.flatnonzero(nib.io_orientation(affine)[:, 0] == _WORLD_AXES[world_axis])[0])


def slice_centres(extent: int, spacing: float) -> np.ndarray:
    """Voxel indices of the centres of the fewest slices `spacing` apart that cover `extent` voxels, centred on them."""
    count = int(np.ceil(extent / spacing - 1e-9))
    return (extent - 1) / 2 + (np.arange(count) - (count - 1) / 2) * spacing


def select_slices(data: np.ndarray, thickness: float, axis: int) -> np.ndarray:
    """Blur along an axis by the slice profile, a Gaussian with a FWHM of `thickness` voxels."""
    return gaussian_filter1d(data, thickness / _FWHM_PER_SIGMA, axis=axis, mode="nearest")


def resample_axis(data: np.ndarray, indices: np.ndarray, axis: int) -> np.ndarray:
    """Values at fractional `indices` of one axis, by the interpolating cubic spline; beyond the ends the end's value.

    Along one axis only, so the others are untouched to the bit.
    """
    spline = make_interp_spline(np.arange(data.shape[axis]), data, k=3, axis=axis)
    return spline(np.clip(indices, 0, data.shape[axis] - 1)).astype(np.float32)


def add_noise(data: np.ndarray, sigma: float, kind: str, seed: int) -> np.ndarray:
    """`gaussian`: I + n. `rician`: |I + n + i m|, the magnitude of a complex signal (Gudbjartsson and Patz 1995)."""
    rng = np.random.default_rng(seed)
    real = data + sigma * rng.standard_normal(data.shape, dtype=np.float32)
    if kind == "rician":
        real = np.hypot(real, sigma * rng.standard_normal(data.shape, dtype=np.float32))
    return real.astype(np.float32)


class _TissueMean(NamedTuple):
    value: float
    voxels: int
    threshold: float


def _tissue_mean(data: np.ndarray, posterior: np.ndarray, name: str) -> _TissueMean:
    """Mean intensity where the posterior exceeds 0.9.

    Thick slices of coarse data may hold no voxel that pure: then the threshold is 0.9 of the highest posterior found,
    as long as that tissue is the larger part of such a voxel.
    """
    threshold = PURE
    highest = float(posterior.max())
    if highest <= PURE:
        threshold = PURE * highest
        if threshold <= 0.5:
            raise UserError(
                f"{name}: its posterior reaches only {highest:.2f} in the thick slices, so its intensity cannot be "
                "measured; choose thinner slices, or check the posteriors"
            )
    pure = posterior > threshold
    value = float(data[pure].mean(dtype=np.float64))
    if value <= 0:
        raise UserError(f"{name}: its mean intensity in the thick slices is {value:g}, not positive; check the scan")
    return _TissueMean(value, int(np.count_nonzero(pure)), threshold)


def _checked(tissues: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    missing = [name for name in TISSUES if name not in tissues]
    if missing:
        raise UserError(f"tissue posterior {', '.join(missing)} is missing; the simulator needs {', '.join(TISSUES)}")
    for name in TISSUES:
        data = tissues[name]
        if data.shape != shape:
            raise UserError(f"tissue posterior {name}: has shape {data.shape}, but the scan has {shape}; resample it")
        low, high = float(data.min()), float(data.max())
        if low < -0.01 or high > 1.01:
            raise UserError(f"tissue posterior {name}: has values from {low:g} to {high:g}; they must lie in 0 to 1")
    return {name: np.asarray(tissues[name], dtype=np.float32) for name in TISSUES}
