"""How `clipcifar` ends, whatever the command."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from clipcifar.cli import main as cli
from clipcifar.core.errors import OUT_OF_MEMORY, ConfigError, DataError, EnvironmentFault
from tests.support.command_line import run
from tests.support.waiting import PATIENCE_S


@pytest.mark.parametrize("arguments", [[], ["shwo"], ["show", "--perclass"], ["show", "extra"]])
def test_wrong_usage_is_exit_code_2_and_says_how_it_is_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert "usage: clipcifar" in capsys.readouterr().err


def test_of_an_option_that_a_command_lacks_the_usage_is_the_commands_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "find", "a cat", "--label", "cat") == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: clipcifar find ")
    assert said.endswith("clipcifar find: error: unrecognized arguments: --label cat\n")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("x", where="y", fix="z"), 2, "error: x\n  where: y\n  fix:   z\n"),
        (DataError("x"), 3, "error: x\n"),
        (EnvironmentFault("x"), 4, "error: x\n"),
        (MemoryError(), 4, f"error: {OUT_OF_MEMORY}\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_is_its_message_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    message: str,
) -> None:
    def fail(_: object) -> str:
        raise error

    monkeypatch.delenv("CLIPCIFAR_TRACEBACK", raising=False)
    monkeypatch.setitem(cli.COMMANDS, "show", replace(cli.COMMANDS["show"], run=fail))
    assert run(monkeypatch, "show") == code
    assert capsys.readouterr().err == message


def test_the_traceback_comes_on_demand(metrics: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (metrics / "zero_shot.json").unlink()
    monkeypatch.setenv("CLIPCIFAR_TRACEBACK", "1")
    with pytest.raises(DataError):
        run(monkeypatch, "show", "--metrics", str(metrics))


def test_a_reader_who_leaves_early_gets_no_traceback(metrics: Path) -> None:
    code = "import sys; sys.argv[0] = 'clipcifar'; from clipcifar.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "show", "--metrics", str(metrics)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()  # long before anything is printed, as `| true` does
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=PATIENCE_S) == 0


NARROW = (
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
)


@pytest.mark.parametrize("encoding", NARROW)
def test_a_terminal_that_lacks_a_character_gets_its_escape(metrics: Path, encoding: dict[str, str]) -> None:
    code = "import sys; sys.argv[0] = 'clipcifar'; from clipcifar.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "show", "--metrics", str(metrics)],
        env={**os.environ, **encoding},
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"0.6900\u20130.7200" in done.stdout


def test_a_closed_terminal_is_no_error(metrics: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert run(monkeypatch, "show", "--metrics", str(metrics)) == 0
