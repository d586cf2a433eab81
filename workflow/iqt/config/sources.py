"""The sources of real scans: archives, folders, and which of their files are read."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from iqt.config.section import Section

SMALLEST_NUMBER = 100_000


def as_id(value: Any) -> Any:
    """An id as BIDS has it after `sub-`. Numbers of six digits and more, as HCP's, need no quotes; a smaller one may
    have been written with zeros, which YAML drops or reads as an octal number."""
    if isinstance(value, bool | float) or (isinstance(value, int) and value < SMALLEST_NUMBER):
        raise ValueError(f"{value!r} is no text: write the id in quotes, as '{value}', with its zeros")
    return str(value).removeprefix("sub-") if isinstance(value, str | int) else value


Id = Annotated[str, BeforeValidator(as_id), Field(pattern=r"^[A-Za-z0-9]+$")]
"""A person's id as BIDS has it after `sub-`."""


def _people(value: Any) -> Any:
    if isinstance(value, str | list):
        return value
    raise ValueError("a list of ids, or the name of a file with one id a line, or `all` is needed")


People = Annotated[list[Id] | str, BeforeValidator(_people)]


Bucket = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]


def _plain_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be a URL that begins with http:// or https://")
    if parts.username is not None or parts.password is not None or parts.query:
        raise PydanticCustomError(
            "secret_in_url",
            "holds a name, a password or a query, which logs would show; put keys into the environment or a profile",
        )
    return value


class S3(Section):
    """An S3 bucket. Keys are never written here: they come from the environment or from an AWS profile."""

    bucket: Bucket
    """Bucket."""
    prefix: str = ""
    """What every key begins with."""
    region: str = "us-east-1"
    """Region of the bucket."""
    endpoint: Annotated[str, AfterValidator(_plain_url)] | None = None
    """URL of the server; null for Amazon's own."""
    profile: str | None = None
    """AWS profile with the keys, used where AWS_ACCESS_KEY_ID is not set; null for the default one."""
    anonymous: bool = False
    """Ask without keys, as a public bucket allows."""
    part_mb: Annotated[float, Field(gt=0, le=512)] = 8
    """Size of the ranges that a file is downloaded in, in MB; an interruption costs less than one."""
    parallel: Annotated[int, Field(ge=1, le=64)] = 4
    """Files that a job downloads at the same time."""
    attempts: Annotated[int, Field(ge=1, le=100)] = 8
    """Tries of each request that the server or the network fails, with growing pauses."""


class HCPBucket(S3):
    """HCP's bucket. Keys are never written here: they come from the environment or from an AWS profile."""

    bucket: Bucket = "hcp-openaccess"
    """Bucket."""
    prefix: str = "HCP_1200"
    """What every key begins with."""
    profile: str | None = "hcp"
    """AWS profile with the keys, used where AWS_ACCESS_KEY_ID is not set; null for the default one."""


class HCP(Section):
    """The Human Connectome Project's young adults: minimally preprocessed structural scans at 0.7 mm."""

    access: Literal["s3", "zips", "tree"] = "s3"
    """`s3`: the bucket; `zips`: a folder of <id>_StructuralRecommended.zip; `tree`: a folder of <id>/T1w/."""
    path: str | None = None
    """Folder, for `zips` and `tree`."""
    subjects: People = "all"
    """Ids, or a file with one id a line (or a table with a column participant_id or Subject), or `all` that the source
    has; only `all` needs the source to be there when a run is planned."""
    labels: Literal["aparc+aseg", "wmparc", "none"] = "aparc+aseg"
    """FreeSurfer label map to take along."""
    s3: HCPBucket = HCPBucket()
    """The bucket, for `s3`."""

    @model_validator(mode="after")
    def _folder(self) -> HCP:
        if (self.access == "s3") == (self.path is not None):
            raise ValueError(
                f"access {self.access}, path {self.path}: zips and tree need a path, and s3 takes none; "
                "set access: zips, tree or s3"
            )
        return self


class OpenNeuroBucket(S3):
    """OpenNeuro's public bucket."""

    bucket: Bucket = "openneuro.org"
    """Bucket."""
    anonymous: bool = True
    """Ask without keys, as a public bucket allows."""


class BIDS(Section):
    """A BIDS dataset, raw or derivative: the scans with the configuration's suffix, in every session and run."""

    path: str | None = None
    """Folder of the dataset (the one that holds sub-*); with `accession`, a copy of that dataset which is at hand."""
    accession: Annotated[str, Field(pattern=r"^ds\d{6}$")] | None = None
    """A dataset of OpenNeuro, such as ds006557, of which the files needed are downloaded if there is no `path`."""
    subjects: People = "all"
    """Ids to read, or `all`."""
    sessions: list[Id] | None = None
    """Sessions to read; null for all."""
    entities: dict[str, str] = {}  # noqa: RUF012
    """What else an image's name must hold, such as {acq: mprage} or {desc: preproc, space: T1w}; an empty value means
    that it must not hold that entity."""
    skull_stripped: bool = False
    """Whether the images show the brain alone."""
    mask: str | None = "desc-brain_mask"
    """Entities and suffix of a brain mask, here or below derivatives/; null to make one (`cohort.mask`)."""
    labels: str | None = "desc-aparcaseg_dseg"
    """Entities and suffix of a label map; null for none."""
    posteriors: str = "label-{tissue}_probseg"
    """Entities and suffix of tissue posteriors; {tissue} stands for WM, GM and CSF."""
    lut: str = "freesurfer"
    """Look-up table of the label maps: `freesurfer`, or a TSV with the columns of resources/freesurfer_dseg.tsv."""
    lowfield: str | None = None
    """Entities and suffix of a real low-field scan of the same person, such as `acq-lowfield_T1w`, or `ses-ULF_T1w`
    where it lies in another session; used by a low-field set with `registration`."""
    s3: OpenNeuroBucket = OpenNeuroBucket()
    """The bucket, for `accession`."""

    @property
    def downloaded(self) -> str | None:
        """The dataset of OpenNeuro that the files come from, where they do."""
        return self.accession if self.path is None else None

    @model_validator(mode="after")
    def _people(self) -> BIDS:
        if isinstance(self.subjects, str) and self.subjects != "all":
            raise ValueError(f"subjects {self.subjects}: give a list of ids, or `all`")
        return self


def _pattern(value: str) -> str:
    try:
        groups = re.compile(value).groupindex
    except re.error as error:
        raise ValueError(f"is no regular expression ({error})") from None
    unknown = set(groups) - {"sub", "ses", "run"}
    if "sub" not in groups or unknown:
        raise ValueError("needs a group (?P<sub>...), and may have ses and run")
    return value


Pattern = Annotated[str, BeforeValidator(_pattern)]


class Folder(Section):
    """Any NIfTI or MGZ files."""

    path: str | None = None
    """Folder that the globs start from."""
    images: str = "**/*.nii.gz"
    """Glob of the images."""
    masks: str | None = None
    """Glob of the brain masks; null to make them (`cohort.mask`)."""
    labels: str | None = None
    """Glob of the label maps; null for none."""
    pattern: Pattern = r"^(?:sub-)?(?P<sub>[A-Za-z0-9]+)"
    """Regular expression that finds a person's id in a file's name (group sub), and session and run (ses, run); other
    signs than letters and digits are dropped from what it finds."""
    lowfield: str | None = None
    """Glob of real low-field scans of the same people; used by a low-field set with `registration`."""
    skull_stripped: bool = False
    """Whether the images show the brain alone."""
    lut: str = "freesurfer"
    """Look-up table of the label maps: `freesurfer`, or a TSV with the columns of resources/freesurfer_dseg.tsv."""


class LabelMaps(Section):
    """Scans synthesised from segmentations, as SynthSeg and SynthSR do: real anatomy without any high-quality scan."""

    path: str | None = None
    """Folder that the glob starts from."""
    labels: str = "**/*.nii.gz"
    """Glob of the label maps, with FreeSurfer's ids; 500 and above are outside the brain."""
    pattern: Pattern = r"^(?:sub-)?(?P<sub>[A-Za-z0-9]+)"
    """Regular expression that finds a person's id in a file's name (group sub), and session and run (ses, run)."""
    lut: str = "freesurfer"
    """Look-up table of the labels: `freesurfer`, or a TSV with the columns of resources/freesurfer_dseg.tsv."""
    contrast: Literal["suffix", "random"] = "suffix"
    """`suffix`: intensities of the configuration's suffix (T1w, T2w, FLAIR); `random`: any, structure by structure."""
    draws: Annotated[int, Field(ge=1, le=1000)] = 1
    """Scans made of each label map, all in its person's split."""
    deformation: Annotated[float, Field(ge=0, le=12)] = 2.0
    """Standard deviation of the smooth displacement, in mm."""
    smoothness: Annotated[float, Field(ge=8, le=60)] = 20.0
    """Length over which the displacement varies, in mm (standard deviation of the Gaussian that smooths it)."""
    texture: Annotated[float, Field(ge=0, le=0.2)] = 0.03
    """Standard deviation of the fine intensity texture within a structure, relative to white matter."""
    bias_field: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Standard deviation of the log of the smooth intensity bias."""
