"""The commands that enhance scans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import (
    SCAN,
    CohortOption,
    ListOption,
    OutOption,
    PrecisionOption,
    SeedOption,
    SuffixOption,
    app,
    asked,
    refuse,
    stage,
)

UsageOption = Annotated[str, typer.Option("--settings", help="How the method uses its weights, as JSON text.")]
MemoryOption = Annotated[int | None, typer.Option(min=1, help="Megabytes of a CPU's memory that are this job's.")]


@app.command(rich_help_panel=SCAN)
def enhance(
    context: typer.Context,
    image: Annotated[Path, typer.Argument(help="A low-field scan.")],
    output: Annotated[Path, typer.Argument(help="The enhanced scan to write (.nii.gz).")],
    model: Annotated[
        str | None, typer.Option(help="Name of a shipped model (iqt models), or the folder of your own.")
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Samples whose mean is written.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the sampler.")] = None,
    sampler: Annotated[str | None, typer.Option(help="ancestral, ddim or dpmpp_2m.")] = None,
    sd: Annotated[
        Path | None,
        typer.Option(
            help="Also write the standard deviation, or where the model is calibrated the error to be expected."
        ),
    ] = None,
    sample: Annotated[Path | None, typer.Option(help="Also write the first sample.")] = None,
    residual: Annotated[
        Path | None, typer.Option(help="Also write IMAGE minus the result acquired again as IMAGE was.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="Brain mask of IMAGE; found without it.")] = None,
    skull_stripped: Annotated[bool, typer.Option("--skull-stripped", help="IMAGE is 0 outside the brain.")] = False,
    mask_engine: Annotated[
        str, typer.Option(help="What finds the mask: deepbet, brainextractor, or FSL's bet.")
    ] = "deepbet",
    keep_doubtful_mask: Annotated[
        bool, typer.Option("--keep-doubtful-mask", help="Go on although the brain mask looks wrong.")
    ] = False,
    fraction: Annotated[float, typer.Option(help="Its intensity threshold; smaller finds larger brains.")] = 0.5,
    seed: SeedOption = 1,
    precision: PrecisionOption = "auto",
) -> None:
    """Enhance a low-field scan. Without --model, with the shipped one for its contrast."""
    if mask is not None:
        refuse(context, {"skull_stripped": "--skull-stripped"}, "goes without --mask")
    if mask is not None or skull_stripped:
        refuse(context, {"mask_engine": "--mask-engine", "fraction": "--fraction"}, "finds a mask, and there is one")
    from iqt.config import Mask, parse_section
    from iqt.enhance.single import enhance_file
    from iqt.imaging.contrast import contrast_of
    from iqt.io.shipped import find_model

    engine = parse_section(
        Mask, json.dumps({"engine": mask_engine, "fraction": fraction}), "--mask-engine and --fraction"
    )
    contrast = contrast_of(image)[0]
    unsaid = "neither its name nor a sidecar says the contrast: the T1w model is taken, and is wrong for any other"
    notes = [unsaid] if model is None and contrast is None else []
    given = {"samples": samples, "steps": steps, "sampler": sampler}
    wanted = {"sd": sd, "sample": sample, "residual": residual}
    extras = {name: path for name, path in wanted.items() if path is not None}
    enhance_file(
        image,
        output,
        find_model(model, contrast),
        {name: value for name, value in given.items() if value is not None},
        extras,
        mask,
        skull_stripped,
        engine if asked(context, "mask_engine", "fraction") else None,
        keep_doubtful_mask,
        seed,
        precision,
        notes,
    )


@app.command(rich_help_panel=SCAN)
def models() -> None:
    """List the shipped models: what each is for, was trained on, and gains."""
    from iqt.enhance.listing import list_models

    print(list_models())


@stage.command()
def calibrate(
    participants: Annotated[Path, typer.Option(help="participants.tsv of the cohort.")],
    cohort: CohortOption,
    lowfield: Annotated[Path, typer.Option(help="Folder of the low-field set that the model was trained on.")],
    model: Annotated[Path, typer.Option(help="Folder of the trained model.")],
    out: Annotated[Path, typer.Option(help="JSON to write.")],
    settings: UsageOption,
    suffix: SuffixOption = "T1w",
    memory_mb: MemoryOption = None,
    seed: SeedOption = 1,
    precision: PrecisionOption = "auto",
) -> None:
    """Learn on the validation people what a method's spread says of its error."""
    from iqt.enhance.calibrate import calibrate_spread
    from iqt.io.batch import read_list

    scans, usage = read_list(participants, "val"), json.loads(settings)
    calibrate_spread(scans, cohort, lowfield, model, out, suffix, usage, seed, precision, memory_mb)


@stage.command("enhance")
def enhance_list(
    scans: ListOption,
    cohort: CohortOption,
    lowfield: Annotated[Path, typer.Option(help="Folder of the low-field set.")],
    out: OutOption,
    settings: UsageOption,
    model: Annotated[Path | None, typer.Option(help="Folder of the trained model, if the method has one.")] = None,
    suffix: SuffixOption = "T1w",
    memory_mb: MemoryOption = None,
    seed: SeedOption = 1,
    precision: PrecisionOption = "auto",
) -> None:
    """Enhance low-field scans with one method."""
    from iqt.enhance.run import enhance_scans
    from iqt.io.batch import read_list

    usage = json.loads(settings)
    enhance_scans(read_list(scans), cohort, lowfield, model, out, suffix, usage, seed, precision, memory_mb)
