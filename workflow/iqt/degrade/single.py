"""Low-field partners of single scans: a file in, a file out, or the same again from its record."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from iqt.config import LowField, Tissues, parse_section
from iqt.degrade import simulator, tissues
from iqt.degrade.record import Draw, describe
from iqt.degrade.tissues import TissueFiles
from iqt.errors import UserError
from iqt.imaging.kinds import kind_of
from iqt.io import batch, naming
from iqt.io.files import read_json, write_json
from iqt.io.outputs import FILES, check_outputs, replacing_all, written
from iqt.io.volumes import read_volume, save_volume, say_doubts
from iqt.terminal import Bar, warn


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
    else its whole name; a cohort's scan gets the draw that it has in the benchmark. So is the contrast, where `suffix`
    is None: what the name ends with, or else T1w.

    Args:
        given: posteriors or labels; without either, tissues are classified by dipy's HMRF.

    Raises:
        UserError: as `simulator.apply`; an output that is also an input or another output, or has no known ending.
    """
    image = Path(image)
    _check_outputs(image, Path(out), given, extras)
    suffix = suffix or _suffix(image)
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
    suffix = found.get("suffix") or _suffix(image)
    _simulate_file(image, out, given, found.get("seed"), found.get("scan"), suffix, settings, drawn, extras, engine)


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
) -> None:
    with Bar(finding_tissues=60, simulating=35, writing=5) as bar:
        bar.phase("finding_tissues")
        volume = read_volume(image)
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


def _suffix(image: Path) -> str:
    found = re.search(r"_(T1w|T2w|FLAIR)$", naming.beside(image, "").name)
    return found.group(1) if found else "T1w"


def scan_name(image: Path) -> str:
    found = re.match(naming.SCAN_PATTERN, image.name)
    return found.group() if found else naming.beside(image, "").name
