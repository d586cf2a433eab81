"""Enhancing one scan of a user's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from iqt import __version__
from iqt.config import Mask
from iqt.diffusion.spread import Spread, calibrated_samplings, spread_of
from iqt.enhance.consistency import Consistency, consistency
from iqt.enhance.intake import load_scan
from iqt.enhance.run import enhance_volume, load_method
from iqt.errors import UserError
from iqt.imaging.brain_mask import NOTICED
from iqt.io.files import write_json
from iqt.io.naming import seed_of
from iqt.io.outputs import FILES, check_outputs, replacing_all, written
from iqt.io.volumes import SCALE_PERCENTILE, Volume, save_volume
from iqt.methods import parse_method
from iqt.terminal import Bar, detail, note, warn
from iqt.training.card import method_of
from iqt.training.checkpoints import load_card

CLOSE_MM = 0.5
"""Slices that are closer or further apart than any seen in calibration by no more than this are not worth a word."""


def enhance_file(
    image: Path,
    out: Path,
    model: Path,
    sampling: dict[str, Any],
    extras: dict[str, Path],
    mask: Path | None = None,
    stripped: bool = False,
    engine: Mask | None = None,
    keep_doubtful_mask: bool = False,
    seed: int = 1,
    precision: str = "auto",
    notes: Sequence[str] = (),
) -> None:
    """Write the enhanced scan to `out`, in the world space of `image` at the model's resolution, and a record to the
    JSON beside it. Nothing is written before everything is computed, and all of it or nothing.

    Args:
        sampling: changes to the model's way of sampling (`steps`, `samples`, ...).
        extras: further volumes to write: `sd`, `sample` (the first sample), `mask` (the brain's), `residual` (the input
            minus the result acquired again, in the input's voxels).
        notes: further warnings, of how the model was chosen.

    Raises:
        UserError: as `load_scan`; an output's name has another ending, or stands for two files; an option is of no use
            with this model.
    """
    record = check_outputs(out, (image, mask), "an enhancement", _is_record, volumes=extras.values())
    card = load_card(model)
    if not card.get("grid"):
        raise UserError(f"{model / 'model.json'}: is of kind {card['kind']}, not of a network that enhances scans")
    method_of(model, card)
    looked_for = "sd" in extras or not card.get("sampling")
    calibrated = calibrated_samplings(model, card["weights_sha256"]) if looked_for else []
    usage = usage_of(card, sampling, calibrated)
    if "sd" in extras and usage.get("sampling", {}).get("samples", 1) < 2:
        raise UserError("--sd: a standard deviation needs several samples; give --samples 4, say")
    spread = spread_of(model, usage, card["weights_sha256"]) if "sd" in extras else None
    with Bar(finding_the_brain=35, enhancing=50, comparing=15) as bar:
        bar.phase("finding_the_brain")
        found = load_scan(image, mask, stripped, engine, card["grid"], card.get("suffix"), keep_doubtful_mask)
        if found.mask_source == NOTICED:
            note(f"{image.name} is taken as skull-stripped: it shows one piece of a brain's size")
        warnings = [*notes, *found.warnings]
        if "sd" in extras and spread is None:
            warnings.append(_uncalibrated(calibrated))
        for warning in warnings:
            warn(warning)

        enhance = load_method(model, usage, precision)
        bar.phase("enhancing")
        result = enhance_volume(enhance, found.scan.data, found.mask, seed_of(seed, "enhance", image.name), bar.within)
        detail(f"{card.get('name')} ({model}): {json.dumps(result.facts)}; brain: {found.mask_source}")
        bar.phase("comparing")
        if spread is not None:
            slice_mm = found.acquired.slice_mm
            told = spread.intervals(result.sd, found.mask, found.scan.voxel_size, slice_mm)
            result = result._replace(sd=told.expected)
            lowest, highest = spread.seen_mm
            if not lowest - CLOSE_MM <= slice_mm <= highest + CLOSE_MM:
                apart = f"{lowest:.3g}" if lowest == highest else f"{lowest:.3g} to {highest:.3g}"
                warnings.append(
                    f"the errors to be expected were calibrated on slices {apart} mm apart, and this scan's are "
                    f"{slice_mm:.3g} mm: they may be others"
                )
                warn(warnings[-1])
        agreement = consistency(Volume(result.mean, found.scan.affine), found.mask, found.acquired)
        if "residual" in extras and agreement is None:
            warnings.append("the brain has too few whole voxels to compare the result with: no residual is written")
            warn(warnings[-1])
            extras = {name: path for name, path in extras.items() if name != "residual"}
        doubt = _disagreement(agreement, card)
        if doubt is not None:
            warnings.append(doubt)
            warn(doubt)
    facts = {
        "status": "ok",
        "input": image.name,
        "model": {key: card.get(key) for key in ("name", "kind", "weights_sha256")},
        "version": __version__,
        "seed": seed,
        **usage.get("sampling", {}),
        **result.facts,
        **({"sd": _meaning(spread)} if "sd" in extras else {}),
        **({"unexplained": agreement.unexplained} if agreement is not None else {}),
        "intensity_scale": f"1 is what the {SCALE_PERCENTILE}th percentile in the brain is in a high-quality scan",
        "mask": found.mask_source,
        "input_voxel_size_mm": _rounded(found.acquired.voxel_size),
        "voxel_size_mm": _rounded(found.scan.voxel_size),
        FILES: written(out, extras.values()),
        "warnings": warnings,
    }
    made = {"sd": result.sd, "sample": result.first, "mask": found.mask.astype(np.uint8)}
    volumes = {out: Volume(result.mean, found.scan.affine)}
    for name, path in extras.items():
        volumes[path] = agreement.difference if name == "residual" else Volume(made[name], found.scan.affine)
    with replacing_all([record, *volumes]) as pending:
        for path, volume in volumes.items():
            save_volume(pending[path], volume.data, volume.affine)
        write_json(pending[record], facts)


def _is_record(known: Mapping[str, Any]) -> bool:
    model = known.get("model")
    return isinstance(model, dict) and "weights_sha256" in model


def _disagreement(agreement: Consistency | None, card: Mapping[str, Any]) -> str | None:
    """A sentence where a result explains less of its input than on any scan that the model was measured on."""
    limit = (card.get("consistency") or {}).get("limit")
    if agreement is None or limit is None or agreement.unexplained <= limit:
        return None
    return (
        f"acquired again, the result leaves {100 * agreement.unexplained:.0f} % of the scan's contrast unexplained, "
        f"more than the {100 * limit:.0f} % of the worst scan that the model was measured on: compare the two "
        "(--residual shows where)"
    )


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]


def _meaning(spread: Spread | None) -> dict[str, Any]:
    """What the standard deviation that is written stands for, for the record."""
    if spread is None:
        return {"meaning": "of the samples, not calibrated: true errors may be larger"}
    meaning = f"root mean square error to be expected, calibrated on {spread.n_scans} validation scans"
    return {"meaning": meaning, "set": spread.set, "interval_half_width_in_sd": spread.written()["widths"]}


def _uncalibrated(calibrated: Sequence[Mapping[str, Any]]) -> str:
    """A sentence for who asked for errors to be expected of samples that were drawn in a way that nobody looked at."""
    known = "; ".join(", ".join(f"{name} {value}" for name, value in each.items()) for each in calibrated)
    text = "the standard deviation is the samples' own, not calibrated: true errors may be several times larger"
    return f"{text}. Calibrated with this model: {known}" if known else text


def usage_of(
    card: Mapping[str, Any], sampling: Mapping[str, Any], calibrated: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """How the model of a card is used: its kind's defaults, then what the card says, then what `sampling` does.

    A run's card says nothing, since a model may be sampled in many ways: then it is sampled as it was when its spread
    was calibrated, a single time, if that was always in one way (`calibrated`).

    Raises:
        UserError: `sampling` has no effect with this kind, or holds a value that it does not allow.
    """
    kind, own = card["kind"], card.get("sampling") or {}
    ways = [{key: value for key, value in each.items() if key != "samples"} for each in calibrated]
    if not own and ways and all(way == ways[0] for way in ways):
        own = ways[0]
    wanted = {**own, **sampling}
    if "eta" not in sampling and wanted.get("sampler") != own.get("sampler"):
        wanted.pop("eta", None)  # of the other sampler
    entry = {"kind": kind, **({"sampling": wanted} if wanted else {})}
    try:
        method = parse_method({**card["settings"], **entry})
    except ValidationError as error:
        problem = error.errors()[0]
        if not problem["loc"]:  # of several keys together
            raise UserError(problem["msg"].removeprefix("Value error, ")) from None
        if problem["type"] == "extra_forbidden":
            key = problem["loc"][-1]
            options = ", ".join(f"--{name}" for name in sampling) if key == "sampling" else f"--{key}"
            raise UserError(f"{options}: has no effect with a model of kind {kind}; leave it out") from None
        raise UserError(f"--{problem['loc'][-1]}: {problem['msg']}") from None
    dumped = method.model_dump(mode="json")
    return {key: dumped[key] for key in ("kind", "sampling", "tiling") if key in dumped}
