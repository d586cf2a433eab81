"""The page in a real browser: it asks for nothing, sorts, and shows what the panels hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from browser import Browser, program
from iqt.report.page import write as page
from iqt.report.panels import PLANES, Panel
from synthetic import METHODS, SCANS


@pytest.fixture(scope="module")
def opened(made: Path, drawn: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The whole page in a real browser."""
    path = program()
    folder = tmp_path_factory.mktemp("browser")
    pngs = [path for path in drawn if path.suffix == ".png"]
    panels = [made / f"metrics/panels/{scan}.npz" for scan in SCANS]
    page.write_page(made / "metrics", made / "tables", pngs, folder / "report.html", panels=panels)
    browser = Browser(path, folder / "profile")
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


CELLS = ("0.9", "–", "<0.001", "inf", "1,234.5 (1–2)", "n/a", "0.001", "-inf", "−0.25 (a to b)", "")
CELLS += ("+12", "nan", "1e-5")
SORTED = ["-inf", "−0.25 (a to b)", "1e-5", "<0.001", "0.001", "0.9", "+12", "1,234.5 (1–2)", "inf"]


@pytest.fixture
def table(opened: Browser) -> Iterator[Browser]:
    """The page's own script on a table of every kind of cell, numbers first and text second."""
    cells = [(cell.replace("<", "&lt;"), cell and f"t{len(cell)}") for cell in CELLS]
    rows = "".join(f"<tr><th>r</th><td>{number}</td><td>{word}</td></tr>" for number, word in cells)
    head = "<tr><th>name</th><th>value</th><th class='text'>word</th></tr>"
    script = (Path(page.__file__).parent / "page.js").read_text()
    made = f"<table class='sortable' id='cells'><thead>{head}</thead><tbody>{rows}</tbody></table>"
    opened.evaluate(
        "document.querySelectorAll('table.sortable').forEach(one => one.classList.replace('sortable', 'kept'))"
    )
    opened.evaluate(f"document.body.insertAdjacentHTML('beforeend', {json.dumps(made)})")
    opened.evaluate(f"(() => {{ {script} }})()")
    yield opened
    opened.evaluate("document.getElementById('cells').remove()")
    opened.evaluate("document.querySelectorAll('table.kept').forEach(one => one.classList.replace('kept', 'sortable'))")


def column(opened: Browser, number: int) -> list[str]:
    rows = "[...document.querySelector('#cells tbody').rows]"
    return opened.evaluate(f"{rows}.map(row => row.cells[{number}].textContent)")


def test_numbers_sort_by_size_and_what_is_missing_is_last_both_ways(table: Browser) -> None:
    click = "document.querySelectorAll('#cells thead th')[{}].click()"
    none = ["–", "n/a", "", "nan"]
    table.evaluate(click.format(1))
    assert column(table, 1) == [*SORTED[::-1], *none], "large numbers first, as for a score"
    table.evaluate(click.format(1))
    assert column(table, 1) == [*SORTED, *none]
    table.evaluate(click.format(2))
    assert column(table, 2)[-1] == "", "text as well"
    assert column(table, 2)[0] == "t1"
    table.evaluate(click.format(2))
    assert column(table, 2)[-1] == ""


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
