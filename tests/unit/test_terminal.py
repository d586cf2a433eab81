"""What commands say beside their results, and `iqt doctor` and `iqt bug-report`."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from iqt import __version__, doctor, terminal
from iqt.cli import app
from iqt.errors import UserError

BIN = Path(sys.executable).parent


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("level", "said"), [(None, "wn"), ("quiet", "w"), ("verbose", "wnd")])
def test_quiet_keeps_warnings_and_verbose_says_more(
    level: str | None, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(terminal.LEVEL, raising=False)
    if level is not None:
        monkeypatch.setenv(terminal.LEVEL, level)
    terminal.warn("w")
    terminal.note("n")
    terminal.detail("d")
    lines = capsys.readouterr().err.splitlines()
    assert [line[-1] for line in lines] == list(said)
    assert all(re.fullmatch(r"(warning|note|detail): \w", line) for line in lines), "no colours where no terminal is"


def test_colours_are_for_terminals_that_show_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert terminal.coloured("warning", "x") == "\033[33mx\033[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.coloured("warning", "x") == "x"


def test_one_bar_for_every_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares of the phases add up to the whole, and within a phase the bar never leaves it."""
    monkeypatch.delenv(terminal.LEVEL, raising=False)
    with terminal.Bar(first=1, second=3) as bar:
        seen = []
        for name in ("first", "second"):
            bar.phase(name)
            seen.append(bar._bar.n)
            bar.within(1, 2)
            seen.append(bar._bar.n)
        bar.within(2, 2)
        seen.append(bar._bar.n)
    assert seen == pytest.approx([0, 0.125, 0.25, 0.625, 1])


@pytest.mark.parametrize("level", [None, "quiet"])
@pytest.mark.parametrize("shown", [True, False])
def test_a_bar_is_shown_on_a_terminal_alone(shown: bool, level: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal() if shown else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv(terminal.LEVEL, level or "")
    with terminal.Bar(reading_it=1) as bar:
        bar.phase("reading_it")
        bar.within(1, 2)
    assert ("reading it:  50%" in stream.getvalue()) == (shown and level is None)


def test_quiet_and_verbose_exclude_one_another() -> None:
    done = CliRunner().invoke(app, ["--quiet", "--verbose", "models"])
    assert isinstance(done.exception, UserError)


def test_exit_statuses_are_what_the_manual_says(tmp_path: Path, repository: Path) -> None:
    def status(*words: object) -> int:
        return subprocess.run([BIN / "iqt", *map(str, words)], cwd=tmp_path, capture_output=True).returncode

    assert status("models") == 0
    assert status("--version") == 0
    assert status("enhance", "none.nii.gz", "out.nii.gz") == 1
    assert status("enhance", "--no-such-option") == 2
    told = (repository / "docs" / "running.md").read_text()
    assert "| 0 |" in told
    assert "| 130 |" in told


def test_completion_can_be_installed() -> None:
    done = CliRunner().invoke(app, ["--help"])
    assert "--install-completion" in done.output


def test_the_doctor_looks_at_everything_and_enhances_a_phantom() -> None:
    found = {one.name: one for one in doctor.examine()}
    assert found["iqt"].told.startswith(__version__)
    assert found["enhancing"].state == doctor.OK, found["enhancing"].told
    assert not [one for one in found.values() if one.state == doctor.FAILED]
    lines = doctor.table(list(found.values())).splitlines()
    assert len(lines) == len(found)


def test_what_fails_has_the_doctors_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LITTLE_GB", 1e9)
    done = CliRunner().invoke(app, ["doctor", "--no-smoke"])
    assert done.exit_code == 1
    assert "free some space" in done.output


def test_a_report_of_a_fault_hides_paths_keys_and_people(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "cohort": {
                    "source": "hcp",
                    "hcp": {"root": "/data/secret place", "subjects": ["100307"]},
                    "split": {"train": [100307, 100408], "test": ["sub-100307"]},
                },
                "lowfield": {"main": {"preset": "iqt-4x"}},
                "methods": {"unet": {"kind": "unet", "training": {"steps": 300}}},
                "report": {"people": ["sub-100307"]},
                "seed": 1,
                "note": "AKIAIOSFODNN7EXAMPLE",
            }
        )
    )
    done = CliRunner().invoke(app, ["bug-report", "--config", str(config)])
    assert done.exit_code == 0, done.output
    for private in ("secret", "100307", "100408", "AKIA", str(tmp_path)):
        assert private not in done.output
    for wanted in ("steps: 300", "preset: iqt-4x", "kind: unet", f"iqt {__version__}", "torch 2.13.0"):
        assert wanted in done.output
    config.write_text("a: [b")
    done = CliRunner().invoke(app, ["bug-report", "--config", str(config)])
    assert isinstance(done.exception, UserError)
    assert "cannot be read as YAML" in str(done.exception)
