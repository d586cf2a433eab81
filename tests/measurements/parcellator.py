"""The built-in parcellator on real anatomy: trained on label maps with random contrast, read on real scans.

    IQT_REAL_DATA=FOLDER python tests/measurements/parcellator.py --out FOLDER [--contrast scan]

Of 14 people's label maps (whole head, FreeSurfer's aseg ids) nine are trained on, one is validated on and four are
tested on; their scans are painted from the labels as T1w, and in training with another contrast every time, or
(--contrast scan) as T1w too. The real T1w scan of `hcp_layout/900002` with FreeSurfer's labels is never seen; 900001
has no orientation in its header and is left out. Prints Dice a structure as Markdown.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "workflow"))

from iqt.config import Parcellator, parse_section  # noqa: E402
from iqt.imaging.orientation import array_to_ras, ras_affine  # noqa: E402
from iqt.imaging.overlap import overlap  # noqa: E402
from iqt.io.files import read_table, write_json, write_table  # noqa: E402
from iqt.io.labels import LabelTable, read_lut  # noqa: E402
from iqt.io.naming import anat, seed_of  # noqa: E402
from iqt.io.volumes import Volume, intensity_scale, read_on_grid, read_volume, save_volume  # noqa: E402

LUT = REPOSITORY / "resources" / "aseg_dseg.tsv"
SPLIT = {**dict.fromkeys(range(1, 10), "train"), 10: "val", **dict.fromkeys(range(11, 15), "test")}
T1W = {"White": 1.0, "Stem": 0.95, "VentralDC": 0.92, "Pallidum": 0.92, "Thalamus": 0.85, "Putamen": 0.75}
T1W |= {"Caudate": 0.7, "Accumbens": 0.68, "Cortex": 0.6, "Hippocampus": 0.62, "Amygdala": 0.6, "Vent": 0.2, "CSF": 0.2}
"""Mean of a T1w scan relative to white matter, by the first part of a structure's name that fits."""
TEXTURE, BLUR_MM = 0.05, 0.6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--voxel", type=int, default=2, help="voxel size in mm, a whole number")
    parser.add_argument("--contrast", choices=("random", "scan"), default="random", help="what training reads")
    parser.add_argument("--settings", help="parcellate.builtin as JSON text or a file")
    arguments = parser.parse_args()
    real = Path(os.environ["IQT_REAL_DATA"])
    table, out = read_lut(LUT), arguments.out
    make_cohort(real / "label_maps", out / "cohort", table, arguments.voxel)
    settings = parse_section(Parcellator, arguments.settings)
    train(out, settings.model_copy(update={"contrast": arguments.contrast}))

    from iqt.parcellate.predict import load_parcellator, predict_labels

    parcellator = load_parcellator(out / "model", "auto")
    columns, seconds = {}, []
    for title, volume, mask, truth in (*tests(out / "cohort"), *people(real / "hcp_layout" / "HCP_1200")):
        start = time.monotonic()
        labels = predict_labels(parcellator, volume, mask)
        seconds.append(time.monotonic() - start)
        own = table.to_labels(table.to_classes(np.where(mask, truth, 0), title))
        columns.setdefault(title, []).append(overlap(own, labels, volume.affine, names()))
    print_table(columns)
    print(f"\nPrediction: {np.mean(seconds):.1f} s a volume on average.")


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


def tests(cohort: Path):
    for scan in (row["scan"] for row in read_table(cohort / "participants.tsv") if row["split"] == "test"):
        volume = read_volume(anat(cohort, scan, "T1w.nii.gz"))
        mask = read_on_grid(anat(cohort, scan, "desc-brain_mask.nii.gz"), volume, np.uint8) > 0
        truth = read_on_grid(anat(cohort, scan, "dseg.nii.gz"), volume, np.int32)
        yield "4 label-map people, painted T1w", scaled(volume, mask), mask, truth


def people(folder: Path):
    for person in ("900002",):
        files = folder / person / "T1w"
        volume = read_volume(files / "T1w_acpc_dc_restore_brain.nii.gz")
        mask = read_on_grid(files / "brainmask_fs.nii.gz", volume, np.uint8) > 0
        truth = read_on_grid(files / "aparc+aseg.nii.gz", volume, np.int32)
        yield f"{person}, real T1w", scaled(volume, mask), mask, truth


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
