"""How far a GPU's results may lie from a CPU's."""

from __future__ import annotations

import math
from typing import NamedTuple


class Bar(NamedTuple):
    """What a figure is, and how far it may go: at most `limit`, or at least where `least`."""

    told: str
    limit: float
    least: bool = False

    def met(self, value: float | None) -> bool:
        """False also for what is not finite (None, since JSON has no other name for it)."""
        if value is None or not math.isfinite(value):
            return False
        return value >= self.limit if self.least else value <= self.limit


BARS = {
    "float32": Bar("largest difference of an output from the CPU's in float32, in its standard deviations", 1e-3),
    "tensorfloat32": Bar("the same with TensorFloat-32, where the card has it", 5e-2),
    "bfloat16_psnr": Bar("PSNR (dB) of a region sampled in bfloat16 against float32", 30.0, least=True),
    "repeat": Bar("largest difference between two samples of one seed, in their standard deviation", 1e-4),
    "resume": Bar(
        "distance of a resumed training's weights from an uninterrupted one's, of the way that they moved", 0.05
    ),
}
"""By the name of the figure in a session's results; none may be missing."""
