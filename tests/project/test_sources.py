"""Whether a file or folder that no stage makes has changed, and when DVC is asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.repo import Repo

from clipcifar.core.errors import EnvironmentFault
from clipcifar.project import dvc_project, sources
from clipcifar.project.lockfile import File

LATER = 4_000_000_000  # seconds, in 2096


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What DVC was asked about; it says that all has changed."""
    paths: list[str] = []

    def differs_from(repository: Path, path: str, digest: str) -> bool:
        paths.append(path)
        return True

    monkeypatch.setattr(dvc_project, "differs_from", differs_from)
    return paths


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "dvc.lock").write_text("")
    (tmp_path / ".dvcignore").write_text("# notes\n__pycache__\n*~\n\\#*#\nbuild/\n")
    (tmp_path / "code" / "deep").mkdir(parents=True)
    (tmp_path / "code" / "a.py").write_text("1")
    (tmp_path / "code" / "deep" / "b.py").write_text("2")
    return tmp_path


def recorded(path: Path) -> File:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return File(dvc_project.digest_of(path, path.parent), sum(file.stat().st_size for file in files))


def test_what_is_as_it_was_is_told_without_dvc(project: Path, asked: list[str]) -> None:
    before = recorded(project / "code")
    for litter in ("a.py~", "#a.py#"):
        (project / "code" / litter).write_text("x")
    for folder in ("__pycache__", "build"):
        (project / "code" / folder).mkdir()
        (project / "code" / folder / "x").write_text("x")
    assert not sources.changed(project, "code", before)
    assert not sources.changed(project, "code/a.py", recorded(project / "code" / "a.py"))
    assert not sources.changed(project, str(project / "code"), before)  # as dataset.path may be
    assert asked == []


@pytest.mark.parametrize("name", ["a.py", "deep/b.py", "new.py"])
def test_what_was_edited_or_added_is_told_with_dvcs_word(project: Path, asked: list[str], name: str) -> None:
    before = recorded(project / "code")
    (project / "code" / name).write_text("9")
    assert sources.changed(project, "code", before)
    assert asked == ["code"]


def test_dvc_has_the_last_word(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = recorded(project / "code")
    (project / "code" / "b~").write_text("x")
    (project / ".dvcignore").write_text("/code/b~\n")  # a pattern that is not read here
    monkeypatch.setattr(dvc_project, "differs_from", lambda *arguments: False)
    assert not sources.changed(project, "code", before)


def test_what_is_not_on_this_machine_is_not_told_of(project: Path, asked: list[str]) -> None:
    """A colleague pulls the embeddings and has no photographs."""
    assert not sources.changed(project, "/nowhere/photos", File("1a.dir", 100))
    assert asked == []


def test_what_this_account_may_not_read_is_not_told_of_either(
    project: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> str:
        raise EnvironmentFault("cannot use it", where=str(path), fix="ask its owner")

    before = recorded(project / "code")
    monkeypatch.setattr(dvc_project, "md5", refused)
    assert not sources.changed(project, "code", before)
    assert asked == []


def test_of_what_is_large_dvc_is_asked_and_nothing_hashed_here(
    project: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A photograph moved to another class: as many files, as many bytes, and dvc.lock is newer than all."""
    before = recorded(project / "code")
    monkeypatch.setattr(sources, "SMALL", 1)
    monkeypatch.setattr(dvc_project, "md5", lambda path: pytest.fail("hashed"))
    (project / "code" / "a.py").rename(project / "code" / "deep" / "a.py")
    os.utime(project / "dvc.lock", (LATER, LATER))
    assert sources.changed(project, "code", before)
    assert asked == ["code"]


def test_of_a_small_file_dvc_is_not_asked(project: Path, asked: list[str]) -> None:
    before = recorded(project / "code" / "a.py")
    (project / "code" / "a.py").write_text("9")
    assert sources.changed(project, "code/a.py", before)
    assert asked == []


def test_a_link_to_nothing_hides_no_change(project: Path, asked: list[str]) -> None:
    before = recorded(project / "code")
    (project / "code" / "lost").symlink_to("nowhere")
    assert not sources.changed(project, "code", before)
    (project / "code" / "a.py").write_text("9")
    assert sources.changed(project, "code", before)


def test_an_output_is_of_the_files_that_dvc_counts(project: Path) -> None:
    """What a desktop leaves in a folder of results makes them no others."""
    before = dvc_project.digest_of(project / "code", project)
    (project / "code" / "a.py~").write_text("x")
    assert dvc_project.digest_of(project / "code", project) == before
    (project / "code" / "new.py").write_text("x")
    assert dvc_project.digest_of(project / "code", project) != before


def test_dvc_knows_a_source_beside_the_project_by_the_path_that_was_given(tmp_path: Path) -> None:
    project, photos = tmp_path / "project", tmp_path / "photos"
    for folder in (project, photos):
        folder.mkdir()
    (photos / "a.jpg").write_text("a")
    Repo.init(str(project), no_scm=True).close()
    (project / "dvc.yaml").write_text("stages: {look: {cmd: look, deps: [../photos]}}")
    assert not dvc_project.differs_from(project, "../photos", dvc_project.digest_of(photos, project))
    assert dvc_project.differs_from(project, "../photos", "0" * 32 + ".dir")


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_a_linked_file_counts_as_what_it_leads_to(
    link: Callable[[Path, Path], None], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As DVC, which really is asked here, counts it; a link to a folder is not followed by either."""
    Repo.init(str(project), no_scm=True).close()
    (project / "dvc.yaml").write_text("stages: {look: {cmd: look, deps: [code, alone]}}")
    (project / "dvc.lock").unlink()
    (project / "alone").write_text("3")
    before = {name: recorded(project / name) for name in ("code", "alone")}
    objects = tmp_path / "objects"
    objects.mkdir()
    for number, name in enumerate(("code/a.py", "code/deep/b.py", "alone")):
        link(project / name, (project / name).rename(objects / str(number)))
    (project / "code" / "folder").symlink_to(objects, target_is_directory=True)
    for name, file in before.items():
        assert recorded(project / name) == file
        assert not sources.changed(project, name, file)
        assert not dvc_project.differs_from(project, name, file.digest)
    monkeypatch.setattr(sources, "SMALL", 1)  # DVC, which goes by sizes and times, notices it too
    assert not sources.changed(project, "code", before["code"])
    (objects / "1").write_text("9")  # as long as before
    os.utime(objects / "1", (LATER, LATER))
    assert sources.changed(project, "code", before["code"])
    assert not sources.changed(project, "alone", before["alone"])
    assert dvc_project.digest_of(project / "code", project) != before["code"].digest
