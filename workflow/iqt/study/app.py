"""`iqt-bids`: a study with the command line of BIDS Apps (https://bids-apps.neuroimaging.io)."""

from __future__ import annotations

import argparse

from iqt import __version__
from iqt.study.run import run_study
from iqt.terminal import one_message


def build_parser() -> argparse.ArgumentParser:
    """The command line of BIDS Apps."""
    parser = argparse.ArgumentParser(prog="iqt-bids", description="Enhance the low-field scans of a BIDS dataset.")
    parser.add_argument("bids_dir", help="the dataset")
    parser.add_argument("output_dir", help="folder of the results")
    parser.add_argument(
        "analysis_level", choices=("participant", "group"), help="each scan alone, or all, their tables and the page"
    )
    parser.add_argument("--participant-label", "--participant_label", nargs="+", help="ids, with or without sub-")
    parser.add_argument("--model", help="name of a shipped model (iqt models), or a folder")
    parser.add_argument("--suffix", default="T1w", help="contrast: T1w, T2w or FLAIR")
    parser.add_argument("--n-cpus", "--n_cpus", type=int, help="CPU cores; all by default")
    parser.add_argument("--series", help="regular expression that descriptions of DICOM series must match")
    parser.add_argument("--fuse", action="store_true", help="combine the scans of a session, stacks of thick slices")
    parser.add_argument("--skull-stripped", action="store_true", help="scans are 0 outside the brain")
    parser.add_argument("--keep-doubtful-masks", action="store_true", help="go on where a brain mask looks wrong")
    parser.add_argument("--force", action="store_true", help="write into a folder that holds something else")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    parser.add_argument("-v", "--version", action="version", version=f"iqt {__version__}")
    return parser


def main() -> None:
    """Run the study that the command line asks for; a user's error ends in one message and exit status 1."""
    given = build_parser().parse_args()
    settings = {
        "dataset": given.bids_dir,
        "out": given.output_dir,
        "participants": given.participant_label or "all",
        "suffix": given.suffix,
        "series": given.series,
        "fuse": given.fuse,
        "model": given.model,
        "skull_stripped": given.skull_stripped,
        "keep_doubtful_masks": given.keep_doubtful_masks,
    }
    with one_message("iqt-bids"):
        run_study(settings, given.n_cpus, given.dry_run, given.force, given.analysis_level == "participant")
