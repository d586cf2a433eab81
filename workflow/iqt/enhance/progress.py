"""How far the enhancement of a volume is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with the tiles done and the tiles there are, over all network calls."""
