"""The configuration: pydantic models are the only source of keys, defaults, bounds and their explanation.

`config/schema.json` and `config/README.md` are generated from here (`iqt config schema`, `iqt config readme`).
"""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from iqt.errors import UserError

Positive = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Triple = tuple[Positive, Positive, Positive]


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, because a misspelt key would be silently ignored."""

    model_config = ConfigDict(extra="forbid", validate_default=True, use_attribute_docstrings=True)


SectionType = TypeVar("SectionType", bound=Section)


class Compute(Section):
    """How work is cut into jobs."""

    batches: Positive = 2
    """Jobs that a stage's scans are spread over (by a hash of the person's id)."""
    train_threads: Positive = 2
    """CPU threads of a training job."""
    batch_threads: Positive = 1
    """CPU threads of any other job."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Autocast of the networks. `auto`: bfloat16 on a GPU and on CPUs with bfloat16 instructions, else float32."""


class Split(Section):
    """How many people are trained on, validated on and tested on."""

    train: Positive = 12
    """People that networks learn from."""
    val: Positive = 2
    """People that training is watched on."""
    test: Positive = 6
    """People that the benchmark is about; no other stage sees them."""


class Template(Section):
    """People drawn from the MNI152 template that nilearn ships: a stand-in for real anatomy."""

    voxel_size: Annotated[float, Field(ge=1.0, le=4.0)] = 2.0
    """Isotropic voxel size in mm."""
    deformation: Annotated[float, Field(ge=0, le=12)] = 3.0
    """Standard deviation of the smooth displacement, in mm."""
    smoothness: Annotated[float, Field(ge=8, le=60)] = 22.0
    """Length over which the displacement varies, in mm (standard deviation of the Gaussian that smooths it)."""
    texture: Annotated[float, Field(ge=0, le=0.2)] = 0.02
    """Standard deviation of the fine intensity texture within tissue, relative to white matter."""
    bias_field: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Standard deviation of the log of the smooth intensity bias left in a high-quality scan."""


class Cohort(Section):
    """Where the high-quality scans come from."""

    source: Literal["template"] = "template"
    """Kind of source."""
    split: Split = Split()
    """People a split."""
    template: Template = Template()
    """Settings of the source `template`."""


class LowField(Section):
    """One low-field acquisition to simulate, after the stochastic simulator of Lin et al."""

    thickness: Annotated[float, Field(ge=1, le=12)] = 3
    """Slice thickness (FWHM of the slice profile) in high-quality voxels."""
    gap: Annotated[float, Field(ge=0, le=6)] = 1
    """Gap between slices in high-quality voxels; slices lie thickness + gap apart (3 + 1: 4x, 6 + 2: 8x)."""
    axis: Literal["R", "A", "S"] = "S"
    """World axis that is sliced: right-left, anterior-posterior, superior-inferior."""
    fixed_tissue: Literal["WM", "GM"] = "WM"
    """Tissue whose intensity stays; the other one's is moved to the drawn ratio."""
    noise: Literal["gaussian", "rician"] = "gaussian"
    """Gaussian (the published simulator) or Rician (magnitude images)."""
    snr_mean: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (64.50, 54.14)
    """Mean signal-to-noise ratio in (WM, GM) over people; the default is the published T1w one."""
    snr_covariance: tuple[tuple[float, float], tuple[float, float]] = ((78.47, 71.50), (71.50, 73.91))
    """Covariance of the two, positive semi-definite."""

    @model_validator(mode="after")
    def _covariance(self) -> LowField:
        (a, b), (c, d) = self.snr_covariance
        if b != c or a < 0 or d < 0 or a * d < b * c:
            raise ValueError(f"snr_covariance {self.snr_covariance} is not symmetric and positive semi-definite")
        return self


class Patches(Section):
    """The regions that training reads, and their patches (cross-batch)."""

    patch: Positive = 16
    """Edge of a patch in voxels; normalisation statistics are a patch's own."""
    grid: Triple = (2, 2, 2)
    """Patches a region holds along each axis: (2, 2, 2) patches of 16 make a region of 32^3."""
    foreground: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Share of regions whose centre lies in the brain; the others lie anywhere."""

    @property
    def region(self) -> tuple[int, int, int]:
        """Edges of a region in voxels."""
        return tuple(self.patch * count for count in self.grid)


class Training(Section):
    """The budget and the optimiser, the same for every network unless an entry changes it."""

    steps: Positive = 800
    """Optimiser steps."""
    batch_size: Positive = 4
    """Regions a step."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-3
    """Highest learning rate of AdamW."""
    warmup: Annotated[int, Field(ge=0)] = 20
    """Steps over which the learning rate rises; it then falls along a cosine to a hundredth."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of AdamW."""
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the gradient."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """Decay of the exponential moving average of the weights; the averaged weights are the ones saved."""
    validate_every: Positive = 100
    """Steps between validations on fixed regions, a divisor of `steps`; a checkpoint is written at each."""
    validation_regions: Positive = 16
    """Regions (or slices) of the validation people, the same at every validation."""
    flip: bool = True
    """Mirror regions at random along the right-left axis of the array."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read regions; 0 reads in the training process."""

    @model_validator(mode="after")
    def _whole_stretches(self) -> Training:
        if self.steps % self.validate_every:
            raise ValueError(f"steps {self.steps} must be a multiple of validate_every {self.validate_every}")
        return self


class CrossBatch(Section):
    """What patches of a region see of each other (both on in the paper)."""

    padding: bool = True
    """Convolutions see the neighbouring patches' values at a patch's border."""
    attention: bool = True
    """Attention takes keys and values from every patch of the region."""


class DiffusionIQTNetwork(Section):
    """Size and parts of the DiffusionIQT U-Net; the paper's is 64 channels, (1, 2, 4), 2 blocks, 8 heads of 64."""

    channels: Positive = 24
    """Width of the first level."""
    multipliers: tuple[Positive, ...] = (1, 2)
    """Width of each level in units of `channels`."""
    blocks: Positive = 2
    """Residual blocks a level."""
    stem: Literal[1, 2, 4] = 2
    """Pixel-unshuffle before the first convolution: 2 runs the network on half the resolution, eight channels each."""
    groups: Positive = 8
    """Groups of GroupNorm."""
    heads: Positive = 4
    """Attention heads."""
    head_dim: Positive = 16
    """Width of a head."""
    tokens: tuple[Positive, ...] = (4, 2)
    """Edge of an attention token at each level, in that level's voxels (the paper's: 8, 4, 2)."""
    attention: bool = True
    """Linear attention at each level of the encoder."""
    attention_skip: bool = True
    """Skip connection around the attention block."""
    shuffle: bool = True
    """Pixel-unshuffle and -shuffle between levels; false: strided convolution and trilinear upsampling."""
    squeeze_excitation: bool = True
    """Channel gates at the end of every residual block."""
    cross_batch: CrossBatch = CrossBatch()
    """What patches of a region see of each other."""

    @model_validator(mode="after")
    def _levels(self) -> DiffusionIQTNetwork:
        if len(self.tokens) != len(self.multipliers):
            raise ValueError(
                f"tokens {self.tokens} and multipliers {self.multipliers} must have one entry a level each"
            )
        if self.channels % self.groups:
            raise ValueError(f"channels {self.channels} must be a multiple of groups {self.groups}")
        return self


class UNetNetwork(Section):
    """MONAI's residual U-Net, trained as a regression."""

    channels: tuple[Positive, ...] = (24, 48, 96)
    """Width of each level; each level halves the resolution."""
    residual_units: Positive = 2
    """Convolutions of a residual unit."""


class Diffusion(Section):
    """The forward process and what the network predicts."""

    schedule: Literal["cosine"] = "cosine"
    """Log-SNR over continuous time."""
    logsnr_max: Annotated[float, Field(gt=0, le=20)] = 10.0
    """Bound of the log-SNR at both ends."""
    objective: Literal["x0"] = "x0"
    """The clean target itself, with an unweighted mean squared error."""


class Sampling(Section):
    """How a trained diffusion model is run; entries that differ only here share one trained model."""

    sampler: Literal["ancestral", "ddim"] = "ddim"
    """Ancestral sampling (the paper) or DDIM."""
    steps: Positive = 4
    """Network calls a sample."""
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Noise that DDIM adds back each step: 0 none, 1 as much as ancestral sampling."""
    samples: Positive = 1
    """Samples a scan; with more than one the result is their mean, and their standard deviation is kept."""


class Tiling(Section):
    """How a whole volume passes through a network."""

    tile: Positive = 96
    """Largest edge of a tile in voxels; rounded down to whole regions."""
    overlap: Annotated[int, Field(ge=0)] = 16
    """Voxels that neighbouring tiles share and blend at least."""


class Cubic(Section):
    """Cubic interpolation of the thick slices, the method to beat."""

    kind: Literal["cubic"] = "cubic"
    """Kind of method."""


class Learned(Section):
    """What every trained method has."""

    target: Literal["residual", "image"] = "residual"
    """What the network predicts: the high-quality volume (the paper), or its difference from the low-field one."""
    patches: Patches = Patches()
    """Regions that training reads."""
    training: Training = Training()
    """Changes to the top-level `training`, for this method alone."""
    tiling: Tiling = Tiling()
    """How a whole volume passes through the network."""


class UNetMethod(Learned):
    """A regression U-Net."""

    kind: Literal["unet"] = "unet"
    """Kind of method."""
    network: UNetNetwork = UNetNetwork()
    """Size of the network."""

    @model_validator(mode="after")
    def _divisible(self) -> UNetMethod:
        _require_divisible(self.patches.region, 2 ** (len(self.network.channels) - 1), "network.channels")
        return self


class DiffusionIQTMethod(Learned):
    """The 3D conditional diffusion model of DiffusionIQT."""

    kind: Literal["diffusion_iqt"] = "diffusion_iqt"
    """Kind of method."""
    network: DiffusionIQTNetwork = DiffusionIQTNetwork()
    """Size and parts of the network."""
    diffusion: Diffusion = Diffusion()
    """Forward process and objective."""
    sampling: Sampling = Sampling()
    """How the trained network is run."""

    @model_validator(mode="after")
    def _divisible(self) -> DiffusionIQTMethod:
        net, patch = self.network, self.patches.patch
        for level, token in enumerate(net.tokens):
            _require_divisible((patch,) * 3, net.stem * 2**level * (token if net.attention else 1), "network.tokens")
        return self


KINDS = {"cubic": Cubic, "unet": UNetMethod, "diffusion_iqt": DiffusionIQTMethod}
Method = Annotated[Cubic | UNetMethod | DiffusionIQTMethod, Field(discriminator="kind")]

TRAINED_BY = ("kind", "network", "diffusion", "target", "patches", "training")
"""Keys of a method that its weights depend on; the others only say how the weights are used."""


class ParcellatorTraining(Training):
    """Budget and optimiser of the built-in parcellator; `training` at the top level does not touch them."""

    steps: Positive = 500
    """Optimiser steps."""
    batch_size: Positive = 4
    """Slice stacks a step and plane."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 3e-2
    """Highest learning rate of AdamW."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Weight decay of AdamW."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the exponential moving average of the weights; the averaged weights are the ones saved."""
    validate_every: Positive = 100
    """Steps between validations, a divisor of `steps`; a checkpoint is written at each."""
    flip: Literal[False] = False
    """Never mirrored: the sides have labels of their own."""


class Parcellator(Section):
    """The built-in FastSurfer-style network: three planes, seven slices in, the middle one's labels out."""

    filters: Positive = 16
    """Channels of every block."""
    levels: Annotated[int, Field(ge=2, le=4)] = 3
    """Encoder blocks; each halves the resolution."""
    slice_size: Positive = 64
    """Edge of the square crops that training reads, in voxels."""
    training: ParcellatorTraining = ParcellatorTraining()
    """Budget and optimiser of this network alone."""


class Parcellate(Section):
    """The judge behind mIoU: it reads the reference and each result, and is trained on high-quality scans alone."""

    engine: Literal["builtin"] = "builtin"
    """Who labels: the built-in network."""
    builtin: Parcellator = Parcellator()
    """Settings of the built-in network."""


class Evaluate(Section):
    """How results are scored."""

    highpass_sigma: Annotated[float, Field(gt=0)] = 1.5
    """Gaussian blur, in voxels, that `hfcorr` subtracts."""
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Resamplings of the people behind each 95 % interval."""


class Report(Section):
    """What the page shows."""

    people: Positive = 3
    """Test people whose slices are drawn."""


def _default_methods() -> dict[str, Method]:
    mean = DiffusionIQTMethod(sampling=Sampling(samples=4))
    return {"cubic": Cubic(), "unet": UNetMethod(), "diffusion_iqt": DiffusionIQTMethod(), "diffusion_iqt_mean": mean}


class Config(Section):
    """One benchmark: everything that `results/<name>` depends on."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "demo"
    """Folder below `results/`."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Every random draw follows from this number and from what is drawn."""
    suffix: Literal["T1w", "T2w", "FLAIR"] = "T1w"
    """BIDS suffix of the contrast."""
    compute: Compute = Compute()
    """How work is cut into jobs."""
    cohort: Cohort = Cohort()
    """Where the high-quality scans come from, and the split."""
    lowfield: dict[Name, LowField] = {"main": LowField()}
    """Low-field sets by name; `main` is the one trained on, the others are out of distribution."""
    training: Training = Training()
    """What a method's own `training` starts from."""
    methods: dict[Name, Method] = Field(default_factory=_default_methods)
    """Methods by name, in the order of the tables. `base: NAME` copies another entry and changes what follows."""
    parcellate: Parcellate = Parcellate()
    """The judge behind mIoU."""
    evaluate: Evaluate = Evaluate()
    """How results are scored."""
    report: Report = Report()
    """What the page shows."""

    @model_validator(mode="after")
    def _names(self) -> Config:
        if "main" not in self.lowfield:
            raise ValueError("lowfield needs a set named main, the one that is trained on")
        if self.cohort.source == "template" and self.suffix != "T1w":
            raise ValueError(f"suffix {self.suffix}: the template source has T1w contrast only; set suffix: T1w")
        if not self.methods:
            raise ValueError("methods is empty; name at least one")
        reserved = {"parcellator", "hq", "lowfield"} & set(self.methods)
        if reserved:
            raise ValueError(f"methods: {', '.join(sorted(reserved))} is a reserved name; choose another")
        return self

    def model_of(self, method: str) -> str | None:
        """The trained model that a method uses, named after the first entry with the same training; None for cubic."""
        if not isinstance(self.methods[method], Learned):
            return None
        wanted = self.trained_by(method)
        return next(
            name
            for name, entry in self.methods.items()
            if isinstance(entry, Learned) and self.trained_by(name) == wanted
        )

    def models(self) -> list[str]:
        """The models to train, in the order of the methods."""
        return list(dict.fromkeys(name for name in map(self.model_of, self.methods) if name))

    def trained_by(self, method: str) -> dict[str, Any]:
        """The part of a method's entry that its weights depend on."""
        entry = self.methods[method].model_dump(mode="json")
        return {key: entry[key] for key in TRAINED_BY if key in entry}

    def used_by(self, method: str) -> dict[str, Any]:
        """The part of a method's entry that says how its weights are used."""
        entry = self.methods[method].model_dump(mode="json")
        return {key: value for key, value in entry.items() if key not in TRAINED_BY or key == "kind"}


class MethodFacts(Section):
    """What the page says about a method."""

    kind: str
    model: str | None


class RunFacts(Section):
    """What the page tells of the configuration and no more, so that other keys do not make it be gathered again."""

    name: str
    seed: int
    suffix: str
    source: str
    lowfield: dict[str, LowField]
    methods: dict[str, MethodFacts]
    engine: str
    evaluate: Evaluate

    @classmethod
    def of(cls, config: Config) -> RunFacts:
        methods = {
            name: MethodFacts(kind=entry.kind, model=config.model_of(name)) for name, entry in config.methods.items()
        }
        return cls(
            name=config.name,
            seed=config.seed,
            suffix=config.suffix,
            source=config.cohort.source,
            lowfield=config.lowfield,
            methods=methods,
            engine=config.parcellate.engine,
            evaluate=config.evaluate,
        )


def _require_divisible(edges: tuple[int, ...], factor: int, because: str) -> None:
    if any(edge % factor for edge in edges):
        raise ValueError(f"patches: edges {edges} must be multiples of {factor}, which {because} asks for")


def merge(base: Mapping, changes: Mapping) -> dict:
    """`changes` laid over `base`, section by section."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if nested else copy.deepcopy(value)
    return merged


def parse_config(raw: Mapping, source: str = "config") -> Config:
    """Validate a configuration as read from YAML.

    Raises:
        UserError: one message that lists every problem as file, key, value, what is allowed, and a hint.
    """
    raw = copy.deepcopy(dict(raw))
    methods = raw.get("methods")
    if isinstance(methods, Mapping):
        raw["methods"] = _resolve_bases(methods, raw.get("training"), source)
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise UserError(_explain(error, source)) from None


def parse_section(model: type[SectionType], text: str | None) -> SectionType:
    """A section from a JSON text (as the rules pass it) or from a YAML or JSON file; the defaults for None."""
    if text is None:
        return model()
    source = "--settings"
    if not text.lstrip().startswith("{"):
        source, path = text, Path(text)
        if not path.is_file():
            raise UserError(f"--settings {text}: neither JSON nor a file")
        text = path.read_text(encoding="utf-8")
    import yaml

    try:
        return model.model_validate(yaml.safe_load(text) or {})
    except yaml.YAMLError as error:
        raise UserError(f"{source}: not readable as YAML or JSON ({error})") from None
    except ValidationError as error:
        raise UserError(_explain(error, source, model)) from None


def _resolve_bases(methods: Mapping, training: Any, source: str) -> dict:
    resolved: dict[str, Any] = {}

    def resolve(name: str, above: tuple[str, ...]) -> Any:
        entry = methods[name]
        if not isinstance(entry, Mapping) or "base" not in entry:
            return entry
        base = entry["base"]
        if base not in methods:
            raise UserError(f"{source}: methods.{name}.base = {base!r} names no method. {_hint(base, methods)}")
        if base in (*above, name):
            raise UserError(f"{source}: methods.{name}.base = {base!r} goes in a circle; base it on another entry")
        changes = {key: value for key, value in entry.items() if key != "base"}
        return merge(resolve(base, (*above, name)), changes)

    for name in methods:
        entry = resolve(name, ())
        if isinstance(training, Mapping) and isinstance(entry, Mapping) and _is_learned(entry.get("kind")):
            entry = {**entry, "training": merge(training, entry.get("training") or {})}
        resolved[name] = entry
    return resolved


def _is_learned(kind: Any) -> bool:
    return isinstance(kind, str) and kind in KINDS and issubclass(KINDS[kind], Learned)


def _explain(error: ValidationError, source: str, model: type[Section] = Config) -> str:
    lines = []
    for problem in error.errors():
        where = problem["loc"]
        section = _section_at(model, where[:-1])
        if model is Config and where[:1] == ("methods",):
            where = where[:2] + where[3:]  # the third part is the kind, by which pydantic chose the model
        key = ".".join(str(part) for part in where) or "(whole file)"
        value = problem.get("input")
        shown = "a section" if isinstance(value, Mapping | BaseModel) else json.dumps(value, default=str)
        if problem["type"] == "extra_forbidden":
            allowed = list(section.model_fields) if section else []
            lines.append(f"  {key} = {shown}: unknown key. {_hint(str(where[-1]), allowed)}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"  {key} = {shown}: {message[0].lower()}{message[1:]}.")
    return f"{source}: the configuration is not valid.\n" + "\n".join(lines) + "\nEvery key: config/README.md"


def _hint(word: str, allowed: Any) -> str:
    close = difflib.get_close_matches(str(word), [str(name) for name in allowed], n=1, cutoff=0.5)
    known = ", ".join(str(name) for name in allowed)
    return f"Hint: did you mean {close[0]}?" if close else f"Hint: allowed are {known}"


def _section_at(model: type[Section], where: tuple) -> type[Section] | None:
    """The section at a location of a validation error."""
    if model is Config and where[:1] == ("methods",):
        return _section_at(KINDS[where[2]], where[3:]) if len(where) > 2 else None
    for part in where:
        field = model.model_fields.get(part) if model else None
        if field is None:  # a name inside a dictionary of sections
            continue
        choices = (field.annotation, *get_args(field.annotation))
        model = next((kind for kind in choices if isinstance(kind, type) and issubclass(kind, Section)), None)
    return model
