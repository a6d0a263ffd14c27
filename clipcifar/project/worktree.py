"""A worktree of git, to which DVC gives a cache of its own, without what the first tree holds."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from clipcifar.core.errors import ClipcifarError, ConfigError, DataError
from clipcifar.project.dvc_project import cache_of

_LINK = "gitdir: "


def check_worktree(repository: Path) -> Iterator[str | ClipcifarError]:
    """For the doctor: whether this is a worktree with an empty cache, beside one that holds the results.

    Args:
        repository: the root of the project.

    Yields:
        A DataError with the command that lets both use the one cache.
    """
    first = first_tree(repository)
    if first is None or not first.is_dir():
        return
    own = cache_of(repository)
    try:
        other = cache_of(first)
    except ConfigError:  # what is wrong there is not ours to tell
        return
    if own != other and not own.is_dir() and other.is_dir():
        yield DataError(
            f"this worktree of git has a cache of DVC's of its own, which is empty, and {first} has one",
            where=str(own),
            fix=f"dvc cache dir --local {shlex.quote(str(other.parents[1]))} && dvc checkout",
        )


def first_tree(repository: Path) -> Path | None:
    """The project in the tree that `git worktree add` was given in; None where this is no such worktree."""
    for top in (repository, *repository.parents):
        link = top / ".git"
        if link.is_file():
            folder = top / link.read_text().strip().removeprefix(_LINK)
            common = folder / "commondir"  # which a submodule has not
            git = (folder / common.read_text().strip()).resolve() if common.is_file() else None
            return git.parent / repository.relative_to(top) if git and git.name == ".git" else None
        if link.exists():
            return None
    return None
