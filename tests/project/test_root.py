from __future__ import annotations

from pathlib import Path

import pytest

from clipcifar.core.errors import ConfigError
from clipcifar.project import root
from clipcifar.project.root import find_root
from tests.support.command_line import make_project


def test_the_nearest_folder_with_both_files_is_the_project(tmp_path: Path) -> None:
    outer = make_project(tmp_path / "outer")
    inner = make_project(outer / "build" / "inner")
    study = outer / "studies" / "few_shot"
    study.mkdir(parents=True)
    (study / "dvc.yaml").touch()  # one of the two, as a study has
    (outer / "data" / "params.yaml").mkdir(parents=True)  # a folder is no settings
    (outer / "data" / "dvc.yaml").touch()
    assert find_root(outer) == outer
    assert find_root(outer / "build") == outer
    assert find_root(study) == outer
    assert find_root(outer / "data" / "params.yaml") == outer
    assert find_root(inner) == inner


@pytest.mark.parametrize("name", root.MARKS)
def test_without_one_of_the_two_there_is_none(tmp_path: Path, name: str) -> None:
    folder = make_project(tmp_path) / "here"
    folder.mkdir()
    assert find_root(folder) == tmp_path
    (tmp_path / name).unlink()
    with pytest.raises(ConfigError, match=r"params\.yaml and dvc\.yaml") as caught:
        find_root(folder)
    assert caught.value.where == str(folder)
    assert "clone it" in caught.value.fix


def test_a_strangers_folder_above_is_named_and_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /tmp is of everybody: DVC would run what a stranger's dvc.yaml says."""
    folder = make_project(tmp_path) / "mine"
    folder.mkdir()
    monkeypatch.setattr(root, "_owner", lambda place: 0 if place == tmp_path else 1000)
    with pytest.raises(ConfigError, match="not of the same owner") as caught:
        find_root(folder)
    assert str(tmp_path) in caught.value.what
    assert find_root(tmp_path) == tmp_path  # who goes there means it
