"""Tables as spreadsheets write them: read, or refused with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqt.cohort.split import split_scans
from iqt.config import Split
from iqt.errors import UserError
from iqt.io.files import read_table, read_text

IDS = [f"sub-{number:03d}" for number in range(1, 7)]
TEXT = "participant_id\tsite\n" + "".join(f"{name}\tKöln\n" for name in IDS)
READ = {
    "utf-8": TEXT.encode(),
    "BOM": TEXT.encode("utf-8-sig"),
    "utf-16": TEXT.encode("utf-16"),
    "Windows": TEXT.encode("cp1252"),
    "CRLF": TEXT.replace("\n", "\r\n").encode(),
    "empty lines": TEXT.replace("\n", "\n\n").encode(),
    "blank row": (TEXT + "\t\t\n").encode(),
    "commas": TEXT.replace("\t", ",").encode(),
    "semicolons": TEXT.replace("\t", ";").encode(),
    "quotes": TEXT.replace("Köln", '"Köln"').encode(),
    "blanks": TEXT.replace("\t", " \t ").encode(),
    "trailing tab": TEXT.replace("\n", "\t\n").encode(),
}
REFUSED = {
    "binary": (b"\x00\x01\x02", "holds no text"),
    "half a character": (TEXT.encode("utf-16")[:-1], "UTF-16"),
    "undefined": (b"participant_id\tsite\nsub-1\t\x81\x8d\xff\n", "holds no text in UTF-8"),
    "long row": ((TEXT + "sub-9\tRome\tItaly\n").encode(), "line 8 has 3 cells, its heading 2"),
    "column twice": (TEXT.replace("site", "participant_id").encode(), "named twice"),
    "open quote": ((TEXT + 'sub-9\t"Rome\n').encode(), "line 8 is not readable"),
    "no column": (TEXT.replace("site", "place").encode(), "column site is missing"),
    "nothing": (b"", "column participant_id, site is missing"),
    "short row": ((TEXT + "sub-9\n").encode(), "line 8 ends before its column site"),
}


@pytest.mark.parametrize("case", READ)
def test_a_table_is_read_however_a_spreadsheet_wrote_it(tmp_path: Path, case: str) -> None:
    (tmp_path / "t.tsv").write_bytes(READ[case])
    rows = read_table(tmp_path / "t.tsv", required=("participant_id", "site"))
    assert rows == [{"participant_id": name, "site": "Köln"} for name in IDS]


@pytest.mark.parametrize("case", REFUSED)
def test_a_table_that_cannot_be_read_is_refused_with_file_and_line(tmp_path: Path, case: str) -> None:
    content, words = REFUSED[case]
    (tmp_path / "t.tsv").write_bytes(content)
    with pytest.raises(UserError) as error:
        read_table(tmp_path / "t.tsv", required=("participant_id", "site"))
    assert words in str(error.value)
    assert "t.tsv" in str(error.value)


def test_cells_that_a_row_lacks_are_empty_where_nobody_needs_them(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("participant_id\tsex\tsite\nsub-1\tF\n")
    assert read_table(tmp_path / "t.tsv", required=("sex",)) == [{"participant_id": "sub-1", "sex": "F", "site": ""}]
    (tmp_path / "ids.txt").write_bytes("100307\n100408\n".encode("utf-16"))
    assert read_text(tmp_path / "ids.txt").split() == ["100307", "100408"]


def test_a_join_that_matches_nobody_or_not_everybody_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("participant_id\tsex\n" + "".join(f"sub-{n}\tF\n" for n in range(1, 7)))
    split = Split(train=2, val=1, test=1, table=str(table), stratify=("sex",))
    with pytest.raises(UserError, match=r"none of its 6 people is among the 6.*it has sub-1, the source sub-001"):
        split_scans(IDS, split, 1)
    table.write_text("participant_id\tsex\n" + "".join(f"{name}\tF\n" for name in IDS[:4]))
    split_scans(IDS, split, 1)
    assert "no row of 2 of the source's 6 people (sub-005, sub-006)" in capsys.readouterr().err
    table.write_text("participant_id\tsex\nsub-001\tF\n\tM\n")
    with pytest.raises(UserError, match="row 2 below the heading has no participant_id"):
        split_scans(IDS, split, 1)


def test_a_family_that_is_not_known_is_nobodys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("participant_id\tfamily\n" + "".join(f"{name}\tn/a\n" for name in IDS))
    found = split_scans(IDS, Split(train="rest", val=1, test=2, table=str(table), family="family"), 1)
    assert {name: len(scans) for name, scans in found.items()} == {"train": 3, "val": 1, "test": 2}
    assert "who count as a family each" in capsys.readouterr().err
