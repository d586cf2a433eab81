"""What a shipped model gains over cubic interpolation, on people it was not trained on, over a grid of acquisitions.

    make weights-t1w DATA=FOLDER
    python tests/measurements/release.py --run results/release-t1w --model results/release-t1w/models/unet/seed-1 \\
        --out docs/measurements/t1w-unet.md --ship resources/models/t1w-unet

and for a model that draws samples also --sampling '{"steps": 2, "samples": 4}'.

--ship copies the weights, with what was measured and what they come from in their card.

The people are the test split of the recipe: six of ds002748, on whom nothing was trained. Each acquisition is simulated
from the cohort's scans and posteriors, once a person. The shipped parcellator reads the scan, the interpolation and
the model's result. What is measured is kept beside --out as JSON, so that the same command goes on; --only names some
acquisitions, and --cubic a JSON of another model, whose figures of the interpolation are taken over. The spread of
several samples is calibrated first, on the validation people and seven acquisitions.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from iqt.compute.devices import best_device, machine, use_bfloat16
from iqt.config import LowField
from iqt.config.experiments import CALIBRATED, COVERAGES
from iqt.degrade import simulator, tissues
from iqt.degrade.simulator import LowFieldResult
from iqt.diffusion.spread import WEIGHTS, Spread, fit_spread, read_spread
from iqt.enhance.calibrate import look
from iqt.enhance.consistency import consistency
from iqt.enhance.listing import drawn_in_words
from iqt.enhance.run import Method, enhance_volume, load_method
from iqt.enhance.single import usage_of
from iqt.evaluate.calibration import calibration
from iqt.evaluate.similarity import highpass_correlation, masked_psnr, multi_scale_ssim
from iqt.imaging.overlap import mean_overlap, overlap
from iqt.io.files import checksum, read_json, read_table, write_json, write_text
from iqt.io.labels import read_rows
from iqt.io.naming import anat, seed_of
from iqt.io.shipped import PARCELLATOR, PARCELLATOR_TABLE, table_file
from iqt.io.volumes import Volume, intensity_scale, read_on_grid, read_volume
from iqt.parcellate.reader import load_reader

GRID = {
    f"{thickness} mm, {axis}, SNR {label}": {"thickness": thickness, "axis": axis, "shift": {"snr": snr}}
    for thickness in (3, 5, 7)
    for axis in "RAS"
    for label, snr in (("high", 1.5), ("low", 0.4))
}
BASE = {"unit": "mm", "gap": 0, "in_plane": 1.5}
ACQUISITIONS = {name: LowField.model_validate(BASE | more) for name, more in GRID.items()}
ACQUISITIONS["64mT preset"] = LowField(preset="64mT")
CLEAN = "as it is"
CALIBRATED_ON = (
    *("3 mm, R, SNR high", "3 mm, S, SNR low", "5 mm, A, SNR high", "5 mm, R, SNR low", "7 mm, S, SNR high"),
    *("7 mm, A, SNR low", "64mT preset"),
)
CALIBRATION = "spread_release.json"
"""Beside a shipped model: what validation people tell of its spread."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="acquisitions to measure")
    parser.add_argument("--cubic", type=Path, help="what was measured of another model: the interpolation is the same")
    parser.add_argument("--sampling", type=json.loads, default={}, help="how samples are drawn, as JSON")
    parser.add_argument("--ship", type=Path, help="folder below resources/models")
    arguments = parser.parse_args()
    rows_of_people = read_table(arguments.run / "cohort/participants.tsv")
    people = [row["scan"] for row in rows_of_people if row["split"] == "test"]
    card = read_json(arguments.model / "model.json")
    usage, weights = usage_of(card, arguments.sampling), card["weights_sha256"]
    sampling = usage.get("sampling")
    if sampling:
        card["sampling"] = sampling
    enhance = load_method(arguments.model, usage, "auto")
    samples = (sampling or {}).get("samples", 1)
    spread, kept = None, arguments.out.with_suffix(".spread.json")  # not in the run's model, which may be trained again
    if samples > 1:
        found = read_json(kept) if kept.exists() else {}
        complete = set(Spread._fields) <= set(found)  # not of an earlier version
        if not complete or (found["weights"], found["usage"]) != (weights, usage):
            watched = [row["scan"] for row in rows_of_people if row["split"] == "val"]
            fitted = calibrated(arguments.run, watched, enhance, usage)
            write_json(kept, {**fitted.written(), "weights": weights})
        spread = read_spread(kept)
    identity = {"weights": weights, "sampling": sampling, "spread": checksum(kept) if spread else None}
    known = arguments.out.with_suffix(".json")
    every = json.loads(known.read_text()) if known.exists() else []
    # Others are of a model that was measured before, or of another way to use it.
    rows = [row for row in every if {key: row.get(key) for key in identity} == identity]
    others = [row for row in every if row not in rows]
    known_cubic = {} if arguments.cubic is None else interpolations(json.loads(arguments.cubic.read_text()))
    for name in arguments.only or [*ACQUISITIONS, CLEAN]:
        for scan in people:
            if any((row["acquisition"], row["scan"]) == (name, scan) for row in rows):
                continue
            scores = measure(arguments.run, scan, name, enhance, samples, spread, known_cubic.get((name, scan)))
            rows.append({"acquisition": name, "scan": scan, **identity, **measured_on(), **scores})
            write_text(known, json.dumps(others + rows))
            print(rows[-1], flush=True)
    write_text(arguments.out, table(rows, card, arguments.out))
    if arguments.ship is not None:
        ship(arguments.model, arguments.ship, rows, card, people, arguments.out, spread)


def measured_on() -> dict[str, str]:
    """When and on what a row is measured."""
    precision = "bfloat16" if use_bfloat16("auto", best_device()) else "float32"
    return {"date": f"{datetime.date.today()}", "machine": machine()["gpu"] or machine()["cpu"], "precision": precision}


def ship(
    model: Path, folder: Path, rows: list[dict], card: dict, people: list[str], page: Path, spread: Spread | None
) -> None:
    scores = pd.DataFrame(rows).query("acquisition != @CLEAN")
    gains = (scores["psnr_model"] - scores["psnr_cubic"]).groupby(scores["acquisition"]).mean()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    release = {
        "data": f"{card['data']['n_train']} people of OpenNeuro ds002748 v1.0.5 (CC0; Bezmaternykh et al.), T1w, "
        "skull-stripped, resampled to 1 mm, some with depression; low-field scans simulated from theirs",
        "licence": "Apache-2.0",
        "measured": f"PSNR {gains.mean():+.2f} dB over cubic interpolation on {len(people)} people who were not "
        f"trained on ({gains.min():+.2f} to {gains.max():+.2f} over {len(gains)} acquisitions; {page})",
        "limits": "simulated low-field scans of adults from one site; lesions may vanish or be invented: not for "
        "diagnosis",
        "recipe": {"config": "config/release/t1w.yaml", "commit": commit},
    }
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model / "model.safetensors", folder / "model.safetensors")
    for before in folder.glob("spread_*.json"):
        before.unlink()
    if spread is not None:
        write_json(folder / CALIBRATION, {WEIGHTS: card["weights_sha256"], **spread.written()})
    told = scores.dropna(subset="unexplained")
    limit = {"limit": float(told["unexplained"].max()), "n_scans": len(told), "measured_in": str(page)}
    write_json(folder / "model.json", {**card, "name": folder.name, "consistency": limit, "release": release})


def person(run: Path, scan: str) -> tuple[Volume, np.ndarray, np.ndarray]:
    """A high-quality scan, its brain mask, and the scan on the common intensity scale."""
    high = read_volume(anat(run / "cohort", scan, "T1w.nii.gz"))
    mask = read_on_grid(anat(run / "cohort", scan, "desc-brain_mask.nii.gz"), high, np.uint8) > 0
    return high, mask, high.data * mask / intensity_scale(high.data, mask)


def acquire(run: Path, scan: str, high: Volume, name: str) -> LowFieldResult:
    """A person's scan in one of the acquisitions."""
    maps = {tissue: read_on_grid(path, high) for tissue, path in tissues.probseg(run / "tissues", scan).items()}
    settings = ACQUISITIONS[name]
    return simulator.apply(high, maps, settings, simulator.draw(settings, 1, scan))


def calibrated(run: Path, people: list[str], enhance: Method, usage: dict[str, Any]) -> Spread:
    """What the spread of the model's samples says of their mean's error, on people and acquisitions of equal weight."""
    rng, found = np.random.default_rng(seed_of(1, "calibrate")), []
    for scan in people:
        high, mask, reference = person(run, scan)
        for name in CALIBRATED_ON:
            low = acquire(run, scan, high, name)
            result = enhance_volume(enhance, low.upsampled, mask, seed_of(1, "enhance", scan))
            found.append(look(result, high._replace(data=reference), mask, low.thick.slice_mm, rng))
            print(f"calibrating: {scan}, {name}", flush=True)
    return fit_spread(found, usage, f"{len(CALIBRATED_ON)} acquisitions of config/release/t1w.yaml's validation people")


def interpolations(rows: list[dict]) -> dict[tuple[str, str], dict[str, Any]]:
    """What rows say of the interpolation, by acquisition and scan."""
    return {
        (row["acquisition"], row["scan"]): {
            **{name: value for name, value in row.items() if name.endswith("_cubic")},
            "volumes": {name: volumes["cubic"] for name, volumes in row["volumes"].items()},
        }
        for row in rows
    }


def measure(
    run: Path, scan: str, name: str, enhance: Method, samples: int, spread: Spread | None, cubic: dict | None = None
) -> dict[str, Any]:
    """PSNR, MS-SSIM, hfcorr and mIoU of cubic interpolation and of the model's result, how much of the slices the
    result leaves unexplained, and `volumes` (mm3) of each structure in the interpolation and the result, each beside
    that in the scan as the parcellator read it in the same run; of
    several samples also PSNR and hfcorr of the first, and whether their spread tells the error. `cubic` is what is
    known of the interpolation (`interpolations`)."""
    high, mask, reference = person(run, scan)
    made = None if name == CLEAN else acquire(run, scan, high, name)
    low = high.data if made is None else made.upsampled
    enhanced = enhance_volume(enhance, low, mask, seed_of(1, "enhance", scan))
    result = enhanced.mean
    scores: dict[str, Any] = {"range": float(np.ptp(reference[mask]))}
    if made is not None:
        scores["unexplained"] = consistency(Volume(result, high.affine), mask, made.thick).unexplained
    compared = {"model": result}
    if cubic is None:
        compared["cubic"] = low * mask / intensity_scale(low, mask)
    for which, volume in compared.items():
        scores[f"psnr_{which}"] = min(masked_psnr(reference, volume, mask), 99.0)
        scores[f"msssim_{which}"] = multi_scale_ssim(reference, volume, mask)[0]
        scores[f"hfcorr_{which}"] = highpass_correlation(reference, volume, mask, 1.5)
    if samples > 1:
        scores["psnr_sample"] = masked_psnr(reference, enhanced.first, mask)
        scores["hfcorr_sample"] = highpass_correlation(reference, enhanced.first, mask, 1.5)
        slice_mm = high.slice_mm if made is None else made.thick.slice_mm
        told = None if spread is None else spread.intervals(enhanced.sd, mask, high.voxel_size, slice_mm)
        scores |= calibration(reference, result, enhanced.sd, mask, samples, told)[0]
    read, names = judge()

    def labelled(volume: np.ndarray) -> np.ndarray:
        return read(Volume(volume.astype(np.float32), high.affine), mask)

    if scan not in READ:
        READ[scan] = labelled(reference)
    volumes: dict[str, dict[str, list[float]]] = {}
    for which, volume in compared.items():
        structures = overlap(READ[scan], labelled(volume), high.affine, names)
        scores[f"miou_{which}"] = mean_overlap(structures)[0]
        volumes[which] = {each.name: [each.volume_mm3, each.volume_reference_mm3] for each in structures}
    if cubic is not None:
        scores |= {key: value for key, value in cubic.items() if key != "volumes"}
        volumes["cubic"] = cubic["volumes"]
    scores["volumes"] = {name: {which: found[name] for which, found in volumes.items()} for name in volumes["model"]}
    return scores


READ: dict[str, np.ndarray] = {}
"""Labels of the high-quality scans, which do not depend on the acquisition."""


@functools.cache
def judge() -> tuple[Callable, dict[int, str]]:
    """The shipped parcellator, and the names of its labels."""
    names = {index: row["name"] for index, row in read_rows(table_file(PARCELLATOR_TABLE)).items() if index}
    return load_reader(PARCELLATOR, "auto").read, names


def table(rows: list[dict], card: dict, page: Path) -> str:
    scores = pd.DataFrame(rows)
    drawn = f", {drawn_in_words(card['sampling'])}" if card.get("sampling") else ""
    scores["gain"] = scores["psnr_model"] - scores["psnr_cubic"]
    lines = [
        f"# {page.stem}, measured\n",
        "For who uses this model, which ships.\n",
        f"`tests/measurements/release.py`, {' to '.join(sorted({scores['date'].min(), scores['date'].max()}))}, "
        f"{' and '.join(scores['machine'].unique())}, {counted(scores['precision'])}; weights "
        f"{card['weights_sha256'][:8]}{drawn}. Means over people "
        "who were not trained on; gain: PSNR over cubic interpolation; smallest: that of the person who gains least.\n",
        "| acquisition | people | PSNR cubic | PSNR model | gain | smallest | MS-SSIM | hfcorr | mIoU | unexplained |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    told: list[str] = []
    order = [name for name in (*ACQUISITIONS, CLEAN) if name in set(scores["acquisition"])]
    scores["acquisition"] = pd.Categorical(scores["acquisition"], order)
    scores = scores.sort_values("acquisition", kind="stable").astype({"acquisition": str})
    for name, own in scores.groupby("acquisition", sort=False):
        mean = own.mean(numeric_only=True)
        if name == CLEAN:  # nothing to gain: how much the model changes a scan that is good already
            changed = (
                f"| {name} | {len(own)} | – | {mean['psnr_model']:.2f} | – | {own['psnr_model'].min():.2f} in all |"
            )
            errors = own["range"] / 10 ** (own["psnr_model"] / 20)
            told.append(
                f"As it is, a scan changes by {100 * errors.min():.1f} to {100 * errors.max():.1f} % of the intensity "
                f"scale (root mean square); the range that PSNR takes is {own['range'].min():.1f} to "
                f"{own['range'].max():.1f}, the brightest voxel's.\n"
            )
            lines.append(f"{changed} {mean['msssim_model']:.4f} | {mean['hfcorr_model']:.3f} | {judged(mean)} | – |")
            continue
        lines.append(
            f"| {name} | {len(own)} | {mean['psnr_cubic']:.2f} | {mean['psnr_model']:.2f} | {mean['gain']:+.2f} | "
            f"{own['gain'].min():+.2f} | {mean['msssim_cubic']:.4f} to {mean['msssim_model']:.4f} | "
            f"{mean['hfcorr_cubic']:.3f} to {mean['hfcorr_model']:.3f} | {judged(mean)} | "
            f"{'–' if np.isnan(mean['unexplained']) else format(mean['unexplained'], '.3f')} |"
        )
    return "\n".join([*lines, "", *told, *spread_table(scores), *volume_table(scores)]) + "\n"


def spread_table(scores: pd.DataFrame) -> list[str]:
    """A single sample beside the mean, and the share of the truth that intervals from the spread hold."""
    if "psnr_sample" not in scores:
        return []
    drawn = scores.query("acquisition != @CLEAN")
    mean = drawn.mean(numeric_only=True)
    levels = [f"{100 * level:.0f} %" for level in COVERAGES.values()]
    return [
        f"A single sample: {mean['psnr_sample']:.2f} dB and hfcorr {mean['hfcorr_sample']:.3f}; the mean of all: "
        f"{mean['psnr_model']:.2f} dB and {mean['hfcorr_model']:.3f}. The share of the truth in intervals from the "
        f"samples' spread, means over {len(drawn)} scans, and its correlation with the true error (Spearman, voxels).",
        "",
        f"| should hold | {' | '.join(levels)} | expected over true error | correlation |",
        f"| --- | {' | '.join('---:' for _ in levels)} | ---: | ---: |",
        f"| as it is | {percent(mean[list(COVERAGES)])} | {mean['ratio']:.2f} | {mean['correlation']:.2f} |",
        f"| calibrated on the validation people | {percent(mean[list(CALIBRATED)])} | {mean['calibrated_ratio']:.2f} | "
        f"{mean['calibrated_correlation']:.2f} |",
        *(
            f"| the same, {name} | {percent(own[list(CALIBRATED)])} | {own['calibrated_ratio']:.2f} | "
            f"{own['calibrated_correlation']:.2f} |"
            for name, own in drawn.groupby("acquisition", sort=False).mean(numeric_only=True).iterrows()
        ),
        "",
    ]


def counted(values: pd.Series) -> str:
    """`float32`, or how many scans each."""
    counts = values.value_counts()
    return " and ".join(f"{name} ({n} scans)" if len(counts) > 1 else str(name) for name, n in counts.items())


def percent(shares: pd.Series) -> str:
    return " | ".join(f"{100 * share:.1f} %" for share in shares)


def judged(mean: pd.Series) -> str:
    before = "" if mean["miou_cubic"] == 1 else f"{mean['miou_cubic']:.3f} to "
    return "–" if np.isnan(mean["miou_model"]) else f"{before}{mean['miou_model']:.3f}"


def volume_table(scores: pd.DataFrame) -> list[str]:
    """Mean difference of each structure's volume from the scan's, in per cent of it, and limits of agreement for
    repeated measures (Bland and Altman 2007: the variance between people and that between acquisitions of one), over
    all acquisitions but the scan as it is."""
    read = scores.query("acquisition != @CLEAN").dropna(subset="volumes")
    if read.empty:
        return []
    kinds = list(dict.fromkeys(read["acquisition"]))
    told = ", ".join(kinds) if len(kinds) <= 3 else f"{len(kinds)} acquisitions"
    lines = [
        "Volumes of structures as the shipped parcellator reads them, from those in the scan, in per cent: mean, and "
        f"limits of agreement for one acquisition of one person, from {read['scan'].nunique()} people ({told}).",
        "",
        "| structure | scan, ml | cubic | model | readings |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    nearer, further = [], []
    for name in read["volumes"].iloc[0]:
        # (scans, cubic and model, result and scan)
        volumes = np.array([[each[name][which] for which in ("cubic", "model")] for each in read["volumes"]], float)
        there = (volumes[..., 1] > 0).all(axis=1)
        if read["scan"][there].nunique() < 2:
            continue
        cells, means = [], []
        for column in (0, 1):
            differences = pd.Series(100 * (volumes[there, column, 0] / volumes[there, column, 1] - 1))
            mean, half = limits_of_agreement(differences, read["scan"][there].to_numpy())
            cells.append(f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})")
            means.append(abs(mean))
        (nearer if means[1] < means[0] else further).append(name)
        lines.append(f"| {name} | {volumes[there, 1, 1].mean() / 1000:.2f} | {cells[0]} | {cells[1]} | {there.sum()} |")
    verdict = f"By the mean, the model's volumes are nearer to the scan's than cubic's for {len(nearer)} structures"
    return [*lines, "", verdict + (f", and further for {len(further)}: {', '.join(further)}." if further else ".")]


def limits_of_agreement(differences: pd.Series, people: np.ndarray) -> tuple[float, float]:
    """Mean and half width of the limits, from a one-way analysis of variance over people."""
    groups = differences.groupby(people)
    counts, means = groups.size(), groups.mean()
    overall, n = differences.mean(), len(differences)
    within = float(((differences - groups.transform("mean")) ** 2).sum() / max(1, n - len(counts)))
    between = float((counts * (means - overall) ** 2).sum() / (len(counts) - 1))
    each = (n - (counts**2).sum() / n) / (len(counts) - 1)
    return float(overall), 1.96 * float(np.sqrt(within + max(0.0, (between - within) / each)))


if __name__ == "__main__":
    main()
