"""Experiments: questions that some of the configuration's methods answer on some of its low-field sets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from iqt.config.section import Name, Section

Score = Literal[
    *("psnr", "msssim", "ssim", "hfcorr", "miou", "dice", "nmse", "mae", "hfen"),
    *("psnr_minmax", "msssim_minmax", "ulfenc", "lpips"),
]
"""Columns of metrics/subjects.csv that say how good a result is."""
Seam = Literal["tile_seam", "patch_seam", "patch_error", "patch_error_ratio"]
"""Columns of metrics/seams/."""
LEVELS = (50, 68, 90, 95)
"""Percentages of the truth that intervals should hold."""
COVERAGES = {f"coverage_{level}": level / 100 for level in LEVELS}
"""Columns of metrics/calibration/ on the samples' spread, and the share of voxels that each interval should hold."""
CALIBRATED = {f"calibrated_coverage_{level}": level for level in LEVELS}
"""The same columns of the spread as it was calibrated on the validation people, and the percentage of each."""
Calibration = Literal["correlation", "ratio", *COVERAGES, "calibrated_correlation", "calibrated_ratio", *CALIBRATED]
"""Columns of metrics/calibration/."""
Cost = Literal[
    *("n_parameters", "nfe", "samples", "seconds", "enhance_mb", "train_seconds", "train_mb", "train_gpu_gib")
]
"""What a result cost, as it was measured or counted."""
Quantity = Literal[Score, Seam, Calibration, Cost]


class Experiment(Section):
    """One question, the methods that answer it, and the table and figure that show the answer."""

    title: str
    """Heading on the page."""
    question: str
    """Caption: what is asked, and what to look at."""
    methods: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Entries of `methods`, in the order of the table."""
    sets: Annotated[tuple[Name, ...], Field(min_length=1)] | Literal["all"] = ("main",)
    """Low-field sets. A set besides `main` that experiments name is made for their methods and for
    `evaluate.reference` alone, which saves the rest of the methods' time."""
    metrics: Annotated[tuple[Quantity, ...], Field(min_length=1)] = (*("psnr", "msssim", "hfcorr", "miou"),)
    """What the table shows, and the figure a panel each: scores; seams where tiles and patches meet, and the error of
    the voxels at patch borders; calibration of the samples' spread; and measured costs (memory in MB is a job's largest
    resident set)."""
    keys: tuple[str, ...] = ()
    """Keys of the methods' entries that the table shows too, such as `sampling.steps`."""
    figure: Literal["dots", "lines", "reliability"] = "dots"
    """`dots`: one row per method, with everybody's value; `lines`: means over `x`; `reliability`: true error over
    the error that the samples' spread makes one expect, and coverage."""
    x: str | None = None
    """Horizontal axis of `lines`: one of `keys`, one of `metrics`, or `set`. A method without it is a level line."""
    lines: str = "method"
    """What a line of `lines` stands for: `method`, or one of `keys`."""

    @model_validator(mode="after")
    def _drawn(self) -> Experiment:
        if self.figure == "lines" and self.x not in (*self.keys, *self.metrics, "set"):
            allowed = ", ".join((*self.keys, *self.metrics, "set"))
            raise ValueError(f"x {self.x!r} of figure lines must be one of {allowed}")
        if self.figure == "lines" and self.lines not in (*self.keys, "method"):
            raise ValueError(f"lines {self.lines!r} must be one of {', '.join((*self.keys, 'method'))}")
        if self.figure != "lines" and (self.x is not None or self.lines != "method"):
            raise ValueError(f"x and lines have no effect with figure {self.figure}; leave them out")
        for name in ("methods", "sets", "metrics", "keys"):
            values = getattr(self, name)
            if len(set(values)) < len(values) and values != "all":
                raise ValueError(f"{name} {list(values)} names one twice; name each once")
        return self
