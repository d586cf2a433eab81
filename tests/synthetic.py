"""A small run up to metrics/: smooth blobs for volumes, drawn numbers for scores, a failed and an unread result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from iqt.evaluate.run import CALIBRATION_COLUMNS, RELIABILITY_COLUMNS, SEAM_COLUMNS
from iqt.io.files import write_json, write_table
from iqt.io.naming import anat, flat
from iqt.io.volumes import save_volume
from iqt.report.figures import published, sampling, scores, slices, training
from iqt.report.figures import structures as structure_figure
from iqt.report.metrics import FURTHER_METRICS, METRICS
from iqt.report.panels import Panel, extract_panels
from iqt.report.tables import benchmark as tables
from iqt.report.tables import comparisons
from iqt.report.tables import structures as structure_table

PUBLISHED = Path(__file__).resolve().parents[1] / "resources/published.csv"
METHODS = ["cubic", "unet", "diffusion_iqt", "diffusion_iqt_mean"]
SCANS = ["sub-test001", "sub-test002", "sub-test003"]
UNET_FAILED = "lowfield: the noise is <above> the signal"
CUBIC_UNREAD = "parcellation: no white matter was found"
SHAPE = (20, 24, 18)


def score(scan: str, method: str, number: float, **changes: object) -> dict:
    place = METHODS.index(method)
    row = {"scan": scan, "set": "main", "method": method, "status": "ok", "psnr": 20 + place + number / 3}
    row |= {"msssim": 0.9 + place / 50 + number / 100, "msssim_scales": 3, "ssim": 0.8 + place / 50 + number / 100}
    row |= {
        "hfcorr": 0.4 + place / 10 + number / 50,
        "miou": 0.5 + place / 20 + number / 40,
        "dice": 0.6 + place / 20 + number / 40,
    }
    row |= {"n_structures": 2, "seconds": 1.5 + number, "nfe": [0, 1, 4, 16][place], "samples": [1, 1, 1, 4][place]}
    row |= {"lpips": 0.3 - place / 20 + number / 100}
    row |= {"nmse": 0.05 - place / 100 + number / 200, "mae": 0.1 - place / 50, "hfen": 0.9 - place / 10}
    row |= {"psnr_minmax": 24 + place, "msssim_minmax": 0.95, "msssim_minmax_scales": 2, "ulfenc": 0.8 + place / 50}
    row |= {"n_parameters": [0, 631111, 745802, 745802][place], "parcellator": "builtin 0.1.0"}
    return row | changes


def blob(rng: np.random.Generator, smooth: float = 2) -> np.ndarray:
    noise = gaussian_filter(rng.normal(size=SHAPE), smooth)
    return 0.6 + 0.25 * noise / noise.std()


def write_run(run: Path) -> None:
    """The files up to the tables: unet failed on the third scan, cubic's second was not parcellated."""
    affine = np.diag([-2.0, 2.5, 3.0, 1.0])  # stored left to right reversed, edges all different
    affine[0, 3] = 38
    thick_affine = affine @ np.diag([1, 1, 3, 1])
    thick_affine[:3, 3] += affine[:3, 2]
    corners = np.indices(SHAPE).astype(float)
    mask = sum(((c - s / 2) / (s / 2 - 1.5)) ** 2 for c, s in zip(corners, SHAPE, strict=True)) < 1
    unread = {("cubic", SCANS[1]): CUBIC_UNREAD}
    lost = {("unet", SCANS[2]): UNET_FAILED}
    scores, structures = [], []
    for number, scan in enumerate(SCANS):
        rng = np.random.default_rng(number)
        reference = blob(rng)
        labels = np.where(mask, np.where(corners[0] < 10, 1, 2), 0).astype(np.int16)
        save_volume(anat(run / "cohort", scan, "T1w.nii.gz"), reference * 700, affine)
        save_volume(anat(run / "cohort", scan, "desc-brain_mask.nii.gz"), mask, affine)
        write_json(anat(run / "cohort", scan, "T1w.json"), {"status": "ok"})
        save_volume(anat(run / "lowfield", scan, "T1w.nii.gz"), reference[:, :, 1::3] * 55, thick_affine)
        write_json(anat(run / "lowfield", scan, "T1w.json"), {"status": "ok"})
        save_volume(flat(run / "parcellation/hq", scan, "dseg.nii.gz"), labels, affine)
        write_json(flat(run / "parcellation/hq", scan, "dseg.json"), {"status": "ok"})
        for method in METHODS:
            bad, mute = lost.get((method, scan)), unread.get((method, scan))
            enhanced, read = run / "enhanced" / method, run / "parcellation" / method
            write_json(flat(enhanced, scan, "T1w.json"), {"status": bad or "ok"})
            write_json(flat(read, scan, "dseg.json"), {"status": bad or mute or "ok"})
            changes: dict = {"status": bad or mute or "ok"}
            if bad:
                changes |= dict.fromkeys((*METRICS, *FURTHER_METRICS, "seconds"), "")
            else:
                result = reference / 1.2 + 0.05 * blob(rng, 1)
                save_volume(flat(enhanced, scan, "T1w.nii.gz"), result * mask, affine)
                if method.endswith("mean"):
                    save_volume(flat(enhanced, scan, "desc-sd_T1w.nii.gz"), np.abs(blob(rng)) / 9 * mask, affine)
            if mute:
                changes |= {"miou": 0, "dice": 0}
            if not bad and not mute:
                save_volume(flat(read, scan, "dseg.nii.gz"), np.roll(labels, 1, axis=0), affine)
                for index, name in ((1, "left half"), (2, "right half")):
                    overlap = {"iou": 0.5 + number / 10, "dice": 0.7, "volume_reference_mm3": 9000, "volume_mm3": 8000}
                    key = {"scan": scan, "set": "main", "method": method, "index": index, "name": name}
                    structures.append(key | overlap)
            if not bad and not mute:
                absent = {"index": 3, "name": "nowhere", "iou": "", "dice": "", "volume_reference_mm3": 0}
                structures.append(key | absent | {"volume_mm3": 0})
            scores.append(score(scan, method, number, **changes))
    write_table(run / "metrics/subjects.csv", scores)
    write_table(run / "metrics/structures.csv", structures)
    write_table(
        run / "metrics/history.csv",
        [
            {"model": model, "step": step, "seconds": step / 3, "learning_rate": 1e-3, "train_loss": 5 / step}
            | {"val_loss": 6 / step, "val_psnr": psnr, "val_psnr_first": "", "val_dice": dice}
            for model, psnr, dice in (("unet", 20, ""), ("parcellator", "", 0.6))
            for step in (10, 20, 30)
        ],
    )
    write_table(
        run / "cohort/dseg.tsv",
        [
            {"index": 1, "name": "left half", "abbreviation": "L", "color": "#4e79a7", "hemisphere": "L", "mirror": 2},
            {"index": 2, "name": "right half", "abbreviation": "R", "color": "#4e79a7", "hemisphere": "R", "mirror": 1},
        ],
    )
    write_assessments(run / "metrics")
    skipped = [{"scan": "sub-test009", "stage": "cohort", "reason": "holds 12 voxels that are NaN & worse"}]
    write_json(
        run / "metrics/run.json",
        {
            "name": "trial",
            "created_by": "0.1.0",
            "code": {"commit": "0123456789abcdef", "modified": True},
            "seed": 7,
            "suffix": "T1w",
            "cohort": {
                "source": "template",
                "voxel_size_mm": 2.5,
                "n_train": 4,
                "n_val": 1,
                "n_test": 3,
                "skipped": skipped,
            },
            "lowfield": {"main": {"thickness": 3, "snr_mean": [64.5, 54.14]}},
            "models": {"unet": {"kind": "unet", "n_parameters": 631111, "steps": 30, "seconds": 10.5, "val": 20.1}},
            "methods": {
                method: {"kind": kind, "model": None if kind == "cubic" else kind, "samples": 1}
                for method in METHODS
                for kind in (method.removesuffix("_mean"),)
            },
            "parcellator": {"engine": "builtin", "version": "0.1.0", "n_structures": 2},
            "machine": {"cpu": "a processor", "cores": 2, "gpu": None, "python": "3.11", "torch": "2.13.0"},
            "evaluate": {"highpass_sigma": 1.5, "bootstrap": 500},
        },
    )
    for scan in SCANS:
        extract(run, scan, run / f"metrics/panels/{scan}.npz")
    subjects, out = run / "metrics/subjects.csv", run / "tables"
    tables.write_tables(subjects, out, "main", 500, 7)
    comparisons.write_statistics(subjects, out, "main", "cubic", 500, 7)
    structure_table.write_structures(run / "metrics/structures.csv", out, "main", SCANS, METHODS, 500, 7)


def write_assessments(metrics: Path) -> None:
    """Calibration, reliability and seams: the mean of samples was not assessed on the second scan."""
    spreads, curves, seams = [], [], []
    for number, scan in enumerate(SCANS):
        identity = {"scan": scan, "set": "main", "method": "diffusion_iqt_mean"}
        levels = [name for name in CALIBRATION_COLUMNS if name.startswith("coverage_")]
        coverage = dict(zip(levels, (0.25, 0.4, 0.6 + number / 10, 0.8), strict=True))
        calibrated = {f"calibrated_{name}": value + 0.15 for name, value in coverage.items()}
        spread = {"status": "ok", "samples": 4, "correlation": 0.2, "ratio": 0.4 + number / 10, **coverage}
        spread |= {"calibrated_correlation": 0.3, "calibrated_ratio": 0.9 + number / 10, **calibrated}
        spreads.append(identity | (spread if number != 1 else {"status": "the spread is 0 & so on"}))
        curves += [
            identity | {"bin": place, "n_voxels": 100, "expected": place / 100, "error": 0.1} for place in range(1, 11)
        ]
        for method in METHODS[1:]:
            patches = {"patch_seam": 1.5 - number / 5, "patch_seam_sd": 0.1} if method != "unet" else {}
            seams.append({**identity, "method": method, "status": "ok", "tiles": 1, **patches})
    spreads.append({"scan": SCANS[2], "set": "main", "method": "unet", "status": UNET_FAILED})
    write_table(metrics / "calibration/main.csv", spreads, CALIBRATION_COLUMNS)
    write_table(metrics / "reliability/main.csv", curves, RELIABILITY_COLUMNS)
    write_table(metrics / "seams/main.csv", seams, SEAM_COLUMNS)


def extract(run: Path, scan: str, out: Path) -> Panel:
    extract_panels(
        scan,
        "T1w",
        run / "cohort",
        run / "lowfield",
        {method: run / "enhanced" / method for method in METHODS},
        {what: run / "parcellation" / what for what in ("hq", *METHODS)},
        out,
    )
    return Panel(out)


def plot_scan(run: Path, out: Path, endings: tuple[str, ...], scan: str = SCANS[2]) -> list[Path]:
    """The figures of one scan, drawn from its panel and metrics/; the files."""
    panel, subjects = run / f"metrics/panels/{scan}.npz", run / "metrics/subjects.csv"
    planes, labels = ([out / f"{name}.{ending}" for ending in endings] for name in ("slices", "parcellation"))
    slices.plot_slices(panel, subjects, "main", planes)
    slices.plot_parcellation(panel, run / "cohort/dseg.tsv", subjects, "main", labels)
    return planes + labels


def plot_all(run: Path, out: Path) -> list[Path]:
    """Every figure as PNG and SVG; the files."""
    names = ("metrics", "training", "published")
    metrics, curves, beside = ([out / f"{name}.{ending}" for ending in ("png", "svg")] for name in names)
    scores.plot_metrics(run / "metrics/subjects.csv", "main", metrics)
    training.plot_training(run / "metrics/history.csv", curves)
    published.plot_published(run / "metrics/subjects.csv", PUBLISHED, "main", beside)
    overlap = [out / "overlap.png", out / "overlap.svg"]
    structure_figure.plot_structures(run / "tables/structures.csv", overlap)
    reliability = [out / "reliability.png", out / "reliability.svg"]
    sampling.plot_reliability(run / "metrics/reliability/main.csv", METHODS, reliability)
    return plot_scan(run, out, ("png", "svg")) + metrics + curves + beside + overlap + reliability
