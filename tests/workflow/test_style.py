"""Style and structure that a reader relies on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check"],
        ["ruff", "format", "--check"],
        ["snakefmt", "--check", "Snakefile", "workflow"],
        ["snakemake", "--lint"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_style(repository: Path, command: list[str]) -> None:
    # snakefmt looks for shfmt on PATH.
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=repository, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr


def rules(repository: Path) -> list[tuple[str, str, str]]:
    """(file, name, body) of every rule that runs something."""
    found = []
    for path in sorted((repository / "workflow" / "rules").glob("*.smk")):
        for name, body in re.findall(
            r"^ *rule ?(\w*):\n(.*?)(?=^ *rule\b[ \w]*:$|^\S|\Z)", path.read_text(), re.MULTILINE | re.DOTALL
        ):
            found.append((path.name, name or re.search(r'f"(\w+?)(?:\{[^{}]+\})?_\{batch\}"', body).group(1), body))
    return found


def test_every_rule_says_what_it_is_and_what_it_needs(repository: Path) -> None:
    found = rules(repository)
    assert len(found) >= 19
    for file, name, body in found:
        assert body.lstrip().startswith('"""'), f"{file}: {name} has no docstring"
        for directive in ("log:", "benchmark:", "conda:", "threads:", "resources:", "mem_mb=", "runtime=", "shell:"):
            assert directive in body, f"{file}: {name} has no {directive}"
        assert "run:" not in body
        assert name == "list_scans" or re.search(r"code=(ancient\()?(\w*code\b|READER,)", body), (
            f"{file}: {name} does not list the package files it runs"
        )


def test_constraints_hold_the_projects_pins(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    pins = [*project["dependencies"], *(pin for group in project["optional-dependencies"].values() for pin in group)]
    constraints = (repository / "envs" / "constraints.txt").read_text().splitlines()
    assert all("==" in line and "://" not in line for line in constraints)
    assert set(pins) <= set(constraints)


def test_the_reports_rules_are_one_job_on_a_cluster(repository: Path) -> None:
    """Snakemake refuses a group that a rule outside stands between."""
    groups = yaml.safe_load((repository / "profiles/slurm/profile.yaml").read_text())["groups"]
    drawn = {name for file, name, _ in rules(repository) if file == "report.smk"} | {"plot_experiment"}
    assert groups == dict.fromkeys(drawn | {"extract_panels"}, "report")
