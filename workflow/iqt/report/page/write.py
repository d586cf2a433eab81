"""One self-contained report.html: tables, figures and what was run, for a person to open anywhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from iqt.config.experiments import Experiment
from iqt.errors import UserError
from iqt.io.files import read_json, read_table, write_text
from iqt.report.data import read_scores
from iqt.report.metrics import METRICS, UNREAD, further_metrics, measured, named
from iqt.report.page.assessments import calibration_table, seam_table
from iqt.report.page.methods import SHOWN, benchmark_lines, extremes_lines, further_lines, left_out, shared_lines
from iqt.report.page.structures import compare_methods, judge, mean_over_seeds, read_colours
from iqt.report.page.templates import templates
from iqt.report.page.viewer import collect
from iqt.report.tables.comparable import blind_parcellator
from iqt.report.tables.comparisons import statistics_cells
from iqt.report.tables.experiments import columns_of, experiment_cells, experiment_note
from iqt.report.tables.formats import BOLD, PLAIN, marked
from iqt.report.tables.structures import read_structures, structure_cells, structure_differences

TEMPLATE = Path(__file__).with_name("page.html")
FIGURES = ("slices", "metrics", "parcellation", "training", "published", "overlap", "reliability", "experiment")
"""What a figure's file name begins with, in the order of the page."""
FEW_PEOPLE = 10
DOUBTS_SHOWN = 20
FIGURE_BUDGET = 6_000_000
"""Characters of the page that figures may take, so that it stays below 15 MB; the others are named."""


def write_page(
    metrics: Path,
    tables: Path,
    figures: list[Path],
    out: Path,
    lut: Path | None = None,
    panels: Sequence[Path] = (),
    people_named: bool = False,
    experiments: Mapping[str, Experiment] | None = None,
) -> None:
    """Write the page from metrics/ (run.json, subjects.csv, structures.csv), the tables and PNG figures.

    `experiments` are those whose tables lie in the folder experiments of `tables`, and whose figures are among
    `figures` as experiment_<name>.png.

    metrics/parcellator.csv, where it exists, says how well the parcellator reads; `lut` gives structures their colours;
    `panels` are those of the people whom the viewer shows, the first by name unless `people_named`.
    metrics/calibration/ and metrics/seams/ are shown set by set, where they exist. Beside a benchmark.csv its folder's
    statistics.csv and structures.csv are shown, where they exist.

    A figure's file name begins with one of `FIGURES`; its first word after that and
    its folder are shown as its name. Every `benchmark*.csv` below `tables` is shown, benchmark.csv first.

    Raises:
        UserError: a file is absent, not readable, or a figure has another name or is no PNG.
    """
    run, asked = read_json(metrics / "run.json"), experiments or {}
    colours = read_colours(lut)
    sets = _sets(metrics, tables, run, asked, colours)
    content = {
        "run": run,
        "methods": [row["method"] for row in sets[0]["rows"]],
        "benchmarks": sets,
        "experiments": [_experiment(name, one, tables) for name, one in asked.items()],
        "n_seeds": max(int(row.get("n_seeds", 1)) for each in sets for row in each["rows"]),
        "figures": _figures(figures),
        "viewer": collect(panels),
        "models": _as_table(run.get("models", {})),
        "run_methods": _as_table(run.get("methods", {})),
        "lowfield": _as_table(run.get("lowfield", {})),
        "lowfield_heading": _lowfield_heading(run.get("lowfield", {})),
        "people_named": people_named,
        "skipped": _skipped(run),
        # A file of an earlier configuration may be left.
        "judge": judge(metrics, colours) if run.get("parcellator", {}).get("engine") != UNREAD else None,
    }
    write_text(out, _render(content))


def _render(content: Mapping[str, Any]) -> str:
    environment = templates()
    environment.filters |= {"plain": _plain}
    environment.globals |= {"BOLD": BOLD, "PLAIN": PLAIN, "DOUBTS_SHOWN": DOUBTS_SHOWN, "UNREAD": UNREAD}
    return environment.get_template(TEMPLATE.name).render(content)


def _sets(
    metrics: Path, tables: Path, run: Mapping, experiments: Mapping[str, Experiment], colours: Mapping[str, str]
) -> list[dict[str, Any]]:
    """What the page says of each low-field set that has a benchmark.csv, `main` first."""
    found = sorted(
        tables.rglob("benchmark*.csv"), key=lambda path: (len(path.parts), path.name != "benchmark.csv", path)
    )
    if not found:
        raise UserError(f"{tables}: no benchmark.csv; run the tables first")
    structures = mean_over_seeds(read_structures(metrics / "structures.csv"))
    sets = []
    for path in found:
        rows = read_table(path, required=("method", "set", "n_failed"))
        if not rows:
            raise UserError(f"{path}: no row; run the tables again")
        set_name = rows[0]["set"]
        if set_name in run.get("lowfield", {set_name: None}):  # else of a set that the configuration had once
            own = structures[structures["set"] == set_name]
            sets.append(_set(path, rows, metrics, run, experiments, own, colours))
    if not sets:
        raise UserError(f"{tables}: no benchmark.csv of a low-field set of this run; run the tables first")
    return sets


def _set(
    path: Path,
    rows: list[dict[str, str]],
    metrics: Path,
    run: Mapping,
    experiments: Mapping[str, Experiment],
    structures: pd.DataFrame,
    colours: Mapping[str, str],
) -> dict[str, Any]:
    """What the page says of a low-field set; `path` is its benchmark.csv, with the other tables beside it."""
    set_name, judged_by, methods = rows[0]["set"], rows[0].get("parcellator", ""), run.get("methods", {})
    plain = next((name for name, method in methods.items() if method.get("kind") == "cubic"), None)
    trained = [name for name, method in methods.items() if method.get("model")]
    scores = read_scores(metrics / "subjects.csv", set_name)
    people = max(int(row["n_subjects"]) for row in rows)
    volumetry = _beside(path, "structures.csv", structure_cells)
    failed = scores[scores["failed"]]
    return {
        "set": set_name,
        "head": [named(name, judged_by) for name in measured(SHOWN, judged_by)],
        "parcellator": judged_by,
        "rows": benchmark_lines(rows),
        "further": further_lines(rows),
        "statistics": _beside(path, "statistics.csv", statistics_cells),
        "volumetry": volumetry,
        "volumetry_differs": structure_differences(volumetry["rows"]),
        "shared": shared_lines(rows),
        "left_out": left_out(rows, methods, experiments),
        "calibration": calibration_table(metrics, set_name, _sampled(rows, trained), people),
        "seams": seam_table(metrics, set_name, trained, people),
        "n_scans": scores["scan"].nunique(),
        "extremes": [
            ("", extremes_lines(scores, measured(METRICS, judged_by))),
            (" by further similarity", extremes_lines(scores, further_metrics(rows))),
        ],
        "structures": compare_methods(structures, plain, colours),
        "failures": [row for row in failed.to_dict("records") if not _listed(row, set_name, _skipped(run))],
        "warnings": _warnings(rows, scores, run),
        "scales": ", ".join(sorted({row["msssim_scales"] for row in rows if row["msssim_scales"]})),
        "n_people": people,
    }


def _skipped(run: Mapping) -> list[dict]:
    return run.get("cohort", {}).get("skipped", [])


def _experiment(name: str, experiment: Experiment, tables: Path) -> dict[str, Any]:
    rows = read_table(tables / "experiments" / f"{name}.csv", required=columns_of(experiment))
    head, *lines = experiment_cells(rows, experiment, marked)
    table = {"head": head, "lines": lines, "n_text": head.index("method") + 1 + len(experiment.keys)}
    return {"name": name, "settings": experiment, "table": table, "note": experiment_note(rows, experiment)}


def _beside(benchmark: Path, name: str, cells: Callable[[list[dict[str, str]]], list[list[str]]]) -> dict[str, Any]:
    """Another table of the same folder, as a heading and lines; empty where there is none."""
    path = benchmark.with_name(name)
    if not path.is_file():
        return {"head": [], "lines": [], "rows": []}
    rows = read_table(path)
    head, *lines = cells(rows)
    return {"head": head, "lines": lines, "rows": rows}


def _sampled(rows: list[dict[str, str]], trained: list[str]) -> list[str]:
    """The trained methods that draw several samples, and those that always failed, so that nobody knows."""
    return [row["method"] for row in rows if row["method"] in trained and row["samples"] != "1"]


def _lowfield_heading(sets: Mapping[str, Mapping]) -> str:
    """What the low-field sets are: simulated, real scans of the same people, or both."""
    real = {bool(settings.get("registration")) for settings in sets.values()}
    if real == {True}:
        return "Real low-field scans"
    return "Low-field sets" if True in real else "Low-field simulation"


def _warnings(rows: list[dict[str, str]], scores: pd.DataFrame, run: Mapping) -> list[str]:
    """What a reader must know before believing a number, each as a sentence."""
    people = scores["person"].nunique()
    warnings = []
    if people < FEW_PEOPLE:
        who = f"{people} test people" if people > 1 else "one test person"
        warnings.append(f"Only {who}: small differences between methods, and the intervals, are not reliable.")
    scales = scores["msssim_scales"].min()
    if scales < 5:
        warnings.append(
            f"MS-SSIM used {scales:.0f} of the usual 5 scales (weights renormalised) because the volumes are "
            "small: not comparable with published values."
        )
    warnings += blind_parcellator(rows)
    methods = run.get("methods", {})
    value = {row["method"]: float(row["psnr_shared"]) for row in rows if row["psnr_shared"]}
    plain = [psnr for name, psnr in value.items() if methods.get(name, {}).get("kind") == "cubic"]
    warnings += [
        f"{name} does not exceed cubic interpolation in PSNR ({psnr:.2f} against {max(plain):.2f} dB)."
        for name, psnr in value.items()
        if plain and methods.get(name, {}).get("model") and psnr <= max(plain)
    ]
    pairs = run.get("lowfield", {}).get(rows[0]["set"], {})
    if pairs.get("registration"):
        warnings.append(
            f"Real low-field scans, {pairs['registration']} registration: after it a part of the brain lies "
            f"{_plain(pairs['residual_mm'])} mm (median) from its place, {_plain(pairs['largest_residual_mm'])} mm at "
            "most; scores hold that error too."
        )
        warnings += pairs["misaligned"]
    for row in rows:
        if int(row["n_failed"]):
            warnings.append(
                f"{row['method']}: {row['n_failed']} scan(s) failed (reasons below); a failed "
                "parcellation scores 0 (but for want of memory), what else is missing is left out of the means, and "
                "bold goes by what all have."
            )
    return warnings


def _figures(paths: list[Path]) -> dict[str, list[dict[str, str]]]:
    """Figures by kind; one that does not fit into `FIGURE_BUDGET` has no data, and a person's come last."""
    grouped: dict[str, list[dict[str, str]]] = {kind: [] for kind in FIGURES}
    used = 0
    for path in sorted(map(Path, paths), key=lambda path: path.stem.startswith(("slices", "parcellation"))):
        kind = next((kind for kind in FIGURES if path.stem.startswith(kind)), None)
        if kind is None:
            raise UserError(f"{path}: a figure's name must begin with one of {', '.join(FIGURES)}")
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise UserError(f"{path}: no such figure; draw it first") from None
        if not content.startswith(b"\x89PNG"):
            raise UserError(f"{path}: not a PNG image; the page takes PNG only")
        data = base64.b64encode(content).decode("ascii")
        fits = used + len(data) <= FIGURE_BUDGET
        used += len(data) if fits else 0
        name = path.stem.removeprefix(kind).lstrip("-_.")
        grouped[kind].append({"name": name, "file": path.name, "data": data if fits else ""})
    return grouped


def _as_table(sections: Mapping[str, Mapping]) -> dict[str, Any]:
    """Sections that share keys as a table: one column a section, one row a key."""
    keys = list(dict.fromkeys(key for section in sections.values() for key in section))
    return {
        "head": list(sections),
        "lines": [(key, [_plain(section.get(key)) for section in sections.values()]) for key in keys],
    }


def _plain(value: Any) -> str:
    """A value of run.json as a person reads it."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if value >= 10000 else str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_plain(part)}" for key, part in value.items())
    return value if isinstance(value, str) else json.dumps(value)


def _listed(score: Mapping[str, Any], set_name: str, skipped: list[dict]) -> bool:
    """Whether a failed result is explained by what run.json lists: its own stage's failure or an earlier one."""
    shared = {"cohort", f"lowfield/{set_name}", "parcellation/hq"}
    stages = {entry["stage"] for entry in skipped if entry["scan"] == score["scan"]}
    # A result's stage is <stage>/<set>/<method>, and of a further training seed /seed-<n>.
    return any(stage in shared or stage.split("/")[1:3] == [set_name, score["method"]] for stage in stages)
