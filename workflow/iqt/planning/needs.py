"""What the engines of a configuration need of a cohort's scans: known when a run is planned, so said then. Read by the
Snakefile, so nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from iqt.cohort.entries import Entry
from iqt.config import Config
from iqt.errors import UserError
from iqt.terminal import note

BRINGING_ALL = ("template", "labelmaps")
"""Sources whose scans all have labels and posteriors."""


def check_needs(config: Config, entries: Mapping[str, Entry], splits: Mapping[str, Sequence[str]]) -> None:
    """UserError where an engine cannot work with the scans that the source has; a note on stderr where it cannot with
    some of them. A look-up table of the user's own is read here, since the report comes to it last.

    Args:
        entries: by scan; empty for a source that is not listed.
        splits: the scans of `train`, `val` and `test`.
    """
    table = config.parcellate.table(config.cohort.source)
    if config.parcellate.engine != "none" and table.endswith(".tsv"):
        from iqt.io.labels import read_lut, read_shown  # scipy, for a user's own table alone

        read_lut(table)
        read_shown(table)
    if config.cohort.source in BRINGING_ALL:
        return
    every = [entries[scan] for scans in splits.values() for scan in scans]
    source = config.cohort.source
    if config.parcellate.trained:
        for name in ("train", "val"):
            if not any(entries[scan].labels for scan in splits[name]):
                raise UserError(
                    f"parcellate.builtin.weights train learns from label maps, and none of the {len(splits[name])} "
                    f"{name} scans of cohort.{source} has one; set cohort.{source}.labels to where they are, or "
                    "weights: shipped (T1w), or parcellate.engine: none (similarity alone, no mIoU)"
                )
    for name, settings in config.lowfield.items():
        own = [entries[scan] for scan in ([e.scan for e in every] if name in config.training_sets else splits["test"])]
        if settings.registration and not any(entry.lowfield for entry in own):
            raise UserError(
                f"lowfield.{name}.registration: none of the {len(own)} scans has a low-field partner; "
                f"cohort.{source}.lowfield = {getattr(config.cohort.settings, 'lowfield', None)!r} finds none"
            )
    if not any(settings.needs_tissues for settings in config.lowfield.values()):
        return
    needed = {"cohort": ("wm", "gm", "csf"), "labels": ("labels",)}.get(config.tissues.engine or "", ())
    lacking = [entry.scan for entry in every if not all(getattr(entry, field) for field in needed)]
    what = "tissue posteriors" if config.tissues.engine == "cohort" else "label map"
    if lacking and len(lacking) == len(every):
        raise UserError(
            f"tissues.engine {config.tissues.engine}: none of the {len(every)} scans of cohort.{source} has a "
            f"{what}; set tissues.engine to hmrf (from the "
            "scan alone) or fast, or say where they are"
        )
    if lacking:
        note(
            f"{len(lacking)} of {len(every)} scans have no {what} ({', '.join(lacking[:5])}"
            f"{', ...' if len(lacking) > 5 else ''}) and will be left out: tissues.engine is {config.tissues.engine}"
        )
