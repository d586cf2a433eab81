"""What the spread of several samples says of the error of their mean, learnt on people whose truth is known.

A few samples of a briefly trained model are too much alike: intervals that should hold 95 % of the truth hold less.
So the expected error is a rising function of the samples' standard deviation, which is taken over a voxel's
neighbourhood since a few samples alone say little of one voxel, times a rising function of the slices' distance, of
which samples say less than they should. Both are fitted on validation people, and the width of an interval is the
quantile of their errors in units of it, after the normalised scores of conformal prediction (Lei et al. 2018, doi
10.1080/01621459.2017.1307116, section 5.2). That promises coverage only where the scores are of people whom nothing was
fitted on, which a few validation people do not allow: what other people's coverage is has to be measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from iqt.config.experiments import LEVELS
from iqt.errors import UserError
from iqt.io.files import read_json

BINS = 20
NEIGHBOURHOOD_MM = 2.0
"""Standard deviation of the window. Chosen on the validation people of config/release/t1w.yaml by the rank correlation
with the error: 0.12 without, 0.16 with 1 to 3 mm, 0.15 with 5 mm, 0.13 with 8 mm."""
FEWEST_SCANS = 3
"""Scans that a distance of slices needs to be told apart from its neighbours, so that no person's error is taken for
that of a distance."""
WEIGHTS = "weights_sha256"
"""Key of a file that holds a spread: the checksum of the weights that it was calibrated for, as in their card."""
LEAST = 1e-6
"""Smallest expected error, in units of the intensity scale."""


class Seen(NamedTuple):
    """Voxels of a scan whose truth is known: what `in_neighbourhood` gives and the error of the samples' mean, both
    (n,), and the distance of the low-field scan's slices in mm."""

    sd: np.ndarray
    error: np.ndarray
    slice_mm: float


class Intervals(NamedTuple):
    """`expected`: (X, Y, Z), the root mean square error to be expected. `widths`: the half width of the interval that
    holds a percentage of the truth, in units of it."""

    expected: np.ndarray
    widths: dict[int, float]


class Spread(NamedTuple):
    """`error` is the root mean square error where the samples' standard deviation is `sd`, both rising, `factor` what
    it is multiplied by where slices are `slice_mm` apart, both rising too, and `widths` the half width of the interval
    that holds a percentage of the truth, in units of the product. `usage` says how the samples were drawn: it holds
    for these only. `seen_mm` are the closest and the furthest slices that were seen, `window_mm` the standard deviation
    of the neighbourhood."""

    usage: dict[str, Any]
    set: str
    n_scans: int
    sd: tuple[float, ...]
    error: tuple[float, ...]
    slice_mm: tuple[float, ...]
    factor: tuple[float, ...]
    seen_mm: tuple[float, float]
    window_mm: float
    widths: dict[int, float]

    def expected(self, sd: np.ndarray, slice_mm: float) -> np.ndarray:
        """Root mean square error to be expected, of the shape of `sd`, which is of the neighbourhood; beyond the
        largest one seen it grows with it. Slices further apart or closer than any seen count as the nearest seen."""
        inside = np.interp(sd, self.sd, self.error)
        beyond = self.error[-1] / max(self.sd[-1], LEAST) * sd
        return np.where(sd > self.sd[-1], beyond, inside) * np.interp(slice_mm, self.slice_mm, self.factor)

    def intervals(self, sd: np.ndarray, mask: np.ndarray, voxel_size: np.ndarray, slice_mm: float) -> Intervals:
        """What the standard deviation (X, Y, Z) of a result's samples says of it in its brain; 0 is expected outside.

        Args:
            mask: (X, Y, Z), true in the brain.
            voxel_size: of the result, (3,) in mm.
            slice_mm: distance of the low-field scan's slices (`Volume.slice_mm`).
        """
        expected = self.expected(in_neighbourhood(sd, mask, self.window_mm / np.asarray(voxel_size)), slice_mm)
        return Intervals(np.where(mask, expected, 0).astype(np.float32), self.widths)

    def written(self) -> dict[str, Any]:
        """As JSON."""
        return self._asdict() | {"widths": {str(level): width for level, width in self.widths.items()}}


def in_neighbourhood(sd: np.ndarray, mask: np.ndarray, sigma: float | np.ndarray) -> np.ndarray:
    """Root of the variance, (X, Y, Z), averaged over the brain around each voxel by a Gaussian of `sigma` voxels."""
    inside = mask.astype(np.float64)
    variance = gaussian_filter(np.square(sd, dtype=np.float64) * inside, sigma)
    return np.sqrt(variance / np.maximum(gaussian_filter(inside, sigma), 1e-12))


def fit_spread(scans: Sequence[Seen], usage: Mapping[str, Any], set_name: str) -> Spread:
    """Learn from scans, each with as much weight as another, and so with the same n.

    Raises:
        UserError: there is no scan, or the standard deviation is the same everywhere.
    """
    if not scans:
        raise UserError("no validation scan could be enhanced, so the samples' spread cannot be calibrated")
    sd = np.concatenate([np.asarray(scan.sd, np.float64) for scan in scans])
    error = np.concatenate([np.asarray(scan.error, np.float64) for scan in scans])
    if np.ptp(sd) == 0:
        raise UserError(f"the samples' standard deviation is {sd[0]:g} everywhere in the validation scans")
    parts = np.array_split(np.argsort(sd, kind="stable"), BINS)
    knots = tuple(float(sd[part].mean()) for part in parts)
    fitted = Spread(
        usage=dict(usage),
        set=set_name,
        n_scans=len(scans),
        sd=knots,
        error=_rising([np.square(error[part]).mean() for part in parts]),
        slice_mm=(1.0,),
        factor=(1.0,),
        seen_mm=(min(scan.slice_mm for scan in scans), max(scan.slice_mm for scan in scans)),
        window_mm=NEIGHBOURHOOD_MM,
        widths={},
    )
    groups = _by_distance(scans)
    ratios = [np.concatenate([scan.error / fitted.expected(scan.sd, 1.0) for scan in group]) for group in groups]
    fitted = fitted._replace(
        slice_mm=tuple(float(np.mean([scan.slice_mm for scan in group])) for group in groups),
        factor=_rising([np.square(own).mean() for own in ratios], [len(own) for own in ratios]),
    )
    scores = [np.abs(scan.error) / fitted.expected(scan.sd, scan.slice_mm) for scan in scans]
    widths = np.quantile(np.concatenate(scores), [level / 100 for level in LEVELS])
    return fitted._replace(widths=dict(zip(LEVELS, map(float, widths), strict=True)))


def _by_distance(scans: Sequence[Seen]) -> list[list[Seen]]:
    """Scans whose slices are about as far apart, the closest slices first: as many groups as there are distances, but
    each of `FEWEST_SCANS` at least. To 0.1 mm, since an affine turned in space has voxels that differ by rounding."""
    groups: list[list[Seen]] = []
    for scan in sorted(scans, key=lambda scan: scan.slice_mm):
        enough = bool(groups) and len(groups[-1]) >= FEWEST_SCANS
        if not groups or (enough and scan.slice_mm > groups[-1][-1].slice_mm + 0.1):
            groups.append([])
        groups[-1].append(scan)
    if len(groups) > 1 and len(groups[-1]) < FEWEST_SCANS:
        last = groups.pop()
        groups[-1] += last
    return groups


def _rising(squares: Sequence[float], weights: Sequence[float] | None = None) -> tuple[float, ...]:
    """Roots of the rising sequence that is nearest to `squares`."""
    from scipy.optimize import isotonic_regression

    return tuple(np.sqrt(isotonic_regression(squares, weights=weights).x).clip(LEAST).tolist())


def read_spread(path: Path) -> Spread | None:
    """What `Spread.written` gave, or None where nothing could be calibrated; UserError where the file holds
    something else."""
    return _spread(read_json(path), path)


def _spread(record: Any, path: Path) -> Spread | None:
    try:
        if record.get("status", "ok") != "ok":
            return None
        widths = {int(level): float(width) for level, width in record["widths"].items()}
        knots = (tuple(map(float, record[name])) for name in ("sd", "error", "slice_mm", "factor"))
        lowest, highest = map(float, record["seen_mm"])
        found = Spread(
            record["usage"],
            record["set"],
            record["n_scans"],
            *knots,
            (lowest, highest),
            float(record["window_mm"]),
            widths,
        )
        complete = set(LEVELS) <= set(widths) and len(found.sd) == len(found.error) > 1
        complete = complete and len(found.slice_mm) == len(found.factor) > 0
    except (KeyError, TypeError, ValueError, AttributeError):
        complete = False
    if not complete:
        raise UserError(
            f"{path}: holds no calibrated spread, or that of an earlier version; delete it and run the workflow again, "
            "which makes it"
        )
    return found


def spread_of(folder: Path, usage: Mapping[str, Any], weights: str) -> Spread | None:
    """The spread in a model's folder that was calibrated for this way of drawing samples and for weights of this
    checksum; None where there is none.

    Raises:
        UserError: the file that was calibrated for it cannot be read, or is of an earlier version.
    """
    for path, record in _records(folder, weights).items():
        if all(record["usage"].get(key) == usage.get(key) for key in ("kind", "sampling")):
            return _spread(record, path)
    return None


def calibrated_samplings(folder: Path, weights: str) -> list[dict[str, Any]]:
    """The ways of drawing samples that a model's folder has a spread for, of weights of this checksum."""
    found = (record["usage"].get("sampling") for record in _records(folder, weights).values())
    return [sampling for sampling in found if isinstance(sampling, dict)]


def _records(folder: Path, weights: str) -> dict[Path, dict[str, Any]]:
    found = {path: read_json(path) for path in sorted(folder.glob("spread_*.json"))}
    return {
        path: record
        for path, record in found.items()
        if isinstance(record, dict) and isinstance(record.get("usage"), dict) and record.get(WEIGHTS) == weights
    }
