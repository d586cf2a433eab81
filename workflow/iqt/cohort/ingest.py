"""From a source's files to the cohort's: checked, brain-extracted volumes and masks in RAS order on the wanted grid."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from iqt.batch import require_ok, run_scans
from iqt.cohort import checks, regrid
from iqt.cohort.fetch import split_member
from iqt.config import Grid
from iqt.errors import UserError
from iqt.naming import anat, flat
from iqt.volumes import Volume, read_on_grid, read_volume, save_volume

POSTERIORS = {"wm": "label-WM_probseg", "gm": "label-GM_probseg", "csf": "label-CSF_probseg"}
KINDS = {"brain": "image", "head": "image", "mask": "mask", "labels": "labels"}
LOST_BRAIN = 0.02
"""Share of the brain that cropping may cut away."""


def ingest_scans(scans: Iterable[str], files: Path, out: Path, suffix: str, grid: Grid) -> None:
    """Write each scan's volumes and sidecar into the cohort `out`; a scan that fails leaves a sidecar alone.

    Args:
        files: folder of the records that `iqt fetch` wrote.
    """
    endings = (suffix, "desc-brain_mask", "dseg", *POSTERIORS.values())

    def outputs(scan: str) -> list[Path]:
        return [anat(out, scan, f"{ending}.nii.gz") for ending in endings]

    def work(scan: str) -> dict:
        record = require_ok(flat(files, scan, "files.json"), "fetch")
        volumes, facts = prepare(record["files"], record["lut"], grid)
        for ending, volume in volumes.items():
            save_volume(anat(out, scan, f"{suffix if ending == 'image' else ending}.nii.gz"), *volume)
        return facts | {"files": record["files"]}

    run_scans(scans, lambda scan: anat(out, scan, f"{suffix}.json"), outputs, work)


def prepare(files: Mapping[str, Mapping], lut: str, grid: Grid) -> tuple[dict[str, Volume], dict]:
    """The cohort's volumes (`image`, and the others by their ending) and the facts of the sidecar.

    Raises:
        UserError: a check failed; the message holds every sentence.
    """
    volumes = _read(files)
    name = "brain" if "brain" in volumes else "head"
    source, where = volumes[name], files[name]["source"]
    _stop(where, [problem for problem in checks.image_problems(source) if "sheared" not in problem])
    mask = volumes.get("mask", source)
    volumes["mask"] = Volume((mask.data > 0).astype(np.uint8), mask.affine)
    before = np.count_nonzero(volumes["mask"].data)
    volumes = {field: regrid.to_ras(regrid.crop(volume, grid)) for field, volume in volumes.items()}
    lost = 1 - np.count_nonzero(volumes["mask"].data) / max(before, 1)
    for field, volume in volumes.items():
        volumes[field] = regrid.resample(volume, grid, KINDS.get(field, "posterior"))
    mask = volumes["mask"]
    inside = mask.data > 0
    image = np.where(inside, volumes[name].data, 0).astype(np.float32)
    problems = checks.overlap_problems(image, inside)
    if lost > LOST_BRAIN:
        problems.append(f"cohort.grid.crop cuts {100 * lost:.0f} % of the brain away")
    result = {"image": Volume(image, mask.affine), "desc-brain_mask": Volume(inside, mask.affine)}
    present: list[int] = []
    if "labels" in volumes:
        labels = np.where(inside, volumes["labels"].data, 0)
        present = [int(label) for label in np.unique(labels) if label]
        problems += checks.label_problems(present, checks.read_labels(lut)) or (
            [] if present else ["no label in the mask"]
        )
        result["dseg"] = Volume(labels, mask.affine)
    for field, ending in POSTERIORS.items():
        if field in volumes:
            result[ending] = Volume(np.where(inside, np.clip(volumes[field].data, 0, 1), 0), mask.affine)
    if not inside.any():
        problems = checks.mask_problems(inside, mask.affine)
    _stop(where, problems)
    return result, _facts(result, source, lut, present)


@contextlib.contextmanager
def local_path(path: str) -> Iterator[Path]:
    """A file of a record as a path: itself, or for a member of a zip file a temporary copy."""
    if not path.startswith("zip:"):
        yield Path(path)
        return
    archive, member = split_member(path)
    with tempfile.TemporaryDirectory(prefix="iqt-") as folder, zipfile.ZipFile(archive) as opened:
        copy = Path(folder, Path(member).name)
        with opened.open(member) as stream, copy.open("wb") as target:
            shutil.copyfileobj(stream, target)
        yield copy


def _read(files: Mapping[str, Mapping]) -> dict[str, Volume]:
    """Every volume of a record, all on the grid of the image."""
    name = "brain" if "brain" in files else "head"
    with local_path(files[name]["path"]) as path:
        image = read_volume(path)
    volumes = {name: image}
    for field in ("mask", "labels", *POSTERIORS):
        if field in files:
            with local_path(files[field]["path"]) as path:
                data = read_on_grid(path, image, np.int32 if field == "labels" else np.float32)
            volumes[field] = Volume(data, image.affine)
    return volumes


def _stop(where: str, problems: list[str]) -> None:
    if problems:
        raise UserError(f"{where}: {'; '.join(problems)}")


def _facts(result: Mapping[str, Volume], source: Volume, lut: str, present: list[int]) -> dict:
    import nibabel as nib

    mask = result["desc-brain_mask"]
    size = [round(float(value), 4) for value in mask.voxel_size]
    return {
        "voxel_size": size[0] if max(size) - min(size) < 1e-3 else size,
        "shape": list(mask.data.shape),
        "source_shape": list(source.data.shape),
        "source_axes": "".join(nib.aff2axcodes(source.affine)),
        "brain_voxels": int(mask.data.sum()),
        "brain_ml": round(float(mask.data.sum() * np.prod(mask.voxel_size) / 1000), 1),
        "lut": lut if present else "",
        "labels": present,
        "warnings": checks.mask_problems(mask.data, mask.affine),
    }
