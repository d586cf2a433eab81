"""The whole configuration of one benchmark."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, model_validator

from iqt.config.cohort import Cohort
from iqt.config.evaluate import Evaluate
from iqt.config.experiments import Experiment
from iqt.config.lowfield import LowField
from iqt.config.methods import Method
from iqt.config.parcellate import Parcellate
from iqt.config.report import Report
from iqt.config.section import Name, Precision, Section, Seed, flat_keys, hint
from iqt.config.tissues import Tissues
from iqt.config.training import Patches, Training


class Compute(Section):
    """How work is cut into jobs."""

    batches: Annotated[int, Field(ge=1, le=10_000)] = 2
    """Jobs that a stage's scans are spread over (by a hash of the person's id)."""
    train_threads: Annotated[int, Field(ge=1, le=1024)] = 2
    """CPU threads of a training job."""
    batch_threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads of any other job."""
    gpus: Annotated[int, Field(ge=1, le=1024)] = 1
    """GPUs of a training job, which share each batch; without a GPU, processes."""
    precision: Precision = "auto"
    """Autocast of the networks. `auto`: bfloat16 on a GPU, float32 on a CPU, whose kind then changes no result; on CPUs
    with AMX, or AMD's with AVX-512, bfloat16 trains large networks up to 1.6 times as fast, and small ones slower."""


DEFAULT_METHODS = {
    "cubic": {"kind": "cubic"},
    "unet": {"kind": "unet"},
    "diffusion_iqt": {"kind": "diffusion_iqt"},
    "diffusion_iqt_mean": {"kind": "diffusion_iqt", "sampling": {"samples": 4}},
}


def _default_methods() -> dict[str, Method]:
    return TypeAdapter(dict[Name, Method]).validate_python(DEFAULT_METHODS)


class Config(Section):
    """One benchmark: everything that `results/<name>` depends on."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "demo"
    """Folder below `results`."""
    results: Annotated[str, Field(pattern=r"^[A-Za-z0-9_./-]+$")] = "results"
    """Folder of all results, from the working directory: for a workflow that imports this one as a module."""
    seed: Seed = 1
    """Every random draw follows from this number and from what is drawn."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=100)] | None = None
    """Seeds of the training: every method is trained once for each, and the tables show the spread over them. The
    cohort, the low-field scans, the parcellator and the noise of the samplers keep `seed`. null: `seed` alone."""
    suffix: Literal["T1w", "T2w", "FLAIR"] = "T1w"
    """BIDS suffix of the contrast."""
    compute: Compute = Compute()
    """How work is cut into jobs."""
    cohort: Cohort = Cohort()
    """Where the high-quality scans come from, and the split."""
    tissues: Tissues = Tissues()
    """Where the tissue posteriors come from that the simulator needs."""
    lowfield: dict[Name, LowField] = Field(default_factory=lambda: {"main": LowField()})
    """Low-field sets by name; `main` is the one trained on, unless a method's `trained_on` names another, and the
    others are further test sets, out of distribution. `base: NAME` copies another entry and changes what follows."""
    patches: Patches = Patches()
    """What a method's own `patches` starts from."""
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
    experiments: dict[Name, Experiment] = Field(default_factory=dict)
    """Questions by name; each gets a table, a figure, a section on the page, and a target `experiment_<name>`."""

    @model_validator(mode="after")
    def _seeds(self) -> Config:
        if len(set(self.training_seeds)) < len(self.training_seeds):
            raise ValueError(f"seeds {list(self.training_seeds)} names one twice; name each once")
        return self

    @model_validator(mode="after")
    def _names(self) -> Config:
        if "main" not in self.lowfield:
            raise ValueError("lowfield needs a set named main, the one that is trained on")
        if self.cohort.source == "template" and self.suffix != "T1w":
            raise ValueError(f"suffix {self.suffix}: the template source has T1w contrast only; set suffix: T1w")
        if self.parcellate.engine == "fastsurfer" and self.suffix != "T1w":
            raise ValueError(
                f"suffix {self.suffix}: FastSurfer reads T1w only; set parcellate.engine: builtin, or none"
            )
        if self.parcellate.shipped and self.suffix != "T1w":
            raise ValueError(
                f"suffix {self.suffix}: the shipped parcellator reads T1w only; set "
                "parcellate.builtin.weights: train, or parcellate.engine: none"
            )
        if self.cohort.source == "hcp" and self.suffix == "FLAIR":
            raise ValueError("suffix FLAIR: the hcp source has T1w and T2w only; set suffix: T1w or T2w")
        if not self.methods:
            raise ValueError("methods is empty; name at least one")
        reserved = {"parcellator", "hq", "lowfield"} & set(self.methods)
        if reserved:
            raise ValueError(f"methods: {', '.join(sorted(reserved))} is a reserved name; choose another")
        if self.evaluate.reference not in (None, *self.methods):
            raise ValueError(
                f"evaluate.reference {self.evaluate.reference!r} names no method; it must be one of "
                f"{', '.join(self.methods)}"
            )
        for name, entry in self.methods.items():
            if entry.trained and entry.trained_on not in self.lowfield:
                raise ValueError(
                    f"methods.{name}.trained_on {entry.trained_on!r}: no low-field set. "
                    f"{hint(entry.trained_on, self.lowfield)}"
                )
            entry.check_among(name, self.methods)
        return self

    @model_validator(mode="after")
    def _pairs(self) -> Config:
        for name, settings in self.lowfield.items():
            if settings.registration and not getattr(self.cohort.settings, "lowfield", None):
                source = self.cohort.source
                hint = f"set cohort.{source}.lowfield" if source in ("bids", "folder") else "use source bids or folder"
                raise ValueError(f"lowfield.{name}.registration: the cohort brings no low-field scans; {hint}")
        return self

    @model_validator(mode="after")
    def _tissues(self) -> Config:
        if self.tissues.engine is None:
            engine = "cohort" if self.cohort.source in ("template", "labelmaps") else "hmrf"
            self.tissues = self.tissues.model_copy(update={"engine": engine})
        return self

    @model_validator(mode="after")
    def _judge(self) -> Config:
        without = getattr(self.cohort.settings, "labels", "") in (None, "none")
        if self.parcellate.trained and without:
            raise ValueError(
                f"parcellate.builtin.weights train learns from labels, and cohort.{self.cohort.source}.labels names "
                "none; set it, or weights: shipped (T1w), or parcellate.engine: none to score similarity alone"
            )
        return self

    @model_validator(mode="after")
    def _snr(self) -> Config:
        for name, settings in self.lowfield.items():
            try:
                settings.for_contrast(self.suffix)
            except ValueError as error:
                raise ValueError(f"lowfield.{name}.{error}") from None
        return self

    @model_validator(mode="after")
    def _experiments(self) -> Config:
        if self.experiments and "experiments" in self.lowfield:
            raise ValueError("lowfield.experiments: the experiments' tables have that folder; choose another name")
        for name, experiment in self.experiments.items():
            where = f"experiments.{name}"
            if name.startswith("benchmark"):
                raise ValueError(f"{where}: the benchmark's tables begin with that word; choose another name")
            for method in experiment.methods:
                if method not in self.methods:
                    raise ValueError(f"{where}.methods names {method!r}, no method. {hint(method, self.methods)}")
            unread = [metric for metric in ("miou", "dice") if metric in experiment.metrics]
            if self.parcellate.engine == "none" and unread:
                if "metrics" in experiment.model_fields_set:
                    raise ValueError(
                        f"{where}.metrics names {' and '.join(unread)}, but parcellate.engine is none; leave it out"
                    )
                experiment.metrics = tuple(metric for metric in experiment.metrics if metric not in unread)
            for set_name in self.sets_of(name):
                if set_name not in self.lowfield:
                    raise ValueError(
                        f"{where}.sets names {set_name!r}, no low-field set. {hint(set_name, self.lowfield)}"
                    )
            known = {key for method in experiment.methods for key in flat_keys(self.methods[method].model_dump())}
            for key in experiment.keys:
                if key not in known:
                    raise ValueError(
                        f"{where}.keys names {key!r}, which none of its methods has. {hint(key, sorted(known))}"
                    )
        return self

    @property
    def training_seeds(self) -> tuple[int, ...]:
        """The seeds that every method is trained with; the first one's results are those that pictures show."""
        return self.seeds or (self.seed,)

    @property
    def training_sets(self) -> tuple[str, ...]:
        """The low-field sets that have acquisitions of everybody, for training, not of the test people alone."""
        named = {"main", *(entry.trained_on for entry in self.methods.values() if entry.trained)}
        return tuple(name for name in self.lowfield if name in named)

    def sets_of(self, experiment: str) -> tuple[str, ...]:
        """The low-field sets of an experiment."""
        sets = self.experiments[experiment].sets
        return tuple(self.lowfield) if sets == "all" else sets
