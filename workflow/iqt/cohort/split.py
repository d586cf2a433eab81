"""Which people are trained, validated and tested on. Read by the Snakefile, so nothing heavy is imported here."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from iqt.config import Split
from iqt.errors import UserError
from iqt.io.files import read_table
from iqt.io.naming import seed_of
from iqt.terminal import note

SPLITS = ("train", "val", "test")
MISSING = ("", "n/a", "na", "nan", "none", "null")
"""What stands for no value in a table, in lower case."""
ID_COLUMNS = ("participant_id", "Subject", "subject")


def template_scans(split: Split) -> dict[str, list[str]]:
    """Scan names of each split: `{"train": ["sub-train001", ...], "val": [...], "test": [...]}`.

    A name says its split and its number in it, so that more people in one split change nobody.
    """
    return {
        name: [f"sub-{name}{number:03d}" for number in range(1, getattr(split, name) + 1)]
        for name in ("train", "val", "test")
    }


def split_scans(scans: Iterable[str], split: Split, seed: int) -> dict[str, list[str]]:
    """Scan names of each split, sorted: a person's scans, and a family's people, are in one split.

    People are ordered by a hash of the seed and their family (or their own id), within each stratum, and the strata
    are interleaved in proportion; test takes from the front, then val, then train. So the same people and seed give
    the same split on every machine, and each split holds the strata in proportion.

    Raises:
        UserError: too few people, an id or column that is not there, somebody named twice, or a family torn apart.
    """
    by_person: dict[str, list[str]] = {}
    for scan in scans:
        by_person.setdefault(scan.split("_")[0], []).append(scan)
    table = _read_people(split.table) if split.table else {}
    family_of = _families(by_person, table, split)
    people = _given(split.given, by_person) if split.given else _draw(by_person, table, family_of, split, seed)
    check_leaks([(person, name, family_of[person]) for name in SPLITS for person in people[name]])
    return {name: sorted(scan for person in people[name] for scan in by_person[person]) for name in SPLITS}


def check_leaks(rows: Iterable[tuple[str, str, str]]) -> None:
    """UserError where a person or a family of (person, split, family) is in more than one split."""
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for person, name, family in rows:
        for key in {("person", person), ("family", family) if family != person else ("person", person)}:
            other, where = seen.setdefault(key, (person, name))
            if where != name:
                # Not which: a family's id is what a restricted table says of people.
                whose = f"person {person}" if key[0] == "person" else "a family"
                raise UserError(
                    f"cohort.split: {whose} is in {where} ({other}) and in {name} ({person}), so the test people would "
                    "not be new; put them in one split"
                )


def participant_id(identifier: str) -> str:
    """`sub-X` of an id that a table may give with or without `sub-`."""
    return f"sub-{identifier.strip().removeprefix('sub-')}"


def _draw(
    by_person: Mapping[str, list[str]],
    table: Mapping[str, Mapping[str, str]],
    family_of: Mapping[str, str],
    split: Split,
    seed: int,
) -> dict[str, list[str]]:
    people: dict[str, list[str]] = {name: [] for name in SPLITS}
    named: dict[str, str] = {}
    for name in SPLITS:
        share = getattr(split, name)
        for person in map(participant_id, share) if isinstance(share, list) else ():
            if person not in by_person:
                raise UserError(f"cohort.split.{name}: {person} is not among the {len(by_person)} people of the source")
            if person in named:
                raise UserError(f"cohort.split: {person} is named in {named[person]} and in {name}; name it once")
            named[person] = name
            people[name].append(person)
    taken = {family_of[person] for person in named}
    families: dict[str, list[str]] = {}
    for person in sorted(by_person):
        if family_of[person] not in taken:
            families.setdefault(family_of[person], []).append(person)
    relatives = len(by_person) - len(named) - sum(map(len, families.values()))
    if relatives:
        note(f"cohort.split: {relatives} relatives of people who are named in a split are in none")
    order = _interleave(families, table, split.stratify, seed)
    for name in sorted(("test", "val", "train"), key=lambda name: getattr(split, name) == "rest"):
        share = getattr(split, name)
        if isinstance(share, list):
            continue
        left = []
        for family in order:
            fits = share == "rest" or len(people[name]) + len(families[family]) <= share
            if fits:
                people[name] += families[family]
            else:
                left.append(family)
        order = left
        if share == "rest" and not people[name]:
            raise UserError(f"cohort.split.{name}: nobody is left of {len(by_person)} people; ask for fewer elsewhere")
        if share != "rest" and len(people[name]) < share:
            raise UserError(
                f"cohort.split.{name} = {share}: only {len(people[name])} of the source's {len(by_person)} people can "
                "be given to it; ask for fewer, or for `rest`"
            )
    return people


def _interleave(
    families: Mapping[str, list[str]], table: Mapping[str, Mapping[str, str]], columns: Sequence[str], seed: int
) -> list[str]:
    """Families in the order in which they are given out, so that any first part holds the strata in proportion."""
    strata: dict[tuple, list[str]] = {}
    cuts = {column: _quartiles([row[column] for row in table.values()]) for column in columns}
    for family, people in families.items():
        row = table.get(people[0], {})
        key = tuple(_stratum(row.get(column, ""), cuts[column]) for column in columns)
        strata.setdefault(key, []).append(family)
    placed = []
    for key, names in strata.items():
        names.sort(key=lambda family: seed_of(seed, family, "split"))
        offset = seed_of(seed, *key, "stratum") / 2**63  # else small strata would all wait for the same place
        placed += [
            ((number + offset) / len(names), seed_of(seed, family), family) for number, family in enumerate(names)
        ]
    return [family for *_, family in sorted(placed)]


def _quartiles(values: Sequence[str]) -> list[float] | None:
    """Where numbers are cut into strata; None for what is not numbers, or few enough to be their own strata."""
    try:
        numbers = [float(value) for value in values if not _is_missing(value)]
    except ValueError:
        return None
    return statistics.quantiles(numbers, n=4) if len(set(numbers)) > 4 else None


def _stratum(value: str, cuts: list[float] | None) -> str:
    if _is_missing(value):
        return ""
    if cuts is None:
        return value.strip()
    return str(sum(float(value) > cut for cut in cuts))


def _families(
    by_person: Mapping[str, list[str]], table: Mapping[str, Mapping[str, str]], split: Split
) -> dict[str, str]:
    """The family of each person; their own name where none is known."""
    for column in (*split.stratify, *([split.family] if split.family else [])):
        if not any(column in row for row in table.values()):
            known = ", ".join(next(iter(table.values()), {}))
            raise UserError(f"{split.table}: no column {column}, which cohort.split names; it has {known or 'none'}")
    absent = [person for person in by_person if person not in table]
    if table and len(absent) == len(by_person):
        raise UserError(
            f"{split.table}: none of its {len(table)} people is among the {len(by_person)} of the source; it has "
            f"{next(iter(table))}, the source {absent[0]}. Hint: ids are compared as text, with their zeros"
        )
    if split.family is None:
        if table and absent:
            note(
                f"{split.table} has no row of {len(absent)} of the source's {len(by_person)} people "
                f"({', '.join(absent[:5])}{', ...' if len(absent) > 5 else ''}), who are a stratum of their own"
            )
        return {person: person for person in by_person}
    if absent:
        raise UserError(
            f"{split.table}: {len(absent)} people of the source have no row, {absent[0]} for one, so their families "
            "are not known; add them"
        )
    families = {person: table[person][split.family].strip() for person in by_person}
    alone = [person for person, family in families.items() if _is_missing(family)]
    if alone:
        note(
            f"{split.table} gives no {split.family} to {len(alone)} people ({', '.join(alone[:5])}"
            f"{', ...' if len(alone) > 5 else ''}), who count as a family each"
        )
    return {person: person if _is_missing(family) else family for person, family in families.items()}


def _is_missing(value: str) -> bool:
    return value.strip().lower() in MISSING


def _read_people(path: str) -> dict[str, dict[str, str]]:
    rows = read_table(path)
    column = id_column(path, rows)
    found: dict[str, dict[str, str]] = {}
    for number, row in enumerate(rows, start=1):
        if not row[column]:  # by its number: what else it holds may be restricted
            raise UserError(f"{path}: row {number} below the heading has no {column}; complete or remove it")
        other = found.setdefault(participant_id(row[column]), row)
        if other != row:
            person = participant_id(row[column])
            raise UserError(f"{path}: {person} has several rows that differ; keep one row a person")
    return found


def id_column(path: str | Path, rows: Sequence[Mapping[str, str]]) -> str:
    """The column of a table of people that holds their ids."""
    column = next((name for name in ID_COLUMNS if rows and name in rows[0]), None)
    if column is None:
        raise UserError(f"{path}: none of the columns {', '.join(ID_COLUMNS)} holds an id, or the table is empty")
    return column


def _given(path: str, by_person: Mapping[str, list[str]]) -> dict[str, list[str]]:
    people: dict[str, list[str]] = {name: [] for name in SPLITS}
    seen: dict[str, str] = {}
    for row in read_table(path, required=("participant_id", "split")):
        person, name = participant_id(row["participant_id"]), row["split"].lower()
        if name not in SPLITS:
            raise UserError(f"{path}: {person} has split {name}; allowed are {', '.join(SPLITS)}")
        if person not in by_person:
            raise UserError(f"{path}: {person} is not among the {len(by_person)} people of the source")
        if seen.setdefault(person, name) != name:
            raise UserError(f"{path}: {person} is in {seen[person]} and in {name}; keep one row a person")
        if person not in people[name]:
            people[name].append(person)
    unnamed = [person for person in by_person if person not in seen]
    if unnamed:
        note(
            f"{path} gives no split to {len(unnamed)} of the source's {len(by_person)} people "
            f"({', '.join(unnamed[:5])}{', ...' if len(unnamed) > 5 else ''}), who are not read"
        )
    empty = [name for name in SPLITS if not people[name]]
    if empty:
        raise UserError(f"{path}: nobody is in {', '.join(empty)}; each split needs at least one person")
    return people
