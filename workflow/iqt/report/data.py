"""The scores of metrics/ as data frames, and whose values are averaged with whose.

A frame of scores has one row per scan and method (`read_trainings`: and training seed) in the order of the table, with
the columns `scan`, `person`, `method`, `seed` (empty where nothing is trained, and for a mean over seeds), `status`,
`failed`, `reason`, and a column of floats for each quantity, NaN where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from iqt.errors import UserError
from iqt.io.batch import OK
from iqt.io.files import read_table
from iqt.report.metrics import FACTS, FURTHER_METRICS, METRICS, MUST_BE_MEASURED, NAMES
from iqt.report.significance import mean_limits

TEXT = ("scan", "set", "method", "status")
COLUMNS = (*TEXT, *METRICS, *FURTHER_METRICS, *FACTS)
NO_ROW = "not evaluated: subjects.csv has no row for it"


def read_frame(
    path: str | Path, text: Sequence[str], numbers: Sequence[str], where: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """A table as a frame with a column `person` beside `scan`; `numbers` as floats, NaN where a cell is empty, all
    else as text.

    Args:
        where: what the rows that are wanted hold in some columns.

    Raises:
        UserError: the table is absent, lacks a column, or a value is not a number.
    """
    rows = read_table(path, required=(*text, *numbers))
    rows = [row for row in rows if all(row[name] == value for name, value in (where or {}).items())]
    frame = pd.DataFrame(rows, columns=None if rows else [*text, *numbers], dtype=object)
    for name in numbers:
        try:
            frame[name] = [float(text) if text else math.nan for text in frame[name]]
        except ValueError:
            wrong = next(row for row in rows if row[name] and not _is_number(row[name]))
            of = wrong.get("scan", wrong.get("method", ""))
            raise UserError(f"{path}: {name} of {of} is {wrong[name]!r}, not a number") from None
    if "scan" in frame:
        frame["person"] = person_of(frame["scan"])
    return frame


def read_scores(subjects_csv: str | Path, set_name: str) -> pd.DataFrame:
    """The scores of one low-field set, each the mean over training seeds where there are several. A scan that a method
    has no row for is a failure of its own.

    Raises:
        UserError: a column is missing, a value is not a number, or the set has no row.
    """
    return mean_over_seeds(read_trainings(subjects_csv, set_name))


def read_trainings(subjects_csv: str | Path, set_name: str) -> pd.DataFrame:
    """The same with one row per scan, method and training seed."""
    frame = read_frame(subjects_csv, TEXT, (*METRICS, *FURTHER_METRICS, *FACTS), {"set": set_name})
    if frame.empty:
        raise UserError(f"{subjects_csv}: no row of the low-field set {set_name!r}; run the evaluate stage for it")
    return with_failures(_completed(with_text(frame, "parcellator", "seed")))


def with_text(frame: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The frame with these columns, empty where the table lacks them."""
    return frame.assign(**{name: "" for name in names if name not in frame})


def with_failures(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with `failed`, whether a stage did not succeed or a similarity could not be measured, and `reason`."""
    needed = [name for name in MUST_BE_MEASURED if name in frame and frame[name].dtype == float]
    lacking = [
        ", ".join(NAMES[name] for name, value in zip(needed, row, strict=True) if math.isnan(value))
        for row in frame[needed].itertuples(index=False)
    ]
    reason = [
        status if status != OK else f"could not be measured: {names}" if names else ""
        for status, names in zip(frame["status"], lacking, strict=True)
    ]
    return frame.assign(reason=reason, failed=[bool(text) for text in reason])


def mean_over_seeds(trainings: pd.DataFrame) -> pd.DataFrame:
    """One row per scan and method. Each value is the mean over the method's training seeds, NaN on a scan that one of
    them has no value of (a seed without any value counts in none); it failed where one of them did."""
    parts = [_mean_of_method(own) for _, own in trainings.groupby("method", sort=False)]
    if not parts:
        return trainings
    means = pd.concat(parts)
    return means.loc[trainings.drop_duplicates(["scan", "method"]).index]


def _mean_of_method(own: pd.DataFrame) -> pd.DataFrame:
    first = own.drop_duplicates("scan")
    if len(first) == len(own):
        return own
    failures = own[own["failed"]].groupby("scan", sort=False)
    told = failures.apply(lambda rows: "; ".join(f"seed {row.seed}: {row.reason}" for row in rows.itertuples()))
    status = first["scan"].map(told).fillna(OK) if len(told) else pd.Series(OK, first.index)
    values = {
        name: of_every_seed(own, name).mean(axis=1, skipna=False).reindex(first["scan"]).to_numpy()
        for name in own.select_dtypes("float")
    }
    if "parcellator" in own:  # the first seed may have lost everything
        values["parcellator"] = next((name for name in own["parcellator"] if name), "")
    return with_failures(first.assign(**values, status=status, seed=""))


def of_every_seed(own: pd.DataFrame, name: str) -> pd.DataFrame:
    """One method's values of a quantity by scan (rows) and training seed (columns), of the seeds that have any and the
    scans that every one of these has: a mean over what is left of a scan that one lost would be of other trainings
    than the rest's."""
    held = own.dropna(subset=[name])
    wide = held.pivot(index="scan", columns="seed", values=name).reindex(held["scan"].unique())
    return wide.dropna()


def seed_sd(own: pd.DataFrame, name: str) -> float:
    """Standard deviation of one method's means over people of each training seed, over the scans that every seed has,
    so that it tells of the training and not of who is missing; NaN for fewer than two seeds."""
    wide = of_every_seed(own, name)
    means = wide.groupby(person_of(wide.index), sort=False).mean().mean()
    return float(means.std(ddof=1)) if len(means) > 1 and len(wide) else math.nan


def people_of(own: pd.DataFrame, name: str) -> pd.Series:
    """The mean of a quantity over each person's scans, by person; people without a value are left out."""
    held = own.dropna(subset=[name])
    return held.groupby("person", sort=False)[name].mean()


def scans_all_have(frame: pd.DataFrame, name: str) -> set[str]:
    """The scans on which every method has a value of a quantity; a method that has none at all does not count."""
    return in_every(frame.dropna(subset=[name]).groupby("method")["scan"])


def in_every(groups: Iterable[tuple[Any, Collection[str]]]) -> set[str]:
    """What every one of some groups holds."""
    found = [set(group) for _, group in groups]
    return set.intersection(*found) if found else set()


def means_of(
    own: pd.DataFrame, name: str, shared: Collection[str], limits: tuple[int, int] | None
) -> dict[str, float | int]:
    """One method's columns of a quantity: the mean over people with, where asked for, its 95 % limits (`_lo`, `_hi`),
    the people behind it (`_n`), and both over the scans that all methods have (`_shared`, `_n_shared`).

    Args:
        shared: the scans that all methods have.
        limits: resamplings of the people and seed; None for no limits.
    """
    people, alike = (people_of(some, name) for some in (own, own[own["scan"].isin(shared)]))
    columns: dict[str, float | int] = {name: people.mean(), f"{name}_shared": alike.mean()}
    if limits:
        columns |= zip((f"{name}_lo", f"{name}_hi"), mean_limits(people.to_numpy(), *limits), strict=True)
    return columns | {f"{name}_n": len(people), f"{name}_n_shared": len(alike)}


def methods_of(frame: pd.DataFrame) -> list[str]:
    """Methods in the order in which they first appear."""
    return frame["method"].unique().tolist()


def parcellator_of(frame: pd.DataFrame) -> str:
    """Engine and version of the parcellator behind the scores; empty where none is recorded."""
    return ", ".join(sorted(set(frame["parcellator"]) - {""}))


def person_of(scans: pd.Series | pd.Index) -> pd.Series | pd.Index:
    """The person of each scan; one may have several scans."""
    return scans.str.split("_").str[0]


def number(value: Any, digits: int = 6) -> str:
    """A number as a table holds it; empty where there is none."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(value)
    return "" if math.isnan(value) else f"{value:.{digits}g}"


def as_rows(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Rows as a table holds them."""
    return [{name: value if isinstance(value, str) else number(value) for name, value in row.items()} for row in rows]


def _completed(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with one more row for each scan and training of a method that has none, after the others."""
    key = ["method", "seed", "scan"]
    wanted = frame[key[:2]].drop_duplicates().merge(frame[["scan"]].drop_duplicates(), how="cross")
    found = pd.MultiIndex.from_frame(frame[key])
    lacking = wanted[~pd.MultiIndex.from_frame(wanted[key]).isin(found)]
    if lacking.empty:
        return frame
    rows = lacking.assign(person=person_of(lacking["scan"]), status=NO_ROW, set=frame["set"].iloc[0], parcellator="")
    return pd.concat([frame, rows], ignore_index=True)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
