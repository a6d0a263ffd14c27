"""`clipcifar completion`: its scripts, in the shells that are there."""

from __future__ import annotations

import shutil
import subprocess
from argparse import ArgumentParser
from pathlib import Path

import pytest
import shtab

from clipcifar.cli.command import add_folder
from clipcifar.cli.main import COMMANDS
from clipcifar.evaluation.names import METHODS
from tests.support.command_line import run

# What bash does when a person types these words and the tab key.
COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
complete -p clipcifar > /dev/null && _shtab_clipcifar && printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Path:
    """The script of a shell, as it is printed outside any project."""
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "completion", request.param) == 0
    path = tmp_path / "script"
    path.write_text(capsys.readouterr().out)
    return path


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"there is no {shell} here")


@pytest.mark.parametrize(
    ("script", "command"),
    [
        pytest.param("bash", ["bash", "-n"], marks=needs("bash")),
        pytest.param("zsh", ["zsh", "-n"], marks=needs("zsh")),
        pytest.param("tcsh", ["tcsh", "-f"], marks=needs("tcsh")),  # which reads only by running
    ],
    indirect=["script"],
)
def test_the_shell_accepts_its_script(script: Path, command: list[str]) -> None:
    done = subprocess.run([*command, str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    script.write_text(script.read_text() + "\nif (\n")  # negative control
    assert subprocess.run([*command, str(script)], capture_output=True).returncode != 0


@needs("bash")
@pytest.mark.parametrize("script", ["bash"], indirect=True)
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["ver"], ["verify"]),
        (["nothing"], []),
        ([""], list(COMMANDS)),
        (["show", "--per"], ["--per-class"]),
        (["compare", "--method", ""], list(METHODS)),
        (["try", "--on", "te"], ["test"]),
        (["completion", "z"], ["zsh"]),
        (["show", "--metrics", "met"], ["metrics-old"]),
    ],
)
def test_bash_completes_what_is_typed(script: Path, typed: list[str], offered: list[str]) -> None:
    (script.parent / "metrics-old").mkdir()
    (script.parent / "metrics.txt").touch()  # a folder is asked for
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", str(script), "clipcifar", *typed],
        cwd=script.parent,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == offered
    assert done.stderr == ""


def test_folders_are_completed_by_what_shtab_calls_so() -> None:
    """Its constant would have to be imported at every start; the words stand in the code instead."""
    parser = ArgumentParser()
    add_folder(parser, "--folder", explanation="")
    (action,) = (action for action in parser._actions if action.dest == "folder")
    assert action.complete == {shell: shtab.DIRECTORY[shell] for shell in ("bash", "zsh", "tcsh")}  # type: ignore[attr-defined]


def test_another_shell_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "completion", "cmd.exe") == 2
