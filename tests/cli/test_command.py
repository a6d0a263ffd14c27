"""Commands and the folder that a person is in: the project's, one below it, or neither."""

from __future__ import annotations

import os
import shutil
from argparse import Namespace
from pathlib import Path

import pytest

from clipcifar.cli.command import Command, in_project
from clipcifar.cli.main import COMMANDS
from clipcifar.core.errors import DataError
from tests.support.command_line import make_project, run

NEED_NONE = {"completion"}
ARGUMENTS = {
    "export": ["embeddings", "images.npz"],
    "predict": ["cat.jpg"],
}  # else wrong usage


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - NEED_NONE))
def test_outside_a_project_every_command_says_so_and_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLIPCIFAR_TRACEBACK", raising=False)
    assert run(monkeypatch, name, *ARGUMENTS.get(name, [])) in (
        2,
        4,
    )  # the doctor may have had something to say of the environment
    said = "".join(capsys.readouterr())
    for part in ("there is no project here", f"where: {tmp_path}", "go to the project's folder, or clone it"):
        assert part in said
    assert said.count("fix:") == 1 or name == "doctor"
    assert Path.cwd() == tmp_path


def test_in_a_project_nothing_of_that_is_said(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "show") == 3
    said = capsys.readouterr().err
    assert "where: metrics/zero_shot.json" in said
    assert "project's folder" not in said


def test_from_a_folder_below_the_project_is_used_and_named_where_something_is_wrong(
    project: Path, metrics: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "show") == 0
    shown = capsys.readouterr().out
    below = project / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert run(monkeypatch, "show") == 0
    assert capsys.readouterr() == (shown, "")
    (metrics / "mlp_probe.json").unlink()
    assert run(monkeypatch, "show") == 3
    note, *message = capsys.readouterr().err.splitlines()
    assert note == f"note: paths and commands are those of the project's folder, {project}"
    assert "  where: metrics/mlp_probe.json" in message
    assert Path.cwd() == below


def test_a_path_that_is_typed_is_the_users_own(
    project: Path, metrics: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    below = project / "below"
    shutil.copytree(metrics, below / "metrics")
    changed = (metrics / "zero_shot.json").read_text().replace("0.7,", "0.1234,")
    (below / "metrics" / "zero_shot.json").write_text(changed)
    monkeypatch.chdir(below)
    assert run(monkeypatch, "show", "--metrics", "metrics") == 0
    assert "0.1234" in capsys.readouterr().out
    assert run(monkeypatch, "show") == 0  # the project's
    assert "0.1234" not in capsys.readouterr().out
    (project / "dvc.yaml").unlink()
    assert run(monkeypatch, "show", "--metrics", "metrics") == 0  # which needs no project
    assert run(monkeypatch, "show") == 2


def test_a_current_folder_that_was_deleted_is_told_and_one_deleted_meanwhile_is_no_error(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    below = project / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    with in_project():  # as DVC removes the outputs of a stage before it runs
        assert Path.cwd() == project
        below.rmdir()
    os.chdir(project)
    below.mkdir()
    os.chdir(below)
    below.rmdir()
    assert run(monkeypatch, "show") == 2
    assert "the current folder is gone" in capsys.readouterr().err


def test_a_command_that_fails_leaves_the_process_where_it_was(project: Path) -> None:
    (project / "below").mkdir()
    os.chdir(project / "below")

    @in_project()
    def fail(arguments: Namespace) -> str:
        raise DataError(str(Path.cwd()))

    with pytest.raises(DataError, match=f"^{project}$"):
        Command(fail, help="").run(Namespace())
    assert Path.cwd() == project / "below"


def test_another_folder_is_begun_in_by_name_and_typed_paths_stay_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project(tmp_path / "project")
    (project / "below").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for folder in ("../project", "../project/below", str(project)):
        assert run(monkeypatch, "--project", folder, "show") == 3
        said = capsys.readouterr().err
        assert f"those of the project's folder, {project}" in said
        assert "there is no zero_shot.json" in said
    for command in (["export", "embeddings", "nowhere/images.npz"], ["predict", "cat.jpg"]):
        assert run(monkeypatch, "--project", "../project", *command) != 0
        assert "there is no project here" not in capsys.readouterr().err
    assert Path.cwd() == tmp_path / "elsewhere"
    assert run(monkeypatch, "--project", "../projekt", "show") == 2
    assert f"there is no such folder\n  where: {tmp_path}/elsewhere/../projekt" in capsys.readouterr().err
    assert run(monkeypatch, "show") == 2  # of one call alone
    assert "there is no project here" in capsys.readouterr().err
