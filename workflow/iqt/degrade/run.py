"""Low-field partners of the high-quality scans: files in, files out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from iqt.config import LowField
from iqt.degrade import simulator, tissues
from iqt.degrade.record import describe
from iqt.io import batch, naming
from iqt.io.volumes import Volume, read_on_grid, read_volume, save_volume


def degrade_scans(
    scans: Iterable[str],
    cohort: Path,
    out: Path,
    suffix: str,
    seed: int,
    settings: LowField,
    set_name: str,
    posteriors: Path | None = None,
    training: Collection[str] = (),
) -> None:
    """Simulate one low-field set (`out` is its folder) from the cohort; a scan that fails is recorded in its sidecar.

    Writes thick slices, the same on the high-quality grid, and a sidecar with the settings and all that was drawn. A
    training scan gets `settings.draws` acquisitions: the further ones have the entity `draw-2`, `draw-3`...

    Args:
        posteriors: folder of `tissues.segment_scans`; the cohort's own posteriors without it.
        training: the scans, of those above, that networks are trained on.
    """
    resolved = simulator.resolve(settings, suffix)
    training = set(training)

    def work(scan: str) -> dict:
        source = batch.require_ok(naming.anat(cohort, scan, f"{suffix}.json"), "cohort")
        engine = "cohort"
        if posteriors is not None:
            engine = batch.require_ok(naming.anat(posteriors, scan, "probseg.json"), "tissues")["engine"]
        volume = read_volume(naming.anat(cohort, scan, f"{suffix}.nii.gz"))
        maps = _read_posteriors(volume, tissues.probseg(posteriors or cohort, scan), resolved)
        records = []
        for number in range(1, draws_of(scan) + 1):
            drawn = simulator.draw(resolved, seed, scan, suffix, number)
            result = simulator.apply(volume, maps, resolved, drawn, suffix)
            for path, data, affine in zip(
                paths(scan, number),
                (result.thick.data, result.upsampled),
                (result.thick.affine, volume.affine),
                strict=True,
            ):
                save_volume(path, data, affine)
            records.append({"draw": drawn.to_dict(), "measured": result.measured})
        return {
            "set": set_name,
            **describe(scan, seed, suffix, engine, resolved, records[0]),
            **({"further_draws": records[1:]} if len(records) > 1 else {}),
            "warnings": batch.warnings_of(source),
        }

    def draws_of(scan: str) -> int:
        return settings.draws if scan in training else 1

    def paths(scan: str, number: int) -> list[Path]:
        return [naming.anat(out, scan, naming.draw_entity(number) + ending) for ending in endings]

    def outputs(scan: str) -> list[Path]:
        # an earlier run may have drawn more often
        further = naming.anat(out, scan, "x").parent.glob(f"{scan}_draw-*_{suffix}.nii.gz")
        return [*paths(scan, 1), *further]

    endings = (f"{suffix}.nii.gz", f"space-HQ_{suffix}.nii.gz")
    batch.run_scans(scans, lambda scan: naming.anat(out, scan, f"{suffix}.json"), outputs, work)


def _read_posteriors(volume: Volume, paths: Mapping[str, Path], settings: LowField) -> dict[str, np.ndarray] | None:
    if not settings.needs_tissues:
        return None
    return {name: read_on_grid(path, volume) for name, path in paths.items()}
