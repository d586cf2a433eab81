"""From a source's files to the cohort's: checked, brain-extracted volumes and masks in RAS order on the wanted grid."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from iqt.cohort.picture import picture_path, plot_mask
from iqt.cohort.places import split_member
from iqt.cohort.synthesize import make_person
from iqt.config import Cohort, Grid
from iqt.errors import StopError, UserError
from iqt.imaging import checks, orientation, resample
from iqt.imaging.brain_mask import find_brain
from iqt.imaging.contrast import contrast_of, suffix_of
from iqt.io.batch import require_ok, run_scans
from iqt.io.naming import anat, flat
from iqt.io.nifti import LARGEST_BYTES
from iqt.io.volumes import Volume, cut_mask, read_volume, save_volume, say_doubts

POSTERIORS = {"wm": "label-WM_probseg", "gm": "label-GM_probseg", "csf": "label-CSF_probseg"}
KINDS = {"brain": "image", "head": "image", "mask": "mask", "labels": "labels"}
OVERSHOOT = 0.05
"""How far beyond 0 and 1 a tissue posterior may reach: other programs' splines leave a little."""
LOST_BRAIN = 0.02
"""Share of the brain that cropping may cut away."""


def ingest_scans(scans: Iterable[str], files: Path, out: Path, suffix: str, seed: int, cohort: Cohort) -> None:
    """Write each scan's volumes and sidecar into the cohort `out`; a scan that fails leaves a sidecar alone.

    A mask that looks wrong is drawn, as `out/sub-X/figures/<scan>_desc-mask_<suffix>.png`.

    Args:
        files: folder of the records that `iqt stage fetch` wrote.
        seed: of the scans that are synthesised.
    """
    endings = (suffix, "desc-brain_mask", "dseg", *POSTERIORS.values())

    def outputs(scan: str) -> list[Path]:
        return [anat(out, scan, f"{ending}.nii.gz") for ending in endings] + [picture_path(out, scan, suffix)]

    def work(scan: str) -> dict:
        record = require_ok(flat(files, scan, "files.json"), "fetch")
        if set(record["files"]) == {"labels"}:
            volumes, facts = synthesize(record["files"], scan, suffix, seed, cohort)
        else:
            volumes, facts = prepare(record["files"], record["lut"], suffix, cohort)
        doubtful = facts["mask_warnings"]
        if doubtful:
            plot_mask(volumes["image"], volumes["desc-brain_mask"].data, picture_path(out, scan, suffix))
            if cohort.mask.wrong == "skip":
                volumes = {}
        for ending, volume in volumes.items():
            path = anat(out, scan, f"{suffix if ending == 'image' else ending}.nii.gz")
            save_volume(path, volume.data, volume.affine)
        status = {} if volumes else {"status": "; ".join(doubtful)}
        return facts | {"files": record["files"]} | status

    run_scans(scans, lambda scan: anat(out, scan, f"{suffix}.json"), outputs, work)


def prepare(files: Mapping[str, Mapping], lut: str, suffix: str, cohort: Cohort) -> tuple[dict[str, Volume], dict]:
    """The cohort's volumes (`image`, and the others by their ending) and the facts of the sidecar.

    Raises:
        UserError: a check failed; the message holds every sentence.
    """
    volumes = _read(files)
    doubts = {field: volume.doubts for field, volume in volumes.items()}
    name = "brain" if "brain" in volumes else "head"
    source, where = volumes[name], files[name]["source"]
    _stop(where, _contrast_problems(where, suffix) + checks.scan_problems(source, sheared_ok=True))
    origin = files["mask"]["source"] if "mask" in files else "image not 0"
    try:
        volumes["mask"] = _given_mask(volumes, origin)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if volumes["mask"] is None:
        try:
            volumes["mask"], origin = find_brain(source, cohort.mask)
        except StopError as error:
            raise StopError(f"cohort.mask: {error}") from None
        except UserError as error:
            raise UserError(f"{where}: {error} (cohort.mask)") from None
    # Before resampling, whose splines leave nothing exactly 0.
    problems = checks.overlap_problems(volumes[name].data, volumes["mask"].data > 0)
    volumes, lost = _regrid(volumes, cohort.grid)
    mask = volumes["mask"]
    inside = mask.data > 0
    if not inside.any():
        _stop(where, checks.mask_problems(inside, mask.affine))
    image = np.where(inside, volumes[name].data, 0).astype(np.float32)
    if lost > LOST_BRAIN:
        problems.append(f"cohort.grid.crop cuts {100 * lost:.0f} % of the brain away")
    result = {"image": Volume(image, mask.affine), "desc-brain_mask": Volume(inside, mask.affine)}
    if "labels" in volumes:
        labels = np.where(inside, volumes["labels"].data, 0)
        present = np.unique(labels).tolist()
        problems += checks.label_problems(present, checks.read_labels(lut))
        problems += [] if any(present) else ["there is no label in the brain mask"]
        result["dseg"] = Volume(labels, mask.affine)
    for field, ending in POSTERIORS.items():
        if field in volumes:
            low, high = (float(edge) for edge in (volumes[field].data.min(), volumes[field].data.max()))
            if low < -OVERSHOOT or high > 1 + OVERSHOOT:
                problems.append(
                    f"{files[field]['source']} has values from {low:.3g} to {high:.3g}, and not from 0 to 1"
                )
            result[ending] = Volume(np.where(inside, np.clip(volumes[field].data, 0, 1), 0), mask.affine)
    _stop(where, problems)
    made = {} if "mask" in files else {"mask_engine": origin}
    warnings = [
        text for field in files if field in volumes for text in say_doubts(files[field]["source"], doubts[field])
    ]
    warnings += _contrast_doubts(where, suffix)
    return result, _facts(result, source, lut) | made | {"warnings": warnings}


def synthesize(
    files: Mapping[str, Mapping], scan: str, suffix: str, seed: int, cohort: Cohort
) -> tuple[dict[str, Volume], dict]:
    """As `prepare`, for a label map alone: a scan is made from it."""
    with local_path(files["labels"]["path"]) as path:
        labels = read_volume(path, np.int32)
    _stop(files["labels"]["source"], checks.image_problems(labels, sheared_ok=True))
    whole = orientation.to_ras(resample.crop(labels, cohort.grid))
    try:
        person = make_person(whole, scan, suffix, seed, cohort.labelmaps)
    except UserError as error:
        raise UserError(f"{files['labels']['source']}: {error}") from None
    volumes = {"brain": person.image, "mask": person.mask.astype(np.uint8), "labels": person.dseg.astype(np.int32)}
    volumes |= dict(zip(POSTERIORS, person.tissues, strict=True))
    moved = {
        field: resample.isotropic(Volume(data, person.affine), cohort.grid, KINDS.get(field, "posterior"))
        for field, data in volumes.items()
    }
    inside, affine = moved["mask"].data > 0, moved["mask"].affine
    result = {
        "image": Volume(np.where(inside, np.maximum(moved["brain"].data, 0), 0).astype(np.float32), affine),
        "desc-brain_mask": Volume(inside, affine),
        "dseg": Volume(np.where(inside, moved["labels"].data, 0), affine),
    }
    total = np.maximum(sum(moved[field].data for field in POSTERIORS), 1e-6)
    for field, ending in POSTERIORS.items():
        result[ending] = Volume(np.where(inside, moved[field].data / total, 0).astype(np.float32), affine)
    facts = {"seed": seed, "synthesised": True, **person.drawn}
    warnings = say_doubts(files["labels"]["source"], labels.doubts)
    return result, _facts(result, labels, cohort.labelmaps.lut) | facts | {"warnings": warnings}


@contextlib.contextmanager
def local_path(path: str) -> Iterator[Path]:
    """A file of a record as a path: itself, or for a member of a zip file a temporary copy."""
    if not path.startswith("zip:"):
        yield Path(path)
        return
    archive, member = split_member(path)
    with tempfile.TemporaryDirectory(prefix="iqt-") as folder, zipfile.ZipFile(archive) as opened:
        size = opened.getinfo(member).file_size  # no more is unpacked, whatever the member holds
        if size > LARGEST_BYTES:
            raise UserError(f"{archive}: {member} would be {size / 1e9:.1f} GB, which no scan is; it is damaged")
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
                volume = read_volume(path, np.int32 if field == "labels" else np.float32)
            volumes[field] = resample.like(volume, image, KINDS.get(field, "posterior"), path)
    return volumes


def _given_mask(volumes: Mapping[str, Volume], where: str) -> Volume | None:
    """The source's own mask; for an image without skull that has none, where it is not 0; else None."""
    if "mask" in volumes:
        return Volume(cut_mask(volumes["mask"].data, where).astype(np.uint8), volumes["mask"].affine)
    if "brain" in volumes:
        return Volume(checks.brain_where_not_zero(volumes["brain"]).astype(np.uint8), volumes["brain"].affine)
    return None


def _contrast_problems(where: str, suffix: str) -> list[str]:
    """A sentence where a scan's BIDS suffix is another than the configuration's: a network trained on both would learn
    neither."""
    found = suffix_of(Path(where))
    if found in (None, suffix):
        return []
    return [f"its name says {found}, but the configuration's suffix is {suffix}; set that, or leave the scan out"]


def _contrast_doubts(where: str, suffix: str) -> list[str]:
    """A sentence where a word in a scan's name, or its sidecar, says another contrast than the configuration's."""
    found, told_by = contrast_of(Path(where))
    if found in (None, suffix):
        return []
    return [f"{told_by} says {found}, but the configuration's suffix is {suffix}"]


def _regrid(volumes: Mapping[str, Volume], grid: Grid) -> tuple[dict[str, Volume], float]:
    """Volumes cropped, turned and resampled, and the share of the mask that cropping cut away."""
    cropped = {field: resample.crop(volume, grid) for field, volume in volumes.items()}
    before, after = (np.count_nonzero(each["mask"].data) for each in (volumes, cropped))
    moved = {
        field: resample.isotropic(orientation.to_ras(volume), grid, KINDS.get(field, "posterior"))
        for field, volume in cropped.items()
    }
    return moved, 1 - after / max(before, 1)


def _stop(where: str, problems: list[str]) -> None:
    if problems:
        raise UserError(f"{where}: {'; '.join(problems)}")


def _facts(result: Mapping[str, Volume], source: Volume, lut: str) -> dict:
    mask = result["desc-brain_mask"]
    size = [round(float(value), 4) for value in mask.voxel_size]
    ml = float(np.prod(mask.voxel_size)) / 1000
    tissues = {field: result[ending] for field, ending in POSTERIORS.items() if ending in result}
    labels = [int(label) for label in np.unique(result["dseg"].data) if label] if "dseg" in result else []
    return {
        "voxel_size": size[0] if max(size) - min(size) < 1e-3 else size,
        "shape": list(mask.data.shape),
        "source_shape": list(source.data.shape),
        "source_axes": checks.axes_of(source.affine),
        "brain_voxels": int(mask.data.sum()),
        "brain_ml": round(float(mask.data.sum()) * ml, 1),
        **{f"{field}_ml": round(float(volume.data.sum(dtype=float)) * ml, 1) for field, volume in tissues.items()},
        "lut": lut if labels else "",
        "labels": labels,
        "mask_warnings": checks.mask_problems(mask.data, mask.affine),
    }
