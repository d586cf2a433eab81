"""The smoke chain with --use-conda, every rule in its own environment and nothing else to import from.

No conda can be had where these tests run, so a stand-in named conda builds the environments from envs/*.yaml with
PyPI's packages. Snakemake runs in an environment of its own that holds Snakemake and what reads the configuration, and
nothing that a rule needs: a rule that ran outside its environment would find no numpy.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import yaml

from checkout import checkout

BIN = Path(sys.executable).parent
STANDIN = Path(__file__).with_name("conda")


@pytest.fixture(scope="module")
def outer(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """bin folder of an environment with Snakemake, pydantic and PyYAML alone."""
    asked = yaml.safe_load((repository / "envs/iqt.yaml").read_text())["dependencies"][0]
    here = "python={}.{}".format(*sys.version_info)
    if asked != here:
        pytest.skip(f"envs/iqt.yaml asks for {asked} and this is {here}: a stand-in cannot bring another Python")
    folder = tmp_path_factory.mktemp("outer") / "venv"
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    pins = [*project["dependencies"], *project["optional-dependencies"]["workflow"]]
    wanted = [pin for pin in pins if pin.startswith(("snakemake==", "pydantic==", "pyyaml=="))]
    subprocess.run([uv(), "venv", "--quiet", "--python", sys.executable, folder], check=True)
    constraints = repository / "envs" / "constraints.txt"
    install = [
        uv(),
        "pip",
        "install",
        "--quiet",
        "--python",
        folder / "bin/python",
        "--constraint",
        constraints,
        *wanted,
    ]
    subprocess.run([*install, *wanted], check=True, env=environment())
    return folder / "bin"


def uv() -> str:
    found = shutil.which("uv", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    if not found:
        pytest.skip("uv is not installed: without its cache the environments would take many minutes (pip install uv)")
    return found


def environment(**changes: str) -> dict[str, str]:
    """This process's, without what points into the tests' own environment."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("SNAKEMAKE", "PYTHON", "VIRTUAL_ENV"))
    }
    kept["PATH"] = os.pathsep.join(part for part in kept["PATH"].split(os.pathsep) if Path(part) != BIN)
    if "PIP_FIND_LINKS" in kept:  # uv does not read pip's variable for folders of wheels
        kept.setdefault("UV_FIND_LINKS", kept["PIP_FIND_LINKS"])
    return kept | changes


def test_every_rule_runs_in_its_own_environment(outer: Path, tmp_path: Path, repository: Path) -> None:
    hidden = subprocess.run([outer / "python", "-c", "import numpy"], capture_output=True, text=True, env=environment())
    assert "ModuleNotFoundError" in hidden.stderr, "the outer environment has what rules need: nothing would be proven"
    checkout(tmp_path, repository)
    conda = tmp_path / "conda" / "bin"
    conda.mkdir(parents=True)
    (conda / "conda").write_text(f'#!/bin/sh\nexec {outer}/python {STANDIN} "$@"\n')
    (conda / "conda").chmod(0o755)
    (conda / "activate").write_text('. "$1/bin/activate"; export CONDA_PREFIX="$1"\n')
    log = tmp_path / "standin.log"
    variables = environment(
        STANDIN_LOG=str(log),
        STANDIN_NAMES=str(repository / "envs/names.tsv"),
        STANDIN_ROOT=str(conda.parent),
        STANDIN_UV=uv(),
    )
    variables["PATH"] = f"{conda}{os.pathsep}{variables['PATH']}"
    command = [outer / "snakemake", "--cores", "2", "--configfile", "config/smoke.yaml", "--use-conda"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=variables)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert (tmp_path / "results/smoke/report.html").is_file()

    calls = [line.split("\t") for line in log.read_text().splitlines()]
    ran = [(prefix, words.split(), foreign.split()) for kind, prefix, words, foreign in filter(is_run, calls)]
    created = [words for kind, words in filter(lambda call: not is_run(call), calls) if words.startswith("env create")]
    prefixes = {prefix for prefix, *_ in ran}
    assert all(Path(prefix).is_relative_to(tmp_path / ".snakemake" / "conda") for prefix in prefixes)
    assert len(prefixes) == len(created) >= 1
    # Snakemake prints each job's command: each of those subcommands ran in an environment, as often as it was printed.
    printed = Counter(
        re.findall(r"^ +iqt (?:--threads \d+ )?(?:stage )?([a-z][a-z-]*)", done.stdout + done.stderr, re.MULTILINE)
    )
    assert Counter(next(word for word in words if word in printed) for _, words, _ in ran) == printed
    assert len(printed) >= 12
    assert not {name for *_, foreign in ran for name in foreign}, "imported from outside the rule's environment"


def is_run(call: list[str]) -> bool:
    return call[0] == "RAN"
