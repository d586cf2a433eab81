"""How fast training regions are read: the patch store against a gzipped NIfTI for every region."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

from iqt.compute.devices import machine
from iqt.config import Patches
from iqt.io.batch import OK
from iqt.io.files import write_json, write_table, write_text
from iqt.io.naming import anat, flat
from iqt.io.volumes import save_volume
from iqt.training.patches import RegionDataset
from iqt.training.store import build_store, open_store

SHAPE, VOXEL = (260, 311, 260), 0.7
"""An HCP volume's size and voxel edge in mm."""
COHORT = 1113
"""People with structural scans in HCP's 1200 release."""
SCANS = ("sub-bench1", "sub-bench2")
REGIONS = {"one 32^3 patch": (1, 1, 1), "96^3, the paper's 27 patches": (3, 3, 3)}


def bench_data(folder: Path, out: Path, seconds: float) -> None:
    """Write a table of regions a second to `out` (Markdown), measured on volumes of HCP's size made in `folder`.

    The volumes are the MNI152 template at 0.7 mm with noise in the brain, as hard to compress as a scan. Each figure is
    of one process that reads for `seconds`, files in the page cache.
    """
    for number, scan in enumerate(SCANS):
        _write_scan(folder, scan, number)
    began = time.perf_counter()
    build_store(SCANS, folder / "cohort", folder / "lowfield", folder / "store", "T1w")
    build = (time.perf_counter() - began) / len(SCANS)
    write_table(folder / "participants.tsv", [{"scan": scan, "split": "train"} for scan in SCANS])
    stored = open_store(folder / "store", folder / "participants.tsv", "train")
    size = sum(path.stat().st_size for path in flat(folder / "store", "x", "x").parent.glob("*.npy")) / len(SCANS)
    rows = []
    for name, grid in REGIONS.items():
        patches = Patches(patch=32, grid=grid)
        dataset = RegionDataset(stored, patches, 10**9, seed=1)
        fast = _rate(dataset.__getitem__, seconds)
        slow = _rate(lambda index, edges=patches.region: _read_gzipped(folder, index, edges), seconds)
        rows.append((name, fast, slow))
    write_text(out, _markdown(rows, build, size))


def _write_scan(folder: Path, scan: str, seed: int) -> None:
    affine = np.diag([VOXEL] * 3 + [1.0])
    affine[:3, 3] = -np.array(SHAPE) * VOXEL / 2 + (0, -18, 18)  # the template's brain in the middle
    brain, mask = (
        np.asarray(resample_from_to(image, (SHAPE, affine), order=1).dataobj, dtype=np.float32)
        for image in (load_mni152_template(resolution=1), load_mni152_brain_mask(resolution=1))
    )
    mask = mask > 0.5
    noise = np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32)
    high = np.where(mask, 1000 * brain * (1 + 0.03 * noise), 0)
    for stage, ending, data in (
        ("cohort", "T1w.nii.gz", high),
        ("cohort", "desc-brain_mask.nii.gz", mask),
        ("lowfield", "space-HQ_T1w.nii.gz", high * 0.9 + 10 * mask),
    ):
        save_volume(anat(folder / stage, scan, ending), data, affine)
    for stage in ("cohort", "lowfield"):
        write_json(anat(folder / stage, scan, "T1w.json"), {"status": OK})


def _read_gzipped(folder: Path, index: int, edges: tuple[int, int, int]) -> list[np.ndarray]:
    """A region as the authors' loader reads it: both volumes unpacked whole, then cut."""
    scan = SCANS[index % len(SCANS)]
    corner = np.random.default_rng(index).integers(np.array(SHAPE) - edges)
    box = tuple(slice(start, start + edge) for start, edge in zip(corner, edges, strict=True))
    paths = anat(folder / "lowfield", scan, "space-HQ_T1w.nii.gz"), anat(folder / "cohort", scan, "T1w.nii.gz")
    return [np.asanyarray(nib.load(path).dataobj)[box] for path in paths]


def _rate(read: Callable[[int], object], seconds: float) -> float:
    read(0)
    began, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds or count == 0:
        count += 1
        read(count)
    return count / passed


def _markdown(rows: list[tuple[str, float, float]], build: float, size: float) -> str:
    where = machine()
    lines = [
        f"- {name}: {fast:,.0f} regions a second from the store, {slow:.2f} from gzipped NIfTI, {fast / slow:,.0f} to 1"
        for name, fast, slow in rows
    ]
    edges = " x ".join(map(str, SHAPE))
    return "\n".join(
        [
            "# Reading training data, measured",
            "",
            f"`make bench-data`, {datetime.date.today()}, one process on {where['threads']} threads of {where['cpu']}, "
            f"Python {where['python']}; files in the page cache.",
            "",
            f"Volumes of {edges} voxels at {VOXEL} mm (HCP's size). A region is cut from the low-field and the",
            "high-quality volume; from gzipped NIfTI both are unpacked whole for each, as the authors' loader does.",
            "",
            *lines,
            "",
            f"The store takes {size / 1e6:.0f} MB a person (both volumes in float16 and the mask, cut to the brain's "
            f"box) and {build:.1f} s to build. For the {COHORT:,} people of HCP, computed from these two:",
            f"{size * COHORT / 1e9:.0f} GB and {build * COHORT / 3600:.1f} hours on one core, divided by the number of "
            "jobs that run side by side.",
            "",
        ]
    )
