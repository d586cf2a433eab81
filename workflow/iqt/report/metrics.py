"""What is measured: names, digits, and which quantities each table shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

IMAGE_METRICS = ("psnr", "msssim", "ssim", "hfcorr")
OVERLAPS = ("miou", "dice")
METRICS = (*IMAGE_METRICS, *OVERLAPS)
"""What the benchmark table shows."""
SCALES = 5
"""Of the standard MS-SSIM; a small volume has fewer, which is another measure."""
UNREAD = "none"
"""The parcellator of scores where nothing was parcellated: there is neither mIoU nor Dice."""
COMMON = "miou_common"
"""A column of the tables: mIoU over the scans on which every method succeeded."""
FURTHER_METRICS = ("nmse", "mae", "hfen", "lpips", "psnr_minmax", "msssim_minmax", "ulfenc")
"""What a table of its own shows: other errors, and others' definitions."""
OPTIONAL = ("lpips",)
"""Measured only where the configuration asks for it: shown where some method has it, and no failure where it lacks."""
MUST_BE_MEASURED = tuple(name for name in (*IMAGE_METRICS, *FURTHER_METRICS) if name not in OPTIONAL)
"""What a result without counts as failed."""
LOWER_IS_BETTER = ("nmse", "mae", "hfen", "lpips")
FACTS = ("msssim_scales", "msssim_minmax_scales", "seconds", "nfe", "samples", "n_parameters")

NAMES = {
    "psnr": "PSNR (dB)",
    "msssim": "MS-SSIM",
    "ssim": "SSIM",
    "hfcorr": "hfcorr",
    "miou": "mIoU",
    "dice": "Dice",
    "miou_common": "mIoU common",
    "nmse": "NMSE",
    "mae": "MAE",
    "hfen": "HFEN",
    "lpips": "LPIPS",
    "psnr_minmax": "PSNR min-max (dB)",
    "msssim_minmax": "MS-SSIM min-max",
    "ulfenc": "ULF-EnC score",
}
DECIMALS = {"psnr": 2, "msssim": 4, "ssim": 4, "hfcorr": 3, "miou": 3, "dice": 3, "miou_common": 3}
DECIMALS |= {"nmse": 4, "mae": 4, "hfen": 3, "lpips": 4, "psnr_minmax": 2, "msssim_minmax": 4, "ulfenc": 4}
"""Digits after the point wherever a person reads the number."""


def measured(names: Iterable[str], parcellator: str) -> list[str]:
    """The metrics less those that need a parcellator, where there was none."""
    return [name for name in names if parcellator != UNREAD or name not in (*OVERLAPS, COMMON)]


def named(name: str, parcellator: str) -> str:
    """A metric's name as a person reads it, with the parcellator that it depends on."""
    return f"{NAMES[name]} ({parcellator})" if name in OVERLAPS and parcellator not in ("", UNREAD) else NAMES[name]


def further_metrics(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """`FURTHER_METRICS` less those that were not asked for: optional ones that no row has."""
    return [name for name in FURTHER_METRICS if name not in OPTIONAL or any(row[name] for row in rows)]


def shown(name: str, value: float) -> str:
    """A metric as a person reads it; a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.{DECIMALS[name]}f}"


def signed(name: str, difference: str) -> str:
    """A difference of a metric, as a table holds it, for a person; a dash where there is none."""
    return f"{float(difference):+.{DECIMALS[name]}f}" if difference else "–"
