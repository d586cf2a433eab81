"""The low-field acquisition to simulate: the published stochastic simulator, a richer physical model, and presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from iqt.config.section import Section, merge

PositiveNumber = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Pair = tuple[PositiveNumber, PositiveNumber]
PerTissue = tuple[PositiveNumber, PositiveNumber, PositiveNumber]
Covariance = tuple[tuple[float, float], tuple[float, float]]
Axis = Literal["R", "A", "S"]
Contrast = Literal["snr", "relaxation", "none"]
Noise = Literal["gaussian", "rician", "none"]
Thickness = Annotated[float, Field(ge=1, le=12)]
Length = Annotated[float, Field(ge=0, le=6)]
Moved = Annotated[float, Field(ge=0, le=3)]
Preset = Literal["iqt-4x", "iqt-8x", "64mT"]

PRESETS: dict[str, dict[str, Any]] = {
    "iqt-4x": {"thickness": 3, "gap": 1},
    "iqt-8x": {"thickness": 6, "gap": 2},
    "64mT": {
        "unit": "mm",
        "thickness": 5,
        "gap": 0,
        "in_plane": 1.6,
        "contrast": "relaxation",
        "noise": "rician",
        "artefacts": {
            "kspace": [0.8, 1.0],
            "bias_field": [0.05, 0.15],
            "distortion": [0.5, 2.0],
            "rotation": [0.2, 1.0],
            "translation": [0.2, 1.0],
        },
    },
}
"""What each preset sets; docs/simulator.md has the source of every number."""

_PUBLISHED = {
    "T1w": ((64.50, 54.14), ((78.47, 71.50), (71.50, 73.91))),
    "FLAIR": ((35.03, 42.33), ((34.05, 39.85), (39.85, 50.29))),
}
"""Mean and covariance of (SNR_WM, SNR_GM), Lin et al."""
_SNR_WM_64MT = {"T1w": 22.0, "FLAIR": 13.5}
"""Mean over three patients' 0.055 T scans, measured as docs/simulator.md says."""


class Relaxation(Section):
    """Contrast by the spin-echo and inversion-recovery equation with low-field relaxation times, in ms."""

    t1: PerTissue = (275.0, 327.0, 3695.0)
    """T1 of (WM, GM, CSF) at 50 mT."""
    t2: PerTissue = (102.0, 102.0, 1584.0)
    """T2 of (WM, GM, CSF) at 50 mT."""
    density: PerTissue = (0.70, 0.83, 1.0)
    """Proton density of (WM, GM, CSF)."""
    spread: Annotated[float, Field(ge=0, le=0.3)] = 0.02
    """Standard deviation, relative to each T1 and T2, over people; white and grey matter's are correlated (0.9)."""
    sequence: tuple[PositiveNumber, NotNegative, NotNegative] | None = None
    """[TR, TE, TI] in ms, TI 0 for no inversion; without it the one of the contrast: T1w [880, 5, 354], T2w
    [2000, 170, 0], FLAIR [4000, 170, 1400]."""


class Artefacts(Section):
    """Parts of the physical model, each drawn evenly from [lowest, highest]; [0, 0] (or [1, 1]) turns it off."""

    kspace: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = (1.0, 1.0)
    """Share of the k-space lines acquired along each in-plane axis, about the centre; the others are zero."""
    bias_field: tuple[NotNegative, NotNegative] = (0.0, 0.0)
    """Standard deviation, over the field of view, of the log of the coil's smooth sensitivity."""
    distortion: tuple[NotNegative, NotNegative] = (0.0, 0.0)
    """Largest displacement along the read axis by the inhomogeneity of B0, in mm."""
    rotation: tuple[NotNegative, NotNegative] = (0.0, 0.0)
    """Rotation of the head about each world axis at each movement, in degrees."""
    translation: tuple[NotNegative, NotNegative] = (0.0, 0.0)
    """Translation of the head along each world axis at each movement, in mm."""
    movements: Annotated[int, Field(ge=1, le=10)] = 2
    """Movements during the acquisition, at random times; the head is in its place when k-space's centre is read."""

    @model_validator(mode="after")
    def _ranges(self) -> Artefacts:
        for name in ("kspace", "bias_field", "distortion", "rotation", "translation"):
            lowest, highest = getattr(self, name)
            if lowest > highest:
                raise ValueError(f"{name} [{lowest:g}, {highest:g}] must be [lowest, highest]")
        return self

    @property
    def motion(self) -> bool:
        """Whether the head moves."""
        return self.rotation[1] > 0 or self.translation[1] > 0


class Shift(Section):
    """Changes to what was drawn, for an out-of-distribution set of the same people and the same draws."""

    snr: PositiveNumber | Pair = 1.0
    """Factor on both SNRs: 0.5 doubles the noise. [lowest, highest] is drawn, evenly in its logarithm."""
    contrast: Moved | tuple[Moved, Moved] = 0.0
    """Moves the tissues' ratio: 0 leaves it as drawn, 1 makes GM as bright as WM, more inverts the contrast.
    [lowest, highest] is drawn evenly."""


class LowField(Section):
    """One set of low-field scans: simulated, or real ones that the cohort brings (`registration`).

    `preset` sets the keys below it, which change it where they are given.
    """

    registration: Literal["rigid", "affine"] | None = None
    """Instead of simulating: take the real low-field scan that the cohort brings (`lowfield` of its source) and
    register it to the high-quality scan, by 6 or by 12 parameters. The other keys are the simulator's and cannot be
    given with it."""
    preset: Preset = "iqt-4x"
    """`iqt-4x`, `iqt-8x`: the stochastic simulator of Lin et al.; `64mT`: a portable scanner (docs/simulator.md)."""
    draws: Annotated[int, Field(ge=1, le=1000)] = 1
    """Acquisitions drawn for each training person; validation and test people always have one."""
    slices: bool = True
    """Cut into thick slices; false keeps the high-quality slices."""
    unit: Literal["voxel", "mm"] = "voxel"
    """Unit of `thickness`, `gap` and `in_plane`: high-quality voxels, or mm."""
    thickness: Thickness | tuple[Thickness, Thickness] = 3
    """Slice thickness (FWHM of the slice profile); [lowest, highest] is drawn evenly for each acquisition, as the two
    keys below are."""
    gap: Length | tuple[Length, Length] = 1
    """Gap between slices; slices lie thickness + gap apart (in voxels, 3 + 1: 4x, 6 + 2: 8x)."""
    in_plane: Length | tuple[Length, Length] = 0
    """Voxel size within a slice; 0, or finer than the scan's own: the scan's own."""
    axis: Axis | Annotated[tuple[Axis, ...], Field(min_length=1, max_length=3)] = "S"
    """World axis that is sliced: right-left, anterior-posterior, superior-inferior; of a list, one is drawn for each
    acquisition, as of the lists of `contrast` and `noise`."""
    read_axis: Literal["auto", "R", "A", "S"] = "auto"
    """World axis read out, along which B0 distorts; the third is phase-encoded. `auto`: A, or R where A is sliced."""
    contrast: Contrast | Annotated[tuple[Contrast, ...], Field(min_length=1, max_length=3)] = "snr"
    """`snr`: the tissues' ratio is that of the drawn SNRs (Lin et al.); `relaxation`: that of low-field relaxation."""
    fixed_tissue: Literal["WM", "GM"] = "WM"
    """Tissue whose intensity stays; the other one's is moved to the ratio, and by `relaxation` CSF's too."""
    noise: Noise | Annotated[tuple[Noise, ...], Field(min_length=1, max_length=3)] = "gaussian"
    """Gaussian (the published simulator), Rician (magnitude images) or none."""
    snr_mean: Pair | None = None
    """Mean signal-to-noise ratio in (WM, GM) over people; null: the preset's for T1w or FLAIR (T2w has none)."""
    snr_covariance: Covariance | None = None
    """Covariance of the two, positive semi-definite; null: the preset's for T1w or FLAIR."""
    relaxation: Relaxation = Relaxation()
    """Tissue properties and sequence of `contrast: relaxation`."""
    artefacts: Artefacts = Artefacts()
    """Parts of the physical model."""
    shift: Shift = Shift()
    """Changes to what was drawn, for an out-of-distribution set."""

    @model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping) and isinstance(raw.get("preset"), str) and raw["preset"] in PRESETS:
            # In Python a part may be an object, of which only what was set changes the preset.
            parts = {
                key: value.model_dump(exclude_unset=True) if isinstance(value, Section) else value
                for key, value in raw.items()
            }
            return merge(PRESETS[raw["preset"]], parts)
        return raw

    @model_validator(mode="after")
    def _consistent(self) -> LowField:
        simulated = {name for name in self.model_fields_set if getattr(self, name) != _DEFAULTS.get(name)}
        if self.registration and simulated - {"registration"}:
            others = ", ".join(sorted(simulated - {"registration"}))
            raise ValueError(f"registration takes real scans, and {others} is of simulated ones; leave one of them out")
        for name, value in self.drawn_evenly().items():
            if value[0] > value[1]:
                raise ValueError(f"{name} [{value[0]:g}, {value[1]:g}] must be [lowest, highest]")
        if self.read_axis in self.choices("axis"):
            raise ValueError(f"read_axis {self.read_axis} is the sliced axis; choose another, or auto")
        if self.snr_covariance is not None:
            (a, b), (c, d) = self.snr_covariance
            if b != c or a < 0 or d < 0 or a * d < b * c:
                raise ValueError(f"snr_covariance {self.snr_covariance} is not symmetric and positive semi-definite")
        return self

    @property
    def needs_tissues(self) -> bool:
        """Whether anything depends on the tissues: the contrast does, and the noise through the SNR."""
        return self.registration is None and {*self.choices("contrast"), *self.choices("noise")} != {"none"}

    def choices(self, key: str) -> tuple[str, ...]:
        """What may be drawn for `axis`, `contrast` or `noise`."""
        value = getattr(self, key)
        return value if isinstance(value, tuple) else (value,)

    def drawn_evenly(self) -> dict[str, tuple[float, float]]:
        """The keys that are given as [lowest, highest], those of `shift` with its name before them."""
        keys = {name: getattr(self, name) for name in RANGES}
        keys |= {f"shift.{name}": getattr(self.shift, name) for name in ("snr", "contrast")}
        return {name: value for name, value in keys.items() if isinstance(value, tuple)}

    def drawn_of_lists(self) -> dict[str, tuple[str, ...]]:
        """The keys that are given as a list."""
        keys = {name: getattr(self, name) for name in LISTS}
        return {name: value for name, value in keys.items() if isinstance(value, tuple)}

    def drawn_keys(self) -> tuple[str, ...]:
        """Every key of which a value is drawn for each acquisition."""
        return (*self.drawn_evenly(), *self.drawn_of_lists())

    def fixed(self, acquisition: Mapping[str, Any]) -> LowField:
        """These settings with the values of one acquisition, by the names that `drawn_keys` has."""
        own = {name: value for name, value in acquisition.items() if "." not in name}
        shift = {name.removeprefix("shift."): value for name, value in acquisition.items() if "." in name}
        return self.model_copy(update={**own, "shift": self.shift.model_copy(update=shift)})

    def for_contrast(self, suffix: str) -> LowField:
        """These settings with the SNR distribution of a contrast filled in where none is given.

        Raises:
            ValueError: there is none for it, and something needs it.
        """
        known = self.snr_mean is not None and self.snr_covariance is not None
        needed = "snr" in self.choices("contrast") or set(self.choices("noise")) != {"none"}
        if known or self.registration or not needed:
            return self
        if suffix not in _PUBLISHED:
            raise ValueError(
                f"snr_mean: the SNR distribution of {suffix} at low field is not published; give snr_mean and "
                "snr_covariance, the mean and covariance of (SNR_WM, SNR_GM) that you measured (T1w, FLAIR have one)"
            )
        mean, covariance = _PUBLISHED[suffix]
        if self.preset == "64mT":
            factor = _SNR_WM_64MT[suffix] / mean[0]
            mean = tuple(round(factor * value, 2) for value in mean)
            covariance = tuple(tuple(round(factor**2 * value, 2) for value in row) for row in covariance)
        filled = {"snr_mean": self.snr_mean or mean, "snr_covariance": self.snr_covariance or covariance}
        return self.model_copy(update=filled)


RANGES = ("thickness", "gap", "in_plane")
LISTS = ("axis", "contrast", "noise")
_DEFAULTS = {name: field.default for name, field in LowField.model_fields.items()}
