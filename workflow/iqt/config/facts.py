"""What the page tells of a configuration, handed to the job that gathers a run's facts."""

from __future__ import annotations

from iqt.config.evaluate import Evaluate
from iqt.config.lowfield import LowField
from iqt.config.section import Section
from iqt.io.naming import Result


class MethodFacts(Section):
    """What the page says about a method."""

    kind: str
    model: str | None
    """The trained model that it uses; None for an interpolation."""


class RunFacts(Section):
    """What the page tells of the configuration and no more, so that other keys do not make it be gathered again."""

    name: str
    seed: int
    seeds: tuple[int, ...]
    suffix: str
    source: str
    lowfield: dict[str, LowField]
    training_sets: tuple[str, ...]
    """Low-field sets that something is trained on: they are of everybody, the others of the test people."""
    methods: dict[str, MethodFacts]
    engine: str
    evaluate: Evaluate
    made: dict[str, tuple[str, ...]]
    """What is made of each low-field set, as `Result.text` writes it."""

    def results(self, set_name: str) -> list[Result]:
        """What is made of a low-field set: one result a method and training seed."""
        return [Result.parse(text) for text in self.made[set_name]]
