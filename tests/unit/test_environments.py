"""The environments: conda's pins and names, and the two recipes for a container."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import pytest
import yaml

from iqt.config import Mask

ENVIRONMENTS = sorted((Path(__file__).resolve().parents[2] / "envs").glob("*.yaml"))
OURS = [path for path in ENVIRONMENTS if path.stem != "fastsurfer"]
"""Environments in which the package runs; FastSurfer's has the versions that FastSurfer was made for."""


def names(repository: Path) -> dict[str, str]:
    """PyPI's name to conda-forge's, where they differ."""
    with (repository / "envs/names.tsv").open(newline="") as handle:
        return {row["pypi"]: row["conda_forge"] for row in csv.DictReader(handle, delimiter="\t")}


def pins(path: Path) -> dict[str, str]:
    """Name and version of conda's packages in an environment; each must be spelled `name=version`."""
    found = {}
    for pin in yaml.safe_load(path.read_text())["dependencies"]:
        if isinstance(pin, dict):  # what conda-forge does not have
            continue
        matched = re.fullmatch(r"([a-z0-9_][a-z0-9_.-]*)=(\d[a-z0-9_.!+]*)", pin)
        assert matched, f"{path.name}: {pin!r} is not name=version as conda-forge spells it"
        found[matched[1]] = matched[2]
    return found


def project(repository: Path) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_environments_are_pinned_and_spelled_as_conda_forge_does(repository: Path, path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    assert content["channels"][-2:] == ["conda-forge", "nodefaults"]
    spelled = names(repository)
    for name, version in pins(path).items():
        assert name not in spelled, f"{path.name}: {name} is PyPI's name; conda-forge's is {spelled[name]}"
        assert "+" not in version, f"{path.name}: {name}: a local version such as +cpu is PyPI's"


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_packages_of_pip_are_the_projects_pins(repository: Path, path: Path) -> None:
    extra = set(project(repository)["optional-dependencies"]["masks"])
    for section in yaml.safe_load(path.read_text())["dependencies"]:
        if isinstance(section, dict):
            assert list(section) == ["pip"]
            assert set(section["pip"]) <= extra
            assert "pip" in pins(path), f"{path.name}: conda warns unless pip is named beside a pip section"


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_a_package_has_the_projects_version_in_every_environment(repository: Path, path: Path) -> None:
    spelled = names(repository)
    wanted = dict(pin.split("==") for pin in project(repository)["dependencies"])
    wanted = {spelled.get(name, name): version for name, version in wanted.items()}
    found = pins(path)
    assert found.pop("python").startswith(project(repository)["requires-python"].removeprefix(">="))
    if path.stem == "iqt":
        assert found == wanted
    others = {name for name in found if name == "pip" or name.startswith("fsl-")}
    assert {name: found[name] for name in found.keys() - others} == {
        name: wanted[name] for name in found.keys() - others
    }


def test_every_environment_that_a_rule_names_exists_and_is_used(repository: Path) -> None:
    named = set()
    for rules in (repository / "workflow/rules").glob("*.smk"):
        named |= set(re.findall(r'"\.\./\.\./envs/(\w+)\.yaml"', rules.read_text()))
    # The one name that is put together: cohort.mask.engine's, which the configuration restricts.
    engines = get_args(Mask.model_fields["engine"].annotation)
    named |= {f"mask_{engine}" for engine in engines}
    assert named == {path.stem for path in ENVIRONMENTS}


def test_dockerfile_passes_its_linter(repository: Path) -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, repository / "envs/Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_both_containers_are_built_from_the_same_pins(repository: Path) -> None:
    docker = (repository / "envs/Dockerfile").read_text()
    apptainer = (repository / "envs/iqt.def").read_text()
    bases = [re.search(r"^F(?:ROM|rom:) (\S+)$", text, re.MULTILINE)[1] for text in (docker, apptainer)]
    assert bases[0] == bases[1] == f"python:{pins(repository / 'envs/iqt.yaml')['python']}-slim-bookworm"
    install = 'pip install --no-cache-dir --constraint /opt/iqt/envs/constraints.txt --editable "/opt/iqt[masks]"'
    assert install in docker
    assert install in apptainer


def test_apptainer_definition_has_sections_that_apptainer_knows_and_files_that_exist(repository: Path) -> None:
    lines = (repository / "envs/iqt.def").read_text().splitlines()
    header = dict(line.split(": ") for line in lines[: lines.index("")] if not line.startswith("#"))
    assert header == {"Bootstrap": "docker", "From": header["From"]}
    sections = [line[1:] for line in lines if line.startswith("%")]
    assert set(sections) == {"files", "post", "environment", "runscript", "test"}
    assert len(set(sections)) == len(sections)
    files = [line.split() for line in lines[lines.index("%files") + 1 : lines.index("%post")] if line.strip()]
    assert all((repository / source).exists() and target.startswith("/opt/iqt/") for source, target in files)
    copied = re.findall(r"^COPY (.+) /opt/iqt/\S*$", (repository / "envs/Dockerfile").read_text(), re.MULTILINE)
    assert sorted(source for source, _ in files) == sorted(" ".join(copied).split())
    post = "\n".join(lines[lines.index("%post") + 1 : lines.index("%environment")])
    assert subprocess.run(["sh", "-n"], input=post, text=True).returncode == 0
