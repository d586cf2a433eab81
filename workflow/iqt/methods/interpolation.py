"""Interpolation of the thick slices, the method to beat."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from iqt.methods.base import Method

if TYPE_CHECKING:
    from iqt.io.volumes import Volume


class Interpolation(Method):
    """Interpolation of the thick slices, the method to beat: cubic splines, or linear."""

    kind: Literal["cubic", "linear"] = "cubic"
    """Kind of method."""

    @classmethod
    def begin(cls, kind: str, upsampled: Volume, slices: Callable[[], Volume]) -> Volume:
        """The low-field stage ends with the cubic interpolation, so only the linear one is left to do."""
        if kind == "cubic":
            return upsampled
        from iqt.imaging.resample import linear

        return linear(slices(), upsampled)


METHODS = (Interpolation,)
