"""Tables of experiments: one row per low-field set and method, what the experiment asks for, from metrics/ alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from iqt.config.experiments import CALIBRATED, COVERAGES, Calibration, Cost, Experiment, Seam
from iqt.config.experiments import Score as Similarity
from iqt.io.files import write_table, write_text
from iqt.io.naming import seed_of
from iqt.report.data import (
    as_rows,
    mean_over_seeds,
    means_of,
    read_frame,
    scans_all_have,
    seed_sd,
    with_failures,
)
from iqt.report.metrics import DECIMALS, NAMES
from iqt.report.tables.comparable import best_of, count, differences, failures
from iqt.report.tables.formats import bracketed, latex, markdown

OF_PEOPLE = (*get_args(Similarity), *get_args(Seam), *get_args(Calibration))
"""What is measured in each person, so that it has an interval over people; the rest is cost."""
LABELS = NAMES | {
    "tile_seam": "tile seam",
    "patch_seam": "patch seam",
    "patch_error": "error at patch borders",
    "patch_error_ratio": "error at patch borders / inside",
    "correlation": "correlation of spread and error",
    "ratio": "spread / error",
    **{name: f"coverage of {level:.0%}".replace("%", " %") for name, level in COVERAGES.items()},
    "calibrated_correlation": "correlation of spread and error, calibrated",
    "calibrated_ratio": "spread / error, calibrated",
    **{name: f"coverage of {level} %, calibrated" for name, level in CALIBRATED.items()},
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
    **dict.fromkeys(("calibrated_correlation", "calibrated_ratio"), 3),
    **dict.fromkeys((*COVERAGES, *CALIBRATED), 3),
    **{"patch_error": 4, "seconds": 2, "train_gpu_gib": 1},
}
"""Digits after the point; none where a quantity is not here."""
NOTE = (
    "Means over people, in brackets 95 % percentile bootstrap limits (none for a single person){seeds}; where a mean "
    "is not over everybody, the people behind it in square brackets. Failed: scans on which a stage failed. A dash: "
    "the method has no such quantity, or no result. Best scores of a set in bold, by the mean over the scans that all "
    "methods have.{notes}"
)
SEEDS_NOTE = (
    "; a scan's value is the mean over {n} training seeds, and left out where one of them lost it, and after ± is the "
    "standard deviation of the seeds' means, all over the same scans"
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


def read_results(results_csv: Path, experiment: Experiment) -> dict[tuple[str, str], pd.DataFrame]:
    """The scores of metrics/experiments/<experiment>/results.csv (`report.data` says how), one row per scan and
    training seed, by low-field set and method in the experiment's order.

    Raises:
        UserError: the table is absent, lacks a column, or a value is not a number.
    """
    # The figure of reliability shows coverage, whatever the table does.
    names = (*experiment.metrics, *(COVERAGES if experiment.figure == "reliability" else ()))
    text = ("set", "method", "seed", "scan", "status", "machine")
    frame = with_failures(read_frame(results_csv, text, tuple(dict.fromkeys(names))))
    return {
        (set_name, method): frame[(frame["set"] == set_name) & (frame["method"] == method)]
        for set_name in experiment.sets
        for method in experiment.methods
    }


def columns_of(experiment: Experiment) -> tuple[str, ...]:
    """Columns of an experiment's CSV."""
    ends = ("", "_lo", "_hi", "_seed_sd", "_n", "_shared", "_n_shared")
    metrics = [f"{name}{end}" for name in experiment.metrics for end in ends]
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

    One row per low-field set and method of the experiment, also where nothing was scored. A scan's values are averaged
    over training seeds first, and the scans of one person then; a scan that one seed has no value of is left out. Of
    each quantity, `_n` is the people behind the mean, `_shared` the mean over the `_n_shared` people's scans for which
    every method of the experiment has a value on that set. `n_subjects` counts people, `n_failed` scans. Costs have no
    interval.

    Args:
        experiment: with its sets by name.
        keys: what each method's entry says under the experiment's `keys`.
        bootstrap: resamplings of the people.

    Raises:
        UserError: results.csv is absent or not valid.
    """
    results = read_results(results_csv, experiment)
    found, failed = [], []
    for set_name in experiment.sets:
        every = mean_over_seeds(pd.concat([results[set_name, method] for method in experiment.methods]))
        failed += [f"{_of(set_name, experiment)}{sentence}" for sentence in failures(every)]
        shared = {name: scans_all_have(every, name) for name in experiment.metrics}
        for method in experiment.methods:
            own, trainings = every[every["method"] == method], results[set_name, method]
            row = dict.fromkeys(columns_of(experiment), "") | {
                "set": set_name,
                "method": method,
                **{key: written(keys[method][key]) for key in experiment.keys},
                "n_subjects": own["person"].nunique(),
                "n_failed": int(own["failed"].sum()),
                "n_seeds": trainings["seed"].nunique(),
                "machine": ", ".join(sorted(set(trainings["machine"]) - {""})),
            }
            for name in experiment.metrics:
                limits = (bootstrap, seed_of(seed, "bootstrap", set_name)) if name in OF_PEOPLE else None
                row |= means_of(own, name, shared[name], limits) | {f"{name}_seed_sd": seed_sd(trainings, name)}
            found.append(row)
    rows = as_rows(found)
    write_table(table, rows, columns_of(experiment))

    def cells(bold: Callable[[str], str]) -> list[list[str]]:
        return experiment_cells(rows, experiment, bold)

    title = f"{experiment.title}. {experiment.question}"
    note = " ".join([experiment_note(rows, experiment), *failed])
    text_columns = len(_text_columns(rows, experiment))
    write_text(table.with_suffix(".md"), markdown(cells, title, note, n_text=text_columns))
    write_text(table.with_suffix(".tex"), latex(cells, title, note, n_text=text_columns))
    return rows


def experiment_cells(
    rows: Sequence[Mapping[str, str]], experiment: Experiment, bold: Callable[[str], str] = str
) -> list[list[str]]:
    """A heading and one line per low-field set and method, for people; of each set's scores the best are `bold`."""
    texts = _text_columns(rows, experiment)
    lines = [[*_headings(texts), *(LABELS[name] for name in experiment.metrics), "people", "failed"]]
    scores = [name for name in experiment.metrics if name in get_args(Similarity)]
    best = {set_name: best_of([row for row in rows if row["set"] == set_name], scores) for set_name in experiment.sets}
    for row in rows:
        marked = {name for name, methods in best[row["set"]].items() if row["method"] in methods}
        cells = [_cell(row, name, bold if name in marked else str) for name in experiment.metrics]
        lines.append([*(row[text] or "–" for text in texts), *cells, row["n_subjects"], row["n_failed"]])
    return lines


def experiment_note(rows: Sequence[Mapping[str, str]], experiment: Experiment) -> str:
    """What the table's numbers are, where costs were measured, and how methods compare whose people differ."""
    seeds = max((int(row["n_seeds"]) for row in rows), default=1)
    told = SEEDS_NOTE.format(n=seeds) if seeds > 1 else ""
    notes = [text for kind, text in NOTES.items() if set(experiment.metrics) & set(get_args(kind))]
    machines = sorted({row["machine"] for row in rows if row["machine"]})
    if machines and set(experiment.metrics) & set(get_args(Cost)):
        notes.append(f"Trained on: {'; '.join(machines)}.")
    names = [name for name in experiment.metrics if name in OF_PEOPLE]
    for set_name in experiment.sets:
        own = [row for row in rows if row["set"] == set_name]
        notes += [f"{_of(set_name, experiment)}{text}" for text in differences(own, names, LABELS, shown)]
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


def _cell(row: Mapping[str, str], name: str, bold: Callable[[str], str]) -> str:
    value, low, high = (shown(name, float(row[f"{name}{end}"] or math.nan)) for end in ("", "_lo", "_hi"))
    value = bold(value)
    spread = f" ± {shown(name, float(row[f'{name}_seed_sd']))}" if row[f"{name}_seed_sd"] else ""
    cell = bracketed(f"{value}{spread}", (low, high))
    behind = count(row, name) if name in OF_PEOPLE and row[name] else ""
    return f"{cell} [{behind}]" if behind else cell


def _of(set_name: str, experiment: Experiment) -> str:
    """What a sentence about a low-field set begins with, where there are several."""
    return f"Low-field set {set_name}: " if len(experiment.sets) > 1 else ""
