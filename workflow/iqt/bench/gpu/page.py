"""The page of a session on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iqt.bench.gpu.bars import BARS
from iqt.io.files import write_text

FAST_VOLUME = 2.0
"""Seconds in which a volume of 256^3 voxels should be enhanced on a card like an H100."""
NAMES = {"diffusion_iqt": "DiffusionIQT", "unet": "U-Net"}


def write_page(out: Path, results: dict[str, Any]) -> None:
    """Write what a session has measured so far as Markdown; what is missing is said."""
    steps = results["steps"]
    parts = [_head(results)]
    for name, heading, write in (
        ("agreement", "Does it compute the same?", _agreement),
        ("step", "A training step", _step_table),
        ("compiled", "A training step, compiled", _compiled_table),
        ("volume", "A whole volume", _volume),
        ("training", "A short training", _training),
    ):
        measured = steps.get(name)
        if measured is None:
            continue
        parts += ["", f"## {heading}", ""]
        if measured["status"] != "ok":
            parts += [f"**{measured['status']}**", ""]
        parts += write(measured, results)
    write_text(out, "\n".join(_flat(parts)).rstrip() + "\n")


def _flat(parts: list[Any]) -> list[str]:
    return [line for part in parts for line in (part if isinstance(part, list) else [part])]


def _head(results: dict[str, Any]) -> list[str]:
    machine = results["steps"].get("machine", {})
    command = f"iqt bench gpu --minutes {results['minutes']:g}{' --check' if results['toy'] else ''}"
    card = "no GPU"
    if machine.get("gpu"):
        card = f"{machine['gpu']}, {machine['gpu_gib']:.0f} GiB, CUDA {machine['cuda']}, cuDNN {machine['cudnn']}"
    packages = ", ".join(f"{name} {version}" for name, version in machine.get("packages", {}).items() if version)
    size = ["**At toy size: this says that the session runs, and nothing about speed or quality.**", ""]
    return [
        "# On a GPU, measured",
        "",
        f"`{command}`, {results['date']}, iqt {results['iqt']}, {results.get('seconds', 0):.0f} s in all: {card}; "
        f"{machine.get('cpus')} CPUs, {machine.get('cpu')}; Python {machine.get('python')}, {packages}; "
        f"{machine.get('precision')}.",
        *([f"nvidia-smi: {machine['nvidia_smi']}."] if machine.get("nvidia_smi") else []),
        "",
        *(size if results["toy"] else []),
        "Each part ran in a process of its own. Medians of repeats after a warm-up.",
    ]


def _agreement(measured: dict[str, Any], _results: dict[str, Any]) -> list[str]:
    rows = ["| figure | measured | bar | |", "| --- | ---: | ---: | --- |"]
    for name, bar in BARS.items():
        if name in measured:
            sign, kept = ("≥" if bar.least else "≤"), "met" if bar.met(measured[name]) else "**missed**"
            rows.append(f"| {bar.told} | {measured[name]:.3g} | {sign} {bar.limit:g} | {kept} |")
    return rows


def _step_table(measured: dict[str, Any], _results: dict[str, Any]) -> list[str]:
    lines = []
    if "matrix_bfloat16_tflops" in measured:
        lines = [
            f"Product of large matrices: {measured['matrix_bfloat16_tflops']:.3g} TFLOP/s in bfloat16, "
            f"{measured.get('matrix_float32_tflops', float('nan')):.3g} in float32.",
            "",
        ]
    return [*lines, *_rows(measured)]


def _compiled_table(measured: dict[str, Any], _results: dict[str, Any]) -> list[str]:
    return _rows(measured)


def _rows(measured: dict[str, Any]) -> list[str]:
    lines = [
        "Forward and backward pass of DiffusionIQT; operations are counted as three times the forward pass's.",
        "",
        "| regions | channels | s a step | TFLOP/s | convolutions alone, s | peak GiB | compiling, s |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in measured.get("rows", []):
        if "failed" in row:
            lines.append(f"| {row['batch']} | {row['channels']} | {row['failed']} | | | | |")
            continue
        alone, compiling = row.get("convolutions_seconds"), row.get("compiling_seconds")
        lines.append(
            f"| {row['batch']} | {row['channels']} | {row['seconds']:.4f} | {row['tflops']:.3g} | "
            f"{'–' if alone is None else f'{alone:.4f}'} | {row['peak_gib']:.2f} | "
            f"{'–' if compiling is None else f'{compiling:.0f}'} |"
        )
    return lines


def _volume(measured: dict[str, Any], results: dict[str, Any]) -> list[str]:
    shape = " x ".join(map(str, measured.get("shape", [])))
    lines = [
        f"A brain in {shape or '?'} voxels, without reading and writing files: the second of two runs, the first in "
        "brackets. Random weights.",
        "",
        "| sampling | calls | tiles | s a volume | peak GiB |",
        "| --- | ---: | --- | ---: | ---: |",
    ]
    for name, told in (("recommended", "recommended"), ("ancestral", "ancestral, the paper's")):
        if name in measured:
            row = measured[name]
            lines.append(
                f"| {told} | {row['calls']} | {row['tiles']} of {' x '.join(map(str, row['edges']))} | "
                f"{row['seconds']:.2f} ({row['first_seconds']:.2f}) | {row['peak_gib']:.2f} |"
            )
    if "recommended" in measured and not results["toy"]:
        kept = "met" if measured["recommended"]["seconds"] <= FAST_VOLUME else "**missed**"
        lines += ["", f"Bar for the recommended sampling on a card like an H100: {FAST_VOLUME:g} s: {kept}."]
    if "costs" in measured:
        lines += [
            "",
            "Extrapolated from one call on one tile, which was timed:",
            "",
            "| way | tiles | calls | s a call | s a volume |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        lines += [
            f"| {cost['name']} | {cost['tiles']} of {' x '.join(map(str, cost['edges']))} | {cost['calls']} | "
            f"{cost['seconds']:.4f} | {cost['total_seconds']:.2f} |"
            for cost in measured["costs"]
        ]
    return lines


def _training(measured: dict[str, Any], results: dict[str, Any]) -> list[str]:
    lines = [
        f"On {results['trained_on']}, each network for equally many seconds, with the settings of the configuration."
    ]
    if "regions_a_second" in measured:
        lines.append(f"The store gives {measured['regions_a_second']:.1f} regions a second.")
    table = [
        "",
        "| network | parameters | s a step | steps | s | PSNR, validation | in one step | peak GiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, told in NAMES.items():
        if name in measured:
            row = measured[name]
            first, memory = row.get("val_psnr_first"), row["peak_gib"]
            table.append(
                f"| {told} | {row['parameters']:,} | {measured[f'{name}_step_seconds']:.3f} | {row['steps']} | "
                f"{row['seconds']:.0f} | {row['val_psnr']:.2f} | {'–' if first is None else f'{first:.2f}'} | "
                f"{'–' if memory is None else f'{memory:.2f}'} |"
            )
    return lines + table + _waiting(measured, results)


def _waiting(measured: dict[str, Any], results: dict[str, Any]) -> list[str]:
    """What a step takes in the loop beyond its pass: reading, clipping, averaging, the optimiser, and waiting."""
    rows = results["steps"].get("step", {}).get("rows", [])
    batch = measured.get("batch_size")
    alone = [row["seconds"] for row in rows if row["batch"] == batch and row["channels"] == "last" and "seconds" in row]
    loop = measured.get("diffusion_iqt_step_seconds")
    if not alone or not loop:
        return []
    share = max(0.0, 1 - alone[0] / loop)
    return ["", f"Of a step in the loop {share:.0%} is not DiffusionIQT's pass of {alone[0]:.3f} s: waiting for data, "
            "clipping, averaging, the optimiser."]  # fmt: skip
