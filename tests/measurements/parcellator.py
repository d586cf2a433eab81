"""The multi-view parcellator and the 3D one, side by side on the validation people of the release recipe.

    make bench-parcellator

Both are trained on the label maps of the same twelve people (whole head, FreeSurfer's aseg ids): the multi-view one
here, on scans that are painted from the labels with another contrast every time (--contrast scan: as T1w); the 3D one
by `make weights-parcellator`. Both then read the two validation people, whose scans are painted as T1w at 2 mm. No real
scan is read here. Prints Dice by structure as Markdown.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

from iqt.config import Parcellator, parse_section
from iqt.imaging.orientation import array_to_ras, ras_affine
from iqt.imaging.overlap import overlap
from iqt.io.files import read_table, write_json, write_table
from iqt.io.labels import LabelTable, read_lut
from iqt.io.naming import anat, seed_of
from iqt.io.shipped import PARCELLATOR, PARCELLATOR_TABLE, table_file
from iqt.io.volumes import Volume, intensity_scale, read_on_grid, read_volume, save_volume
from iqt.parcellate.reader import load_reader

LUT = table_file(PARCELLATOR_TABLE)
SPLIT = {**dict.fromkeys(range(1, 13), "train"), 13: "val", 14: "val"}
T1W = {"White": 1.0, "Stem": 0.95, "VentralDC": 0.92, "Pallidum": 0.92, "Thalamus": 0.85, "Putamen": 0.75}
T1W |= {"Caudate": 0.7, "Accumbens": 0.68, "Cortex": 0.6, "Hippocampus": 0.62, "Amygdala": 0.6, "Vent": 0.2, "CSF": 0.2}
"""Mean of a T1w scan relative to white matter, by the first part of a structure's name that fits."""
TEXTURE, BLUR_MM = 0.05, 0.6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--voxel", type=int, default=2, help="voxel size in mm, a whole number")
    parser.add_argument("--contrast", choices=("random", "scan"), default="random", help="what training reads")
    parser.add_argument("--settings", help="of the multi-view network and its training, as JSON text or a file")
    parser.add_argument("--volumetric", type=Path, default=PARCELLATOR, help="folder of the 3D parcellator")
    arguments = parser.parse_args()
    real = Path(os.environ["IQT_REAL_DATA"])
    table, out = read_lut(LUT), arguments.out
    make_cohort(real / "label_maps", out / "cohort", table, arguments.voxel)
    settings = parse_section(Parcellator, arguments.settings)
    train(out, settings.model_copy(update={"contrast": arguments.contrast}))

    readers = {"multi-view": load_reader(out / "model", "auto"), "3D": load_reader(arguments.volumetric, "auto")}
    columns: dict[str, list] = {}
    for volume, mask, truth in validation_people(out / "cohort"):
        own = table.to_labels(table.to_classes(np.where(mask, truth, 0), "validation"))
        for title, reader in readers.items():
            labels = reader.read(volume, mask)
            columns.setdefault(title, []).append(overlap(own, labels, volume.affine, names()))
    print_table(columns)


def make_cohort(maps: Path, cohort: Path, table: LabelTable, voxel: int) -> None:
    """Each person's labels at the voxel size (the most frequent one in a block), mask and a painted T1w scan."""
    rows = []
    for number, split in SPLIT.items():
        scan = f"sub-{number:02}"
        rows.append({"participant_id": scan, "scan": scan, "split": split, "status": "ok", "voxel_size": voxel})
        if anat(cohort, scan, "T1w.json").is_file():
            continue
        image = nib.load(maps / f"{scan}_dseg.nii.gz")
        labels = array_to_ras(np.asarray(image.dataobj), image.affine)
        classes = table.to_classes(labels, scan)
        inside = np.argwhere(classes)
        low, high = inside.min(0) - 4, inside.max(0) + 5
        classes = classes[tuple(slice(max(a, 0), b) for a, b in zip(low, high, strict=True))]
        classes = classes[tuple(slice(size // voxel * voxel) for size in classes.shape)]
        painted = paint(classes, np.random.default_rng(seed_of("measure", scan)))
        affine = ras_affine(image.affine, image.shape) @ np.diag([voxel, voxel, voxel, 1.0])
        small = most_frequent(classes, voxel, table.n_classes)
        data = np.where(small > 0, blocks(painted, voxel).mean(axis=(1, 3, 5)), 0)
        save_volume(anat(cohort, scan, "T1w.nii.gz"), data.astype(np.float32), affine)
        save_volume(anat(cohort, scan, "desc-brain_mask.nii.gz"), small > 0, affine)
        save_volume(anat(cohort, scan, "dseg.nii.gz"), table.to_labels(small), affine)
        write_json(anat(cohort, scan, "T1w.json"), {"status": "ok"})
    write_table(cohort / "participants.tsv", rows)


def paint(classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A T1w scan of a class map at 1 mm: tissue means, texture, partial volume and a smooth bias."""
    means = np.array([0.0] + [mean_of(name) for index, name in sorted(names().items()) if index])
    texture = 1 + TEXTURE * rng.standard_normal(classes.shape, dtype=np.float32)
    image = gaussian_filter((means[classes] * texture).astype(np.float32), BLUR_MM)
    axes = np.meshgrid(*(np.linspace(-1, 1, size, dtype=np.float32) for size in classes.shape), indexing="ij")
    return image * np.exp(sum(float(rng.uniform(-0.08, 0.08)) * axis for axis in axes))


def mean_of(name: str) -> float:
    return next(mean for part, mean in T1W.items() if part in name)


def blocks(data: np.ndarray, edge: int) -> np.ndarray:
    return data.reshape(*(part for size in data.shape for part in (size // edge, edge)))


def most_frequent(classes: np.ndarray, edge: int, n_classes: int) -> np.ndarray:
    counts = [blocks(classes == number, edge).sum(axis=(1, 3, 5), dtype=np.int16) for number in range(n_classes)]
    return np.argmax(counts, axis=0)


def train(out: Path, settings: Parcellator) -> None:
    from iqt.parcellate.train import train_parcellator

    if (out / "model" / "model.json").is_file():
        return
    start, cpu = time.monotonic(), time.process_time()
    cohort = out / "cohort"
    train_parcellator(cohort / "participants.tsv", cohort, "T1w", LUT, out / "model", settings, 1, "auto")
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    used = f"{time.monotonic() - start:.0f} s, {time.process_time() - cpu:.0f} s of CPU, {gigabytes:.1f} GB"
    print(f"Training: {settings.model_dump_json()}: {used}.", flush=True)


def validation_people(cohort: Path):
    for scan in (row["scan"] for row in read_table(cohort / "participants.tsv") if row["split"] == "val"):
        volume = read_volume(anat(cohort, scan, "T1w.nii.gz"))
        mask = read_on_grid(anat(cohort, scan, "desc-brain_mask.nii.gz"), volume, np.uint8) > 0
        yield scaled(volume, mask), mask, read_on_grid(anat(cohort, scan, "dseg.nii.gz"), volume, np.int32)


def scaled(volume: Volume, mask: np.ndarray) -> Volume:
    return volume._replace(data=volume.data / intensity_scale(volume.data, mask))


def names() -> dict[int, str]:
    return {int(row["index"]): row["name"] for row in read_table(LUT)}


def print_table(columns: dict) -> None:
    print("| structure | " + " | ".join(columns) + " |\n| --- |" + " ---: |" * len(columns))
    lines = {}
    for title, scans in columns.items():
        for found in zip(*scans, strict=True):
            dice = [one.dice for one in found if one.dice == one.dice]
            lines.setdefault(found[0].name, {})[title] = np.mean(dice) if dice else np.nan
    for name, cells in lines.items():
        shown = ("–" if np.isnan(cells[title]) else f"{cells[title]:.3f}" for title in columns)
        print(f"| {name} | " + " | ".join(shown) + " |")
    for label, skipped in (("mean", ()), ("mean without CSF", ("CSF",))):
        means = (
            np.nanmean([cells[title] for name, cells in lines.items() if name not in skipped]) for title in columns
        )
        print(f"| **{label}** | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")


main()
