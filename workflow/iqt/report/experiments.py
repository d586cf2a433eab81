"""Tables of experiments: a row a low-field set and method, with what the experiment asks for, from metrics/ alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import stdev
from typing import Any, NamedTuple, get_args

import numpy as np

from iqt.batch import OK
from iqt.config.experiments import Calibration, Cost, Experiment, Score, Seam
from iqt.errors import UserError
from iqt.files import read_table, write_table, write_text
from iqt.naming import seed_of
from iqt.report.formats import bracketed, latex, markdown
from iqt.report.scores import DECIMALS, NAMES
from iqt.statistics import mean_limits

OF_PEOPLE = (*get_args(Score), *get_args(Seam), *get_args(Calibration))
"""What is measured in each person, so that it has an interval over people; the rest is cost."""
COVERAGES = {f"coverage_{level}": level / 100 for level in (50, 68, 90, 95)}
"""The probability that each of these intervals should hold."""
LABELS = NAMES | {
    "tile_seam": "tile seam",
    "patch_seam": "patch seam",
    "patch_error": "error at patch borders",
    "patch_error_ratio": "error at patch borders / inside",
    "correlation": "correlation of spread and error",
    "ratio": "spread / error",
    **{name: f"coverage of {level:.0%}".replace("%", " %") for name, level in COVERAGES.items()},
    "n_parameters": "parameters",
    "nfe": "NFE",
    "samples": "samples",
    "seconds": "s/volume",
    "enhance_mb": "memory, enhancing (MB)",
    "train_seconds": "training (s)",
    "train_mb": "memory, training (MB)",
    "train_gpu_gib": "GPU memory, training (GiB)",
}
DIGITS = DECIMALS | {
    **dict.fromkeys(("tile_seam", "patch_seam", "patch_error_ratio", "correlation", "ratio"), 3),
    **dict.fromkeys(COVERAGES, 3),
    **{"patch_error": 4, "seconds": 2, "train_gpu_gib": 1},
}
"""Digits after the point; none where a quantity is not here."""
NOTE = (
    "Means over people, in brackets 95 % percentile bootstrap limits (none for a single person){seeds}. A dash: the "
    "method has no such quantity.{notes}"
)
NOTES = {
    Seam: (
        "Seams: gradient energy of the error where patches (or tiles) meet against elsewhere, 1 without seams; error "
        "at patch borders: root mean square over the voxels on either side, and its ratio to that of all others."
    ),
    Calibration: (
        "Spread: the error that the samples' standard deviation makes one expect; coverage: share of voxels whose "
        "truth lies in that interval."
    ),
    Cost: (
        "Parameters and NFE are counted, the rest is measured: seconds a volume and of this network's training alone, "
        "memory as the largest resident set of a job."
    ),
}


class People(NamedTuple):
    """A method's values of one quantity on one low-field set."""

    values: dict[str, float]
    """By person, the mean over seeds and scans; people without a value are left out."""
    seeds: list[float]
    """The mean over people of each training seed that has a value."""

    @property
    def mean(self) -> float:
        """Over people; NaN without any."""
        return float(np.mean(list(self.values.values()))) if self.values else math.nan

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, str]], name: str) -> People:
        """From the rows of one set and method."""
        by_scan: dict[str, list[float]] = {}
        by_seed: dict[str, dict[str, list[float]]] = {}
        for row in rows:
            if row[name]:
                by_scan.setdefault(row["scan"], []).append(float(row[name]))
                by_seed.setdefault(row["seed"], {}).setdefault(_person(row["scan"]), []).append(float(row[name]))
        by_person: dict[str, list[float]] = {}
        for scan, values in by_scan.items():
            by_person.setdefault(_person(scan), []).append(_mean(values))
        means = [_mean([_mean(values) for values in people.values()]) for people in by_seed.values()]
        return cls({person: _mean(values) for person, values in by_person.items()}, means)


def read_results(results_csv: Path, experiment: Experiment) -> dict[tuple[str, str], list[dict[str, str]]]:
    """The rows of metrics/experiments/<experiment>/results.csv by low-field set and method, in the experiment's order.

    Raises:
        UserError: the table is absent, lacks a column, or a value is not a number.
    """
    # The figure of reliability shows coverage, whatever the table does.
    names = (*experiment.metrics, *(COVERAGES if experiment.figure == "reliability" else ()))
    rows = read_table(results_csv, required=("set", "method", "seed", "scan", "status", "machine", *names))
    for row in rows:
        for name in names:
            try:
                float(row[name] or 0)
            except ValueError:
                raise UserError(f"{results_csv}: {name} of {row['scan']} is {row[name]!r}, not a number") from None
    return {
        (set_name, method): [row for row in rows if (row["set"], row["method"]) == (set_name, method)]
        for set_name in experiment.sets
        for method in experiment.methods
    }


def columns_of(experiment: Experiment) -> tuple[str, ...]:
    """Columns of an experiment's CSV."""
    metrics = [f"{name}{end}" for name in experiment.metrics for end in ("", "_lo", "_hi", "_seed_sd")]
    return ("set", "method", *experiment.keys, "n_subjects", "n_failed", "n_seeds", *metrics, "machine")


def write_experiment(
    results_csv: Path,
    experiment: Experiment,
    keys: Mapping[str, Mapping[str, Any]],
    table: Path,
    bootstrap: int,
    seed: int,
) -> list[dict[str, str]]:
    """Write an experiment's table as `table` (CSV), .md and .tex beside it; the rows.

    A row each low-field set and method of the experiment, also where nothing was scored. A scan's values are averaged
    over training seeds first, and the scans of one person then. Costs have no interval.

    Args:
        experiment: with its sets by name.
        keys: what each method's entry says under the experiment's `keys`.
        bootstrap: resamplings of the people.

    Raises:
        UserError: results.csv is absent or not valid.
    """
    rows = []
    for (set_name, method), own in read_results(results_csv, experiment).items():
        row = {
            "set": set_name,
            "method": method,
            **{key: written(keys[method][key]) for key in experiment.keys},
            "n_subjects": str(len({_person(one["scan"]) for one in own})),
            "n_failed": str(len({one["scan"] for one in own if one["status"] != OK})),
            "n_seeds": str(len({one["seed"] for one in own})),
            "machine": ", ".join(sorted({one["machine"] for one in own if one["machine"]})),
        }
        draw = seed_of(seed, "bootstrap", set_name)
        for name in experiment.metrics:
            people = People.of(own, name)
            limits = (math.nan, math.nan)
            if name in OF_PEOPLE:
                limits = mean_limits(np.array(list(people.values.values())), bootstrap, draw)
            spread = stdev(people.seeds) if len(people.seeds) > 1 else math.nan
            numbers = zip(("", "_lo", "_hi", "_seed_sd"), (people.mean, *limits, spread), strict=True)
            row |= {f"{name}{end}": "" if math.isnan(value) else f"{value:.6g}" for end, value in numbers}
        rows.append(row)
    write_table(table, rows, columns_of(experiment))

    def cells(bold: object) -> list[list[str]]:
        return experiment_cells(rows, experiment)

    title, note = f"{experiment.title}. {experiment.question}", experiment_note(rows, experiment)
    text_columns = len(_text_columns(rows, experiment))
    write_text(table.with_suffix(".md"), markdown(cells, title, note, n_text=text_columns))
    write_text(table.with_suffix(".tex"), latex(cells, title, note, n_text=text_columns))
    return rows


def experiment_cells(rows: Sequence[Mapping[str, str]], experiment: Experiment) -> list[list[str]]:
    """A heading and a line a low-field set and method, for people."""
    texts = _text_columns(rows, experiment)
    lines = [[*_headings(texts), *(LABELS[name] for name in experiment.metrics), "people"]]
    for row in rows:
        people = row["n_subjects"] + (f" ({row['n_failed']} failed)" if row["n_failed"] != "0" else "")
        lines.append(
            [*(row[text] or "–" for text in texts), *(_cell(row, name) for name in experiment.metrics), people]
        )
    return lines


def experiment_note(rows: Sequence[Mapping[str, str]], experiment: Experiment) -> str:
    """What the table's numbers are, and where costs were measured."""
    seeds = max((int(row["n_seeds"]) for row in rows), default=1)
    told = f"; after ± the standard deviation of {seeds} training seeds' means" if seeds > 1 else ""
    notes = [text for kind, text in NOTES.items() if set(experiment.metrics) & set(get_args(kind))]
    machines = sorted({row["machine"] for row in rows if row["machine"]})
    if machines and set(experiment.metrics) & set(get_args(Cost)):
        notes.append(f"Trained on: {'; '.join(machines)}.")
    return NOTE.format(seeds=told, notes="".join(f" {text}" for text in notes))


def shown(name: str, value: float) -> str:
    """A quantity as a person reads it; a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:,.{DIGITS.get(name, 0)}f}"


def written(value: Any) -> str:
    """What a method's entry says under a key, for a table; empty where it says nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " x ".join(map(written, value))
    return str(value)


def _text_columns(rows: Sequence[Mapping[str, str]], experiment: Experiment) -> tuple[str, ...]:
    several = len({row["set"] for row in rows}) > 1
    return (*(("set",) if several else ()), "method", *experiment.keys)


def _headings(keys: Sequence[str]) -> list[str]:
    """The shortest end of each dotted key that no other ends in."""

    def ends(key: str) -> list[str]:
        parts = key.split(".")
        return [".".join(parts[start:]) for start in reversed(range(len(parts)))]

    every = [end for key in keys for end in ends(key)]
    return [next((end for end in ends(key) if every.count(end) == 1), key) for key in keys]


def _cell(row: Mapping[str, str], name: str) -> str:
    value, low, high = (shown(name, float(row[f"{name}{end}"] or math.nan)) for end in ("", "_lo", "_hi"))
    spread = f" ± {shown(name, float(row[f'{name}_seed_sd']))}" if row[f"{name}_seed_sd"] else ""
    return bracketed(f"{value}{spread}", (low, high))


def _person(scan: str) -> str:
    return scan.split("_")[0]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
