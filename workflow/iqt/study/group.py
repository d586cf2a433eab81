"""What the scans of a study have in common: tables, the description of the dataset, and its page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from iqt import __version__
from iqt.config.study import Study
from iqt.errors import UserError
from iqt.io.files import read_json, write_json, write_table, write_text
from iqt.io.shipped import find_model
from iqt.study.pages import write_study_page
from iqt.study.quality import MEASURES
from iqt.study.results import Results, structure_volumes
from iqt.study.scans import LeftOut, StudyScan
from iqt.training.checkpoints import load_card

FAR = 3.5
"""Robust standard deviations from the median from which on a figure is marked (Iglewicz & Hoaglin 1993)."""
FEWEST = 5
"""Scans that a distribution needs."""
IGNORED = ("*.html", "pages", "records", "group", "logs", "benchmarks", "*_volumes.tsv", "*_dseg.tsv")
"""What the BIDS validator shall not look at."""


README = """# Enhanced scans

Made by iqt {version} from {dataset} with the model {model}. Open study.html.

- `sub-*/[ses-*/]anat/*_desc-enhanced_*`: the enhanced scan, its label map, the structures' volumes (mm3); a JSON says
  how.
- `*_desc-brain_mask`: where it was enhanced; outside it is 0. `*_desc-sd_*`: where samples were drawn, their
  standard deviation or the error to be expected; a JSON says which. `*_desc-residual_*`: the scan minus the result
  acquired again.
- `group/`: every scan's status, quality and volumes, and the files that were left out.

Not for diagnosis: lesions may vanish or be invented.
"""


def write_group(
    scans: Sequence[StudyScan], left_out: Sequence[LeftOut], study: Study, command: str | None = None
) -> None:
    """Write `group/scans.tsv`, `group/volumes.tsv` (mm3), `group/left_out.tsv`, `dataset_description.json` and
    `study.html` into the folder of the results."""
    out = Path(study.out)
    rows, volumes = [], []
    for scan in scans:
        results = Results.of(out, scan, study.suffix)
        record = read_json(results.record)
        rows.append(_row(scan, record, results, out))
        volumes.append({"scan": scan.name, **structure_volumes(results)})
    named = dict.fromkeys(name for row in volumes for name in row)
    figures = [name for name in rows[0] if name not in ("scan", "status", "warnings", "page", "image")]
    looked_at = [name for name in figures if name != "seconds"]
    outlying = {name: far_from_others([row[name] for row in rows]) for name in looked_at}
    for number, row in enumerate(rows):
        row["outlying"] = [name for name in looked_at if outlying[name][number]]
    text = [
        {key: _text(value) for key, value in row.items() if key != "page"} | {"warnings": "; ".join(row["warnings"])}
        for row in rows
    ]
    write_table(out / "group" / "scans.tsv", text)
    write_json(out / "group" / "scans.json", {name: {"Description": _meaning(name)} for name in text[0]})
    if len(named) > 1:
        table = [{name: row.get(name, "") for name in named} for row in volumes]
        write_table(out / "group" / "volumes.tsv", table)
        units = {name: {"Description": f"volume of {name}", "Units": "mm^3"} for name in named if name != "scan"}
        write_json(out / "group" / "volumes.json", units)
    else:
        for ending in ("tsv", "json"):
            (out / "group" / f"volumes.{ending}").unlink(missing_ok=True)
    write_table(
        out / "group" / "left_out.tsv",
        [{"file": str(one.file), "reason": one.reason} for one in left_out],
        LeftOut._fields,
    )
    model = find_model(study.model, study.suffix)
    card = load_card(model)
    _describe(out, study, card, command)
    write_text(out / ".bidsignore", "".join(f"{pattern}\n" for pattern in IGNORED))
    write_text(out / "README.md", README.format(dataset=study.dataset, version=__version__, model=card["name"]))
    facts = {
        "dataset": study.dataset,
        "model": f"{card['name']} (weights {card['weights_sha256'][:12]})",
        "version": f"iqt {__version__}",
        "command": command or "",
        "configuration": json.dumps(study.model_dump(mode="json")),
    }
    columns = {name: _heading(name) for name in figures}
    write_study_page(out / "study.html", rows, columns, left_out, facts)


def _row(scan: StudyScan, record: Mapping[str, Any], results: Results, out: Path) -> dict[str, Any]:
    before, after = record.get("quality_before", {}), record.get("quality_after", {})
    row: dict[str, Any] = {
        "scan": scan.name,
        "image": "; ".join(str(stack.image) for stack in scan.stacks or (scan,)),
        "page": results.page.relative_to(out).as_posix(),
        "status": record["status"],
        "warnings": record.get("warnings", []),
        "brain_ml": record.get("brain_ml"),
        "seconds": record.get("seconds"),
        "unexplained": record.get("unexplained"),
    }
    for name in MEASURES:
        row |= {f"{name}_before": before.get(name), f"{name}_after": after.get(name)}
    return row


def far_from_others(values: Sequence[float | None]) -> list[bool]:
    """Which values are far from the others."""
    known = np.array([np.nan if value is None else value for value in values], float)
    there = known[np.isfinite(known)]
    if there.size < FEWEST:
        return [False] * len(values)
    middle = np.median(there)
    spread = 1.4826 * np.median(np.abs(there - middle))
    return [bool(np.isfinite(value) and abs(value - middle) > FAR * max(spread, 1e-9)) for value in known]


def _describe(out: Path, study: Study, card: Mapping[str, Any], command: str | None) -> None:
    """The derivative's own description: https://bids-specification.readthedocs.io, derived datasets."""
    dataset = Path(study.dataset).resolve()
    described = dataset / "dataset_description.json"
    try:
        authors = read_json(described).get("Authors") if described.is_file() else None
    except (UserError, AttributeError):
        authors = None
    made = {
        "Name": "iqt",
        "Version": __version__,
        "Description": f"{card['name']}, weights {card['weights_sha256']}",
        **({"Command": command} if command else {}),
        "Configuration": study.model_dump(mode="json"),
    }
    write_json(
        out / "dataset_description.json",
        {
            "Name": f"{dataset.name}, enhanced by iqt",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            **({"Authors": authors} if isinstance(authors, list) else {}),
            "GeneratedBy": [made],
            "SourceDatasets": [{"URL": dataset.as_uri()}],
            "DatasetLinks": {"raw": (dataset if dataset.is_dir() else dataset.parent).as_uri()},
        },
    )


def _heading(name: str) -> str:
    if name == "brain_ml":
        return "brain (ml)"
    measure, _, when = name.rpartition("_")
    words = {"snr_wm": "SNR WM", "snr_gm": "SNR GM", "cnr": "CNR", "cjv": "CJV", "efc": "EFC"}
    return f"{words[measure]} {when}" if measure in words else name


def _meaning(name: str) -> str:
    known = {
        "scan": "entities of the scan",
        "image": "file, or the first file of each stack that was combined",
        "status": "ok, or why it was not enhanced",
        "warnings": "what may be wrong",
        "brain_ml": "volume of the brain mask in ml",
        "seconds": "seconds that enhancing took",
        "unexplained": "share of the scan's standard deviation in the brain that the result, acquired again, leaves",
        "outlying": "figures that are far from the study's others",
    }
    measure = name.rpartition("_")[0]
    return known.get(name) or f"{MEASURES[measure]}; {name.rpartition('_')[2]} enhancing"


def _text(value: Any) -> Any:
    if isinstance(value, list):
        return ", ".join(value)
    return "" if value is None else " ".join(value.split()) if isinstance(value, str) else value
