"""A copy of the workflow to run in, for tests that edit, spoil or kill it."""

from __future__ import annotations

import shutil
from pathlib import Path

PARTS = ("workflow", "config", "envs", "profiles", "resources")
"""The folders that a run reads, beside the Snakefile."""


def checkout(folder: Path, repository: Path) -> Path:
    """Copy what a run reads from `repository` to `folder`, and return the latter."""
    for name in PARTS:
        # The package's link to resources/ stays one, so that a copy's rules and package read the same files. What is
        # compiled is copied too, or every process that runs there would do it again.
        left_out = shutil.ignore_patterns("*.sif", "*.pyc.*")  # a draft of what is compiled is soon gone
        shutil.copytree(repository / name, folder / name, symlinks=True, ignore=left_out)
    shutil.copy(repository / "Snakefile", folder)
    return folder
