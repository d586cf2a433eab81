"""Every command that README and docs/ show can be understood by the program that it calls; test_smoke.py runs them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from documented import ELSEWHERE, HERE, runnable, shown
from iqt.cli import app
from iqt.study.app import build_parser

UNKNOWN = {"generate-slurm-partition-config": "comes with Snakemake's Slurm plugin", "python": "a script of tests/"}
"""Programs whose command lines are not looked at, and why."""


def test_there_are_commands() -> None:
    assert len(shown()) > 40
    assert len(runnable("iqt")) > 15
    assert len(runnable("snakemake")) > 5
    assert runnable("iqt-bids")


@pytest.mark.parametrize("pattern", ELSEWHERE)
def test_every_exception_is_of_a_command_that_is_shown(pattern: str) -> None:
    assert any(re.match(pattern, command.removeprefix(".venv/bin/")) for _, command in shown())


def test_what_is_neither_run_nor_an_exception_does_not_exist() -> None:
    left = {command.removeprefix(".venv/bin/") for _, command in shown()}
    left -= {command for program in ("iqt", "iqt-bids", "snakemake") for command in runnable(program)}
    assert {command for command in left if not any(re.match(pattern, command) for pattern in ELSEWHERE)} == set()


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
