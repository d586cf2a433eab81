"""The sources of real scans: archives, folders, and which of their files are read."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from iqt.config.section import Positive, Section


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Id = Annotated[str, BeforeValidator(_as_text), Field(pattern=r"^[A-Za-z0-9]+$")]
"""A person's id as BIDS has it after `sub-`; YAML may give a number."""


def _people(value: Any) -> Any:
    if isinstance(value, str | list):
        return value
    raise ValueError("a list of ids, or the name of a file with one id a line, or `all` is needed")


People = Annotated[list[Id] | str, BeforeValidator(_people)]


Bucket = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]


class S3(Section):
    """An S3 bucket. Keys are never written here: they come from the environment or from an AWS profile."""

    bucket: Bucket
    """Bucket."""
    prefix: str = ""
    """What every key begins with."""
    region: str = "us-east-1"
    """Region of the bucket."""
    endpoint: str | None = None
    """URL of the server; null for Amazon's own."""
    profile: str | None = None
    """AWS profile with the keys, used where AWS_ACCESS_KEY_ID is not set; null for the default one."""
    anonymous: bool = False
    """Ask without keys, as a public bucket allows."""
    part_mb: Annotated[float, Field(gt=0, le=512)] = 8
    """Size of the ranges that a file is downloaded in, in MB; an interruption costs less than one."""
    parallel: Positive = 4
    """Files that a job downloads at the same time."""
    attempts: Positive = 8
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
