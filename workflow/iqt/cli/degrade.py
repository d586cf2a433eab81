"""Commands that simulate low-field scans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import (
    SCAN,
    CohortOption,
    FilesOption,
    ListOption,
    OutOption,
    SeedOption,
    SetOption,
    SettingsOption,
    SuffixOption,
    app,
    needed,
    plot,
    refuse,
    stage,
)
from iqt.errors import UserError

PresetOption = Annotated[str | None, typer.Option(help="iqt-4x, iqt-8x or 64mT; the same key in --settings.")]
WMOption = Annotated[Path | None, typer.Option(help="White matter posterior of IMAGE.")]
GMOption = Annotated[Path | None, typer.Option(help="Grey matter posterior of IMAGE.")]
CSFOption = Annotated[Path | None, typer.Option(help="CSF posterior of IMAGE.")]
LabelsOption = Annotated[Path | None, typer.Option(help="Instead of posteriors: FreeSurfer's aparc+aseg of IMAGE.")]
MaskOption = Annotated[Path | None, typer.Option(help="Brain mask of IMAGE; needed where it is not skull-stripped.")]


RECORDED = {"settings": "--settings", "preset": "--preset", "seed": "--seed", "suffix": "--suffix"}
"""Options that a record to replay holds."""


@app.command(rich_help_panel=SCAN)
def degrade(
    context: typer.Context,
    image: Annotated[Path, typer.Argument(help="A high-quality volume.")],
    output: Annotated[Path, typer.Argument(help="The thick-slice volume to write.")],
    preset: PresetOption = None,
    wm: WMOption = None,
    gm: GMOption = None,
    csf: CSFOption = None,
    labels: LabelsOption = None,
    mask: MaskOption = None,
    space_hq: Annotated[Path | None, typer.Option(help="Also write the volume on IMAGE's grid.")] = None,
    preview: Annotated[Path | None, typer.Option(help="Also draw every step (.png, .svg or .pdf).")] = None,
    replay: Annotated[Path | None, typer.Option(help="Draw nothing: do what this record (JSON) says.")] = None,
    number: Annotated[
        int, typer.Option("--draw", min=1, help="With --replay: which acquisition, where the record holds several.")
    ] = 1,
    suffix: Annotated[
        str | None, typer.Option(help="T1w, T2w or FLAIR; without it what IMAGE's name or sidecar says, or T1w.")
    ] = None,
    seed: SeedOption = 1,
    settings: SettingsOption = None,
) -> None:
    """Simulate a low-field scan of a high-quality one.

    Without posteriors or labels the tissues of IMAGE are classified by dipy's hidden Markov random field.
    """
    from iqt.degrade.single import SIMULATED, Extras, degrade_file, replay_file
    from iqt.degrade.tissues import TissueFiles

    if replay is not None:
        refuse(context, RECORDED, "is in the record that --replay names")
    else:
        refuse(context, {"number": "--draw"}, "goes with --replay")
    section = _lowfield(settings, preset)
    if suffix not in (None, *SIMULATED):
        raise UserError(f"--suffix {suffix}: must be {', '.join(SIMULATED)}")
    maps = {name: path for name, path in (("WM", wm), ("GM", gm), ("CSF", csf)) if path is not None}
    if maps and labels is not None:
        raise UserError("--labels: give either labels or posteriors, not both")
    given, extras = TissueFiles(maps, labels, mask), Extras(space_hq, preview)
    if replay is not None:
        replay_file(replay, image, output, given, extras, number=number)
    else:
        degrade_file(image, output, given, seed, section, extras, suffix)


@stage.command("degrade")
def degrade_list(
    scans: ListOption,
    cohort: CohortOption,
    out: OutOption,
    posteriors: Annotated[
        Path | None, typer.Option(help="Folder of `iqt stage tissues`; the cohort's own without it.")
    ] = None,
    suffix: SuffixOption = "T1w",
    seed: SeedOption = 1,
    set_name: SetOption = "main",
    settings: SettingsOption = None,
) -> None:
    """Simulate the low-field scans of a set."""
    from iqt.config import LowField, parse_section
    from iqt.degrade.run import degrade_scans
    from iqt.io.batch import read_list

    section, training = parse_section(LowField, settings), read_list(scans, "train")
    degrade_scans(read_list(scans), cohort, out, suffix, seed, section, set_name, posteriors, training)


@stage.command()
def register(
    scans: ListOption,
    cohort: CohortOption,
    out: OutOption,
    suffix: SuffixOption = "T1w",
    set_name: SetOption = "main",
    settings: SettingsOption = None,
) -> None:
    """Register the real low-field scans that a cohort brings, in place of simulating any."""
    from iqt.config import LowField, parse_section
    from iqt.degrade.register import register_scans
    from iqt.io.batch import read_list

    section = parse_section(LowField, settings)
    if section.registration is None:
        raise UserError("--settings: registration is missing; give rigid or affine")
    register_scans(read_list(scans), cohort, out, suffix, section, set_name)


@stage.command()
def tissues(
    scans: ListOption,
    cohort: CohortOption,
    out: OutOption,
    suffix: SuffixOption = "T1w",
    fast: Annotated[Path | None, typer.Option(help="Folder of `iqt stage run-fast`, for the engine fast.")] = None,
    settings: SettingsOption = None,
) -> None:
    """Make the tissue posteriors that the simulator needs, from labels or intensities."""
    from iqt.config import Tissues, parse_section
    from iqt.degrade.tissues import segment_scans
    from iqt.io.batch import read_list

    section = parse_section(Tissues, settings)
    if section.engine == "fast":
        fast = needed(fast, "--fast")
    segment_scans(read_list(scans), cohort, out, suffix, section, fast)


@stage.command("compare-tissues")
def compare_tissues(
    scans: ListOption,
    reference: Annotated[Path, typer.Option(help="Folder of a cohort or of `iqt stage tissues`.")],
    other: Annotated[Path, typer.Option(help="Another such folder.")],
    out: Annotated[Path, typer.Option(help="Table to write (.csv or .tsv).")],
) -> None:
    """Dice overlap of the tissues that two engines found."""
    from iqt.degrade.tissues import compare_scans
    from iqt.io.batch import read_list

    compare_scans(read_list(scans), reference, other, out)


@stage.command("run-fast")
def run_fast(
    scans: ListOption,
    cohort: CohortOption,
    out: OutOption,
    suffix: SuffixOption = "T1w",
    settings: SettingsOption = None,
) -> None:
    """Segment scans by FSL FAST, which must be on PATH."""
    from iqt.config import FAST, parse_section
    from iqt.degrade.fast import run_fast
    from iqt.io.batch import read_list

    run_fast(read_list(scans), cohort, out, suffix, parse_section(FAST, settings))


@plot.command("presets")
def plot_presets(
    image: Annotated[Path, typer.Argument(help="A high-quality volume.")],
    out: FilesOption,
    wm: WMOption = None,
    gm: GMOption = None,
    csf: CSFOption = None,
    labels: LabelsOption = None,
    mask: MaskOption = None,
    suffix: Annotated[
        str | None, typer.Option(help="T1w or FLAIR; without it what IMAGE's name or sidecar says, or T1w.")
    ] = None,
    seed: SeedOption = 1,
) -> None:
    """What each preset of the simulator makes of a scan."""
    from iqt.config import PRESETS, LowField, Tissues
    from iqt.degrade import simulator
    from iqt.degrade.preview import plot_presets
    from iqt.degrade.single import contrast_of_scan, scan_name
    from iqt.degrade.tissues import TissueFiles, tissues_of_file
    from iqt.io.volumes import read_volume

    maps = {name: path for name, path in (("WM", wm), ("GM", gm), ("CSF", csf)) if path is not None}
    suffix, volume = suffix or contrast_of_scan(image), read_volume(image)
    try:
        for name in PRESETS:
            simulator.resolve(LowField(preset=name), suffix)
    except UserError as error:
        raise UserError(f"{image}: the presets cannot draw a {suffix} scan ({error}); use iqt degrade") from None
    found = tissues_of_file(volume, TissueFiles(maps, labels, mask), suffix, Tissues()).maps
    for path in out:
        plot_presets(volume, found, list(PRESETS), seed, scan_name(image), suffix, path)


def _lowfield(settings: str | None, preset: str | None):
    """The section that --settings gives, started from --preset where that is given."""
    from iqt.config import PRESETS, LowField, parse_section

    if preset is not None and preset not in PRESETS:
        raise UserError(f"--preset {preset}: unknown. Hint: there are {', '.join(PRESETS)}")
    if preset is None:
        return parse_section(LowField, settings)
    if settings is None:
        return LowField(preset=preset)
    given = parse_section(LowField, settings).model_dump(exclude_unset=True)
    if given.get("preset", preset) != preset:
        raise UserError(f"--preset {preset}: --settings names another preset, {given['preset']}; give one of the two")
    return parse_section(LowField, json.dumps({"preset": preset, **given}))
