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
    lines = _head(results)
    for name, heading, write in (
        ("agreement", "Does it compute the same?", _agreement),
        ("step", "A training step", _step),
        ("compiled", "A training step, compiled", _compiled),
        ("volume", "A whole volume", _volume),
        ("training", "A short training", _training),
    ):
        measured = results["steps"].get(name)
        if measured is None:
            continue
        lines += ["", f"## {heading}", ""]
        if measured["status"] != "ok":
            lines += [f"**{measured['status']}**", ""]
        lines += write(measured, results)
    write_text(out, "\n".join(lines).rstrip() + "\n")


def _number(value: float | None, digits: str = ".3g") -> str:
    return "not finite" if value is None else f"{value:{digits}}"


def _cell(row: dict[str, Any], key: str, digits: str) -> str:
    """A figure of a table, or a dash where it was not measured."""
    return _number(row[key], digits) if key in row else "–"


def _head(results: dict[str, Any]) -> list[str]:
    machine = results["steps"].get("machine", {"status": "not begun"})
    card = "no GPU"
    if machine.get("gpu"):
        memory = _cell(machine, "gpu_gib", ".0f")
        card = f"{machine['gpu']}, {memory} GiB, CUDA {machine.get('cuda')}, cuDNN {machine.get('cudnn')}"
    packages = ", ".join(f"{name} {version}" for name, version in machine.get("packages", {}).items() if version)
    lines = ["# On a GPU, measured", ""]
    if machine["status"] != "ok":
        lines += [f"**Card and versions: {machine['status']}**", ""]
    lines.append(
        f"`{results['command']}`, {results['date']}, iqt {results['iqt']}, {results.get('seconds', 0):.0f} s in all: "
        f"{card}; {machine.get('cpus')} CPUs, {machine.get('cpu')}; Python {machine.get('python')}, {packages}; "
        f"networks run in {machine.get('precision')}."
    )
    if machine.get("nvidia_smi"):
        lines.append(f"nvidia-smi: {machine['nvidia_smi']}.")
    if results["toy"]:
        lines += ["", "**At toy size: this says that the session runs, and nothing about speed or quality.**"]
    return [*lines, "", "Each part ran in a process of its own."]


def _agreement(measured: dict[str, Any], _results: dict[str, Any]) -> list[str]:
    rows = ["| figure | measured | bar | |", "| --- | ---: | ---: | --- |"]
    for name, bar in BARS.items():
        if name in measured:
            sign, kept = ("≥" if bar.least else "≤"), "met" if bar.met(measured[name]) else "**missed**"
            rows.append(f"| {bar.told} | {_number(measured[name])} | {sign} {bar.limit:g} | {kept} |")
        else:
            rows.append(f"| {bar.told} | not measured | | **missed** |")
    return rows


def _step(measured: dict[str, Any], _results: dict[str, Any]) -> list[str]:
    rates = {"bfloat16": "bfloat16", "tf32": "TensorFloat-32", "float32": "float32"}
    told = [
        f"{_number(measured[f'matrix_{name}_tflops'])} TFLOP/s in {words}"
        for name, words in rates.items()
        if f"matrix_{name}_tflops" in measured
    ]
    return [f"A product of large matrices: {', '.join(told) or 'not measured'}.", "", *_rows(measured)]


def _compiled(measured: dict[str, Any], results: dict[str, Any]) -> list[str]:
    said = ["Traced and not compiled, at this size.", ""] if results["toy"] else []
    return said + _rows(measured)


def _rows(measured: dict[str, Any]) -> list[str]:
    lines = [
        "Forward and backward pass of DiffusionIQT, the median of repeats; operations are counted as three times the",
        "forward pass's. Repeating: kernels that repeat to the bit, as trainings take them by default.",
        "",
        "| regions | channels | repeating | s a step | TFLOP/s | convolutions alone, s | peak GiB | compiling, s |",
        "| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in measured.get("rows", []):
        seconds = f"{row['failed']}" if "failed" in row and "seconds" not in row else _cell(row, "seconds", ".4f")
        lines.append(
            f"| {row['batch']} | {row['channels']} | {'yes' if row['deterministic'] else 'no'} | {seconds} | "
            f"{_cell(row, 'tflops', '.3g')} | {_cell(row, 'convolutions_seconds', '.4f')} | "
            f"{_cell(row, 'peak_gib', '.2f')} | {_cell(row, 'compiling_seconds', '.0f')} |"
        )
    return lines


def _volume(measured: dict[str, Any], results: dict[str, Any]) -> list[str]:
    shape = " x ".join(map(str, measured.get("shape", []))) or "?"
    lines = [
        f"A brain in {shape} voxels, without reading and writing files: the second of two runs, the first in brackets.",
        "Random weights, on which time does not depend.",
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
            "Extrapolated from one call on one tile, the median of repeats:",
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
        f"On {results['trained_on']}: each network once for about equally many seconds, through the loop that every",
        f"training goes through, {_cell(measured, 'batch_size', 'd')} regions a step, the weights of the last step.",
        "",
        "| network | parameters | s a step | data wait | steps | s | PSNR, validation | in one step | peak GiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, told in NAMES.items():
        if name in measured:
            row = measured[name]
            memory = "–" if row["peak_gib"] is None else f"{row['peak_gib']:.2f}"
            lines.append(
                f"| {told} | {row['parameters']:,} | {_cell(measured, f'{name}_step_seconds', '.3f')} | "
                f"{_cell(row, 'data_wait', '.0%')} | {row['steps']} | {row['seconds']:.0f} | "
                f"{_cell(row, 'val_psnr', '.2f')} | {_cell(row, 'val_psnr_first', '.2f')} | {memory} |"
            )
    if "regions_a_second" in measured:
        lines += [
            "",
            f"The store gives {measured['regions_a_second']:.1f} regions a second to {max(1, measured['workers'])} "
            "reading processes.",
        ]
    return lines
