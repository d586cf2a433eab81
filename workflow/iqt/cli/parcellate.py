"""Commands of the parcellators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import (
    SCAN,
    TRAINING,
    CohortOption,
    ListOption,
    OutOption,
    PrecisionOption,
    SeedOption,
    SettingsOption,
    SuffixOption,
    WorkersOption,
    app,
    refuse,
    stage,
)
from iqt.io.shipped import PARCELLATOR, PARCELLATOR_TABLE, table_file

ImagesOption = Annotated[Path, typer.Option(help="Folder of the volumes to label.")]
LayoutOption = Annotated[str, typer.Option(help="anat (high-quality scans) or flat (enhanced results).")]


@stage.command()
def train_parcellator(
    participants: Annotated[Path, typer.Option(help="participants.tsv of the cohort.")],
    cohort: CohortOption,
    lut: Annotated[Path, typer.Option(help="Look-up table of the labels.")],
    out: OutOption,
    suffix: SuffixOption = "T1w",
    seed: SeedOption = 1,
    settings: SettingsOption = None,
    precision: PrecisionOption = "auto",
    workers: WorkersOption = 0,
) -> None:
    """Train the built-in parcellator on the training people's high-quality scans."""
    from iqt.config import Parcellator, parse_section
    from iqt.parcellate.train import train_parcellator

    own = parse_section(Parcellator, settings)
    train_parcellator(participants, cohort, suffix, lut, out, own, seed, precision, workers)


@app.command(rich_help_panel=TRAINING)
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
    from iqt.provenance.collect import git_state

    recipe = git_state(Path(__file__).parent)
    train_volumetric(labels, lut, out, parse_section(VolumetricParcellator, settings), seed, precision, recipe)


@app.command(rich_help_panel=SCAN)
def parcellate(
    context: typer.Context,
    image: Annotated[Path, typer.Argument(help="A T1w scan, whole head or brain, of any voxel size and orientation.")],
    output: Annotated[Path, typer.Argument(help="The label map to write; names and volumes lie beside it.")],
    mask: Annotated[Path | None, typer.Option(help="Brain mask of IMAGE; found without it.")] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another label map of IMAGE, to write Dice with by structure: FreeSurfer's ids.")
    ] = None,
    engine: Annotated[str, typer.Option(help="builtin or fastsurfer.")] = "builtin",
    model: Annotated[Path | None, typer.Option(help="builtin: folder of a trained one, if not the shipped.")] = None,
    lut: Annotated[Path | None, typer.Option(help="Look-up table; the parcellator's own without it.")] = None,
    precision: PrecisionOption = "auto",
    settings: Annotated[
        str | None, typer.Option(help="fastsurfer: `parcellate.fastsurfer` as JSON text, or a YAML or JSON file.")
    ] = None,
) -> None:
    """Label the structures of a T1w scan, with their volumes."""
    from iqt.config import FastSurfer, parse_section
    from iqt.errors import UserError
    from iqt.io.labels import read_lut
    from iqt.parcellate.single import Files, fastsurfer_file, parcellate_file

    if engine not in ("builtin", "fastsurfer"):
        raise UserError(f"--engine {engine}: must be builtin or fastsurfer")
    files = Files(image, output, mask, against)
    if engine == "builtin":
        refuse(context, {"settings": "--settings"}, "is for --engine fastsurfer")
        parcellate_file(files, model or PARCELLATOR, lut, precision)
    else:
        refuse(context, {"model": "--model", "precision": "--precision"}, "is for --engine builtin")
        table = lut or table_file("fastsurfer")
        section = parse_section(FastSurfer, settings)
        threads = context.find_root().params.get("threads")  # of `iqt --threads`
        if threads is not None:
            section = section.model_copy(update={"threads": threads})
        fastsurfer_file(files, table, read_lut(table), section)


@stage.command("parcellate")
def parcellate_list(
    scans: ListOption,
    images: ImagesOption,
    layout: LayoutOption,
    cohort: CohortOption,
    model: Annotated[Path, typer.Option(help="Folder of the trained parcellator.")],
    out: OutOption,
    suffix: SuffixOption = "T1w",
    precision: PrecisionOption = "auto",
) -> None:
    """Label the structures of volumes with a built-in network."""
    from iqt.io.batch import read_list
    from iqt.parcellate.run import parcellate_scans

    parcellate_scans(read_list(scans), images, layout, suffix, cohort, model, out, precision)


@stage.command("read-fastsurfer")
def read_fastsurfer(
    scans: ListOption,
    images: ImagesOption,
    layout: LayoutOption,
    cohort: CohortOption,
    jobs: Annotated[Path, typer.Option(help="The plan of its jobs.")],
    runs: Annotated[Path, typer.Option(help="How they ended.")],
    lut: Annotated[Path, typer.Option(help="Its look-up table.")],
    out: OutOption,
    suffix: SuffixOption = "T1w",
) -> None:
    """Bring FastSurfer's labels to the volumes' grids."""
    from iqt.io.batch import read_list
    from iqt.io.labels import read_lut
    from iqt.parcellate.fastsurfer.read import read_results

    read_results(read_list(scans), images, layout, suffix, cohort, jobs, runs, read_lut(lut), out)


@stage.command()
def plan_fastsurfer(
    scans: ListOption,
    images: ImagesOption,
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
