"""Where methods have results of different people: what is bold, what is said, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqt.io.files import read_table, write_table
from iqt.report.metrics import FURTHER_METRICS, METRICS
from iqt.report.tables import benchmark as tables
from iqt.report.tables import structures as structure_table
from iqt.report.tables.structures import NEEDED
from synthetic import METHODS, SCANS, score

LOST = dict.fromkeys((*METRICS, *FURTHER_METRICS), "") | {"status": "enhanced: diverged"}


def written(folder: Path, rows: list[dict]) -> tuple[dict[str, dict[str, str]], dict[str, str], str]:
    """benchmark.csv by method, the Markdown's lines by method, and the whole Markdown."""
    write_table(folder / "subjects.csv", rows)
    tables.write_tables(folder / "subjects.csv", folder, "main", 100, 1)
    text = (folder / "benchmark.md").read_text()
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("|")}
    return {row["method"]: row for row in read_table(folder / "benchmark.csv")}, lines, text


def test_losing_the_hard_scan_makes_nobody_best(tmp_path: Path) -> None:
    """`unet` is worse on everybody, but failed on the hard one, so that its plain mean is higher."""
    hard = {"sub-a": 30.0, "sub-b": 28.0, "sub-c": 10.0}
    rows = [score(scan, "cubic", 0, psnr=psnr) for scan, psnr in hard.items()]
    rows += [score(scan, "unet", 0, **({"psnr": psnr - 1} if scan != "sub-c" else LOST)) for scan, psnr in hard.items()]
    found, lines, text = written(tmp_path, rows)
    assert float(found["unet"]["psnr"]) > float(found["cubic"]["psnr"])
    assert (float(found["cubic"]["psnr_shared"]), float(found["unet"]["psnr_shared"])) == (29, 28)
    assert (found["cubic"]["psnr_n"], found["unet"]["psnr_n"], found["unet"]["psnr_n_shared"]) == ("3", "2", "2")
    assert "| **22.67**" in lines["cubic"]
    assert "**28.00**" not in lines["unet"]
    assert "28.00 (27.00–29.00) [2 of 3]" in lines["unet"]
    assert "Over the 2 people whose scans all methods have: PSNR (dB) cubic 29.00, unet 28.00; MS-SSIM" in text
    assert "Over the 2 people" in tables.format_terminal(tmp_path / "benchmark.csv")
    latex = (tmp_path / "benchmark.tex").read_text()
    assert r"\textbf{22.67}" in latex
    assert "[2 of 3]" in latex
    assert "Over the 2 people whose scans all methods have" in latex


def test_sessions_of_one_person_are_compared_alike(tmp_path: Path) -> None:
    """Nobody is missing, but of one person `unet` has the easy session alone."""
    easy, hard = 30.0, 10.0
    rows = [
        score(f"{person}_{session}", "cubic", 0, psnr=psnr)
        for person in ("sub-a", "sub-b")
        for session, psnr in (("ses-1", easy), ("ses-2", hard))
    ]
    rows += [row | {"method": "unet", "psnr": row["psnr"] - 1} for row in rows]
    rows[-1] |= LOST
    found, lines, text = written(tmp_path, rows)
    assert found["unet"]["psnr_n"] == found["cubic"]["psnr_n"] == "2"
    assert float(found["unet"]["psnr"]) > float(found["cubic"]["psnr"])
    assert float(found["cubic"]["psnr_shared"]) == (20 + 30) / 2
    assert "**20.00**" in lines["cubic"]
    assert "Over the 2 people whose scans all methods have: PSNR (dB) cubic 25.00, unet 24.00." in text


def test_nobody_is_bold_where_no_scan_is_shared_or_one_method_is_alone(tmp_path: Path) -> None:
    rows = [score("sub-a", "cubic", 0), score("sub-b", "cubic", 0, **LOST)]
    rows += [score("sub-a", "unet", 0, **LOST), score("sub-b", "unet", 0)]
    _, lines, text = written(tmp_path, rows)
    assert "**" not in lines["cubic"] + lines["unet"]
    assert "No scan has a result of every method, so that no means compare: PSNR (dB), MS-SSIM" in text
    rows = [score(scan, method, 0, **(LOST if method == "unet" else {})) for scan in SCANS for method in METHODS[:2]]
    found, lines, text = written(tmp_path, rows)
    assert "**" not in lines["cubic"] + lines["unet"], "nothing to be better than"
    assert found["cubic"]["psnr_n_shared"] == "3", "a method that failed on everybody takes nobody from the others"
    assert "whose scans all methods have" not in text
    assert "– [0 of 3]" in lines["unet"]


def test_a_table_names_twenty_failures_and_counts_the_rest(tmp_path: Path) -> None:
    for lost, end in ((20, "(enhanced: diverged)."), (25, "(enhanced: diverged); and 5 more.")):
        rows = [score(f"sub-{number:02d}", "unet", 0, **(LOST if number < lost else {})) for number in range(30)]
        _, _, text = written(tmp_path, rows)
        assert text.count("(enhanced: diverged)") == 20
        assert text.rstrip().endswith(end)


@pytest.mark.parametrize(
    ("overlaps", "blind"),
    [((1, 1), True), ((0.9995, 1, ""), True), ((1, 0.95), False), ((0.998, 0.998), False), ((1,), False)],
)
def test_a_parcellator_that_tells_nothing_apart_is_named(tmp_path: Path, overlaps: tuple, blind: bool) -> None:
    read = dict(zip(METHODS, overlaps, strict=False))
    rows = [score(scan, method, 0, miou=miou) for scan in SCANS for method, miou in read.items()]
    _, _, text = written(tmp_path, rows)
    assert ("mIoU and Dice tell nothing here" in text) is blind
    assert "tell nothing" not in (tmp_path / "similarity.md").read_text()


def test_where_everybody_has_everything_the_tables_say_nothing_of_it(tmp_path: Path) -> None:
    rows = [score(scan, method, number) for number, scan in enumerate(SCANS) for method in METHODS]
    found, lines, text = written(tmp_path, rows)
    for row in found.values():
        assert {row[f"{name}_n"] for name in METRICS} == {"3"}
        assert all(row[name] == row[f"{name}_shared"] for name in (*METRICS, *FURTHER_METRICS))
    assert not any(word in text for word in ("all methods have:", "[", "Failures"))
    assert lines["diffusion_iqt_mean"].count("**") == 2 * (len(METRICS) + 1), "the common mIoU as well"
    assert "| 3 of 3 | 0 |" in lines["cubic"]


def test_miou_common_is_over_people_and_says_how_many(tmp_path: Path) -> None:
    """Two sessions of one person, one of another; the parcellator fails on a third person's result."""
    values = {"sub-a_ses-1": 0.2, "sub-a_ses-2": 0.4, "sub-b": 0.9, "sub-c": 0.5}
    rows = [score(scan, method, 0, miou=miou) for scan, miou in values.items() for method in METHODS[:2]]
    rows[-1] |= {"miou": 0, "status": "parcellation: no white matter"}
    found, lines, _ = written(tmp_path, rows)
    assert float(found["cubic"]["miou_common"]) == pytest.approx((0.3 + 0.9) / 2)
    assert found["cubic"]["miou_common_n"] == "2"
    assert "**0.600** [2 of 3]" in lines["cubic"]
    assert float(found["unet"]["miou"]) == pytest.approx((0.3 + 0.9 + 0) / 3), "a failure counts as 0 in the other"


def test_the_best_structure_is_so_on_the_scans_that_all_have(tmp_path: Path) -> None:
    def structure(scan: str, method: str, name: str, dice: object) -> dict:
        index = ["one", "two"].index(name) + 1
        return dict(zip(NEEDED, ("main", scan, method, index, name, dice, dice, 9000, 8000), strict=True))

    rows = [structure(scan, "cubic", "one", dice) for scan, dice in (("sub-a", 0.9), ("sub-b_ses-1", 0.1))]
    rows += [structure("sub-a", "unet", "one", 0.8)]
    rows += [structure(scan, method, "two", 0.5) for scan in ("sub-a", "sub-b_ses-1") for method in ("cubic", "unet")]
    rows += [structure("sub-b_ses-2", method, "two", 0.7) for method in ("cubic", "unet")]
    write_table(tmp_path / "parts.csv", rows)
    structure_table.write_structures(
        tmp_path / "parts.csv", tmp_path, "main", ["sub-a", "sub-b"], ["cubic", "unet"], 100, 1
    )
    found = {(row["name"], row["method"]): row for row in read_table(tmp_path / "structures.csv")}
    one = found["one", "cubic"]
    assert (one["n"], one["n_people"], one["n_scans"], one["n_scans_shared"]) == ("2", "2", "2", "1")
    assert float(one["dice_shared"]) == 0.9
    text = (tmp_path / "structures.md").read_text()
    assert "| one | cubic | 2 of 2 | **0.500" in text, "0.9 against 0.8 where both have a result"
    assert "| one | unet | 1 of 2 (1 missing) | 0.800 |" in text
    assert "differ between methods: cubic 2, unet 1 (all methods have 1) in one." in text
    assert "| two | cubic | 2 of 2 (3 scans) |" in text


def test_one_lost_scan_is_one_sentence_for_a_hundred_structures(tmp_path: Path) -> None:
    def line(method: str, n: int) -> dict[str, str]:
        return {"method": method, "n_scans": str(n), "n_scans_shared": "2"}

    rows = [
        {"index": str(index), "name": f"s{index}", **line(method, n)}
        for index in range(100)
        for method, n in (("cubic", 3), ("unet", 2))
    ]
    (sentence,) = structure_table.structure_differences(rows)
    assert sentence.endswith(
        "cubic 3, unet 2 (all methods have 2) in s0, s1, s2, s3, s4, s5, s6, s7, s8, s9 and 90 more."
    )
    assert structure_table.structure_differences([row | {"n_scans": "2"} for row in rows]) == []
