"""Commands of the parcellators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import (
    CohortOption,
    ListOption,
    OutOption,
    PrecisionOption,
    SeedOption,
    SettingsOption,
    SuffixOption,
    app,
    needed,
)
from iqt.io.shipped import PARCELLATOR, PARCELLATOR_TABLE, table_file

ScansOption = Annotated[Path | None, typer.Option("--list", help="Instead of IMAGE: TSV with columns scan, split.")]
ImagesOption = Annotated[Path | None, typer.Option(help="With --list: folder of the volumes to label.")]
LayoutOption = Annotated[str, typer.Option(help="anat (high-quality scans) or flat (enhanced results).")]


@app.command()
def train_parcellator(
    participants: Annotated[Path, typer.Option(help="participants.tsv of the cohort.")],
    cohort: CohortOption,
    lut: Annotated[Path, typer.Option(help="Look-up table of the labels.")],
    out: OutOption,
    suffix: SuffixOption = "T1w",
    seed: SeedOption = 1,
    settings: SettingsOption = None,
    precision: PrecisionOption = "auto",
) -> None:
    """Train the built-in parcellator on the training people's high-quality scans."""
    from iqt.config import Parcellator, parse_section
    from iqt.parcellate.train import train_parcellator

    train_parcellator(participants, cohort, suffix, lut, out, parse_section(Parcellator, settings), seed, precision)


@app.command()
def train_volumetric(
    labels: Annotated[Path, typer.Argument(help="Folder of label maps with FreeSurfer's ids.")],
    out: OutOption,
    lut: Annotated[Path, typer.Option(help="Look-up table of the labels.")] = table_file(PARCELLATOR_TABLE),
    seed: SeedOption = 1,
    settings: SettingsOption = None,
    precision: PrecisionOption = "auto",
) -> None:
    """Train the 3D parcellator on volumes painted from label maps; started again, it goes on where it stopped."""
    from iqt.config import VolumetricParcellator, parse_section
    from iqt.parcellate.train_volumetric import train_volumetric

    train_volumetric(labels, lut, out, parse_section(VolumetricParcellator, settings), seed, precision)


@app.command()
def parcellate(
    image: Annotated[Path | None, typer.Argument(help="A volume.")] = None,
    output: Annotated[Path | None, typer.Argument(help="The label map to write.")] = None,
    mask: Annotated[Path | None, typer.Option(help="Brain mask of IMAGE; found without it.")] = None,
    scans: ScansOption = None,
    images: ImagesOption = None,
    layout: LayoutOption = "anat",
    cohort: Annotated[Path | None, typer.Option(help="With --list: folder of the high-quality scans.")] = None,
    engine: Annotated[str, typer.Option(help="builtin or fastsurfer.")] = "builtin",
    model: Annotated[Path | None, typer.Option(help="builtin: folder of a trained one, if not the shipped.")] = None,
    lut: Annotated[Path | None, typer.Option(help="Look-up table; the parcellator's own without it.")] = None,
    jobs: Annotated[Path | None, typer.Option(help="fastsurfer with --list: the plan of its jobs.")] = None,
    runs: Annotated[Path | None, typer.Option(help="fastsurfer with --list: how they ended.")] = None,
    out: Annotated[Path | None, typer.Option(help="With --list: folder to write to.")] = None,
    suffix: SuffixOption = "T1w",
    precision: PrecisionOption = "auto",
    settings: SettingsOption = None,
) -> None:
    """Label the structures of one volume (IMAGE OUTPUT), or of each volume of a list."""
    from iqt.config import FastSurfer, parse_section
    from iqt.errors import UserError
    from iqt.io.batch import read_list
    from iqt.io.labels import read_lut

    if engine not in ("builtin", "fastsurfer"):
        raise UserError(f"--engine {engine}: must be builtin or fastsurfer")
    if scans is None:
        files = needed(image, "IMAGE"), needed(output, "OUTPUT")
        from iqt.parcellate import single

        if engine == "builtin":
            single.parcellate_file(*files, mask, model or PARCELLATOR, lut, precision)
        else:
            section = parse_section(FastSurfer, settings)
            table = lut or table_file("fastsurfer")
            single.fastsurfer_file(*files, mask, table, read_lut(table), section)
        return
    source = needed(images, "--images"), layout, suffix, needed(cohort, "--cohort")
    if engine == "builtin":
        from iqt.parcellate.run import parcellate_scans

        parcellate_scans(read_list(scans), *source, needed(model, "--model"), needed(out, "--out"), precision)
    else:
        from iqt.parcellate.fastsurfer.read import read_results

        ends = needed(jobs, "--jobs"), needed(runs, "--runs")
        read_results(read_list(scans), *source, *ends, read_lut(needed(lut, "--lut")), needed(out, "--out"))


@app.command()
def plan_fastsurfer(
    scans: ListOption,
    images: Annotated[Path, typer.Option(help="Folder of the volumes to label.")],
    layout: LayoutOption,
    cohort: CohortOption,
    program: Annotated[Path, typer.Option(help="What `find` recorded of the FastSurfer that will run.")],
    work: Annotated[Path, typer.Option(help="Folder of FastSurfer's inputs and subjects.")],
    out: Annotated[Path, typer.Option(help="JSON to write.")],
    suffix: SuffixOption = "T1w",
    settings: SettingsOption = None,
) -> None:
    """Write what FastSurfer shall read, and its command lines."""
    from iqt.config import FastSurfer, parse_section
    from iqt.io.batch import read_list
    from iqt.parcellate.fastsurfer.plan import plan_jobs

    section = parse_section(FastSurfer, settings)
    plan_jobs(read_list(scans), images, layout, suffix, cohort, program, section, work, out)
