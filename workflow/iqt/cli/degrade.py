"""The command that simulates low-field scans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import SeedOption, SetOption, SettingsOption, SuffixOption, app, needed


@app.command()
def degrade(
    image: Annotated[Path | None, typer.Argument(help="A high-quality volume.")] = None,
    output: Annotated[Path | None, typer.Argument(help="The thick-slice volume to write.")] = None,
    wm: Annotated[Path | None, typer.Option(help="White matter posterior of IMAGE.")] = None,
    gm: Annotated[Path | None, typer.Option(help="Grey matter posterior of IMAGE.")] = None,
    csf: Annotated[Path | None, typer.Option(help="CSF posterior of IMAGE.")] = None,
    space_hq: Annotated[Path | None, typer.Option(help="Also write the volume on IMAGE's grid.")] = None,
    scans: Annotated[
        Path | None, typer.Option("--list", help="Instead of IMAGE: TSV with columns scan, split.")
    ] = None,
    cohort: Annotated[Path | None, typer.Option(help="With --list: folder of the high-quality scans.")] = None,
    out: Annotated[Path | None, typer.Option(help="With --list: folder to write to.")] = None,
    suffix: SuffixOption = "T1w",
    seed: SeedOption = 1,
    set_name: SetOption = "main",
    settings: SettingsOption = None,
) -> None:
    """Simulate low-field scans: of one volume (IMAGE OUTPUT), or of a list."""
    from iqt.batch import read_list
    from iqt.config import LowField, parse_section
    from iqt.degrade.run import degrade_file, degrade_scans

    section = parse_section(LowField, settings)
    if scans is not None:
        cohort, out = needed(cohort, "--cohort"), needed(out, "--out")
        degrade_scans(read_list(scans), cohort, out, suffix, seed, section, set_name)
    else:
        posteriors = {"WM": needed(wm, "--wm"), "GM": needed(gm, "--gm"), "CSF": needed(csf, "--csf")}
        degrade_file(needed(image, "IMAGE"), needed(output, "OUTPUT"), posteriors, seed, section, space_hq)
