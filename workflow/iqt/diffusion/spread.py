"""What the spread of several samples says of the error of their mean, learnt on people whose truth is known.

A few samples of a briefly trained model are too much alike: intervals that should hold 95 % of the truth hold less.
So the expected error is a rising function of the samples' standard deviation, fitted on validation people, and the
width of an interval the quantile of their errors in units of that (split conformal prediction with a normalised score;
Lei et al. 2018, doi 10.1080/01621459.2017.1307116, section 5.2): people like them are covered as they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iqt.config.experiments import LEVELS
from iqt.errors import UserError
from iqt.io.files import read_json

BINS = 20
LEAST = 1e-6
"""Smallest expected error, in units of the intensity scale."""


class Spread(NamedTuple):
    """`error` is the root mean square error where the samples' standard deviation is `sd`, both rising, and `widths`
    the half width of the interval that holds a percentage of the truth, in units of it. `usage` says how the samples
    were drawn: it holds for these only."""

    usage: dict[str, Any]
    set: str
    n_scans: int
    sd: tuple[float, ...]
    error: tuple[float, ...]
    widths: dict[int, float]

    def expected(self, sd: np.ndarray) -> np.ndarray:
        """Root mean square error to be expected, of the shape of `sd`; beyond the largest one seen it grows with it."""
        inside = np.interp(sd, self.sd, self.error)
        beyond = self.error[-1] / max(self.sd[-1], LEAST) * sd
        return np.where(sd > self.sd[-1], beyond, inside)

    def written(self) -> dict[str, Any]:
        """As JSON."""
        return self._asdict() | {"widths": {str(level): width for level, width in self.widths.items()}}


def fit_spread(scans: Sequence[tuple[np.ndarray, np.ndarray]], usage: Mapping[str, Any], set_name: str) -> Spread:
    """Learn from scans, each with as much weight as another: (standard deviation of the samples, error of their mean),
    both (n,) and the same n for each.

    Raises:
        UserError: there is no scan, or the standard deviation is the same everywhere.
    """
    if not scans:
        raise UserError("no validation scan could be enhanced, so the samples' spread cannot be calibrated")
    sd, error = (np.concatenate([np.asarray(scan[part], np.float64) for scan in scans]) for part in (0, 1))
    if np.ptp(sd) == 0:
        raise UserError(f"the samples' standard deviation is {sd[0]:g} everywhere in the validation scans")
    from scipy.optimize import isotonic_regression

    parts = np.array_split(np.argsort(sd, kind="stable"), BINS)
    knots = np.array([sd[part].mean() for part in parts])
    variance = isotonic_regression([np.square(error[part]).mean() for part in parts]).x
    fitted = Spread(dict(usage), set_name, len(scans), tuple(knots), tuple(np.sqrt(variance).clip(LEAST)), widths={})
    score = np.abs(error) / fitted.expected(sd)
    return fitted._replace(widths={level: float(np.quantile(score, level / 100)) for level in LEVELS})


def read_spread(path: Path) -> Spread | None:
    """What `Spread.written` gave, or None where nothing could be calibrated; UserError where the file holds
    something else."""
    record = read_json(path)
    try:
        if record.get("status", "ok") != "ok":
            return None
        widths = {int(level): float(width) for level, width in record["widths"].items()}
        knots = (tuple(map(float, record[name])) for name in ("sd", "error"))
        found = Spread(record["usage"], record["set"], record["n_scans"], *knots, widths)
        complete = set(LEVELS) <= set(widths) and len(found.sd) == len(found.error) > 1
    except (KeyError, TypeError, ValueError, AttributeError):
        complete = False
    if not complete:
        raise UserError(f"{path}: holds no calibrated spread; delete it and make it again")
    return found


def spread_of(folder: Path, usage: Mapping[str, Any]) -> Spread | None:
    """The spread in a model's folder that was calibrated for this way of drawing samples; None where there is none."""
    wanted = {key: usage.get(key) for key in ("kind", "sampling")}
    for path in sorted(folder.glob("spread_*.json")):
        found = read_spread(path)
        if found is not None and {key: found.usage.get(key) for key in wanted} == wanted:
            return found
    return None
