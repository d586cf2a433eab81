"""One run's scores, training curves and facts, in the tables and the JSON that everything shown is drawn from."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from iqt import __version__
from iqt.config.facts import RunFacts
from iqt.errors import UserError
from iqt.evaluate.run import TABLES, UNREAD
from iqt.io.batch import OK, status_of
from iqt.io.files import read_json, read_table, write_json, write_table
from iqt.io.naming import PARTS, Result, anat, flat, part_folder

SCORES = ("val_psnr", "val_psnr_first", "val_dice")
HISTORY_COLUMNS = ("model", "step", "seconds", "learning_rate", "train_loss", "val_loss", *SCORES)

MASKS_SHOWN = 12
"""Pictures of masks that the page holds; more are in the cohort's folder alone."""


def gather(
    root: Path,
    batches: Sequence[int],
    histories: Mapping[str, Path],
    run: RunFacts,
    lut: Path | None,
    out: Path,
    code: Mapping[str, Any] | None = None,
) -> None:
    """Write `subjects.csv`, `structures.csv`, `history.csv` and `run.json` to `out`, and for each low-field set
    `calibration/<set>.csv`, `reliability/<set>.csv` and `seams/<set>.csv`.

    Rows follow the order of the sets, of the methods, their seeds and of participants.tsv.

    Args:
        root: folder of the run, with cohort/, lowfield/, enhanced/, parcellation/ and metrics/parts/.
        batches: those that hold a test scan.
        histories: each model's history.csv, its model.json beside it, in the order to show them.
        lut: look-up table of the parcellator's labels; None where nothing was parcellated.
        code: what is known of the code that ran, such as its commit.

    Raises:
        UserError: a part or a record is missing or unreadable, or a part names another set, method or seed than its
            own, a scan that this run has not, or one twice.
    """
    people = read_table(root / "cohort" / "participants.tsv", required=("scan", "split", "status"))
    scans = [row["scan"] for row in people]
    of_sets = {name: gather_parts(root, name, run.results(name), batches, scans) for name in run.lowfield}
    scored, structures = (
        [row for tables in of_sets.values() for row in tables[name]] for name in ("subjects", "structures")
    )
    cards = {model: read_json(history.with_name("model.json")) for model, history in histories.items()}

    write_table(out / "subjects.csv", scored, TABLES["subjects"])
    write_table(out / "structures.csv", structures, TABLES["structures"])
    for name in ("calibration", "reliability", "seams"):
        for set_name, tables in of_sets.items():
            write_table(out / name / f"{set_name}.csv", tables[name], TABLES[name])
    write_table(out / "history.csv", _history(histories), HISTORY_COLUMNS)
    facts = {
        "name": run.name,
        "created_by": __version__,
        "code": dict(code or {}),
        "seed": run.seed,
        "suffix": run.suffix,
        "cohort": _cohort(people, run.source)
        | {
            "skipped": _skipped(root, people, scored, run),
            "doubts": _doubts(root, people, run.suffix),
            "masks": _masks(root, people, run.suffix),
        },
        "lowfield": {name: _lowfield(root, name, people, run) for name in run.lowfield},
        "models": {model: _model(card) for model, card in cards.items()},
        "methods": {name: _method(root, name, people, run) for name in run.methods},
        "parcellator": _parcellator(root, people, run, lut),
        "machine": next((card["machine"] for card in cards.values() if card.get("machine")), {}),
        "evaluate": run.evaluate.model_dump(mode="json"),
    }
    write_json(out / "run.json", facts)


def gather_parts(
    root: Path,
    set_name: str,
    results: Sequence[Result],
    batches: Sequence[int],
    scans: Sequence[str],
    tables: Sequence[str] = PARTS,
) -> dict[str, list[dict]]:
    """The rows of some of `run.TABLES` of some results on a set, by result and then in the order of `scans`.

    Raises:
        UserError: as `gather`.
    """
    order = {name: place for place, name in enumerate(scans)}
    found: dict[str, list[dict]] = {name: [] for name in tables}
    for result in results:
        wanted = {"set": set_name, "method": result.method, "seed": "" if result.seed is None else str(result.seed)}
        for name in tables:
            placed: dict[tuple[int, int], dict] = {}
            for batch in batches:
                part = part_folder(root, set_name, result.folder, batch) / f"{name}.csv"
                for row in read_table(part, required=TABLES[name]):
                    own = {key: row[key] for key in wanted}
                    if own != wanted or row["scan"] not in order:
                        told = ", ".join([row["scan"], *map(str, own.values())])
                        raise UserError(f"{part}: {told} is not of this result and run; delete it and evaluate again")
                    # Structures and parts of a curve have a number.
                    place = order[row["scan"]], int(row.get("index") or row.get("bin") or 0)
                    if place in placed:
                        raise UserError(f"{part}: {row['scan']} is in another batch too; delete both, evaluate again")
                    placed[place] = row
            found[name] += [placed[place] for place in sorted(placed)]
    return found


def _history(histories: Mapping[str, Path]) -> list[dict]:
    return [
        {name: row.get(name, "") for name in HISTORY_COLUMNS} | {"model": model}
        for model, path in histories.items()
        for row in read_table(path, required=("step", "seconds", "train_loss", "val_loss"))
    ]


def _cohort(people: Sequence[Mapping], source: str) -> dict[str, Any]:
    usable = [row for row in people if row["status"] == OK]
    persons = {row["scan"].split("_")[0]: row["split"] for row in usable}
    count = Counter(persons.values())
    sizes = sorted({row["voxel_size"] for row in usable if row.get("voxel_size")})
    return {
        "source": source,
        "voxel_size_mm": _number(sizes[0]) if len(sizes) == 1 else ", ".join(sizes) or None,
        **{f"n_{split}": count[split] for split in ("train", "val", "test")},
    }


def _doubts(root: Path, people: Sequence[Mapping], suffix: str) -> list[str]:
    """What the headers and names of the source's scans leave in doubt, one sentence per scan."""
    sidecars = [anat(root / "cohort", person["scan"], f"{suffix}.json") for person in people]
    return [text for sidecar in sidecars if sidecar.exists() for text in read_json(sidecar).get("warnings", [])]


def _masks(root: Path, people: Sequence[Mapping], suffix: str) -> list[dict[str, str]]:
    """Scans whose brain mask looks wrong, why, and the picture that was drawn of it (as base64, the first ones)."""
    found = []
    for scan in (person["scan"] for person in people):
        sidecar = anat(root / "cohort", scan, f"{suffix}.json")
        warnings = read_json(sidecar).get("mask_warnings") if sidecar.exists() else None
        if warnings:
            picture = sidecar.parents[1] / "figures" / f"{scan}_desc-mask_{suffix}.png"
            shown = picture.exists() and len(found) < MASKS_SHOWN
            content = base64.b64encode(picture.read_bytes()).decode() if shown else ""
            found.append({"scan": scan, "reason": "; ".join(warnings), "picture": content})
    return found


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _skipped(root: Path, people: Sequence[Mapping], scored: Sequence[Mapping], run: RunFacts) -> list[dict[str, str]]:
    """Every failure once, at the stage where it began, with the reason recorded there. Only what the configuration
    makes counts: files of an earlier one may be left."""
    skipped = []

    def failed(scan: str, stage: str, sidecar: Path) -> bool:
        status = status_of(sidecar) if sidecar.exists() else OK
        if status != OK:
            skipped.append({"scan": scan, "stage": stage, "reason": status})
        return status != OK

    first = str(run.seeds[0])
    scored_as = {(row["scan"], row["set"], row["method"], row["seed"] or first): row["status"] for row in scored}
    for person in people:
        scan = person["scan"]
        if person["status"] != OK:
            skipped.append({"scan": scan, "stage": "cohort", "reason": person["status"]})
            continue
        tested = person["split"] == "test"
        judged = tested and run.engine != UNREAD
        hq = flat(root / "parcellation" / "hq", scan, "dseg.json")
        no_truth = judged and failed(scan, "parcellation/hq", hq)
        for set_name in run.lowfield:
            stage = f"lowfield/{set_name}"
            if not tested and set_name not in run.training_sets:
                continue
            if failed(scan, stage, anat(root / stage, scan, f"{run.suffix}.json")):
                continue
            for made in run.results(set_name) if tested else ():
                result = f"{set_name}/{made.folder}"
                if failed(scan, f"enhanced/{result}", flat(root / "enhanced" / result, scan, f"{run.suffix}.json")):
                    continue
                labels = flat(root / "parcellation" / result, scan, "dseg.json")
                if judged and (failed(scan, f"parcellation/{result}", labels) or no_truth):
                    continue
                seed = first if made.seed is None else str(made.seed)
                status = scored_as.get((scan, set_name, made.method, seed), OK)
                if status != OK:
                    skipped.append({"scan": scan, "stage": f"evaluate/{result}", "reason": status})
    return skipped


def _lowfield(root: Path, name: str, people: Sequence[Mapping], run: RunFacts) -> dict[str, Any]:
    """How a set was simulated; for real scans, how well they lie on the high-quality ones, and whose do not."""
    settings = run.lowfield[name]
    if settings.registration is None:
        return settings.model_dump(mode="json", exclude={"registration"})
    own = [row["scan"] for row in people if row["split"] == "test" or name in run.training_sets]
    sidecars = {scan: anat(root / "lowfield" / name, scan, f"{run.suffix}.json") for scan in own}
    records = {scan: read_json(path) for scan, path in sidecars.items() if path.exists()}
    pairs = {scan: record for scan, record in records.items() if record.get("status") == OK}
    residuals = [record["residual_mm"] for record in pairs.values() if record["residual_mm"] is not None]
    largest = [record["largest_residual_mm"] for record in pairs.values() if record["largest_residual_mm"] is not None]
    return {
        "registration": settings.registration,
        "pairs": len(pairs),
        "residual_mm": median(residuals) if residuals else None,
        "largest_residual_mm": max(largest, default=None),
        "misaligned": [f"{scan}: {text}" for scan, record in pairs.items() for text in record["warnings"]],
    }


def _model(card: Mapping) -> dict[str, Any]:
    return {
        **{name: card.get(name) for name in ("kind", "n_parameters", "steps", "seconds")},
        **card.get("metrics", {}),
        "machine": card.get("machine"),
    }


def _method(root: Path, name: str, people: Sequence[Mapping], run: RunFacts) -> dict[str, Any]:
    """Its kind and model, and the cost that the first result of it records."""
    sidecars = (
        flat(root / "enhanced" / set_name / name, row["scan"], f"{run.suffix}.json")
        for set_name in run.lowfield
        for row in people
    )
    record = _first_ok(sidecars)
    return {**run.methods[name].model_dump(), "nfe": record.get("nfe"), "samples": record.get("samples")}


def _parcellator(root: Path, people: Sequence[Mapping], run: RunFacts, lut: Path | None) -> dict[str, Any]:
    if lut is None:
        return {"engine": run.engine, "version": None, "n_structures": 0}
    record = _first_ok(flat(root / "parcellation" / "hq", row["scan"], "dseg.json") for row in people)
    labels = read_table(lut, required=("index",))
    return {
        "engine": record.get("engine", run.engine),
        "version": record.get("version"),
        "n_structures": sum(row["index"] != "0" for row in labels),
    }


def _first_ok(sidecars: Any) -> dict:
    """The first record of a success; empty where there is none."""
    records = (read_json(path) for path in sidecars if path.exists())
    return next((record for record in records if record.get("status") == OK), {})
