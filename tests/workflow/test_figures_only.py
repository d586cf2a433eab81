"""`snakemake figures` where the scans' source is gone: metrics/ is enough, and nothing less is taken for it."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from synthetic import SCANS

pytestmark = pytest.mark.slow

SNAKEMAKE = Path(sys.executable).with_name("snakemake")
SOURCES = {
    "bids": "source: bids\n  bids: {path: /nowhere/dataset}",
    "s3": "source: hcp\n  hcp: {s3: {endpoint: 'http://127.0.0.1:9', attempts: 1}}",
}
CONFIG = """
name: far
seed: 7
cohort:
  {source}
  split: {{train: 1, val: 1, test: 3}}
methods:
  cubic: {{kind: cubic}}
  unet: {{kind: unet}}
  diffusion_iqt: {{kind: diffusion_iqt}}
  diffusion_iqt_mean: {{base: diffusion_iqt, sampling: {{samples: 4}}}}
evaluate: {{reference: cubic, bootstrap: 500}}
report: {{people: [test002, {scan}]}}
"""


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    keys = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "PYTHONPATH": ""}
    command = [str(SNAKEMAKE), "--configfile", "far.yaml", "--cores", "2", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | keys)


@pytest.fixture
def far(workflow: Path, made: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of the workflow, without torch and with nothing of the run but metrics/."""
    (workflow / "far.yaml").write_text(CONFIG.format(source=SOURCES[request.param], scan=SCANS[0]))
    metrics = workflow / "results/far/metrics"
    shutil.copytree(made / "metrics", metrics, ignore=shutil.ignore_patterns("panels"))
    for scan in SCANS[:2]:
        panel = metrics / f"panels/main/{scan}.npz"
        panel.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made / f"metrics/panels/{scan}.npz", panel)
    (workflow / "workflow/torch.py").write_text("raise ImportError('there is no torch here')\n")
    return workflow


@pytest.mark.parametrize("far", ["bids"], indirect=True)
def test_figures_are_redrawn_without_the_source_or_torch(far: Path, made: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = snakemake(far, "figures")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr[-4000:]
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 60
    run = far / "results/far"
    for path in (made / "tables").iterdir():
        assert (run / "tables" / path.name).read_bytes() == path.read_bytes(), path.name
    names = {path.stem for path in (run / "figures").glob("*.svg")}
    people = {f"{kind}_{scan}" for kind in ("slices", "parcellation") for scan in SCANS[:2]}
    assert names == {"metrics", "training", "published", "overlap", "reliability"} | people, "and those alone"
    assert not (run / "cohort").exists()
    assert not list(run.glob("index-*.tsv"))


@pytest.mark.parametrize("far", SOURCES, indirect=True)
def test_whatever_else_is_asked_for_needs_the_source(far: Path) -> None:
    def planned(*targets: str) -> set[str]:
        done = snakemake(far, "--dry-run", *targets)
        text = done.stdout + done.stderr
        assert "Traceback (most" not in text
        if done.returncode:
            assert re.search(r"Ask for figures alone|/nowhere/dataset|127\.0\.0\.1", text), text
            return set()
        return set(re.findall(r"^(\w+) +\d+$", text.partition("Job stats:")[2], re.MULTILINE)) - {"total"}

    assert planned("figures") == {"plot", "write_tables", "figures"}
    assert planned("cohort") == set()
    assert planned("figures", "cohort") == set()
    (far / f"results/far/metrics/panels/main/{SCANS[1]}.npz").unlink()
    assert planned("figures") == set(), "what is incomplete is no whole run"


@pytest.mark.parametrize("far", ["bids"], indirect=True)
def test_somebody_unknown_to_the_report_is_named(far: Path) -> None:
    path = far / "far.yaml"
    path.write_text(path.read_text().replace("test002", "test009"))
    done = snakemake(far, "--dry-run", "figures")
    assert done.returncode != 0
    assert "report.people: sub-test009 is not among the test people; choose of the 3: sub-test001" in done.stdout
    assert "Traceback (most" not in done.stdout + done.stderr
