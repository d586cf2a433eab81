"""Commands about the configuration itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import config_app


@config_app.command("check")
def config_check(path: Annotated[Path, typer.Argument(help="A configuration file.")]) -> None:
    """Validate a configuration file and print it with every default filled in."""
    import yaml

    from iqt.config import read_config

    print(yaml.safe_dump(read_config(path).model_dump(mode="json"), sort_keys=False), end="")


@config_app.command("schema")
def config_schema(out: Annotated[Path, typer.Argument(help="JSON file to write.")]) -> None:
    """Write the JSON schema, which editors check configuration files against."""
    from iqt.config.docs import json_schema
    from iqt.io.files import write_text

    write_text(out, json_schema())


@config_app.command("readme")
def config_readme(out: Annotated[Path, typer.Argument(help="Markdown file to write.")]) -> None:
    """Write the manual of every key."""
    from iqt.config.docs import readme
    from iqt.io.files import write_text

    write_text(out, readme())
