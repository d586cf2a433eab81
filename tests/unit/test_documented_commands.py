"""Every command that README and docs/ show can be understood by the program that it calls.

Most are run by other tests: the sequence of enhance, parcellate and degrade by test_enhance_file.py, the study by
test_study_run.py, the configurations by test_sources_matrix.py and test_plans.py, `make demo`'s chain by test_smoke.py.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from iqt.cli import app
from iqt.study.app import build_parser

UNKNOWN = {"generate-slurm-partition-config": "comes with Snakemake's Slurm plugin", "python": "a script of tests/"}
"""Programs whose command lines are not looked at, and why."""
HERE = Path(__file__).parents[2]
PROGRAM = re.compile(r"(?:\.venv/bin/)?(iqt-bids|iqt|snakemake|make|python|generate-slurm-partition-config)\b")


def shown() -> list[tuple[str, str]]:
    """(where, command) of every line of a block of code that begins with one of our programs."""
    found = []
    for path in [HERE / "README.md", HERE / "CONTRIBUTING.md", *sorted((HERE / "docs").rglob("*.md"))]:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if line.startswith("    ") and PROGRAM.match(line.strip()):
                for command in re.sub(r"\s+#.*", "", line.strip()).split("&&"):
                    found.append((f"{path.relative_to(HERE)}:{number}", command.strip()))
    return found


def test_there_are_commands() -> None:
    assert len(shown()) > 40


@pytest.mark.parametrize(("where", "command"), shown(), ids=lambda text: text[:60])
def test_a_documented_command_is_understood(where: str, command: str) -> None:
    words = shlex.split(command)
    program = words[0].removeprefix(".venv/bin/")
    if program in UNKNOWN:
        return
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (HERE / "Makefile").read_text(), re.MULTILINE)
        unknown = [word for word in words[1:] if "=" not in word and word not in targets]
        assert not unknown, f"{where}: no such target"
    elif program == "iqt-bids":
        build_parser().parse_args(words[1:])
    elif program == "snakemake":
        from snakemake.cli import get_argument_parser

        given, unknown = get_argument_parser().parse_known_args(words[1:])
        assert [word for word in unknown if not word.startswith("--slurm")] == [], where
        for path in given.configfile or []:
            assert (HERE / path).is_file() or Path(path).stem == "mine", f"{where}: {path} is not there"
    else:
        understood(words[1:], where)


def understood(words: list[str], where: str) -> None:
    """AssertionError where the command line of iqt does not know a command or an option."""
    command = typer.main.get_command(app)
    context = command.make_context("iqt", [], resilient_parsing=True)
    while hasattr(command, "get_command"):
        name, *words = words
        assert command.get_command(context, name) is not None, f"{where}: iqt knows no {name}"
        command = command.get_command(context, name)
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in options]
    assert not unknown, f"{where}: iqt knows no {unknown}"
