"""The documentation site: it is built offline and strictly, and holds every command and every key."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [BIN / "mkdocs", "build", "--quiet", "--strict", "--site-dir", folder]
    done = subprocess.run(
        command, cwd=repository, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_of_docs_is_in_the_navigation(site: Path, repository: Path) -> None:
    """A broken link between pages has already stopped the strict build."""
    text = (repository / "mkdocs.yml").read_text()
    pages = {path.relative_to(repository / "docs").as_posix() for path in (repository / "docs").rglob("*.md")}
    named = set(re.findall(r": ([\w/-]+\.md)$", text, re.MULTILINE))
    assert pages | {"commands.md", "keys.md", "changelog.md"} == named
    assert yaml.safe_load(text)["strict"] is True


def test_commands_and_keys_are_generated(site: Path) -> None:
    commands = (site / "commands.html").read_text()
    for wanted in ("iqt enhance", "iqt study", "iqt doctor", "--residual"):
        assert wanted in commands
    assert "stage ingest" not in commands, "what rules call is not for people"
    assert "pure_noise" in (site / "keys.html").read_text()


def test_links_out_of_docs_lead_to_the_sites_own_pages(site: Path) -> None:
    text = (site / "enhancement.html").read_text()
    assert 'href="keys.html"' in text
    for page in site.rglob("*.html"):
        for target in re.findall(r'href="([^"#?]+)', page.read_text()):
            if re.match(r"[a-z]+:", target) or target.startswith("/"):
                continue
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        loaded = re.findall(r'<(?:script|img|iframe)[^>]+src="(https?:[^"]+)', text)
        loaded += re.findall(r'<link[^>]+rel="(?:stylesheet|preconnect)"[^>]+href="(https?:[^"]+)', text)
        assert loaded == [], page.name
