"""What the documentation site has besides docs/: every command, every key and the changelog, and links to them."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

TOP = Path(__file__).parents[1]
ELSEWHERE = {"config/README.md": "keys.md", "CHANGELOG.md": "changelog.md", "README.md": "index.md"}
"""Pages that stand outside docs/, and where the site has them."""


def commands() -> str:
    """Every command that a person uses, with its options."""
    import click
    import typer.main
    from typer.cli import get_docs_for_click

    from iqt.cli import app

    command = typer.main.get_command(app)
    command.commands = {name: each for name, each in command.commands.items() if not each.hidden}
    context = click.Context(command, info_name="iqt")
    text = get_docs_for_click(obj=command, ctx=context, name="iqt")
    head = "# Every command\n\nFor who looks an option up; `iqt COMMAND --help` prints the same.\n"
    return head + re.sub(r"^# `iqt`\n", "", text, flags=re.MULTILINE)


def on_files(files: Files, config) -> Files:
    """Add the pages that are generated or stand elsewhere."""
    pages = {
        "commands.md": commands(),
        "keys.md": (TOP / "config" / "README.md").read_text(encoding="utf-8"),
        "changelog.md": (TOP / "CHANGELOG.md").read_text(encoding="utf-8"),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
    """Links out of docs/ lead to the site's own page where it has one, else they become plain text."""
    folder = posixpath.dirname(page.file.src_uri)
    outside = {"keys.md": "config", "changelog.md": ""}.get(page.file.src_uri)
    here = posixpath.join("docs", folder) if outside is None else outside

    def moved(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        path = posixpath.normpath(posixpath.join(here, target))
        if path.startswith("docs/") and files.get_file_from_path(path.removeprefix("docs/")):
            found = path.removeprefix("docs/")
        elif path in ELSEWHERE:
            found = ELSEWHERE[path]
            anchor = "" if path == "README.md" else anchor
        else:
            return text
        return f"[{text}]({posixpath.relpath(found, folder or '.')}{anchor})"

    return re.sub(r"(?<!!)\[([^\]]+)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)]*)?\)", moved, markdown)
