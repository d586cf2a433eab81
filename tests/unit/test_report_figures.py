"""Figures of the report: they redraw from metrics alone, and say what they show."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from iqt.errors import UserError
from iqt.io.files import read_table, write_table
from iqt.report.figures import drawing, published, scores, slices
from iqt.report.figures import structures as structure_figure
from iqt.report.figures.styles import styles_of
from iqt.report.panels import PLANES, Panel
from iqt.report.tables import benchmark as tables
from iqt.report.tables import comparisons
from iqt.report.tables import structures as structure_table
from synthetic import METHODS, PUBLISHED, SCANS, extract, plot_all, plot_scan


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
    assert published.why_not(subjects, "main", "miou_fastsurfer") == "it was read by another parcellator"
    unread = [row | {"miou": "", "parcellator": "none"} for row in read_table(subjects)]
    write_table(tmp_path / "unread.csv", unread)
    assert published.why_not(tmp_path / "unread.csv", "main", "miou_fastsurfer") == "nothing was parcellated"
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
    assert text.count("cubic (here, ") == 1, "PSNR min-max"
    assert "nothing of ours is drawn: it has fewer than 5 scales" in text
    assert "nothing of ours is drawn: it was read by another parcellator" in text
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


@pytest.mark.parametrize("row", read_table(PUBLISHED), ids=lambda row: f"{row['method']}-{row['definition']}")
def test_every_published_figure_has_a_source_and_a_definition(row: dict[str, str]) -> None:
    assert re.fullmatch(r".+ \d{4}, arXiv \d{4}\.\d{5}", row["source"])
    definition = published.DEFINITIONS[row["definition"]]
    assert definition.detail
    assert row["confirmed"] in ("yes", "no")
    assert row["data"]
    assert row["definition"].startswith(row["metric"])
    assert 0 < float(row["value"]) < (60 if row["metric"] == "psnr" else 1)
