"""The report stage on synthetic inputs: smooth blobs for volumes and drawn numbers for scores."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from browser import Browser, find
from iqt.errors import UserError
from iqt.files import read_table, write_json, write_table
from iqt.naming import anat, flat, seed_of
from iqt.report import (
    comparisons,
    figures,
    page,
    published,
    structure_figure,
    structure_table,
    structures,
    tables,
    viewer,
)
from iqt.report.panels import PLANES, Panel, extract_panels
from iqt.report.scores import FURTHER_METRICS, METRICS, read_scores
from iqt.volumes import intensity_scale, save_volume

METHODS = ["cubic", "unet", "diffusion_iqt", "diffusion_iqt_mean"]
SCANS = ["sub-test001", "sub-test002", "sub-test003"]
CONTRACT = (
    *("method", "n_subjects", "n_parameters", "nfe", "seconds_per_volume", "psnr", "psnr_lo", "psnr_hi"),
    *("msssim", "msssim_lo", "msssim_hi", "ssim", "hfcorr", "miou", "miou_lo", "miou_hi", "dice"),
)
PUBLISHED = Path(__file__).resolve().parents[2] / "resources/published.csv"
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
    row |= {"nmse": 0.05 - place / 100 + number / 200, "mae": 0.1 - place / 50, "hfen": 0.9 - place / 10}
    row |= {"psnr_minmax": 24 + place, "msssim_minmax": 0.95, "msssim_minmax_scales": 2, "ulfenc": 0.8 + place / 50}
    row |= {"n_parameters": [0, 631111, 745802, 745802][place], "parcellator": "builtin 0.1.0"}
    return row | changes


def blob(rng: np.random.Generator, smooth: float = 2) -> np.ndarray:
    noise = gaussian_filter(rng.normal(size=SHAPE), smooth)
    return 0.6 + 0.25 * noise / noise.std()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's files up to metrics/, and panels: unet failed on the third scan, cubic's second was not parcellated."""
    run = tmp_path_factory.mktemp("run")
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
            | {"val_loss": 6 / step, "val_psnr": psnr, "val_dice": dice}
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
            "methods": {method: {"kind": method.removesuffix("_mean"), "samples": 1} for method in METHODS},
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
    return run


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


def draw_scan(run: Path, out: Path, endings: tuple[str, ...], scan: str = SCANS[2]) -> list[Path]:
    """The figures of one scan, drawn from its panel and metrics/; the files."""
    panel, subjects = run / f"metrics/panels/{scan}.npz", run / "metrics/subjects.csv"
    slices, parcellation = ([out / f"{name}.{ending}" for ending in endings] for name in ("slices", "parcellation"))
    figures.draw_slices(panel, subjects, "main", slices)
    figures.draw_parcellation(panel, run / "cohort/dseg.tsv", subjects, "main", parcellation)
    return slices + parcellation


def draw_all(run: Path, out: Path) -> list[Path]:
    """Every figure as PNG and SVG; the files."""
    names = ("metrics", "training", "published")
    metrics, training, beside = ([out / f"{name}.{ending}" for ending in ("png", "svg")] for name in names)
    figures.draw_metrics(run / "metrics/subjects.csv", "main", metrics)
    figures.draw_training(run / "metrics/history.csv", training)
    published.draw_published(run / "metrics/subjects.csv", PUBLISHED, "main", beside)
    overlap = [out / "overlap.png", out / "overlap.svg"]
    structure_figure.draw_structures(run / "tables/structures.csv", overlap)
    return draw_scan(run, out, ("png", "svg")) + metrics + training + beside + overlap


# panels


def test_panel_keys_and_missing(made: Path) -> None:
    with np.load(made / f"metrics/panels/{SCANS[2]}.npz") as archive:
        whats = {key.rsplit("__", 1)[0] for key in archive.files if "__" in key}
        assert archive["methods"].tolist() == METHODS
        assert archive["planes"].tolist() == list(PLANES)
        assert archive["hq__axial"].dtype == np.float16
        assert archive["seg-hq__axial"].dtype == np.int16
    others = [method for method in METHODS if method != "unet"]
    segmentations = {f"seg-{what}" for what in ("hq", *others)}
    assert whats == {"lowfield", "hq", "sd-diffusion_iqt_mean", *others} | segmentations
    assert Panel(made / f"metrics/panels/{SCANS[2]}.npz").missing == {"unet": UNET_FAILED}
    assert Panel(made / f"metrics/panels/{SCANS[1]}.npz").missing == {"seg-cubic": CUBIC_UNREAD}


def test_panel_orientation_and_scale(made: Path) -> None:
    """Against the voxels themselves: the array's first axis runs right to left here."""
    scan = SCANS[0]
    panel = Panel(made / f"metrics/panels/{scan}.npz")
    reference = nib.load(anat(made / "cohort", scan, "T1w.nii.gz")).get_fdata()
    mask = nib.load(anat(made / "cohort", scan, "desc-brain_mask.nii.gz")).get_fdata() > 0
    expected = np.where(mask, reference / intensity_scale(reference, mask), 0)[::-1]
    centre = np.argwhere(mask[::-1]).mean(axis=0).round().astype(int)
    filled = np.argwhere(mask[::-1])
    x, y, z = (slice(low, high + 1) for low, high in zip(filled.min(0), filled.max(0), strict=True))
    axial, sagittal = panel.slice("hq", "axial"), panel.slice("hq", "sagittal")
    assert np.allclose(axial, expected[x, y, centre[2]].T[::-1], atol=1e-3)
    assert np.allclose(sagittal, expected[centre[0], y, z].T[::-1], atol=1e-3)
    assert panel.voxel_size.tolist() == [2.0, 2.5, 3.0]
    assert panel.pixel("sagittal") == (3.0, 2.5)
    assert panel.pixel("coronal") == (3.0, 2.0)
    result = nib.load(flat(made / "enhanced/unet", scan, "T1w.nii.gz")).get_fdata()[::-1]
    assert np.allclose(panel.slice("unet", "axial"), result[x, y, centre[2]].T[::-1], atol=1e-3), "must not be rescaled"


def test_lowfield_is_shown_as_thick_slices(made: Path) -> None:
    panel = Panel(made / f"metrics/panels/{SCANS[0]}.npz")
    column = panel.slice("lowfield", "coronal")[:, 8]
    inside = column[column > 0]
    assert len(np.unique(inside)) <= -(-len(inside) // 3) + 1
    assert len(np.unique(panel.slice("hq", "coronal")[:, 8])) > 10


def test_panel_of_a_scan_without_reference_says_why(made: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(made, run)
    write_json(anat(run / "cohort", SCANS[0], "T1w.json"), {"status": "no brain"})
    panel = extract(run, SCANS[0], run / f"metrics/panels/{SCANS[0]}.npz")
    assert panel.missing == {"hq": "no brain"}
    assert "hq" not in panel
    assert all(path.stat().st_size > 500 for path in draw_scan(run, tmp_path, ("svg",), SCANS[0]))


def test_a_broken_panel_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"x\.npz.*delete it"):
        Panel(tmp_path / "x.npz")


# tables


def test_columns_are_the_contract(made: Path) -> None:
    with (made / "tables/benchmark.csv").open(newline="") as handle:
        columns, *rows = csv.reader(handle)
    facts = ["set", "n_failed", "samples", "msssim_scales", "miou_common", "parcellator", "msssim_minmax_scales"]
    further = [f"{name}{end}" for name in FURTHER_METRICS for end in ("", "_lo", "_hi")]
    spread = ["n_seeds", *(f"{name}_seed_sd" for name in (*METRICS, *FURTHER_METRICS))]
    assert columns == [*CONTRACT, *facts, *further, *spread]
    assert [row[0] for row in rows] == METHODS
    assert [row[2] for row in rows] == ["0", "631111", "745802", "745802"]
    assert [row[3] for row in rows] == ["0", "1", "4", "16"]


def test_failures_are_counted_and_scored(made: Path) -> None:
    rows = {row["method"]: row for row in read_table(made / "tables/benchmark.csv")}
    assert [rows[method]["n_failed"] for method in METHODS] == ["1", "1", "0", "0"]
    assert {row["n_subjects"] for row in rows.values()} == {"3"}
    # cubic's second scan was not parcellated: 0.5, 0, 0.55; its similarities count
    assert float(rows["cubic"]["miou"]) == pytest.approx((0.5 + 0 + 0.55) / 3, rel=1e-5)
    assert float(rows["cubic"]["psnr"]) == pytest.approx(20 + 1 / 3, rel=1e-5)
    # unet's third scan has no result: the mean is over the other two
    assert float(rows["unet"]["psnr"]) == pytest.approx(21 + 1 / 6, rel=1e-5)
    assert float(rows["unet"]["miou"]) == pytest.approx(0.55 + 1 / 80, rel=1e-5)
    # every method succeeded on the first scan alone
    common = [float(rows[method]["miou_common"]) for method in METHODS]
    assert common == pytest.approx([0.5, 0.55, 0.6, 0.65])


def test_limits_agree_with_a_bootstrap_by_hand(tmp_path: Path) -> None:
    values = [20.1, 22.5, 23.0, 25.9, 21.7, 26.4]
    write_table(tmp_path / "subjects.csv", [score(f"sub-{n}", "unet", 0, psnr=value) for n, value in enumerate(values)])
    tables.write_tables(tmp_path / "subjects.csv", tmp_path, "main", 20_000, 3)
    (row,) = read_table(tmp_path / "benchmark.csv")
    drawn = np.random.default_rng(99).choice(values, size=(100_000, len(values))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert float(row["psnr_lo"]) == pytest.approx(low, abs=0.05)
    assert float(row["psnr_hi"]) == pytest.approx(high, abs=0.05)
    # and exactly, from the same random numbers
    rng = np.random.default_rng(seed_of(3, "bootstrap", "main"))
    same = np.array(values)[rng.integers(0, len(values), (20_000, len(values)))].mean(axis=1)
    exact = np.percentile(same, [2.5, 97.5])
    assert [float(row["psnr_lo"]), float(row["psnr_hi"])] == pytest.approx(list(exact), rel=1e-5)


def test_scans_of_a_person_count_once(tmp_path: Path) -> None:
    rows = [score("sub-a_ses-1", "unet", 0, psnr=20), score("sub-a_ses-2", "unet", 0, psnr=22)]
    write_table(tmp_path / "subjects.csv", [*rows, score("sub-b", "unet", 0, psnr=30)])
    tables.write_tables(tmp_path / "subjects.csv", tmp_path, "main", 200, 1)
    (row,) = read_table(tmp_path / "benchmark.csv")
    assert row["n_subjects"] == "2"
    assert float(row["psnr"]) == pytest.approx((21 + 30) / 2)
    assert float(row["psnr_lo"]) >= 21


def test_one_person_has_no_interval(tmp_path: Path) -> None:
    write_table(tmp_path / "subjects.csv", [score("sub-a", "unet", 0)])
    tables.write_tables(tmp_path / "subjects.csv", tmp_path, "main", 200, 1)
    (row,) = read_table(tmp_path / "benchmark.csv")
    assert {row[f"{name}_{end}"] for name in ("psnr", "msssim", "miou") for end in ("lo", "hi")} == {""}
    assert "21.00" in tables.format_terminal(tmp_path / "benchmark.csv")


def test_a_method_that_always_failed_has_empty_means(tmp_path: Path) -> None:
    empty = dict.fromkeys((*METRICS, *FURTHER_METRICS, "seconds", "nfe", "n_parameters"), "")
    lost = score("sub-a", "unet", 0, status="out of luck", **empty)
    write_table(tmp_path / "subjects.csv", [score("sub-a", "cubic", 0), lost])
    tables.write_tables(tmp_path / "subjects.csv", tmp_path, "main", 200, 1)
    row = read_table(tmp_path / "benchmark.csv")[1]
    assert row["psnr"] == row["miou"] == row["nfe"] == row["miou_common"] == ""
    assert row["n_failed"] == "1"
    assert "–" in tables.format_terminal(tmp_path / "benchmark.csv")
    figures.draw_metrics(tmp_path / "subjects.csv", "main", [tmp_path / "metrics.svg"])


def test_tables_for_people(made: Path) -> None:
    text = (made / "tables/benchmark.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(METHODS)
    assert len({line.count("|") for line in table}) == 1
    assert "**23.33**" in table[-1]
    assert "**" not in table[2]
    latex = (made / "tables/benchmark.tex").read_text()
    assert r"diffusion\_iqt\_mean" in latex
    assert r"\toprule" in latex
    assert r"\textbf{23.33}" in latex
    lines = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in lines} == {latex.split("{tabular}{")[1].split("}")[0].count("r")}
    terminal = tables.format_terminal(made / "tables/benchmark.csv")
    assert all(method in terminal for method in METHODS)
    assert max(map(len, terminal.splitlines())) <= 120


def test_further_measures_have_a_table_of_their_own(made: Path) -> None:
    lines = (made / "tables/similarity.md").read_text().splitlines()
    head, _, *rows = [line for line in lines if line.startswith("|")]
    assert "PSNR min-max (dB)" in head
    assert "dB)" in head.split("HFEN")[1], "never in the benchmark's own PSNR column"
    assert "min-max" not in (made / "tables/benchmark.md").read_text()
    best = next(line for line in rows if line.startswith("| diffusion_iqt_mean"))
    assert best.count("**") == 2 * len(FURTHER_METRICS), "smaller errors are better; all tie in MS-SSIM min-max"
    assert "**0.0250** (0.0200–0.0300)" in best
    assert r"\textbf{0.0250}" in (made / "tables/similarity.tex").read_text()


def test_a_method_without_a_row_for_a_scan_is_a_failure(tmp_path: Path) -> None:
    rows = [score(scan, method, 0) for method in ("cubic", "unet") for scan in SCANS]
    write_table(tmp_path / "subjects.csv", rows[:-1])
    tables.write_tables(tmp_path / "subjects.csv", tmp_path, "main", 200, 1)
    found = {row["method"]: row for row in read_table(tmp_path / "benchmark.csv")}
    assert [found[method]["n_failed"] for method in ("cubic", "unet")] == ["0", "1"]
    last = read_scores(tmp_path / "subjects.csv", "main")[-1]
    assert (last.scan, last.method, last.failed) == (SCANS[2], "unet", True)
    assert "no row" in last.status


@pytest.mark.parametrize(("column", "value", "set_name"), [("psnr", "much", "main"), ("psnr", "20", "other")])
def test_bad_subjects_are_the_users_error(tmp_path: Path, column: str, value: str, set_name: str) -> None:
    write_table(tmp_path / "subjects.csv", [score("sub-a", "unet", 0, **{column: value})])
    with pytest.raises(UserError, match=r"subjects\.csv"):
        tables.write_tables(tmp_path / "subjects.csv", tmp_path, set_name, 200, 1)


# figures and page


@pytest.fixture(scope="module")
def drawn(made: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return draw_all(made, tmp_path_factory.mktemp("figures"))


def test_redrawing_gives_the_same_bytes(made: Path, drawn: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(made / "metrics", copy / "metrics")
    shutil.copytree(made / "cohort", copy / "cohort", ignore=shutil.ignore_patterns("sub-*"))  # no volumes
    shutil.copytree(made / "tables", copy / "tables")
    for first, second in zip(drawn, draw_all(copy, tmp_path), strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name
    extract(made, SCANS[1], tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (made / f"metrics/panels/{SCANS[1]}.npz").read_bytes()
    subjects = copy / "metrics/subjects.csv"
    tables.write_tables(subjects, tmp_path, "main", 500, 7)
    comparisons.write_statistics(subjects, tmp_path, "main", "cubic", 500, 7)
    structure_table.write_structures(copy / "metrics/structures.csv", tmp_path, "main", SCANS, METHODS, 500, 7)
    written = [path.name for path in (made / "tables").iterdir()]
    assert len(written) == 11
    for name in written:
        assert (tmp_path / name).read_bytes() == (made / "tables" / name).read_bytes(), name


def test_slices_keep_their_shape_in_mm(made: Path) -> None:
    panel = Panel(made / f"metrics/panels/{SCANS[0]}.npz")
    sheet = figures.Sheet(panel, 1)
    sheet.planes(0, 0, lambda plane: panel.slice("hq", plane))
    for plane, axes in zip(PLANES, sheet.figure.axes, strict=True):
        (image,) = axes.images
        left, right, bottom, top = image.get_extent()
        rows, columns = panel.slice("hq", plane).shape
        tall, wide = panel.pixel(plane)
        assert (top - bottom) / (right - left) == pytest.approx(rows * tall / (columns * wide), rel=0.02)
        assert axes.bbox.height == pytest.approx(axes.get_ylim()[1]), "a unit of the axes must be a pixel"


def test_a_missing_method_is_shown_as_such(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(figures.STYLE, "svg.fonttype", "none")  # text stays text
    draw_scan(made, tmp_path, ("svg",))
    for name in ("slices", "parcellation"):
        text = (tmp_path / f"{name}.svg").read_text()
        assert "no result: lowfield: the noise is &lt;above&gt; the signal" in text
    assert "PSNR 20.67" in (tmp_path / "slices.svg").read_text()


def test_published_values_meet_ours_only_in_the_same_definition(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subjects = made / "metrics/subjects.csv"
    assert published.ours(subjects, "main", "psnr_minmax")["cubic"] == [24, 24, 24]
    assert published.ours(subjects, "main", "miou_fastsurfer") == {}, "read by the built-in network"
    assert published.ours(subjects, "main", "psnr_lin") == {}
    rows = read_table(subjects)
    write_table(tmp_path / "subjects.csv", [row | {"parcellator": "fastsurfer 2.4.2"} for row in rows])
    assert published.ours(tmp_path / "subjects.csv", "main", "miou_fastsurfer")["diffusion_iqt"][0] == 0.6
    for scales, wanted in (("3", set()), ("5", {"cubic", "diffusion_iqt", "diffusion_iqt_mean"})):
        write_table(tmp_path / "subjects.csv", [row | {"msssim_minmax_scales": scales} for row in rows])
        assert set(published.ours(tmp_path / "subjects.csv", "main", "msssim_minmax")) >= wanted
        assert bool(published.ours(tmp_path / "subjects.csv", "main", "msssim_minmax")) is bool(wanted)
    monkeypatch.setitem(figures.STYLE, "svg.fonttype", "none")
    published.draw_published(subjects, PUBLISHED, "main", [tmp_path / "published.svg"])
    text = (tmp_path / "published.svg").read_text()
    assert "33.7" in text
    assert text.count("cubic (here)") == 1, "PSNR min-max"
    assert "ours has fewer than 5 scales and is not drawn" in text
    assert "another parcellator and is not drawn" in text
    assert text.count("[definition not confirmed]") == 5


@pytest.mark.parametrize(("column", "value"), [("definition", "psnr"), ("value", "33,7")])
def test_a_bad_published_figure_is_the_users_error(made: Path, tmp_path: Path, column: str, value: str) -> None:
    rows = read_table(PUBLISHED)
    rows[0][column] = value
    write_table(tmp_path / "published.csv", rows)
    with pytest.raises(UserError, match=rf"published\.csv: {column} '{value}' of DiffusionIQT"):
        published.read_published(tmp_path / "published.csv")


def test_the_figure_of_structures_shows_every_structure(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(figures.STYLE, "svg.fonttype", "none")
    structure_figure.draw_structures(made / "tables/structures.csv", [tmp_path / "overlap.svg"])
    text = (tmp_path / "overlap.svg").read_text()
    assert all(name in text for name in ("left half", "right half", "nowhere", *METHODS))
    colours = [figures.colour_of(read_scores(made / "metrics/subjects.csv", "main"))[method] for method in METHODS]
    assert all(colour.lower() in text for colour in colours), "a method's colour is the same everywhere"
    write_table(tmp_path / "structures.csv", [], structure_table.COLUMNS)
    structure_figure.draw_structures(tmp_path / "structures.csv", [tmp_path / "none.svg"])
    assert "No result was parcellated" in (tmp_path / "none.svg").read_text()


def test_fonts_are_in_the_files(made: Path, tmp_path: Path) -> None:
    figures.draw_metrics(made / "metrics/subjects.csv", "main", [tmp_path / "metrics.pdf", tmp_path / "metrics.svg"])
    pdf = (tmp_path / "metrics.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert "<text" not in (tmp_path / "metrics.svg").read_text(), "outlines"


class _Resources(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wanted = ("src", "href", "srcset", "action", "data", "poster")
        self.loads += [value or "" for name, value in attrs if name in wanted]


def test_page_is_whole_and_offline(made: Path, drawn: list[Path], tmp_path: Path) -> None:
    pngs = [path for path in drawn if path.suffix == ".png"]
    page.write_page(made / "metrics", made / "tables", pngs, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    resources = _Resources()
    resources.feed(text)
    assert sum(load.startswith("data:") for load in resources.loads) == len(pngs)
    assert all(load.startswith(("data:image/png;base64,", "#")) for load in resources.loads)
    assert not re.search(r"https?://|@import|url\(", text)
    assert all(f">{method}<" in text for method in METHODS)
    assert "sub-test009" in text
    assert "holds 12 voxels that are NaN &amp; worse" in text
    assert "lowfield: the noise is &lt;above&gt; the signal" in text
    assert CUBIC_UNREAD in text
    assert "one template brain" in text
    assert "Only 3 test people" in text
    assert "3 of the usual 5 scales" in text
    assert "builtin 0.1.0, 2 structures" in text
    order = [text.index(f'id="{name}"') for name in ("skipped", "benchmark", "slices", "training", "structures", "run")]
    assert order == sorted(order)
    page.write_page(made / "metrics", made / "tables", pngs, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == text


def test_page_lists_a_failure_once(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "metrics", tmp_path / "metrics")
    run = json.loads((tmp_path / "metrics/run.json").read_text())
    run["cohort"]["skipped"] += [
        {"scan": SCANS[1], "stage": "parcellation/main/cubic", "reason": "the root of it"},
        {"scan": SCANS[1], "stage": "lowfield/other", "reason": "another set"},
    ]
    write_json(tmp_path / "metrics/run.json", run)
    page.write_page(tmp_path / "metrics", made / "tables", [], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "the root of it" in text
    assert CUBIC_UNREAD not in text
    assert "lowfield: the noise is &lt;above&gt; the signal" in text


def test_page_of_real_people_has_no_template_notice(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "metrics", tmp_path / "metrics")
    run = json.loads((tmp_path / "metrics/run.json").read_text())
    run["cohort"]["source"] = "bids"
    write_json(tmp_path / "metrics/run.json", run)
    page.write_page(tmp_path / "metrics", made / "tables", [], tmp_path / "report.html")
    assert "one template brain" not in (tmp_path / "report.html").read_text()


def test_page_says_when_a_method_does_not_beat_interpolation(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "tables", tmp_path / "tables")
    rows = read_table(tmp_path / "tables/benchmark.csv")
    rows[2]["psnr"] = "19.5"
    write_table(tmp_path / "tables/benchmark.csv", rows)
    page.write_page(made / "metrics", tmp_path / "tables", [], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert re.findall(r"<li>(\w+) does not exceed cubic interpolation", text) == ["diffusion_iqt"]


def test_page_takes_named_png_figures_only(made: Path, drawn: list[Path], tmp_path: Path) -> None:
    shutil.copy(drawn[0], tmp_path / "picture.png")
    with pytest.raises(UserError, match=r"picture\.png.*must begin with"):
        page.write_page(made / "metrics", made / "tables", [tmp_path / "picture.png"], tmp_path / "report.html")
    with pytest.raises(UserError, match="not a PNG"):
        page.write_page(made / "metrics", made / "tables", [drawn[1]], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_every_miou_names_its_parcellator(made: Path, tmp_path: Path) -> None:
    page.write_page(made / "metrics", made / "tables", [], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert '<th scope="col">mIoU (builtin 0.1.0)</th>' in text
    assert "structures, read by builtin 0.1.0" in text
    assert "mIoU (builtin 0.1.0)" in (made / "tables/benchmark.md").read_text()
    assert "mIoU (builtin 0.1.0)" in (made / "tables/benchmark.tex").read_text()
    assert "mIoU by the parcellator builtin 0.1.0" in tables.format_terminal(made / "tables/benchmark.csv")


def structure(scan: str, method: str, name: str, dice: float | str) -> dict:
    key = {"set": "main", "scan": scan, "method": method, "name": name}
    return key | {"iou": dice and float(dice) / 2, "dice": dice, "volume_reference_mm3": 2000}


def test_structures_are_sorted_by_their_paired_effect() -> None:
    """A structure that one method lacks for a person, one that gets worse, and one that nobody holds."""
    rows = [
        *(structure("a", method, "small gain", dice) for method, dice in (("cubic", 0.5), ("unet", 0.6))),
        *(structure("a", method, "loss", dice) for method, dice in (("cubic", 0.9), ("unet", 0.2))),
        *(structure(scan, "cubic", "uneven", dice) for scan, dice in (("a", 0.2), ("b", 0.8))),
        structure("a", "unet", "uneven", 0.6),
        structure("a", "cubic", "absent", ""),
    ]
    found = structures.compare_methods(rows, "cubic", {"loss": "#123456"})
    lines = found["lines"]
    assert [line["name"] for line in lines] == ["loss", "uneven", "small gain"]
    assert [line["effect"] for line in lines] == pytest.approx([-0.7, 0.4, 0.1])
    assert [line["best"] for line in lines] == ["unet"] * 3
    assert lines[0]["colour"] == "#123456"
    assert lines[0]["volume"] == 2
    alone = structures.compare_methods([row for row in rows if row["method"] == "cubic"], "cubic", {})
    assert [line["best"] for line in alone["lines"]] == [""] * 3


def test_page_says_how_well_the_parcellator_reads(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "metrics", tmp_path / "metrics")
    rows = [(scan, name, dice) for scan, low in (("a", 0.5), ("b", 0.7)) for name, dice in (("one", 0.9), ("two", low))]
    columns = ("scan", "name", "dice")
    table = [dict(zip(columns, row, strict=True)) | {"volume_reference_mm3": 1000} for row in rows]
    write_table(tmp_path / "metrics/parcellator.csv", table)
    lut = tmp_path / "lut.tsv"
    write_table(lut, [{"name": "left half", "color": "#4e79a7"}, {"name": "two", "color": "#ff0000"}])
    page.write_page(tmp_path / "metrics", made / "tables", [], tmp_path / "report.html", lut)
    text = (tmp_path / "report.html").read_text()
    assert "mean Dice <strong>0.750</strong>" in text
    judged = text[text.index('id="judge"') : text.index('id="run"')]
    assert judged.index("two</th>") < judged.index("one</th>"), "worst first"
    assert 'style="background: #ff0000"' in judged
    assert 'style="background: #4e79a7"' in text
    page.write_page(made / "metrics", made / "tables", [], tmp_path / "report.html")
    assert 'id="judge"' not in (tmp_path / "report.html").read_text()


# the viewer, and the page in a browser


def test_volumes_for_the_viewer_are_the_scans_boxes(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = Panel(made / f"metrics/panels/{SCANS[0]}.npz")
    volume = panel.volume("hq")
    axial = panel.slice("hq", "axial")
    assert volume.shape == (axial.shape[1], axial.shape[0], panel.slice("hq", "coronal").shape[0])
    level = [z for z in range(volume.shape[2]) if np.allclose(volume[..., z].T[::-1] / 255 * 1.1, axial, atol=3e-3)]
    assert len(level) == 1, "the axial slice is one of the volume's"
    assert Panel(made / f"metrics/panels/{SCANS[2]}.npz").volume("unet") is None, "it failed"
    monkeypatch.setattr("iqt.report.panels.VIEWED", 10)
    small = extract(made, SCANS[0], tmp_path / "small.npz")
    assert max(small.volume("hq").shape) <= 10
    assert small.volume_voxel_size.tolist() == pytest.approx([4, 5, 6] if max(volume.shape) <= 20 else [6, 7.5, 9])
    assert np.array_equal(small.slice("hq", "axial"), axial), "figures keep their voxels"


def test_a_mosaic_holds_every_slice_anterior_up() -> None:
    volume = np.zeros((16, 24, 7), np.uint8)
    for z in range(7):
        volume[:8, 16:, z] = 30 * (z + 1)  # left and anterior
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(viewer.mosaic(volume)))))
    assert viewer.mosaic_columns(7) == 3
    assert sheet.shape == (3 * 24, 3 * 16)
    for z in range(7):
        tile = sheet[z // 3 * 24 : (z // 3 + 1) * 24, z % 3 * 16 : (z % 3 + 1) * 16]
        assert abs(int(tile[3, 3]) - 30 * (z + 1)) < 8
        assert tile[-3, -3] < 8


def test_the_page_stays_small_and_names_what_is_left_out(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pngs = [tmp_path / f"slices_sub-{number}.png" for number in range(9)] + [tmp_path / "metrics.png"]
    for path in pngs:
        path.write_bytes(b"\x89PNG" + bytes(1_000_000))
    panels = [made / f"metrics/panels/{scan}.npz" for scan in SCANS]
    one = sum(len(volume["data"]) for volume in viewer.collect(panels[:1])["people"][0]["volumes"])
    monkeypatch.setattr(viewer, "BUDGET", int(1.5 * one))
    page.write_page(made / "metrics", made / "tables", pngs, tmp_path / "report.html", panels=panels)
    text = (tmp_path / "report.html").read_text()
    assert page.FIGURE_BUDGET + 6_000_000 < 15e6
    assert len(text) < page.FIGURE_BUDGET + 1.5 * one + 300_000
    assert text.count("is left out to keep this page small") == 6
    assert 'class="metrics"' in text, "a figure of everybody comes before those of one person"
    assert f"for want of a volume: {SCANS[1]}, {SCANS[2]}" in text


def test_page_shows_statistics_structures_and_extremes(made: Path, tmp_path: Path) -> None:
    page.write_page(made / "metrics", made / "tables", [], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "Every method against cubic, the reference" in text
    assert "too few people: 9 or more are needed" in text
    volumetry = text[text.index('id="volumetry"') : text.index('id="run"')]
    absent = volumetry.split(">nowhere</th>")[1:]
    assert len(absent) == len(METHODS), "a structure that nobody has is shown for every method"
    assert "0 (3 absent)" in absent[2]
    extremes = text[text.index('id="people"') : text.index('id="structures"')]
    assert re.search(
        r">PSNR \(dB\)</th><td class=\"text\">cubic</td><td data-value=\"20.67\">20.67<small>sub-test003", extremes
    )
    assert "commit <code>0123456789ab</code> with local changes" in text


@pytest.fixture(scope="module")
def opened(made: Path, drawn: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The whole page in a real browser."""
    program = find()
    if program is None:
        pytest.skip("no Chromium or Chrome on PATH; install one (apt-get install chromium) to test the page in it")
    folder = tmp_path_factory.mktemp("browser")
    pngs = [path for path in drawn if path.suffix == ".png"]
    panels = [made / f"metrics/panels/{scan}.npz" for scan in SCANS]
    page.write_page(made / "metrics", made / "tables", pngs, folder / "report.html", panels=panels)
    browser = Browser(program, folder / "profile")
    try:
        browser.open(folder / "report.html")
        browser.resize(1280, 900)
        browser.wait("document.querySelector('#viewer').dataset.drawn")
        yield browser
    finally:
        browser.close()


def test_no_request_leaves_the_page_and_nothing_complains(opened: Browser) -> None:
    assert len(opened.requests) > 5
    assert [url[:40] for url in opened.requests if not url.startswith(("data:", "file:"))] == []
    assert sum(url.startswith("file:") for url in opened.requests) == 1, "the page itself"
    assert opened.complaints == []
    opened.evaluate("fetch('https://example.org/').catch(() => 0)")
    assert any("Content Security Policy" in text for text in opened.complaints), "the page forbids what would leave it"
    opened.complaints.clear()


def test_the_table_sorts_both_ways(opened: Browser) -> None:
    head = "[...document.querySelectorAll('#benchmark ~ .scroll th')].find(th => th.textContent.startsWith('PSNR'))"
    methods = "[...document.querySelector('#benchmark ~ .scroll tbody').rows].map(row => row.cells[0].textContent)"
    opened.evaluate(f"{head}.click()")
    assert opened.evaluate(methods) == METHODS[::-1]
    opened.evaluate(f"{head}.dispatchEvent(new KeyboardEvent('keydown', {{key: 'Enter'}}))")
    assert opened.evaluate(methods) == METHODS
    assert opened.evaluate(f"{head}.ariaSort") == "ascending"


def pixels(opened: Browser, plane: str) -> np.ndarray:
    """What a plane's canvas shows: (rows, columns, RGBA)."""
    width, height, data = opened.evaluate(
        f"(() => {{ const c = document.querySelector('[data-part={plane}]');"
        "return [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]] })()"
    )
    return np.array(data).reshape(height, width, 4)


def test_the_slider_moves_from_one_volume_to_the_other(opened: Browser, made: Path) -> None:
    panel = Panel(made / f"metrics/panels/{SCANS[0]}.npz")
    place = [size // 2 for size in panel.volume("hq").shape]
    opened.evaluate("document.querySelector('#viewer').scrollIntoView({block: 'center'})")
    box = "document.querySelector('[data-part=split]').getBoundingClientRect()"
    left, top, width, height = (opened.evaluate(f"{box}.{side}") for side in ("left", "top", "width", "height"))
    for share, what in ((0.002, "diffusion_iqt_mean"), (0.998, "lowfield")):
        for kind in ("mousePressed", "mouseReleased"):
            opened.mouse(kind, left + share * width, top + height / 2)
        opened.wait(f"document.querySelector('[data-part=split]').value === '{round(share) * 100}'")
        for plane, axis in (("sagittal", 0), ("coronal", 1), ("axial", 2)):
            expected = np.take(panel.volume(what), place[axis], axis).T[::-1].astype(float)
            shown = pixels(opened, plane)
            grey = (np.ptp(shown[..., :3], axis=-1) == 0) & (shown[..., 3] == 255)
            assert grey.mean() > 0.7, "but for the crosshair and the divider"
            assert np.abs(shown[..., 0] - expected)[grey].mean() < 8, (plane, what)


def test_pointing_into_a_plane_moves_the_others(opened: Browser) -> None:
    opened.evaluate("document.querySelector('#viewer').scrollIntoView({block: 'center'})")
    before = {plane: pixels(opened, plane) for plane in PLANES}
    box = "document.querySelector('[data-part=axial]').getBoundingClientRect()"
    left, top, width, height = (opened.evaluate(f"{box}.{side}") for side in ("left", "top", "width", "height"))
    for kind in ("mousePressed", "mouseReleased"):
        opened.mouse(kind, left + 0.3 * width, top + 0.3 * height)
    drawn = opened.evaluate("document.querySelector('#viewer').dataset.drawn")
    shape = [before["axial"].shape[1], before["axial"].shape[0], before["coronal"].shape[0]]
    expected = [int(0.3 * shape[0]), shape[1] - 1 - int(0.3 * shape[1]), shape[2] // 2]
    assert [int(number) for number in drawn.split(" ")[-1].split(",")] == expected
    assert all((pixels(opened, plane) != before[plane]).any() for plane in ("sagittal", "coronal"))


def test_other_people_and_methods_can_be_chosen(opened: Browser) -> None:
    choose = (
        "(() => {{ const select = document.querySelector('[data-part={0}]'); select.value = '{1}';"
        "select.dispatchEvent(new Event('change')) }})()"
    )
    opened.evaluate(choose.format("who", "2"))
    opened.wait(f"document.querySelector('#viewer').dataset.drawn.startsWith('{SCANS[2]} ')")
    options = opened.evaluate("[...document.querySelector('[data-part=after]').options].map(option => option.value)")
    assert options == ["low-field", "reference", "cubic", "diffusion_iqt", "diffusion_iqt_mean"], (
        "unet failed on this scan"
    )
    opened.evaluate(choose.format("after", "reference"))
    opened.wait("document.querySelector('#viewer').dataset.drawn.includes(' reference ')")
    assert opened.complaints == []


def test_the_page_fits_on_a_phone(opened: Browser) -> None:
    opened.resize(390, 844)
    opened.wait("innerWidth === 390")
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390, "only tables scroll sideways, in their boxes"
    assert opened.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") >= 16
    wide = "[...document.querySelectorAll('.planes canvas')].every(c => c.getBoundingClientRect().width > 250)"
    assert opened.evaluate(wide), "planes stand below one another"
    opened.resize(1280, 900)
