"""The split: reproducible, by person and family, in proportion, and without leaks."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from iqt.cohort.participants import write_participants
from iqt.cohort.split import check_leaks, split_scans
from iqt.config import Split
from iqt.errors import UserError
from iqt.io.files import write_json, write_table
from iqt.io.naming import anat

PEOPLE = [f"sub-{number:03d}" for number in range(100)]


def test_numbers_are_kept_and_the_seed_decides():
    split = Split(train=60, val=10, test=20)
    first = split_scans(PEOPLE, split, 1)
    assert {name: len(scans) for name, scans in first.items()} == {"train": 60, "val": 10, "test": 20}
    assert first == split_scans(reversed(PEOPLE), split, 1), "the order of the list does not matter"
    assert first != split_scans(PEOPLE, split, 2)
    chosen = [scan for scans in first.values() for scan in scans]
    assert len(set(chosen)) == 90


def test_rest_takes_everybody_who_is_left():
    split = split_scans(PEOPLE, Split(train="rest", val=5, test=["003", "004"]), 1)
    assert split["test"] == ["sub-003", "sub-004"]
    assert len(split["train"]) == 93


def test_a_new_person_moves_few():
    split = Split(train="rest", val=10, test=20)
    before, after = split_scans(PEOPLE, split, 1), split_scans([*PEOPLE, "sub-new"], split, 1)
    assert len(set(before["test"]) - set(after["test"])) <= 1


def test_sessions_and_runs_of_a_person_stay_together():
    scans = [f"{person}_ses-{session}_run-{run}" for person in PEOPLE for session in (1, 2) for run in (1, 2)]
    split = split_scans(scans, Split(train=50, val=10, test=20), 1)
    assert [len(split[name]) for name in ("train", "val", "test")] == [200, 40, 80]
    where = {(scan.split("_")[0], name) for name, names in split.items() for scan in names}
    assert len(where) == 80


@pytest.fixture
def table(tmp_path):
    rows = [
        {
            "participant_id": person if number % 2 else person.removeprefix("sub-"),
            "sex": "F" if number % 4 == 0 else "M",
            "age": 20 + number % 60,
            "Family_ID": f"f{number // 3}",
        }
        for number, person in enumerate(PEOPLE)
    ]
    write_table(tmp_path / "people.tsv", rows)
    return tmp_path / "people.tsv", {f"sub-{row['participant_id'].removeprefix('sub-')}": row for row in rows}


def test_families_stay_together(table):
    path, rows = table
    split = split_scans(PEOPLE, Split(train="rest", val=9, test=21, table=str(path), family="Family_ID"), 1)
    assert (len(split["val"]), len(split["test"])) == (9, 21)
    where = {(rows[scan]["Family_ID"], name) for name, scans in split.items() for scan in scans}
    assert len(where) == len({family for family, _ in where})
    named = split_scans(PEOPLE, Split(train="rest", val=9, test=["000"], table=str(path), family="Family_ID"), 1)
    assert not {"sub-001", "sub-002"} & {*named["train"], *named["val"]}, "the family of a named person is not used"


def test_what_a_restricted_table_says_is_not_repeated(tmp_path, capsys):
    rows = [{"Subject": "", "Family_ID": "51488_81212", "Handedness": "-95"}]
    write_table(tmp_path / "restricted.csv", rows)
    with pytest.raises(UserError, match=r"restricted\.csv: row 1 below the heading has no Subject") as error:
        split_scans(PEOPLE, Split(train="rest", val=9, test=21, table=str(tmp_path / "restricted.csv")), 1)
    assert not {"51488", "-95"} & set(re.split(r"[_ ]", str(error.value)))


def test_strata_are_held_in_proportion(table):
    path, rows = table
    split = split_scans(PEOPLE, Split(train=40, val=20, test=40, table=str(path), stratify=("sex", "age")), 3)
    for name, scans in split.items():
        women = sum(rows[scan]["sex"] == "F" for scan in scans)
        assert women == pytest.approx(len(scans) / 4, abs=2), name
        young = sum(int(rows[scan]["age"]) < 45 for scan in scans)
        assert young == pytest.approx(len(scans) * 0.5, abs=len(scans) * 0.15), name


def test_hcps_own_table_is_read(tmp_path):
    rows = [{"Subject": 100000 + number, "Gender": "F" if number % 2 else "M"} for number in range(20)]
    write_table(tmp_path / "unrestricted.csv", rows)
    split = Split(train=10, val=4, test=6, table=str(tmp_path / "unrestricted.csv"), stratify=("Gender",))
    found = split_scans([f"sub-{row['Subject']}" for row in rows], split, 1)
    assert Counter(int(scan[-1]) % 2 for scan in found["train"]) == {0: 5, 1: 5}


def test_a_given_split_is_taken(tmp_path):
    rows = [{"participant_id": "000", "split": "test"}, {"participant_id": "sub-001", "split": "train"}]
    rows += [{"participant_id": "002", "split": "val"}]
    write_table(tmp_path / "split.tsv", rows)
    split = split_scans(PEOPLE, Split(given=str(tmp_path / "split.tsv")), 1)
    assert split == {"train": ["sub-001"], "val": ["sub-002"], "test": ["sub-000"]}
    write_table(tmp_path / "split.tsv", [*rows, {"participant_id": "000", "split": "train"}])
    with pytest.raises(UserError, match="sub-000 is in test and in train"):
        split_scans(PEOPLE, Split(given=str(tmp_path / "split.tsv")), 1)


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (Split(train=90, val=10, test=20), "train = 90: only 70"),
        (Split(train="rest", val=50, test=50), "nobody is left"),
        (Split(test=["abc"]), "sub-abc is not among the 100"),
        (Split(val=["001"], test=["001"]), "sub-001 is named in val and in test"),
    ],
)
def test_what_cannot_be_is_refused(split, words):
    with pytest.raises(UserError, match=words):
        split_scans(PEOPLE, split, 1)


def test_columns_and_rows_that_are_not_there_are_refused(table):
    path, _ = table
    with pytest.raises(UserError, match=r"no column Gender.*sex, age"):
        split_scans(PEOPLE, Split(table=str(path), stratify=("Gender",)), 1)
    with pytest.raises(UserError, match="sub-new"):
        split_scans([*PEOPLE, "sub-new"], Split(table=str(path), family="Family_ID"), 1)
    with pytest.raises(ValueError, match="set table"):
        Split(family="Family_ID")


def test_a_leak_is_noticed(tmp_path):
    check_leaks([("sub-1", "train", "f1"), ("sub-2", "train", "f1"), ("sub-3", "test", "sub-3")])
    with pytest.raises(UserError, match=r"a family is in train \(sub-1\) and in test \(sub-2\)"):
        check_leaks([("sub-1", "train", "f1"), ("sub-2", "test", "f1")])

    facts = {"status": "ok", "voxel_size": 1.0, "brain_ml": 1.0, "lut": "", "labels": []}
    rows = [{"scan": "sub-a", "split": "train"}, {"scan": "sub-b", "split": "test"}]
    write_table(tmp_path / "list.tsv", rows)
    for row in rows:
        files = {"brain": {"sha256": "the same"}}
        write_json(anat(tmp_path, row["scan"], "T1w.json"), facts | {"files": files})
    with pytest.raises(UserError, match=r"sub-a \(train\) and sub-b \(test\) are the same file"):
        write_participants([tmp_path / "list.tsv"], tmp_path, "T1w", "folder")
    write_table(
        tmp_path / "twice.tsv", [{"scan": "sub-a_ses-1", "split": "train"}, {"scan": "sub-a_ses-2", "split": "test"}]
    )
    for session in (1, 2):
        write_json(anat(tmp_path, f"sub-a_ses-{session}", "T1w.json"), facts)
    with pytest.raises(UserError, match="person sub-a is in train"):
        write_participants([tmp_path / "twice.tsv"], tmp_path, "T1w", "folder")


def test_more_missing_than_allowed_stops_and_lists_why(tmp_path):
    rows = [{"scan": f"sub-{number}", "split": "train"} for number in range(10)]
    write_table(tmp_path / "list.tsv", rows)
    for number, row in enumerate(rows):
        status = "its brainmask_fs is missing" if number < 2 else "ok"
        facts = {"status": status, "voxel_size": 1.0, "brain_ml": 1.0, "lut": "", "labels": []}
        write_json(anat(tmp_path, row["scan"], "T1w.json"), facts)
    write_participants([tmp_path / "list.tsv"], tmp_path, "T1w", "hcp", 0.2)
    with pytest.raises(UserError, match=r"2 of 10 scans.*max_missing = 0.1(.|\n)*sub-1: its brainmask_fs"):
        write_participants([tmp_path / "list.tsv"], tmp_path, "T1w", "hcp", 0.1)
