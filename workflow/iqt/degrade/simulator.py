"""The low-field simulator: the stochastic one of image quality transfer (Lin et al., arXiv 2304.13385), and more.

What is drawn for a scan (`draw`) is separate from its application (`apply`), so that it can be recorded and replayed.

Given a high-quality volume I and the posteriors WM, GM and CSF on its grid:

1. (SNR_WM, SNR_GM) is drawn from a bivariate normal distribution.
2. I and the posteriors are blurred along the sliced axis by a Gaussian whose FWHM is the slice thickness.
3. All four are resampled by cubic splines to slices that lie thickness + gap apart.
4. With white matter fixed, sigma = mean(I where WM > 0.9) / SNR_WM and
   I <- (WM + CSF + GM SNR_GM sigma / mean(I where GM > 0.9)) I. With grey matter fixed the two change places.
5. Noise of standard deviation sigma is added to every voxel of the thick slices, background included.
6. The thick slices are brought back to the high-quality grid by cubic splines.

The richer model takes the ratios of step 4 from low-field relaxation times instead, CSF's too, and between steps 4 and
5 the head moves, the coil's sensitivity is multiplied in, B0 distorts along the read axis, and k-space is cropped to
the acquisition matrix and truncated. docs/simulator.md has each part with its range and source.

Three consequences of these definitions. A thickness of 1 still blurs, by a FWHM of one voxel. Where posteriors sum to
less than one, as at the brain's border after the blur, step 4 darkens. Splines and Gaussian noise give negative values,
which are kept: cutting them off would bias the noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from iqt.config import LowField
from iqt.config.lowfield import LISTS, RANGES
from iqt.degrade import artefacts, contrast, slices
from iqt.degrade.contrast import TISSUES
from iqt.degrade.record import Draw
from iqt.errors import UserError
from iqt.imaging.resample import along_axis
from iqt.io.naming import seed_of
from iqt.io.volumes import Volume

_MAX_DRAWS = 10_000

Observer = Callable[[str, Volume], None]
"""Called with a step's name and its volume."""


class LowFieldResult(NamedTuple):
    """`thick`: the noisy slices; `upsampled` (X, Y, Z): the same on the high-quality grid; `measured`: numbers."""

    thick: Volume
    upsampled: np.ndarray
    measured: dict


def draw(settings: LowField, seed: int, scan: str, suffix: str = "T1w", number: int = 1) -> Draw:
    """Everything random for one scan; the SNRs are drawn again while either is not positive.

    The draw follows from `seed`, `scan` and `number` alone: adding people changes nobody, and low-field sets with the
    same distributions share a person's draw, so that they differ only in the acquisition.

    Args:
        suffix: contrast of the scan, whose SNR distribution is taken where the settings give none.
        number: 1 for the scan's own acquisition, more for further ones of the same person.

    Raises:
        UserError: the SNR distribution is not known, or practically never gives two positive SNRs; the settings are of
            real scans (`registration`).
    """
    if settings.registration is not None:
        raise UserError(f"registration {settings.registration}: takes real low-field scans, and none is simulated")
    settings = resolve(settings, suffix)
    further = () if number == 1 else (number,)
    rng = np.random.default_rng(seed_of(seed, scan, "lowfield", *further))
    noise_seed = int(rng.integers(2**53))  # the largest integers that every reader of JSON keeps exact
    known = settings.snr_mean is not None and settings.snr_covariance is not None
    snr = _draw_snr(settings, rng) if known else (None, None)
    acquisition = _draw_acquisition(settings, np.random.default_rng(seed_of(seed, scan, "acquisition", *further)))
    settings = settings.fixed(acquisition)
    relaxation = None
    if settings.contrast == "relaxation":
        relaxation = contrast.draw_relaxation(
            settings.relaxation, np.random.default_rng(seed_of(seed, scan, "relaxation", *further))
        )
    parts = artefacts.draw_artefacts(
        settings.artefacts, np.random.default_rng(seed_of(seed, scan, "artefacts", *further))
    )
    return Draw(*snr, noise_seed, relaxation, parts, acquisition)


def resolve(settings: LowField, suffix: str) -> LowField:
    """`settings.for_contrast`, with a UserError where the contrast has no known SNR distribution."""
    try:
        return settings.for_contrast(suffix)
    except ValueError as error:
        raise UserError(str(error)) from None


def acquisition_of(settings: LowField, draw: Draw, volume: Volume | None = None) -> LowField:
    """The settings of one acquisition. Slices drawn finer than the scan's own (`volume`) are as thick as these.

    Raises:
        UserError: the draw lacks what the settings leave open.
    """
    missing = [name for name in settings.drawn_keys() if name not in draw.acquisition]
    if missing:
        raise UserError(f"draw: acquisition.{missing[0]} is missing, of which the settings give a range")
    values = {name: draw.acquisition[name] for name in settings.drawn_keys()}
    found = settings.fixed(values)
    if volume is not None and found.unit == "mm" and "thickness" in values:
        finest = float(volume.voxel_size[slices.sliced_axis(volume.affine, found.axis)])
        if found.thickness + found.gap < finest:
            found = found.fixed({"thickness": finest})
    return found


def check(volume: Volume, settings: LowField, draw: Draw) -> None:
    """UserError where `apply` would refuse the scan's grid, before anything costly is done with it."""
    slices.plan(volume, acquisition_of(settings, draw, volume))


def apply(
    volume: Volume,
    tissues: Mapping[str, np.ndarray] | None,
    settings: LowField,
    draw: Draw,
    suffix: str = "T1w",
    observe: Observer | None = None,
) -> LowFieldResult:
    """Simulate the acquisition that `settings` and `draw` describe.

    Args:
        volume: high-quality scan (X, Y, Z), any orientation; the array axis closest to the world axis is sliced.
        tissues: posteriors `WM`, `GM` and `CSF`, each (X, Y, Z) between 0 and 1 on the scan's grid; None where neither
            contrast nor noise is asked for.
        suffix: contrast of the scan, whose sequence `contrast: relaxation` takes.
        observe: called after each step.

    Returns:
        Thick slices that cover the whole volume (centred, if its extent is not a multiple of their distance) with the
        affine that keeps every voxel in its place in the world, the volume upsampled from them, and the measured
        `sigma`, the factor `intensity_ratio` of the tissue that is not fixed (by relaxation also `intensity_ratio_csf`,
        None where CSF kept its intensity because no slice shows it pure), the mean intensity of each tissue before that
        factor, the number of voxels behind each mean and the posterior they exceed.

    Raises:
        UserError: a posterior is missing, on another grid or out of range; a scan of thick slices, or too few slices;
            a tissue without signal.
    """
    settings = acquisition_of(settings, draw, volume)
    posteriors = _checked(tissues, volume.data.shape) if settings.needs_tissues else {}
    geometry = slices.plan(volume, settings)
    axis = geometry.slice_axis
    see = _observer(observe, volume, geometry)
    see("input", volume.data, on_grid=True)

    def acquire(data: np.ndarray) -> np.ndarray:
        if not settings.slices:
            return data
        return along_axis(slices.select_slices(data, geometry.thickness, axis), geometry.centres, axis)

    data = acquire(volume.data)
    if settings.slices:
        see("slices", data)
    acquired = {name: np.clip(acquire(posterior), 0, 1) for name, posterior in posteriors.items()}
    data, sigma, measured = _contrast(data, acquired, settings, draw, suffix)
    del acquired
    if settings.contrast != "none":
        see("contrast", data)
    data = _artefacts(data, volume.affine, geometry, settings, draw, see)
    if settings.noise != "none":
        data = contrast.add_noise(data, sigma, settings.noise, draw.noise_seed)
        see("noise", data, final=True)
    thick = Volume(data, slices.acquired_affine(volume.affine, geometry, volume.data.shape))
    same = not settings.slices and not geometry.matrix
    upsampled = data if same else slices.upsample(data, geometry, volume.data.shape)
    see("on the grid", upsampled, on_grid=True)
    measured |= {
        "slices": thick.data.shape[axis],
        "slice_distance_mm": float(geometry.spacing * volume.voxel_size[axis]),
        "slice_thickness_mm": float((geometry.thickness if settings.slices else 1.0) * volume.voxel_size[axis]),
        **({"voxel_size_mm": [float(edge) for edge in thick.voxel_size]} if geometry.matrix else {}),
    }
    return LowFieldResult(thick, upsampled, measured)


def _contrast(
    data: np.ndarray, posteriors: Mapping[str, np.ndarray], settings: LowField, draw: Draw, suffix: str
) -> tuple[np.ndarray, float, dict]:
    """The slices with the tissues' intensities moved, the noise's standard deviation, and what was measured."""
    if not settings.needs_tissues:
        return data, 0.0, {}
    fixed, moved = ("WM", "GM") if settings.fixed_tissue == "WM" else ("GM", "WM")
    snr = {"WM": draw.snr_wm, "GM": draw.snr_gm}
    if settings.shift.snr != 1:
        snr = {name: value and value * settings.shift.snr for name, value in snr.items()}
    needed = (fixed, moved) if settings.contrast == "snr" else (fixed,) if settings.noise != "none" else ()
    for tissue in needed:
        if snr[tissue] is None:
            raise UserError(f"draw: snr_{tissue.lower()} is missing, which contrast and noise follow from")
    mean = {name: contrast.tissue_mean(data, posteriors[name], name) for name in (fixed, moved)}
    sigma = mean[fixed].value / snr[fixed] if snr[fixed] else 0.0
    ratio, csf = {fixed: 1.0, moved: 1.0}, None
    if settings.contrast == "snr":
        ratio[moved] = snr[moved] * sigma / mean[moved].value
    elif settings.contrast == "relaxation":
        if draw.relaxation is None:
            raise UserError("draw: relaxation is missing, which contrast: relaxation follows from")
        signals = contrast.relaxation_signals(draw.relaxation, settings.relaxation, suffix)
        ratio[moved] = signals[moved] / signals[fixed] * mean[fixed].value / mean[moved].value
        csf = _csf_ratio(data, posteriors["CSF"], signals["CSF"] / signals[fixed] * mean[fixed].value)
    if settings.contrast != "none":
        before = mean[moved].value / mean[fixed].value
        if settings.shift.contrast:
            ratio[moved] = contrast.shifted_ratio(ratio[moved] * before, settings) / before
        unmoved = posteriors[fixed] + posteriors["CSF"] * (1.0 if csf is None else csf)
        data = (unmoved + posteriors[moved] * ratio[moved]) * data
    return (
        data.astype(np.float32),
        sigma,
        {
            "sigma": sigma,
            "intensity_ratio": ratio[moved],
            **({"intensity_ratio_csf": csf} if settings.contrast == "relaxation" else {}),
            **{f"mean_{name.lower()}": mean[name].value for name in ("WM", "GM")},
            **{f"voxels_{name.lower()}": mean[name].voxels for name in ("WM", "GM")},
            **{f"threshold_{name.lower()}": mean[name].threshold for name in ("WM", "GM")},
        },
    )


def _csf_ratio(data: np.ndarray, posterior: np.ndarray, wanted: float) -> float | None:
    """The factor that gives CSF the wanted intensity; None where slices are so thick that none shows pure CSF."""
    if not contrast.measurable(posterior):
        return None
    return wanted / contrast.tissue_mean(data, posterior, "CSF").value


def _artefacts(
    data: np.ndarray,
    affine: np.ndarray,
    geometry: slices.Geometry,
    settings: LowField,
    draw: Draw,
    see: Callable[..., None],
) -> np.ndarray:
    """Motion, bias field, distortion and k-space, in the order in which they meet the signal."""
    drawn = draw.artefacts
    grid = slices.acquired_affine(affine, geometry._replace(matrix={}), data.shape)
    if "motion" in drawn:
        data = artefacts.apply_motion(data, grid, drawn["motion"], geometry.phase_axis)
        see("motion", data)
    if "bias_field" in drawn:
        data = artefacts.apply_bias(data, grid, drawn["bias_field"])
        see("bias field", data)
    if "distortion" in drawn:
        data = artefacts.apply_distortion(data, grid, drawn["distortion"], geometry.read_axis)
        see("B0 distortion", data)
    if geometry.matrix:
        data = slices.acquire_matrix(data, geometry.matrix)
    if "kspace" in drawn:
        for axis in (geometry.read_axis, geometry.phase_axis):
            data = slices.truncate_kspace(data, drawn["kspace"], axis)
    if geometry.matrix or "kspace" in drawn:
        see("k-space", data, final=True)
    return data


def _draw_acquisition(settings: LowField, rng: np.random.Generator) -> dict[str, float | str]:
    """One number for each key in turn, so that a key that becomes a range changes none of the others."""
    values: dict[str, float | str] = {}
    keys = (*RANGES, "shift.snr", "shift.contrast", *LISTS)
    numbers = dict(zip(keys, rng.random(len(keys)), strict=True))
    for name, (low, high) in settings.drawn_evenly().items():
        share = float(numbers[name])
        values[name] = low * (high / low) ** share if name == "shift.snr" else low + (high - low) * share
    for name, choices in settings.drawn_of_lists().items():
        values[name] = choices[int(numbers[name] * len(choices))]
    return values


def _draw_snr(settings: LowField, rng: np.random.Generator) -> tuple[float, float]:
    for _ in range(_MAX_DRAWS):
        snr_wm, snr_gm = rng.multivariate_normal(settings.snr_mean, settings.snr_covariance)
        if snr_wm > 0 and snr_gm > 0:
            return float(snr_wm), float(snr_gm)
    raise UserError(
        f"snr_covariance: {settings.snr_covariance} around snr_mean {settings.snr_mean} gave no pair of positive SNRs "
        f"in {_MAX_DRAWS} draws; make the covariance smaller"
    )


def _observer(observe: Observer | None, volume: Volume, geometry: slices.Geometry) -> Callable[..., None]:
    """`observe` with the affine of the grid that a step's data are on."""

    def see(name: str, data: np.ndarray, on_grid: bool = False, final: bool = False) -> None:
        if observe is not None:
            uncropped = geometry if final else geometry._replace(matrix={})
            affine = volume.affine if on_grid else slices.acquired_affine(volume.affine, uncropped, volume.data.shape)
            observe(name, Volume(data, affine))

    return see


def _checked(tissues: Mapping[str, np.ndarray] | None, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    missing = [name for name in TISSUES if name not in (tissues or {})]
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
