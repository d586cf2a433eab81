"""The command that enhances scans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import PrecisionOption, SeedOption, app, needed, refuse
from iqt.errors import UserError

LIST_ONLY = {
    "cohort": "--cohort", "lowfield": "--lowfield", "out": "--out", "settings": "--settings", "suffix": "--suffix",
    "memory_mb": "--memory-mb",
}  # fmt: skip
SINGLE_ONLY = {
    "image": "IMAGE", "output": "OUTPUT", "sd": "--sd", "sample": "--sample", "mask": "--mask",
    "skull_stripped": "--skull-stripped", "mask_engine": "--mask-engine", "fraction": "--fraction",
    "keep_doubtful_mask": "--keep-doubtful-mask", "samples": "--samples", "steps": "--steps", "sampler": "--sampler",
}  # fmt: skip
"""Options that go with --list alone, and with a single scan alone."""


@app.command()
def enhance(
    context: typer.Context,
    image: Annotated[Path | None, typer.Argument(help="A low-field scan.")] = None,
    output: Annotated[Path | None, typer.Argument(help="The enhanced scan to write (.nii.gz).")] = None,
    model: Annotated[Path | None, typer.Option(help="Folder of the trained model.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Samples whose mean is written.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the sampler.")] = None,
    sampler: Annotated[str | None, typer.Option(help="ancestral, ddim or dpmpp_2m.")] = None,
    sd: Annotated[Path | None, typer.Option(help="Also write the samples' standard deviation.")] = None,
    sample: Annotated[Path | None, typer.Option(help="Also write the first sample.")] = None,
    mask: Annotated[Path | None, typer.Option(help="Brain mask of IMAGE; found without it.")] = None,
    skull_stripped: Annotated[bool, typer.Option("--skull-stripped", help="IMAGE is 0 outside the brain.")] = False,
    mask_engine: Annotated[
        str, typer.Option(help="What finds the mask: deepbet, brainextractor, or FSL's bet.")
    ] = "deepbet",
    keep_doubtful_mask: Annotated[
        bool, typer.Option("--keep-doubtful-mask", help="Go on although the brain mask looks wrong.")
    ] = False,
    fraction: Annotated[float, typer.Option(help="Its intensity threshold; smaller finds larger brains.")] = 0.5,
    scans: Annotated[
        Path | None, typer.Option("--list", help="Instead of IMAGE: TSV with columns scan, split.")
    ] = None,
    cohort: Annotated[Path | None, typer.Option(help="With --list: folder of the high-quality scans.")] = None,
    lowfield: Annotated[Path | None, typer.Option(help="With --list: folder of the low-field set.")] = None,
    out: Annotated[Path | None, typer.Option(help="With --list: folder to write to.")] = None,
    settings: Annotated[
        str | None, typer.Option(help="With --list: how the method uses its weights, as JSON text.")
    ] = None,
    suffix: Annotated[str, typer.Option(help="With --list: BIDS suffix.")] = "T1w",
    memory_mb: Annotated[
        int | None, typer.Option(min=1, help="With --list: megabytes of a CPU's memory that are this job's.")
    ] = None,
    seed: SeedOption = 1,
    precision: PrecisionOption = "auto",
) -> None:
    """Enhance low-field scans: one (IMAGE OUTPUT), or a list with one method."""
    if scans is not None:
        refuse(context, SINGLE_ONLY, "is for a single scan, not for --list")
        from iqt.enhance.run import enhance_scans
        from iqt.io.batch import read_list

        if settings is None:
            raise UserError("--settings is missing; see --help")
        folders = needed(cohort, "--cohort"), needed(lowfield, "--lowfield")
        usage = json.loads(settings)
        target = needed(out, "--out")
        enhance_scans(read_list(scans), *folders, model, target, suffix, usage, seed, precision, memory_mb)
        return
    refuse(context, LIST_ONLY, "goes with --list")
    if mask is not None:
        refuse(context, {"skull_stripped": "--skull-stripped"}, "goes without --mask")
    if mask is not None or skull_stripped:
        refuse(context, {"mask_engine": "--mask-engine", "fraction": "--fraction"}, "finds a mask, and there is one")
    from iqt.config import Mask, parse_section
    from iqt.enhance.single import enhance_file

    given = {"samples": samples, "steps": steps, "sampler": sampler}
    extras = {name: path for name, path in (("sd", sd), ("sample", sample)) if path is not None}
    enhance_file(
        needed(image, "IMAGE"),
        needed(output, "OUTPUT"),
        needed(model, "--model"),
        {name: value for name, value in given.items() if value is not None},
        extras,
        mask,
        skull_stripped,
        parse_section(Mask, json.dumps({"engine": mask_engine, "fraction": fraction})),
        keep_doubtful_mask,
        seed,
        precision,
    )
