"""The report stage on synthetic inputs: smooth blobs for volumes and drawn numbers for scores."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from iqt.errors import UserError
from iqt.io.files import read_json, read_table, write_json, write_table
from iqt.io.naming import anat, flat, seed_of
from iqt.io.volumes import intensity_scale
from iqt.report.data import read_scores
from iqt.report.figures import drawing, published, scores, slices
from iqt.report.figures import structures as structure_figure
from iqt.report.figures.styles import styles_of
from iqt.report.metrics import FURTHER_METRICS, METRICS, NAMES
from iqt.report.page import structures, viewer
from iqt.report.page import write as page
from iqt.report.page.methods import extremes_lines, further_lines
from iqt.report.panels import PLANES, Panel
from iqt.report.tables import benchmark as tables
from iqt.report.tables import comparisons
from iqt.report.tables import structures as structure_table
from iqt.report.tables.structures import read_structures
from synthetic import CUBIC_UNREAD, METHODS, PUBLISHED, SCANS, UNET_FAILED, extract, plot_all, plot_scan, score

CONTRACT = (
    *("method", "n_subjects", "n_parameters", "nfe", "seconds_per_volume", "psnr", "psnr_lo", "psnr_hi"),
    *("msssim", "msssim_lo", "msssim_hi", "ssim", "hfcorr", "miou", "miou_lo", "miou_hi", "dice"),
)


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
    assert all(path.stat().st_size > 500 for path in plot_scan(run, tmp_path, ("svg",), SCANS[0]))


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


# figures and page


@pytest.mark.slow
def test_redrawing_gives_the_same_bytes(made: Path, drawn: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(made / "metrics", copy / "metrics")
    shutil.copytree(made / "cohort", copy / "cohort", ignore=shutil.ignore_patterns("sub-*"))  # no volumes
    shutil.copytree(made / "tables", copy / "tables")
    for first, second in zip(drawn, plot_all(copy, tmp_path), strict=True):
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
    sheet = slices.Sheet(panel, 1)
    sheet.planes(0, 0, lambda plane: panel.slice("hq", plane))
    for plane, axes in zip(PLANES, sheet.figure.axes, strict=True):
        (image,) = axes.images
        left, right, bottom, top = image.get_extent()
        rows, columns = panel.slice("hq", plane).shape
        tall, wide = panel.pixel(plane)
        assert (top - bottom) / (right - left) == pytest.approx(rows * tall / (columns * wide), rel=0.02)
        assert axes.bbox.height == pytest.approx(axes.get_ylim()[1]), "a unit of the axes must be a pixel"


def test_a_missing_method_is_shown_as_such(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(drawing.STYLE, "svg.fonttype", "none")  # text stays text
    plot_scan(made, tmp_path, ("svg",))
    for name in ("slices", "parcellation"):
        text = (tmp_path / f"{name}.svg").read_text()
        assert "no result: lowfield: the noise is &lt;above&gt; the signal" in text
    assert "PSNR 20.67" in (tmp_path / "slices.svg").read_text()


def test_a_figure_of_some_methods_shows_those_and_names_an_unknown_one(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(drawing.STYLE, "svg.fonttype", "none")
    panel, subjects, out = made / f"metrics/panels/{SCANS[0]}.npz", made / "metrics/subjects.csv", tmp_path / "s.svg"
    all_of_them = Panel(panel).methods
    slices.plot_slices(panel, subjects, "main", [out], all_of_them[:1])
    text = out.read_text()
    assert all_of_them[0] in text
    assert not any(f">{name}<" in text for name in all_of_them[1:])
    with pytest.raises(UserError, match=r"--method unknown: .* has cubic"):
        slices.plot_slices(panel, subjects, "main", [out], ["unknown"])


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
    monkeypatch.setitem(drawing.STYLE, "svg.fonttype", "none")
    published.plot_published(subjects, PUBLISHED, "main", [tmp_path / "published.svg"])
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
    monkeypatch.setitem(drawing.STYLE, "svg.fonttype", "none")
    structure_figure.plot_structures(made / "tables/structures.csv", [tmp_path / "overlap.svg"])
    text = (tmp_path / "overlap.svg").read_text()
    assert all(name in text for name in ("left half", "right half", "nowhere", *METHODS))
    colours = [styles_of(METHODS)[method].colour for method in METHODS]
    assert all(colour.lower() in text for colour in colours), "a method's colour is the same everywhere"
    write_table(tmp_path / "structures.csv", [], structure_table.COLUMNS)
    structure_figure.plot_structures(tmp_path / "structures.csv", [tmp_path / "none.svg"])
    assert "No result was parcellated" in (tmp_path / "none.svg").read_text()


def test_fonts_are_in_the_files(made: Path, tmp_path: Path) -> None:
    scores.plot_metrics(made / "metrics/subjects.csv", "main", [tmp_path / "metrics.pdf", tmp_path / "metrics.svg"])
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


def test_page_tells_the_headers_doubts_before_its_numbers(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "metrics", tmp_path / "metrics")
    run = json.loads((tmp_path / "metrics/run.json").read_text())
    doubts = [f"sub-{number:02d}_T1w.nii.gz: left and right <may> be swapped" for number in range(30)]
    write_json(tmp_path / "metrics/run.json", run | {"cohort": run["cohort"] | {"doubts": doubts}})
    page.write_page(tmp_path / "metrics", made / "tables", [], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    first = text.index("sub-00_T1w.nii.gz: left and right &lt;may&gt; be swapped")
    assert first < text.index("<table")
    shown = sum(doubt.replace("<", "&lt;").replace(">", "&gt;") in text for doubt in doubts)
    assert f"And {30 - shown} more" in text


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
    rows[2] |= {"psnr": "23", "psnr_shared": "19.5"}  # ahead, but for what others lack
    write_table(tmp_path / "tables/benchmark.csv", rows)
    page.write_page(made / "metrics", tmp_path / "tables", [], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert re.findall(r"<li>(\w+) does not exceed cubic interpolation", text) == ["diffusion_iqt"]
    run = read_json(made / "metrics/run.json")
    run["methods"]["diffusion_iqt"] |= {"kind": "linear", "model": None}
    shutil.copytree(made / "metrics", tmp_path / "metrics")
    write_json(tmp_path / "metrics/run.json", run)
    page.write_page(tmp_path / "metrics", tmp_path / "tables", [], tmp_path / "report.html")
    assert "does not exceed" not in (tmp_path / "report.html").read_text(), "that linear does not is no warning"


def test_a_figure_of_another_ending_is_refused_and_nothing_written(made: Path, tmp_path: Path) -> None:
    for name in ("metrics", "metrics.foo"):
        with pytest.raises(UserError, match=rf"{name}: a figure's name must end in \.png, \.svg, \.pdf"):
            scores.plot_metrics(made / "metrics/subjects.csv", "main", [tmp_path / name])
    assert not list(tmp_path.iterdir())


def test_page_leaves_out_the_tables_of_a_set_that_the_run_no_longer_has(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "tables", tmp_path / "tables")
    (tmp_path / "tables/gone").mkdir()
    rows = read_table(tmp_path / "tables/benchmark.csv")
    write_table(tmp_path / "tables/gone/benchmark.csv", [row | {"set": "gone"} for row in rows])
    page.write_page(made / "metrics", tmp_path / "tables", [], tmp_path / "report.html")
    assert "Low-field set gone" not in (tmp_path / "report.html").read_text()
    (tmp_path / "tables/benchmark.csv").unlink()
    with pytest.raises(UserError, match=r"no benchmark\.csv of a low-field set of this run"):
        page.write_page(made / "metrics", tmp_path / "tables", [], tmp_path / "report.html")


def test_page_says_when_the_parcellator_tells_nothing_apart(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "tables", tmp_path / "tables")
    told = "<li>The parcellator reads every method&#39;s result like its reference"
    page.write_page(made / "metrics", tmp_path / "tables", [], tmp_path / "report.html")
    assert told not in (tmp_path / "report.html").read_text()
    rows = [row | {"miou": "0.9999"} for row in read_table(tmp_path / "tables/benchmark.csv")]
    write_table(tmp_path / "tables/benchmark.csv", rows)
    page.write_page(made / "metrics", tmp_path / "tables", [], tmp_path / "report.html")
    assert told in (tmp_path / "report.html").read_text()


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


def test_page_says_how_well_the_parcellator_reads(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "metrics", tmp_path / "metrics")
    rows = [(scan, name, dice) for scan, low in (("a", 0.5), ("b", 0.7)) for name, dice in (("one", 0.9), ("two", low))]
    columns = ("scan", "name", "dice")
    table = [dict(zip(columns, row, strict=True)) | {"status": "ok", "volume_reference_mm3": 1000} for row in rows]
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
    assert "0 of 3 (3 absent)" in absent[2]
    extremes = text[text.index('id="people"') : text.index('id="structures"')]
    assert re.search(
        r">PSNR \(dB\)</th><td class=\"text\">cubic</td><td data-value=\"20.67\">20.67<small>sub-test003", extremes
    )
    assert "commit <code>0123456789ab</code> with local changes" in text
    for name in (*METRICS, *FURTHER_METRICS):
        assert extremes.count(f">{NAMES[name].replace('&', '&amp;')}</th>") == len(METHODS), (
            "every metric of the tables"
        )
    worst = re.search(r">NMSE</th><td class=\"text\">cubic</td>(.*?)</tr>", extremes)[1]
    assert re.findall(r"<small>([\w-]+)", worst) == SCANS, "of errors the smallest is best"
    nothing = pd.DataFrame({"scan": ["sub-1"], "person": ["sub-1"], "method": ["unet"], "psnr": [np.nan]})
    assert extremes_lines(nothing, ["psnr"])[0]["cells"] == [("", "–")] * 3, "who has no result keeps a line"


def test_page_says_where_methods_have_results_of_different_people(made: Path, tmp_path: Path) -> None:
    page.write_page(made / "metrics", made / "tables", [], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    benchmark = text[text.index('id="benchmark"') : text.index('id="similarity"')]
    unet = benchmark[benchmark.index('"row">unet') :].partition("</tr>")[0]
    assert '<td data-value="2">2 of 3<small>1 failed</small></td>' in unet
    assert unet.count("<small>2 of 3</small>") == len(METRICS)
    assert "<small>1 of 3</small>" in unet, "the common mIoU"
    shared = benchmark[benchmark.index("Not every method has a result of everybody") :]
    line = re.search(r"<tr><th scope=\"row\">PSNR \(dB\)</th>(.*?)</tr>", shared)[1]
    assert re.findall(r">([^<>]+)<", line) == ["2", "20.17", "21.17", "22.17", "23.17"]
    structure = text[text.index('id="structures"') : text.index('id="volumetry"')]
    assert structure.count("scans differ</small>") == 2
    assert "<small>0.600</small><small>3 of 3</small>" in structure
    assert ">nowhere</th>" in structure
    assert (
        "differ between methods: cubic 2, unet 2, diffusion_iqt 3, diffusion_iqt_mean 3 (all methods have 1) in" in text
    )
    assert "(all methods have 1) in left half, right half.</strong>" in text
    absent = structure[structure.index(">nowhere</th>") :].partition("</tr>")[0]
    assert absent.count("–</td>") == 2
    assert absent.count("<small>0 of 3</small>") == len(METHODS)


def test_page_shows_how_far_the_spread_can_be_trusted_and_seams(made: Path, drawn: list[Path], tmp_path: Path) -> None:
    pngs = [path for path in drawn if path.name == "reliability.png"]
    page.write_page(made / "metrics", made / "tables", pngs, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    spread = text[text.index('id="spread"') : text.index('id="seams"')]
    lines = [re.findall(r">([^<>]+)<", f">{line}") for line in re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", spread)]
    assert lines == [
        ["diffusion_iqt_mean", "2 of 3", "4", "0.20", "0.50", "25 %", "40 %", "70 %", "80 %"],
        ["diffusion_iqt_mean, calibrated", "2 of 3", "4", "0.30", "1.00", "40 %", "55 %", "85 %", "95 %"],
    ]
    assert f"<li>{SCANS[1]} diffusion_iqt_mean: the spread is 0 &amp; so on</li>" in spread
    assert "unet:" not in spread, "it draws one sample, so its failure is none of the spread's"
    assert 'class="reliability"' in spread
    seams = text[text.index('id="seams"') : text.index('id="structures"')]
    lines = [re.findall(r">([^<>]+)<", f">{line}") for line in re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", seams)]
    assert ["diffusion_iqt", "patchs", "3 of 3", "1", "1.30", "1.50", "2 of 3"] not in lines
    assert ["diffusion_iqt", "patches", "3 of 3", "1", "1.30", "1.50", "2 of 3"] in lines
    assert ["unet", "tiles", "0 of 3", "1", "–", "–", "–"] in lines
    shutil.copytree(made / "metrics", tmp_path / "metrics", ignore=shutil.ignore_patterns("calibration", "seams"))
    page.write_page(tmp_path / "metrics", made / "tables", [], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert 'id="spread"' not in text
    assert 'id="seams"' not in text


@pytest.mark.parametrize(
    ("sets", "heading"),
    [
        ({"main": {"thickness": 3}}, "Low-field simulation"),
        ({"main": {"registration": "rigid"}}, "Real low-field scans"),
        ({"main": {"registration": "rigid"}, "noisy": {"thickness": 3}}, "Low-field sets"),
    ],
)
def test_the_heading_of_the_sets_says_what_they_are(made: Path, tmp_path: Path, sets: dict, heading: str) -> None:
    shutil.copytree(made / "metrics", tmp_path / "metrics")
    run = json.loads((tmp_path / "metrics/run.json").read_text())
    real = {"residual_mm": 1.0, "largest_residual_mm": 2.0, "misaligned": []}
    run["lowfield"] = {name: {**(real if "registration" in one else {}), **one} for name, one in sets.items()}
    write_json(tmp_path / "metrics/run.json", run)
    page.write_page(tmp_path / "metrics", made / "tables", [], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert re.findall(r"<h3>(Low-field s\w+|Real low-field scans)</h3>", text) == [heading]


def test_page_says_when_nobody_named_the_reference_or_the_people(made: Path, tmp_path: Path) -> None:
    panels = [made / f"metrics/panels/{SCANS[0]}.npz"]
    page.write_page(made / "metrics", made / "tables", [], tmp_path / "report.html", panels=panels)
    text = (tmp_path / "report.html").read_text()
    assert "against cubic, the reference that the configuration names" in text
    assert "The people are the first by name, not chosen by result" in text
    shutil.copytree(made / "tables", tmp_path / "tables")
    comparisons.write_statistics(made / "metrics/subjects.csv", tmp_path / "tables", "main", None, 500, 7)
    page.write_page(
        made / "metrics", tmp_path / "tables", [], tmp_path / "report.html", panels=panels, people_named=True
    )
    text = (tmp_path / "report.html").read_text()
    assert "against cubic, <strong>the first method, since the configuration names no reference</strong>" in text
    assert "it was not named before the results were known" in text
    assert "The people are those whom the configuration names" in text


def test_page_shows_whose_labels_could_not_be_compared(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "metrics", tmp_path / "metrics")
    whole = {"scan": SCANS[0], "status": "ok", "name": "one", "dice": 0.9, "volume_reference_mm3": 1000}
    broken = {"scan": SCANS[1], "status": "dseg.nii.gz: not readable as an image <so it says>"}
    write_table(tmp_path / "metrics/parcellator.csv", [whole, broken], list(whole))
    page.write_page(tmp_path / "metrics", made / "tables", [], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "mean Dice <strong>0.900</strong>" in text
    assert "(1 of 3 could be compared)" in text
    assert f"<li>{SCANS[1]}: dseg.nii.gz: not readable as an image &lt;so it says&gt;</li>" in text
    write_table(tmp_path / "metrics/parcellator.csv", [broken], list(whole))
    page.write_page(tmp_path / "metrics", made / "tables", [], tmp_path / "report.html")
    assert "(0 of 3 could be compared)" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("row", read_table(PUBLISHED), ids=lambda row: f"{row['method']}-{row['definition']}")
def test_every_published_figure_has_a_source_and_a_definition(row: dict[str, str]) -> None:
    assert re.fullmatch(r".+ \d{4}, arXiv \d{4}\.\d{5}", row["source"])
    definition = published.DEFINITIONS[row["definition"]]
    assert definition.detail
    assert row["confirmed"] in ("yes", "no")
    assert row["data"]
    assert row["definition"].startswith(row["metric"])
    assert 0 < float(row["value"]) < (60 if row["metric"] == "psnr" else 1)
