"""What says the version agrees, and what others read of the project is as they expect it."""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path

import yaml

from iqt import __version__


def test_every_place_says_the_same_version(repository: Path) -> None:
    assert metadata.version("iqt") == __version__, "run `make setup` again"
    citation = yaml.safe_load((repository / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    newest = re.search(r"^## (\S+), (\S+)$", (repository / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert (newest[1], newest[2]) == (__version__, str(citation["date-released"]))


def test_the_software_and_the_paper_are_cited_alike(repository: Path) -> None:
    """`cffconvert --validate` has passed; here the fields that it asks for, and that Zenodo's agree."""
    citation = yaml.safe_load((repository / "CITATION.cff").read_text())
    zenodo = json.loads((repository / ".zenodo.json").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["type"] == zenodo["upload_type"] == "software"
    assert citation["title"] == zenodo["title"]
    assert citation["license"] == zenodo["license"]
    (paper,) = citation["references"]
    assert paper["identifiers"][0]["value"] == zenodo["related_identifiers"][0]["identifier"] == "arXiv:2311.06631"


def test_continuous_integration_calls_what_ci_run_calls(repository: Path) -> None:
    """Pinned actions, least permissions, and the make targets of .ci/run."""
    text = (repository / ".github" / "workflows" / "ci.yml").read_text()
    flow = yaml.safe_load(text)
    assert flow["permissions"] == {"contents": "read"}
    for uses in re.findall(r"uses: (.*)", text):
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", uses), uses
    called = set(re.findall(r"^\s*make ([a-z-]+)", (repository / ".ci" / "run").read_text(), re.MULTILINE))
    assert called
    assert called <= set(re.findall(r"make ([a-z-]+)", text))


def test_issue_templates_ask_for_the_report(repository: Path) -> None:
    folder = repository / ".github" / "ISSUE_TEMPLATE"
    forms = {path.stem: yaml.safe_load(path.read_text()) for path in folder.glob("*.yml")}
    report = next(field for field in forms["bug"]["body"] if field.get("id") == "report")
    assert "iqt bug-report" in report["attributes"]["label"]
    assert report["validations"]["required"] is True


def test_the_catalog_can_deploy_the_workflow(repository: Path) -> None:
    """The standard form: workflow/Snakefile, config/README.md, and what may be deployed."""
    usage = yaml.safe_load((repository / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["software-stack-deployment"]["conda"] is True
    assert set(usage["mandatory-flags"]) == {"desc", "flags"}
    for path in ("workflow/Snakefile", "config/README.md", "config/config.yaml"):
        assert (repository / path).is_file()
