"""A finished run where DVC's root or git's lies above it, in a worktree of git, and in a clone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.support.workspace import Workspace

# The files of a workspace that are no part of its project, which may lie in a repository.
_BESIDE = "*.executed\n*.hooks\n*.cache\n"


def _placed(finished: Workspace, project: Path, *, git: Path, dvc: Path) -> Workspace:
    """A copy as the folder `project` of a git repository and of a DVC repository."""
    shutil.copytree(finished.folder, project, symlinks=True, ignore=shutil.ignore_patterns(".git", "tmp"))
    if dvc != project:
        (project / ".dvc").rename(dvc / ".dvc")
    (git / ".gitignore").write_text(_BESIDE)
    workspace = Workspace(project)
    shutil.copytree(finished.environment["CLIPCIFAR_CACHE"], workspace.environment["CLIPCIFAR_CACHE"])
    workspace.command("git", "init", "--quiet", str(git))
    workspace.commit("a run")
    return workspace


def below_git(folder: Path, finished: Workspace) -> Workspace:
    """As `dvc init --subdir` makes it: git's root is two folders above."""
    git = folder / "git"
    return _placed(finished, git / "teams" / "project", git=git, dvc=git / "teams" / "project")


def below_dvc(folder: Path, finished: Workspace) -> Workspace:
    """One of the projects of a DVC repository; another one has a stage and data of its own."""
    git, other = folder / "git", folder / "git" / "other"
    other.mkdir(parents=True)
    workspace = _placed(finished, git / "project", git=git, dvc=git)
    (other / "dvc.yaml").write_text("stages: {make: {cmd: echo 1 > made, outs: [made]}}\n")
    (other / "data").write_text("of another project")
    workspace.command("dvc", "add", "--quiet", str(other / "data"))
    workspace.command("dvc", "repro", "--quiet", "../other/dvc.yaml")
    workspace.commit("another project")
    return workspace


def in_worktree(folder: Path, finished: Workspace) -> Workspace:
    """Beside the first tree, whose cache of DVC's it uses."""
    first = finished.copy(folder / "first")
    first.command("git", "worktree", "add", "--quiet", "-b", "tree", str(folder / "tree"))
    workspace = Workspace(folder / "tree")
    workspace.command("dvc", "cache", "dir", "--local", str(first.folder / ".dvc" / "cache"))
    workspace.command("dvc", "checkout", "--quiet")
    return workspace


def cloned(folder: Path, finished: Workspace) -> Workspace:
    """On another machine, where nothing but `dvc pull` was done."""
    first = finished.copy(folder / "first")
    first.command("dvc", "remote", "add", "--quiet", "--default", "shared", str(folder / "remote"))
    first.commit("a remote")
    first.command("dvc", "push", "--quiet")
    workspace = Workspace(folder / "clone")
    first.command("git", "clone", "--quiet", str(first.folder), str(workspace.folder))
    workspace.command("dvc", "pull", "--quiet")
    return workspace


def plain(folder: Path, finished: Workspace) -> Workspace:
    return finished.copy(folder / "project")


LAYOUTS: dict[str, Callable[[Path, Workspace], Workspace]] = {
    layout.__name__: layout for layout in (plain, below_git, below_dvc, in_worktree, cloned)
}
# Where each puts the project, for who finds it made.
PROJECTS = {
    "plain": "project",
    "below_git": "git/teams/project",
    "below_dvc": "git/project",
    "in_worktree": "tree",
    "cloned": "clone",
}
