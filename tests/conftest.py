"""Fixtures that several test files use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from checkout import checkout

# Set before torch is imported: more threads than this cost the small tensors of tests more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "2")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The top level of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real scans."""
    folder = os.environ.get("IQT_REAL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("IQT_REAL_DATA names no folder of real scans")
    return Path(folder)


@pytest.fixture
def workflow(tmp_path: Path, repository: Path) -> Path:
    """A copy of the workflow, so that a test may edit it."""
    return checkout(tmp_path, repository)
