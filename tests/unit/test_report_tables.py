"""Panels and tables of the report: what was extracted and counted, against the files it comes from."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from iqt.errors import UserError
from iqt.io.files import read_table, write_json, write_table
from iqt.io.naming import anat, flat, seed_of
from iqt.io.volumes import intensity_scale
from iqt.report.data import read_scores
from iqt.report.figures import scores
from iqt.report.metrics import FURTHER_METRICS, METRICS, NAMES
from iqt.report.page import structures
from iqt.report.page.methods import further_lines
from iqt.report.panels import PLANES, Panel
from iqt.report.tables import benchmark as tables
from iqt.report.tables.structures import read_structures
from synthetic import CUBIC_UNREAD, METHODS, SCANS, UNET_FAILED, extract, plot_scan, score

CONTRACT = (
    *("method", "n_subjects", "n_parameters", "nfe", "seconds_per_volume", "psnr", "psnr_lo", "psnr_hi"),
    *("msssim", "msssim_lo", "msssim_hi", "ssim", "hfcorr", "miou", "miou_lo", "miou_hi", "dice"),
)


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
    assert all(path.stat().st_size > 500 for path in plot_scan(run, tmp_path, ("svg",), SCANS[0]))


def test_a_broken_panel_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"x\.npz.*delete it"):
        Panel(tmp_path / "x.npz")
    whole = io.BytesIO()
    np.savez(whole, scan=np.arange(999))
    (tmp_path / "x.npz").write_bytes(whole.getvalue()[:2000])
    with pytest.raises(UserError, match=r"x\.npz.*delete it"):
        Panel(tmp_path / "x.npz")


def test_columns_are_the_contract(made: Path) -> None:
    with (made / "tables/benchmark.csv").open(newline="") as handle:
        columns, *rows = csv.reader(handle)
    facts = ["set", "n_failed", "samples", "msssim_scales", "miou_common", "parcellator", "msssim_minmax_scales"]
    further = [f"{name}{end}" for name in FURTHER_METRICS for end in ("", "_lo", "_hi")]
    counts = [f"{name}{end}" for name in (*METRICS, *FURTHER_METRICS) for end in ("_n", "_shared", "_n_shared")]
    spread = ["n_seeds", *(f"{name}_seed_sd" for name in (*METRICS, *FURTHER_METRICS))]
    assert columns == [*CONTRACT, *facts, *further, *counts, "miou_common_n", *spread]
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
    scores.plot_metrics(tmp_path / "subjects.csv", "main", [tmp_path / "metrics.svg"])


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


def test_a_distance_that_nobody_asked_for_is_no_column_and_no_failure(made: Path, tmp_path: Path) -> None:
    assert "LPIPS" in (made / "tables/similarity.md").read_text()
    write_table(tmp_path / "subjects.csv", [score("sub-a", method, 0, lpips="") for method in METHODS])
    tables.write_tables(tmp_path / "subjects.csv", tmp_path, "main", 200, 1)
    for name in ("similarity.md", "similarity.tex"):
        assert "LPIPS" not in (tmp_path / name).read_text()
    rows = read_table(tmp_path / "benchmark.csv")
    assert {(row["lpips"], row["n_failed"]) for row in rows} == {("", "0")}
    lines = further_lines(rows)
    assert lines["head"] == [NAMES[name] for name in FURTHER_METRICS if name != "lpips"]
    assert {len(line["cells"]) for line in lines["lines"]} == {len(lines["head"])}


def test_a_method_without_a_row_for_a_scan_is_a_failure(tmp_path: Path) -> None:
    rows = [score(scan, method, 0) for method in ("cubic", "unet") for scan in SCANS]
    write_table(tmp_path / "subjects.csv", rows[:-1])
    tables.write_tables(tmp_path / "subjects.csv", tmp_path, "main", 200, 1)
    found = {row["method"]: row for row in read_table(tmp_path / "benchmark.csv")}
    assert [found[method]["n_failed"] for method in ("cubic", "unet")] == ["0", "1"]
    last = read_scores(tmp_path / "subjects.csv", "main").iloc[-1]
    assert (last["scan"], last["method"], last["failed"]) == (SCANS[2], "unet", True)
    assert "no row" in last["status"]


@pytest.mark.parametrize(("column", "value", "set_name"), [("psnr", "much", "main"), ("psnr", "20", "other")])
def test_bad_subjects_are_the_users_error(tmp_path: Path, column: str, value: str, set_name: str) -> None:
    write_table(tmp_path / "subjects.csv", [score("sub-a", "unet", 0, **{column: value})])
    with pytest.raises(UserError, match=r"subjects\.csv"):
        tables.write_tables(tmp_path / "subjects.csv", tmp_path, set_name, 200, 1)


def structure(scan: str, method: str, name: str, dice: float | str) -> dict:
    key = {"set": "main", "scan": scan, "method": method, "name": name}
    return key | {"iou": dice and float(dice) / 2, "dice": dice, "volume_reference_mm3": 2000}


def test_structures_are_sorted_by_their_paired_effect(tmp_path: Path) -> None:
    """A structure that one method lacks for a person, one that gets worse, and one that nobody holds."""
    rows = [
        *(structure("a", method, "small gain", dice) for method, dice in (("cubic", 0.5), ("unet", 0.6))),
        *(structure("a", method, "loss", dice) for method, dice in (("cubic", 0.9), ("unet", 0.2))),
        *(structure(scan, "cubic", "uneven", dice) for scan, dice in (("a", 0.2), ("b", 0.8))),
        structure("a", "unet", "uneven", 0.6),
        structure("a", "cubic", "absent", ""),
    ]
    write_table(tmp_path / "parts.csv", [{"set": "main", "index": 1, "volume_mm3": 1, **row} for row in rows])
    frame = structures.mean_over_seeds(read_structures(tmp_path / "parts.csv"))
    found = structures.compare_methods(frame, "cubic", {"loss": "#123456"})
    lines = found["lines"]
    assert [line["name"] for line in lines] == ["loss", "uneven", "small gain", "absent"]
    assert [line["effect"] for line in lines] == pytest.approx([-0.7, 0.4, 0.1, 0])
    assert [line["best"] for line in lines] == ["unet", "unet", "unet", ""]
    assert [line["differs"] for line in lines] == [False, True, False, False]
    assert lines[1]["cells"] == [("0.500", "0.250", 2), ("0.600", "0.300", 1)]
    assert lines[3]["cells"] == [("–", "–", 0)] * 2, "a structure that nobody has stays"
    assert lines[0]["colour"] == "#123456"
    assert lines[0]["volume"] == 2
    alone = structures.compare_methods(frame[frame["method"] == "cubic"], "cubic", {})
    assert [line["best"] for line in alone["lines"]] == [""] * 4
