"""The parcellator behind mIoU."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from iqt.config.section import Positive, Section, Width
from iqt.config.training import Training
from iqt.io.shipped import PARCELLATOR_TABLE

TABLES = ("template", "aseg", "fastsurfer")
"""Look-up tables in resources/, by what comes before `_dseg.tsv`."""


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


class Parcellator(Section):
    """The built-in FastSurfer-style network: three planes, seven slices in, the middle one's labels out."""

    filters: Width = 16
    """Channels of every block; 64 in FastSurferCNN."""
    kernel: Literal[3, 5] = 3
    """Edge of the convolutions: 5 in FastSurferCNN, 3 in its successor FastSurferVINN."""
    levels: Annotated[int, Field(ge=2, le=4)] = 4
    """Encoder blocks; each halves the resolution. 4 in FastSurferCNN."""
    slice_size: Annotated[int, Field(ge=1, le=1024)] = 64
    """Edge of the square crops that training reads, in voxels."""
    contrast: Literal["scan", "random"] = "scan"
    """What training reads: the scans, or volumes of random contrast painted from their labels (as in SynthSeg)."""
    training: ParcellatorTraining = ParcellatorTraining()
    """Budget and optimiser of this network alone."""

    @model_validator(mode="after")
    def _deep_enough(self) -> Parcellator:
        if self.slice_size < 2 ** (self.levels + 1):
            raise ValueError(
                f"slice_size {self.slice_size}: {self.levels} levels halve it to nothing; "
                f"{2 ** (self.levels + 1)} or more"
            )
        return self


class BuiltIn(Parcellator):
    """The built-in parcellator: the one that ships, or one that the run trains, to which the other keys belong."""

    weights: Literal["shipped", "train"] = "shipped"
    """`shipped`: a 3D network that reads any T1w scan, with the labels of the table `aseg`; `train`: a multi-view one
    that learns from the training people's high-quality scans and their own labels."""

    @property
    def training_settings(self) -> Parcellator:
        """What its training and its card know, of which its weights depend on all."""
        return Parcellator.model_validate(self.model_dump(exclude={"weights": True, "training": {"workers"}}))


class Painting(Section):
    """How volumes are painted from label maps for the 3D parcellator, no two alike."""

    voxel_size: Annotated[float, Field(ge=1, le=4)] = 2.0
    """Voxels that the network reads, in mm."""
    region: tuple[Width, Width, Width] = (80, 96, 80)
    """Voxels of a painted volume, right x front x up: a whole brain."""
    rotation: Annotated[float, Field(ge=0, le=45)] = 15.0
    """Two standard deviations of the rotation about each axis, in degrees."""
    scale: Annotated[float, Field(ge=0, le=0.5)] = 0.15
    """Two standard deviations of the log of the size along each axis."""
    shift: Annotated[float, Field(ge=0, le=50)] = 8.0
    """Two standard deviations of the position, in mm."""
    deformation: Annotated[float, Field(ge=0, le=8)] = 2.0
    """Standard deviation of the smooth deformation, in mm."""
    random_contrast: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of volumes whose structures have any intensity; the others are widely around a T1w scan's."""
    blur: Annotated[float, Field(ge=0, le=3)] = 0.8
    """Largest standard deviation of the blur, in voxels."""
    thick_share: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Share of volumes that were acquired in thick slices along any axis."""
    thickness: Annotated[float, Field(ge=1, le=20)] = 8.0
    """Thickest slices, in mm."""
    bias: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Largest standard deviation of the log of the bias field."""
    noise: Annotated[float, Field(ge=0, le=0.5)] = 0.06
    """Largest standard deviation of the noise, relative to white matter."""


class VolumetricNetwork(Section):
    """A residual U-Net in 3D."""

    channels: Annotated[tuple[Width, ...], Field(min_length=2, max_length=8)] = (32, 64, 128, 256)
    """Width of each level; each level halves the resolution."""
    features: Width = 16
    """Width at full resolution, before the classes."""
    residual_units: Annotated[int, Field(ge=0, le=8)] = 1
    """Convolutions of a residual unit."""


class LabelSource(Section):
    """Where the label maps are from, for the model's card."""

    source: str = "BBillot/SynthSeg, data/training_label_maps"
    """Name of the collection."""
    licence: str = "Apache-2.0"
    """Its licence."""


class VolumetricParcellator(Section):
    """The recipe of the 3D parcellator, which is trained on label maps alone."""

    train: tuple[str, ...] = tuple(f"sub-{number:02d}" for number in range(1, 13))
    """What the names of the training people's label maps begin with."""
    val: tuple[str, ...] = ("sub-13", "sub-14")
    """The same of the validation people."""
    source: LabelSource = LabelSource()
    """Where they are from."""
    painting: Painting = Painting()
    """How volumes are painted."""
    network: VolumetricNetwork = VolumetricNetwork()
    """Size of the network."""
    training: ParcellatorTraining = ParcellatorTraining(batch_size=1, learning_rate=2e-3, ema_decay=0.99, workers=1)
    """Budget and optimiser."""


class FastSurfer(Section):
    """The external program FastSurfer: `run_fastsurfer.sh`, segmentation only."""

    home: str | None = None
    """Folder of `run_fastsurfer.sh`. Default: the environment variable FASTSURFER_HOME, else PATH."""
    image: str = "docker://deepmi/fastsurfer:{device}-v2.4.2"
    """Container image for `--sdm apptainer`; `{device}` becomes cpu or cuda. Pin the tag, since mIoU depends on it."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where its networks run: 17 minutes a volume on one CPU thread, about one minute on a GPU."""
    vox_size: Annotated[float, Field(ge=0.7, le=1)] | Literal["min"] = 1.0
    """Voxel size in mm that references and results are resampled to alike; `min`: their own, between 0.7 and 1 mm."""
    batch_size: Positive = 1
    """Slices that its networks read at once."""
    threads: Positive = 4
    """CPU threads of a FastSurfer job."""
    allow_root: bool = False
    """Let it run as root, which it refuses otherwise."""

    @model_validator(mode="after")
    def _plain_image(self) -> FastSurfer:
        if set("{}") & set(self.container):
            raise ValueError(f"image {self.image!r}: braces stand for nothing but {{device}}; leave others out")
        return self

    @property
    def container(self) -> str:
        """The image for this device."""
        return self.image.replace("{device}", self.device)


class Parcellate(Section):
    """The judge behind mIoU: it reads the reference and each result alike."""

    engine: Literal["builtin", "fastsurfer", "none"] = "builtin"
    """Who labels: the built-in network; FastSurfer; or `none`: results are scored by similarity alone, without mIoU and
    Dice."""
    labels: str | None = None
    """Look-up table: `template`, `aseg` or `fastsurfer` (tables in `resources/`), or a file ending in .tsv.
    Default: the engine's own; where the run trains the parcellator, what the source brings: `template` or (source
    `labelmaps`) `aseg`, else `fastsurfer`."""
    builtin: BuiltIn = BuiltIn()
    """Settings of the built-in network."""
    fastsurfer: FastSurfer = FastSurfer()
    """Settings of FastSurfer."""

    @model_validator(mode="after")
    def _known_labels(self) -> Parcellate:
        if self.labels is not None and self.labels not in TABLES and not self.labels.endswith(".tsv"):
            raise ValueError(f"labels {self.labels!r} must be one of {', '.join(TABLES)}, or a file ending in .tsv")
        if self.engine == "fastsurfer" and self.labels not in (None, "fastsurfer"):
            raise ValueError(f"labels {self.labels!r}: FastSurfer has its own, so leave labels out")
        if self.shipped and self.labels not in (None, PARCELLATOR_TABLE):
            raise ValueError(
                f"labels {self.labels!r}: the shipped parcellator has those of {PARCELLATOR_TABLE}; leave labels out, "
                "or set builtin.weights: train"
            )
        return self

    @model_validator(mode="after")
    def _in_use(self) -> Parcellate:
        if self.engine != "fastsurfer" and self.fastsurfer != FastSurfer():
            raise ValueError(
                f"fastsurfer: has no effect with engine {self.engine}; leave it out, or set engine: fastsurfer"
            )
        if self.engine == "none" and self.labels is not None:
            raise ValueError(f"labels {self.labels!r}: nothing is labelled with engine none; leave it out")
        usual = Parcellator()
        keys = [name for name in Parcellator.model_fields if getattr(self.builtin, name) != getattr(usual, name)]
        if self.shipped and keys:
            raise ValueError(
                f"builtin.{', builtin.'.join(keys)}: the shipped network has its own; leave out, or set "
                "builtin.weights: train"
            )
        return self

    @property
    def shipped(self) -> bool:
        """Whether the parcellator that ships reads."""
        return self.engine == "builtin" and self.builtin.weights == "shipped"

    @property
    def trained(self) -> bool:
        """Whether the run trains a parcellator."""
        return self.engine == "builtin" and self.builtin.weights == "train"

    def table(self, source: str) -> str | None:
        """The name or file of the look-up table for a kind of cohort; None where nothing is labelled."""
        if self.engine == "none":
            return None
        if self.engine == "fastsurfer":
            return "fastsurfer"
        if self.shipped:
            return PARCELLATOR_TABLE
        return self.labels or {"template": "template", "labelmaps": "aseg"}.get(source, "fastsurfer")
