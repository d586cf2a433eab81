"""Fixtures that several test files use."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from browser import MISSING
from checkout import checkout

# Set before torch is imported. More threads than two cost the small tensors of tests more than they bring, and those of
# processes side by side wait for one another; these have the number of the process that started them.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
else:
    os.environ.setdefault("OMP_NUM_THREADS", "2")

# Modules stay once they are imported: looking through them for garbage every 700 objects took a sixth of the time.
gc.set_threshold(100_000)

# Hundreds of processes that tests start would each compile the package anew; Git ignores what is compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

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


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's files up to the tables: unet failed on the third scan, cubic's second was not parcellated."""
    from synthetic import write_run  # not above, since most tests need none of its imports

    run = tmp_path_factory.mktemp("run")
    write_run(run)
    return run


@pytest.fixture(scope="session")
def drawn(made: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Every figure of that run, as PNG and SVG."""
    from synthetic import plot_all

    return plot_all(made, tmp_path_factory.mktemp("figures"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the very end, where it is read, that the page was tested in no browser."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if MISSING in str(report.longrepr)]
    if skipped:
        terminalreporter.section("the page was NOT tested in a browser", sep="!", red=True, bold=True)
        terminalreporter.line(f"{len(skipped)} tests were skipped. {MISSING}")
