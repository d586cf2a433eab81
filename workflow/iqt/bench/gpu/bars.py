"""How far a GPU's results may lie from a CPU's."""

from __future__ import annotations

from typing import NamedTuple


class Bar(NamedTuple):
    """What a figure is, and how far it may go: at most `limit`, or at least where `least`."""

    told: str
    limit: float
    least: bool = False

    def met(self, value: float) -> bool:
        return value >= self.limit if self.least else value <= self.limit


BARS = {
    "float32": Bar("largest difference of an output from the CPU's in float32, in its standard deviations", 1e-3),
    "tensorfloat32": Bar("the same with TensorFloat-32 where the card has it, as users run it", 2e-2),
    "bfloat16_psnr": Bar("PSNR (dB) of a volume enhanced in bfloat16 against float32", 30.0, least=True),
    "repeat": Bar("largest difference between two samples of one seed, in standard deviations", 1e-4),
    "resume": Bar("largest difference of a weight after a training that was stopped and went on, in the weights' "
                  "standard deviations", 1e-2),
}  # fmt: skip
