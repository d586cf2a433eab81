"""What is run from a configuration: which results there are, the models behind them, and what each depends on."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from iqt.config.benchmark import Config
from iqt.config.facts import MethodFacts, RunFacts
from iqt.io.naming import Result


@dataclass(frozen=True)
class Plan:
    """A configuration, read as what it asks for."""

    config: Config

    def methods_on(self, set_name: str) -> list[str]:
        """The methods that are run on a low-field set: all, or on a set besides `main` those of the experiments that
        name it and the one that statistics compare with."""
        named = [one.methods for name, one in self.config.experiments.items() if set_name in self.config.sets_of(name)]
        if set_name == "main" or not named:
            return list(self.config.methods)
        reference = self.config.evaluate.reference or next(iter(self.config.methods))
        wanted = {reference, *(method for methods in named for method in methods)}
        return [name for name in self.config.methods if name in wanted]

    def key_of(self, method: str, key: str) -> Any:
        """What a method's entry says under a key such as `sampling.steps`; None where it has none."""
        value: Any = self.config.methods[method].model_dump(mode="json")
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def results(self, set_name: str = "main") -> list[Result]:
        """What is made of a low-field set: one per method and training seed, methods in the order of the tables."""
        first = self.config.training_seeds[0]
        return [
            Result.of(name, seed, first)
            for name in self.methods_on(set_name)
            for seed in (self.config.training_seeds if self.model_of(name) else (None,))
        ]

    def model_of(self, method: str) -> str | None:
        """The trained model that a method uses; None where it has none.

        Entries with the same training share one. It is named after the entry that the others are based on, or of
        several the one named like its kind, else the first of the alphabet: where they stand does not matter, and
        neither do entries that are added with a `base`.
        """
        if not self.config.methods[method].trained:
            return None
        wanted = self._trainings[method]
        alike = [name for name, training in self._trainings.items() if training == wanted]
        return min(alike, key=lambda name: (self.config.methods[name].base in alike, name != wanted["kind"], name))

    @functools.cached_property
    def _trainings(self) -> dict[str, dict[str, Any]]:
        """What the weights of each trained method depend on."""
        return {name: self.trained_by(name) for name, entry in self.config.methods.items() if entry.trained}

    def models(self) -> list[str]:
        """The models to train, in the order of the methods."""
        return list(dict.fromkeys(name for name in map(self.model_of, self.config.methods) if name))

    def sampled(self) -> list[str]:
        """The methods that draw several samples, and so have a spread."""
        return [name for name, entry in self.config.methods.items() if entry.samples > 1]

    def trained_by(self, method: str) -> dict[str, Any]:
        """The part of a method's entry that its weights depend on; `size_like` is the other method's network, `start`
        all that the model it starts from depends on."""
        entry = self.config.methods[method]
        settings = entry.trained_by()
        like = getattr(entry, "size_like", None)
        if like:
            other = self.config.methods[like].model_dump(mode="json")
            settings["size_like"] = {key: other[key] for key in ("kind", "network", "patches")}
        if entry.starts_from:
            settings["start"] = self.trained_by(entry.starts_from)
        return settings

    def start_of(self, model: str) -> str | None:
        """The trained model that a model's training starts from; None for most."""
        entry = self.config.methods.get(model)
        return self.model_of(entry.starts_from) if entry and entry.starts_from else None

    def involved(self, model: str) -> list[str]:
        """A model's method, and those whose networks its training builds: the one it starts from, the one whose size it
        takes."""
        entry = self.config.methods[model]
        named = (getattr(entry, "size_like", None), entry.starts_from)
        return [model, *(name for other in named if other for name in self.involved(other))]

    def used_by(self, method: str) -> dict[str, Any]:
        """The part of a method's entry that says how its weights are used."""
        entry = self.config.methods[method].model_dump(mode="json")
        return {key: entry[key] for key in ("kind", *self.config.methods[method].used)}

    def facts(self) -> RunFacts:
        """What the page tells of the configuration."""
        config = self.config
        return RunFacts(
            name=config.name,
            seed=config.seed,
            seeds=config.training_seeds,
            suffix=config.suffix,
            source=config.cohort.source,
            lowfield=config.lowfield,
            training_sets=tuple(config.training_sets),
            methods={
                name: MethodFacts(kind=entry.kind, model=self.model_of(name)) for name, entry in config.methods.items()
            },
            engine=config.parcellate.engine,
            evaluate=config.evaluate,
            made={name: tuple(result.text for result in self.results(name)) for name in config.lowfield},
        )
