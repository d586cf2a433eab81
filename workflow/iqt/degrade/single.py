"""Low-field partners of single scans: a file in, a file out, or the same again from its record."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from iqt.config import LowField, Tissues, parse_section
from iqt.degrade import simulator, tissues
from iqt.degrade.record import Draw, describe
from iqt.degrade.tissues import TissueFiles
from iqt.errors import UserError
from iqt.imaging.checks import sign_problems
from iqt.imaging.contrast import contrast_of
from iqt.imaging.kinds import kind_of
from iqt.io import batch, naming
from iqt.io.files import read_json, write_json
from iqt.io.outputs import FILES, check_outputs, replacing_all, written
from iqt.io.volumes import read_volume, save_volume, say_doubts
from iqt.terminal import Bar, warn

SIMULATED = ("T1w", "T2w", "FLAIR")
"""Contrasts that the simulator knows."""


class Extras(NamedTuple):
    """What else one scan's simulation may write: the volume on the high-quality grid, and a picture of every step."""

    space_hq: Path | None = None
    preview: Path | None = None


def degrade_file(
    image: Path,
    out: Path,
    given: TissueFiles,
    seed: int,
    settings: LowField,
    extras: Extras = Extras(),
    suffix: str | None = None,
    engine: Tissues = Tissues(),
) -> None:
    """Simulate one scan from the command line: thick slices to `out`, the record to a JSON beside it.

    The scan's name, on which the draw depends with `seed`, is the BIDS entities that `image`'s name begins with, or
    else its whole name; a cohort's scan gets the draw that it has in the benchmark. The contrast, where `suffix`
    is None, is that which the name or the scan's sidecar says, or else T1w.

    Args:
        given: posteriors or labels; without either, tissues are classified by dipy's HMRF.

    Raises:
        UserError: as `simulator.apply`; an output that is also an input or another output, or has no known ending.
    """
    image = Path(image)
    _check_outputs(image, Path(out), given, extras)
    suffix = suffix or contrast_of_scan(image)
    settings = simulator.resolve(settings, suffix)
    scan = scan_name(image)
    drawn = simulator.draw(settings, seed, scan, suffix)
    _simulate_file(image, out, given, seed, scan, suffix, settings, drawn, extras, engine)


def replay_file(
    record: Path,
    image: Path,
    out: Path,
    given: TissueFiles,
    extras: Extras = Extras(),
    engine: Tissues = Tissues(),
    number: int = 1,
) -> None:
    """Simulate one scan as a record says (the JSON beside an earlier result), with nothing drawn anew.

    The same scan and tissues give the same volume bit for bit.

    Args:
        number: which acquisition, of a record with further ones (`lowfield.draws`).

    Raises:
        UserError: as `degrade_file`; the record is not one of a simulated scan, has no such acquisition, or its tissues
            came from elsewhere.
    """
    image = Path(image)
    _check_outputs(image, Path(out), given, extras, record)
    found = read_json(record)
    if (
        not isinstance(found, dict)
        or found.get("status", batch.OK) != batch.OK
        or "draw" not in found
        or "settings" not in found
    ):
        raise UserError(f"{record}: not the record of a simulated scan, with `draw` and `settings`")
    acquisitions = [found, *found.get("further_draws", ())]
    if number > len(acquisitions):
        raise UserError(f"--draw {number}: {record} holds {len(acquisitions)}; choose one of them")
    try:
        settings = parse_section(LowField, json.dumps(found["settings"]))
        drawn = Draw.from_dict(acquisitions[number - 1]["draw"])
    except (UserError, KeyError, TypeError) as error:
        raise UserError(f"{record}: {error}") from None
    if settings.needs_tissues:
        _check_tissues(record, found, given)
    suffix = found.get("suffix") or contrast_of_scan(image)
    before = acquisitions[number - 1].get("measured")
    _simulate_file(
        image, out, given, found.get("seed"), found.get("scan"), suffix, settings, drawn, extras, engine, before
    )


def _check_tissues(record: Path, found: Mapping, given: TissueFiles) -> None:
    """UserError where a record's tissues came otherwise than those that are given now."""
    now = tissues.GIVEN if given.probseg else "labels" if given.labels is not None else "hmrf"
    # The benchmark's stages read posteriors from files, whatever engine wrote them.
    then = tissues.GIVEN if "set" in found else found.get("tissues", now)
    if now == then:
        return
    remedy = {
        tissues.GIVEN: "give the posteriors that it used with --wm, --gm and --csf",
        "labels": "give the labels that it used with --labels",
        "hmrf": "leave out posteriors and labels, and give the same --mask if any",
    }
    raise UserError(
        f"{record}: its tissues came from {found.get('tissues')}, not from {now}, so the result would be another; "
        + remedy.get(then, "give what it used")
    )


def _simulate_file(
    image: Path,
    out: Path,
    given: TissueFiles,
    seed: int | None,
    scan: str | None,
    suffix: str,
    settings: LowField,
    drawn: Draw,
    extras: Extras,
    engine: Tissues,
    before: Mapping | None = None,
) -> None:
    """`before`: what the record that is replayed measured."""
    if not settings.needs_tissues and any((given.probseg, given.labels, given.mask)):
        raise UserError(
            "posteriors, labels and mask have no effect where neither contrast nor noise is simulated; leave them out"
        )
    with Bar(finding_tissues=60, simulating=35, writing=5) as bar:
        bar.phase("finding_tissues")
        volume = read_volume(image)
        problems = sign_problems(volume.data)
        if problems:
            raise UserError(f"{image}: {'; '.join(problems)}")
        simulator.check(volume, settings, drawn)
        found = tissues.FoundTissues("none", None, [])
        if settings.needs_tissues:
            found = tissues.tissues_of_file(volume, given, suffix, engine)
        observe = None
        if extras.preview is not None:
            from iqt.degrade.preview import Preview

            observe = Preview(volume)
        bar.phase("simulating")
        result = simulator.apply(volume, found.maps, settings, drawn, suffix, observe)
        bar.phase("writing")
    made = {"draw": drawn.to_dict(), "measured": result.measured}
    sidecar = naming.beside(Path(out), ".json")
    warnings = say_doubts(image, volume.doubts) + found.warnings
    if kind_of(volume.data) != "image":  # which a digital phantom may be
        warnings.append(f"{image.name} holds a few values in patches, as a mask or a label map does and no MRI scan")
    if before is not None and (other := _differing(before, result.measured)):
        told = ", ".join(f"{key} is {result.measured.get(key)} and was {before[key]}" for key in other)
        warnings.append(f"{image.name} or its tissues are not those of the record, so the result is another: {told}")
    for warning in warnings:
        warn(warning)
    facts = {"status": batch.OK, **describe(scan, seed, suffix, found.engine, settings, made), "warnings": warnings}
    wanted = [path for path in extras if path is not None]
    facts[FILES] = written(out, wanted)
    with replacing_all([sidecar, out, *wanted]) as pending:
        save_volume(pending[out], result.thick.data, result.thick.affine)
        if extras.space_hq is not None:
            save_volume(pending[extras.space_hq], result.upsampled, volume.affine)
        if extras.preview is not None:
            observe.save(pending[extras.preview])
        write_json(pending[sidecar], facts)


def _check_outputs(image: Path, out: Path, given: TissueFiles, extras: Extras, record: Path | None = None) -> None:
    inputs = (image, given.labels, given.mask, record, *given.probseg.values())
    check_outputs(
        out,
        [None if path is None else Path(path) for path in inputs],
        "a simulation",
        lambda known: "draw" in known,
        volumes=[extras.space_hq],
        pictures=[extras.preview],
    )


def _differing(before: Mapping, now: Mapping) -> list[str]:
    """What was measured of a scan's tissues otherwise than a record says, beyond rounding."""
    means = [key for key in before if key.startswith(("mean_", "voxels_"))]
    return [key for key in means if not math.isclose(before[key], now.get(key, math.nan), rel_tol=1e-3)]


def contrast_of_scan(image: Path) -> str:
    """The contrast that a scan's name or sidecar says; T1w where they say nothing.

    Raises:
        UserError: it is none that is simulated.
    """
    found, where = contrast_of(image)
    if found not in (None, *SIMULATED):
        raise UserError(
            f"{image}: {where} says {found}, and {', '.join(SIMULATED)} are simulated; name one with --suffix"
        )
    return found or "T1w"


def scan_name(image: Path) -> str:
    """The BIDS entities that an image's name begins with, or else its whole name."""
    found = re.match(naming.SCAN_PATTERN, image.name)
    return found.group() if found else naming.image_stem(image.name)
