"""Where high-quality scans come from, and their split."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from iqt.config.section import Section
from iqt.config.sources import BIDS, HCP, Folder, Id, LabelMaps

MOST_PEOPLE = 100_000


def _share(value: Any) -> Any:
    if value == "rest" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_PEOPLE):
        return value
    if isinstance(value, list) and value:
        return value
    raise ValueError(f"an integer from 1 to {MOST_PEOPLE} (people), a list of ids, or `rest` is needed")


Share = Annotated[int | list[Id] | Literal["rest"], BeforeValidator(_share)]


class Split(Section):
    """Whom networks are trained, validated and tested on; a person's scans, and a family's, stay together.

    Each is a number of people, drawn by the seed, or a list of ids, or `rest`: everybody that is left. People whom no
    split asks for are not read. The source `template` takes numbers only.
    """

    train: Share = 12
    """People that networks learn from."""
    val: Share = 2
    """People that training is watched on."""
    test: Share = 6
    """People that the benchmark is about; no other stage sees them."""
    table: str | None = None
    """TSV or CSV about the people: a column participant_id (or Subject, as HCP has it), and those named below."""
    stratify: tuple[str, ...] = ()
    """Columns of `table` whose values each split holds in the same proportions; numbers are cut at their quartiles."""
    family: str | None = None
    """Column of `table` that names a person's family (HCP, restricted data: Family_ID)."""
    given: str | None = None
    """TSV with columns participant_id and split that says where everybody is, instead of the numbers above."""

    @model_validator(mode="after")
    def _table(self) -> Split:
        if self.table is None and (self.stratify or self.family):
            raise ValueError("stratify and family name columns of a table; set table: to its path")
        if [self.train, self.val, self.test].count("rest") > 1:
            raise ValueError("only one of train, val and test can be `rest`")
        return self


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


Range = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]]


class Grid(Section):
    """What happens to the grid of a real scan; the template is made on its grid at once. Axes end up as RAS."""

    crop: tuple[Range, Range, Range] | None = None
    """Voxels [first, last + 1] to keep along each axis of the file, such as the paper's
    [[2, 258], [27, 283], [0, 256]] of HCP's 260 x 311 x 260; the affine moves with it."""
    voxel_size: Annotated[float, Field(ge=0.3, le=4)] | None = None
    """Isotropic voxel size in mm to resample to, after cropping; null keeps the scan's own."""

    @model_validator(mode="after")
    def _ordered(self) -> Grid:
        if self.crop and any(first >= end for first, end in self.crop):
            raise ValueError(f"crop {self.crop}: each axis needs [first, end] with first below end")
        return self


class Mask(Section):
    """Brain masks, for scans whose source has none; and what is done about one that looks wrong."""

    engine: Literal["deepbet", "brainextractor", "bet"] = "deepbet"
    """`deepbet`: a network made for whole heads of healthy adults; `brainextractor`: BET's published method as a Python
    library; `bet`: FSL's own, which has to be installed (or run with --use-conda)."""
    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Threshold of deepbet's probability, or fractional intensity threshold of the other two; smaller gives larger
    brains."""
    wrong: Literal["keep", "skip"] = "keep"
    """What to do with a scan whose mask looks wrong (volume outside 0.7 to 2.2 l, cut off at the border, in pieces). It
    is reported with a picture in either case."""


class Cohort(Section):
    """Where the high-quality scans come from."""

    source: Literal["template", "hcp", "bids", "folder", "labelmaps"] = "template"
    """Kind of source; the section of its name below holds its settings."""
    split: Split = Split()
    """People a split."""
    max_missing: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the scans that may fail in this stage (a file missing, a check not passed); more stop the run."""
    downloads: str = "downloads"
    """Folder that downloaded files are kept in; several runs may share it."""
    grid: Grid = Grid()
    """Cropping and resampling of real scans."""
    mask: Mask = Mask()
    """Brain masks of real scans."""
    template: Template = Template()
    """Settings of the source `template`."""
    hcp: HCP = HCP()
    """Settings of the source `hcp`."""
    bids: BIDS = BIDS()
    """Settings of the source `bids`."""
    folder: Folder = Folder()
    """Settings of the source `folder`."""
    labelmaps: LabelMaps = LabelMaps()
    """Settings of the source `labelmaps`."""

    @property
    def settings(self) -> Section:
        """The section of the source."""
        return getattr(self, self.source)

    @model_validator(mode="after")
    def _source_has_a_place(self) -> Cohort:
        settings = self.settings
        if getattr(settings, "path", "") is None and not getattr(settings, "accession", None) and self.source != "hcp":
            raise ValueError(f"{self.source}.path is missing: the folder that the scans are in")
        return self

    @model_validator(mode="after")
    def _template_is_drawn(self) -> Cohort:
        split = self.split
        counts = all(isinstance(share, int) for share in (split.train, split.val, split.test))
        if self.source == "template" and not (counts and split.table is None and split.given is None):
            raise ValueError("split: the source template takes numbers of people only; nobody has an id beforehand")
        return self
