"""File names: BIDS derivatives, the same in the rules and in the commands.

A *scan* is named by its BIDS entities, `sub-01` or `sub-01_ses-1_run-2`; it is the unit that a batch counts and that a
row of a table stands for.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

SCAN_PATTERN = r"sub-[A-Za-z0-9]+(?:_ses-[A-Za-z0-9]+)?(?:_run-[A-Za-z0-9]+)?"

READABLE = (".nii", ".nii.gz", ".mgz", ".mgh", ".img", ".img.gz")
"""Endings of the images that can be read."""

STUDY = Path("code", "study.json")
"""What a study (`iqt study`) is known by, in the folder of its results."""


def is_study(folder: Path) -> bool:
    """Whether a folder holds a study's results, whose masks lie on the grid of these and are of no raw scan."""
    return (folder / STUDY).is_file()


def anat(root: str | Path, scan: str, ending: str) -> Path:
    """`root/sub-X[/ses-Y]/anat/<scan>_<ending>`, where stages keep several files a scan."""
    if not re.fullmatch(SCAN_PATTERN, scan):
        raise ValueError(f"{scan!r} is not a scan name like sub-01 or sub-01_ses-1_run-2")
    folders = [part for part in scan.split("_") if part.startswith(("sub-", "ses-"))]
    return Path(root, *folders, "anat", f"{scan}_{ending}")


def flat(root: str | Path, scan: str, ending: str) -> Path:
    """`root/<scan>_<ending>`, where a folder holds one result a scan."""
    return Path(root, f"{scan}_{ending}")


def beside(path: Path, ending: str) -> Path:
    """The file that accompanies a NIfTI file, such as its sidecar for `.json`."""
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ending)


def image_stem(path: str | Path) -> str:
    """An image's path without the ending of its format: NIfTI, MGH or Analyze, compressed or not."""
    return re.sub(r"(\.(nii|img))?\.gz$|\.(nii|mgz|mgh|img|hdr)$", "", str(path))


class Result(NamedTuple):
    """What one training of a method made of the scans: `text` of it is its folder, and `=<seed>` where it was trained.

    The first training seed's folder bears the method's name alone, so that a further seed moves nothing.
    """

    folder: str
    """Below `enhanced/<set>/` and `parcellation/<set>/`: `unet`, or `unet/seed-2`."""
    seed: int | None = None
    """The seed of the training; None where nothing is trained."""

    @property
    def method(self) -> str:
        """The method's name."""
        return self.folder.split("/")[0]

    @property
    def text(self) -> str:
        """`cubic`, `unet=1` or `unet/seed-2=2`, as commands take it."""
        return self.folder if self.seed is None else f"{self.folder}={self.seed}"

    @classmethod
    def of(cls, method: str, seed: int | None, first: int) -> Result:
        """A method's result by a training seed, of which `first` is the run's first."""
        return cls(method if seed in (None, first) else f"{method}/seed-{seed}", seed)

    @classmethod
    def parse(cls, text: str) -> Result:
        """The inverse of `text`."""
        folder, _, seed = text.partition("=")
        return cls(folder, int(seed) if seed else None)


PARTS = ("subjects", "structures", "calibration", "reliability", "seams")
"""The tables that are written of a result's batch, one file each in its `part_folder`."""


def part_folder(root: str | Path, set_name: str, folder: str, batch: int | str) -> Path:
    """Where the scores of a batch of a result (`Result.folder`) lie. Batches first, so that `--batch
    gather_metrics=1/4`, which goes by the order of names, takes a quarter of the people and not of the methods."""
    return Path(root, "metrics", "parts", set_name, f"batch-{batch}", folder)


def draw_entity(number: int) -> str:
    """What stands between a scan's name and the rest in the file of its `number`-th acquisition: nothing for the first.

    A training person may have several simulated acquisitions (`lowfield.<set>.draws`).
    """
    return "" if number == 1 else f"draw-{number}_"


def batch_of(scan: str, n_batches: int) -> int:
    """The batch that a scan belongs to: from its person's id alone, so that adding people moves nobody."""
    person = scan.split("_")[0]
    return int.from_bytes(hashlib.sha256(person.encode()).digest()[:8], "big") % n_batches


def seed_of(*words: object) -> int:
    """A 63-bit seed from the words alone (a run's seed, a scan's name, a purpose), the same on every machine."""
    text = "\x1f".join(str(word) for word in words)
    # A file's name may be no UTF-8, which Python keeps as lone surrogates.
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "big") >> 1
