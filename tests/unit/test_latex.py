"""LaTeX tables without a LaTeX: environments, columns and special characters, as a compiler would trip over them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from iqt.io.files import write_table
from iqt.report.tables import benchmark as tables
from iqt.report.tables import comparisons
from iqt.report.tables import structures as structure_table
from iqt.report.tables.formats import latex, markdown
from iqt.report.tables.structures import NEEDED
from synthetic import METHODS, SCANS, score

NASTY = r"Left_{thal} & 50 % #1 $x$ ~^\cmd | <b>"


def check(text: str) -> tuple[list[list[str]], str]:
    """The rows of a table as cells, and its environment; asserts what a compiler needs."""
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    begun, ended = re.findall(r"\\begin\{(\w+)\}", code), re.findall(r"\\end\{(\w+)\}", code)
    assert begun == ended
    assert len(begun) == 1
    (spec,) = re.findall(r"\\begin\{\w+\}\{([lrc]+)\}", code)
    bare = re.sub(r"\\\\|\\[%_&#${}]", "", code)
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0, "braces"
    rows = [line.removesuffix(r"\\").strip() for line in code.splitlines() if line.endswith(r"\\")]
    cells = [re.split(r"(?<!\\)&", row) for row in rows]
    assert {len(row) for row in cells} == {len(spec)}, "columns"
    for row in rows:
        rest = re.sub(r"\\(?:[%_&#${}]|text(?:bf|asciitilde|asciicircum|backslash)\b|pm\b|ge\b)", "", row)
        assert "\\" not in rest, "an unknown command"
        assert not re.search(r"[%_#~^]", re.sub(r"\$[^$]*\$", "", rest)), rest
        assert rest.count("$") % 2 == 0
        assert rest.isascii(), "characters that a plain LaTeX has no glyph for"
    for line in text.splitlines():
        assert line.startswith(("%", "\\")) or line.endswith(r"\\"), f"text outside the table: {line}"
    return cells, begun[0]


def test_every_table_of_a_run_can_be_set(made: Path) -> None:
    files = sorted((made / "tables").glob("*.tex"))
    assert [path.stem for path in files] == ["benchmark", "similarity", "statistics", "structures"]
    kinds = {path.stem: check(path.read_text()) for path in files}
    assert [len(kinds[name][0]) for name in ("benchmark", "similarity")] == [1 + len(METHODS)] * 2
    assert {name: kind for name, (_, kind) in kinds.items()} == {
        **dict.fromkeys(("benchmark", "similarity", "statistics"), "tabular"),
        "structures": "longtable",
    }


@pytest.mark.parametrize("bold", [False, True])
def test_names_may_hold_any_character(bold: bool) -> None:
    def cells(strong):
        return [["structure", "value"], [strong(NASTY) if bold else NASTY, strong("0.5")]]

    rows, _ = check(latex(cells, NASTY, f"{NASTY}. {NASTY}."))
    expected = r"Left\_\{thal\} \& 50 \% \#1 \$x\$ \textasciitilde{}\textasciicircum{}\textbackslash{}cmd | $<$b$>$"
    assert rows[1][0].strip() == (rf"\textbf{{{expected}}}" if bold else expected)
    assert rows[1][1].strip() == r"\textbf{0.5}"
    table = [line for line in markdown(cells, "", "").splitlines() if line.startswith("|")]
    assert {len(re.split(r"(?<!\\)\|", line)) for line in table} == {4}, "a bar in a name is no column"


def test_what_stands_beside_numbers_has_a_glyph() -> None:
    cells = [["method", "PSNR"], ["unet", "30.1 ± 0.2"]]
    rows, _ = check(latex(lambda strong: cells, "title", "note."))
    assert rows[1][1].strip() == r"30.1 $\pm$ 0.2"


def test_failures_with_special_characters_stay_in_the_comments(tmp_path: Path) -> None:
    empty = dict.fromkeys(("psnr", "msssim", "ssim", "hfcorr", "miou", "dice"), "")
    rows = [score(scan, method, 0) for scan in SCANS for method in METHODS]
    rows[1] |= {"status": NASTY, **empty}
    write_table(tmp_path / "subjects.csv", rows)
    tables.write_tables(tmp_path / "subjects.csv", tmp_path, "main", 100, 1)
    comparisons.write_statistics(tmp_path / "subjects.csv", tmp_path, "main", None, 100, 1)
    parts = [dict(zip(NEEDED, ("main", SCANS[0], "unet", 1, NASTY, 0.5, 0.5, 9000, 8000), strict=True))]
    write_table(tmp_path / "parts.csv", parts)
    structure_table.write_structures(tmp_path / "parts.csv", tmp_path, "main", SCANS, METHODS, 100, 1)
    for name in ("benchmark", "similarity", "statistics", "structures"):
        check((tmp_path / f"{name}.tex").read_text())
