"""The commit that a page names, and what it does not depend on."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from clipcifar.project.standing import NO_GIT, standing

WHEN = "2026-01-02T03:04:05 -0330"


def git(folder: Path, *words: str) -> str:
    environment = {
        "GIT_AUTHOR_DATE": WHEN,
        "GIT_COMMITTER_DATE": WHEN,
        "PATH": "/usr/bin:/bin",
        "GIT_CONFIG_GLOBAL": "/dev/null",
    }
    names = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(
        ["git", *names, *words], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture(params=[".", "projects/first"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A project that is committed, at the root of its git repository or below it."""
    folder: Path = tmp_path / request.param
    (folder / "metrics").mkdir(parents=True)
    for name in ("params.yaml", "dvc.lock", "metrics/zero_shot.json", "a.py", "b.py", "c.py", "d.py"):
        (folder / name).write_text("1\n")
    (tmp_path / "elsewhere.txt").write_text("1\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return folder


def test_it_says_the_commit_its_date_and_what_was_edited_since(project: Path) -> None:
    pairs = standing(project)
    digest = hashlib.sha256(b"1\n").hexdigest()
    assert pairs == [
        ("commit", f"{git(project, 'rev-parse', 'HEAD')}, checked out when this page was made"),
        ("date of the commit", "2026-01-02 03:04:05 -0330"),
        ("tracked files edited since", "nothing"),
        ("params.yaml", f"sha256 {digest}, as it was then"),
    ]
    (project / "params.yaml").write_text("2\n")
    edited = dict(standing(project))
    assert edited["tracked files edited since"] == "params.yaml"
    digest = hashlib.sha256(b"2\n").hexdigest()
    assert edited["params.yaml"] == f"sha256 {digest}, as it was then"
    git(project, "add", "params.yaml")
    assert dict(standing(project))["tracked files edited since"] == "params.yaml"


def test_what_a_run_itself_writes_and_what_is_not_the_projects_is_no_edit(project: Path) -> None:
    """So that a page that is made again at a commit has the same bytes, whatever was made beside it."""
    before = standing(project)
    for name in ("dvc.lock", "metrics/zero_shot.json", "new.txt"):
        (project / name).write_text("2\n")
    if project.parent.name == "projects":
        (project.parents[1] / "elsewhere.txt").write_text("2\n")
    assert standing(project) == before


def test_of_many_edited_files_some_are_named(project: Path) -> None:
    for name in "abcd":
        (project / f"{name}.py").write_text("2\n")
    assert dict(standing(project))["tracked files edited since"] == "a.py, b.py, c.py and 1 more"


def test_a_project_without_git_or_without_a_commit_has_a_page_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("1\n")
    assert standing(tmp_path)[0] == ("commit", NO_GIT)
    git(tmp_path, "init", "--quiet")
    assert standing(tmp_path)[0] == ("commit", NO_GIT)
    (tmp_path / ".git" / "HEAD").write_text("nonsense\n")
    assert standing(tmp_path)[0] == ("commit", NO_GIT)


def test_a_repository_that_cannot_be_read_fails_no_page(project: Path, tmp_path: Path) -> None:
    index = tmp_path / ".git" / "index"
    whole = index.read_bytes()
    for damaged in (b"", b"nonsense" * 20, whole[:40]):
        index.write_bytes(damaged)
        assert standing(project)[0] == ("commit", NO_GIT)
    index.write_bytes(whole)
    for path in (tmp_path / ".git" / "objects").glob("??/*"):
        path.chmod(0o644)
        path.write_bytes(b"nonsense")
    assert standing(project)[0] == ("commit", NO_GIT)


@pytest.mark.skipif(os.getuid() != 0, reason="root alone gives files away")
def test_a_repository_of_somebody_else_fails_no_page(project: Path, tmp_path: Path) -> None:
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 12345, 12345)
    assert standing(project)[0] == ("commit", NO_GIT)
