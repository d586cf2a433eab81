"""The page of a run: whole, offline, and telling what a reader must know before its numbers."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from iqt.errors import UserError
from iqt.io.files import read_json, read_table, write_json, write_table
from iqt.report.figures import scores
from iqt.report.metrics import FURTHER_METRICS, METRICS, NAMES
from iqt.report.page import structures, viewer
from iqt.report.page import write as page
from iqt.report.page.methods import extremes_lines
from iqt.report.panels import Panel
from iqt.report.tables import benchmark as tables
from iqt.report.tables import comparisons
from synthetic import CUBIC_UNREAD, METHODS, SCANS, extract


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


def test_page_says_how_well_the_parcellator_reads(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "metrics", tmp_path / "metrics")
    rows = [(scan, name, dice) for scan, low in (("a", 0.5), ("b", 0.7)) for name, dice in (("one", 0.9), ("two", low))]
    columns = ("scan", "name", "dice")
    table = [dict(zip(columns, row, strict=True)) | {"status": "ok", "volume_reference_mm3": 1000} for row in rows]
    write_table(tmp_path / "metrics/parcellator.csv", table)
    lut = tmp_path / "lut.tsv"
    write_table(
        lut, [{"index": 1, "name": "left half", "color": "#4e79a7"}, {"index": 2, "name": "two", "color": "#ff0000"}]
    )
    page.write_page(tmp_path / "metrics", made / "tables", [], tmp_path / "report.html", lut)
    text = (tmp_path / "report.html").read_text()
    assert "mean Dice <strong>0.750</strong>" in text
    judged = text[text.index('id="judge"') : text.index('id="run"')]
    assert judged.index("two</th>") < judged.index("one</th>"), "worst first"
    assert 'style="background: #ff0000"' in judged
    assert 'style="background: #4e79a7"' in text
    page.write_page(made / "metrics", made / "tables", [], tmp_path / "report.html")
    assert 'id="judge"' not in (tmp_path / "report.html").read_text()


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


def test_effects_and_the_judges_mean_count_a_person_once(tmp_path: Path) -> None:
    """One person with three scans that gain 0.3, one with a single scan that gains 0.1."""
    gains = {"sub-a_ses-1": 0.3, "sub-a_ses-2": 0.3, "sub-a_ses-3": 0.3, "sub-b": 0.1}
    held = pd.DataFrame(
        {"scan": scan, "method": method, "dice": 0.5 + more}
        for scan, gain in gains.items()
        for method, more in (("cubic", 0), ("unet", gain))
    )
    assert structures._effect(held, "cubic") == (pytest.approx(0.2), "unet")
    rows = [
        {"scan": scan, "status": "ok", "name": "thalamus", "dice": 0.5 + gain, "volume_reference_mm3": 1}
        for scan, gain in gains.items()
    ]
    write_table(tmp_path / "parcellator.csv", rows)
    told = structures.judge(tmp_path, {})
    assert (told["n_scans"], told["dice"]) == (4, pytest.approx(0.7))
