"""Low-field partners of the high-quality scans: files in, files out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from iqt import batch, naming
from iqt.config import LowField
from iqt.degrade import simulator
from iqt.errors import UserError
from iqt.files import write_json
from iqt.volumes import read_on_grid, read_volume, save_volume


def degrade_scans(
    scans: Iterable[str], cohort: Path, out: Path, suffix: str, seed: int, settings: LowField, set_name: str
) -> None:
    """Simulate one low-field set (`out` is its folder) from the cohort; a scan that fails is recorded in its sidecar.

    Writes thick slices, the same on the high-quality grid, and a sidecar with the settings and all that was drawn.
    """

    def work(scan: str) -> dict:
        batch.require_ok(naming.anat(cohort, scan, f"{suffix}.json"), "cohort")
        return _degrade(
            naming.anat(cohort, scan, f"{suffix}.nii.gz"),
            {name: naming.anat(cohort, scan, f"label-{name}_probseg.nii.gz") for name in simulator.TISSUES},
            *outputs(scan),
            seed=seed,
            scan=scan,
            settings=settings,
            set_name=set_name,
        )

    def outputs(scan: str) -> list[Path]:
        return [naming.anat(out, scan, f"{suffix}.nii.gz"), naming.anat(out, scan, f"space-HQ_{suffix}.nii.gz")]

    batch.run_scans(scans, lambda scan: naming.anat(out, scan, f"{suffix}.json"), outputs, work)


def degrade_file(
    image: Path, out: Path, probseg: Mapping[str, Path], seed: int, settings: LowField, space_hq: Path | None
) -> None:
    """Simulate one scan from the command line: thick slices to `out`, the record to a JSON beside it.

    The scan's name, on which the draw depends with `seed`, is the BIDS entities that `image`'s name begins with, or
    else its whole name; a cohort's scan gets the draw that it has in the benchmark.

    Args:
        probseg: paths of the posteriors `WM`, `GM` and `CSF` on the image's grid.
        space_hq: where to write the volume on the high-quality grid, if anywhere.

    Raises:
        UserError: as `simulator.apply`; an output that is also an input or another output, or is not named .nii(.gz).
    """
    missing = [name for name in simulator.TISSUES if name not in probseg]
    if missing:
        raise UserError(f"{image}: tissue posterior {', '.join(missing)} is not given; the simulator needs all three")
    outputs = [Path(path) for path in (out, space_hq) if path is not None]
    taken = {Path(path).resolve() for path in (image, *probseg.values())}
    for path in outputs:
        if not path.name.endswith((".nii", ".nii.gz")):
            raise UserError(f"{path}: an output must end in .nii.gz or .nii")
        if path.resolve() in taken:
            raise UserError(f"{path}: is both an output and another file of this command; choose another name for it")
        taken.add(path.resolve())
    record = _degrade(
        Path(image),
        {name: Path(probseg[name]) for name in simulator.TISSUES},
        *(outputs if space_hq is not None else (*outputs, None)),
        seed=seed,
        scan=_scan_name(Path(image)),
        settings=settings,
    )
    write_json(
        _without_ending(Path(out)).with_name(f"{_without_ending(Path(out)).name}.json"), {"status": "ok", **record}
    )


def _degrade(
    image: Path,
    probseg: Mapping[str, Path],
    thick: Path,
    space_hq: Path | None,
    *,
    seed: int,
    scan: str,
    settings: LowField,
    set_name: str | None = None,
) -> dict:
    volume = read_volume(image)
    tissues = {name: read_on_grid(path, volume) for name, path in probseg.items()}
    drawn = simulator.draw(settings, seed, scan)
    result = simulator.apply(volume, tissues, settings, drawn)
    save_volume(thick, result.thick.data, result.thick.affine)
    if space_hq is not None:
        save_volume(space_hq, result.upsampled, volume.affine)
    return {
        **({"set": set_name} if set_name else {}),
        "scan": scan,
        "seed": seed,
        "draw": drawn.to_dict(),
        "measured": result.measured,
        "settings": settings.model_dump(mode="json"),
    }


def _scan_name(image: Path) -> str:
    found = re.match(naming.SCAN_PATTERN, image.name)
    return found.group() if found else _without_ending(image).name


def _without_ending(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii"))
