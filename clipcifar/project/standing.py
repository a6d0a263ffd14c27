"""Where git and params.yaml stood when a page was made, for its provenance.

The commit is the one that was checked out then: the one that will record the run cannot be known yet. Edits
are those of files that git tracks: a new file is none. All of it, and params.yaml, is as it was then. Nothing
here is a time of day, so that at one commit, with the same edits, a page made again has the same bytes.
DVC hands a page back as it was made, where its inputs are the same, and then it names an earlier commit.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import closing
from pathlib import Path, PurePosixPath

NAMED = 3  # of many edited files, so many are named
_RESULTS = ("metrics", "plots")  # written by the run itself, as are the files below
_RECORDS = ("dvc.lock", ".dvcignore", ".gitignore")
NO_GIT = "none: the project is not in git, or its commit or edits cannot be read"


def standing(project: Path) -> list[tuple[str, str]]:
    """Names and values for the provenance of a page.

    Args:
        project: the folder of params.yaml.
    """
    digest = hashlib.sha256((project / "params.yaml").read_bytes()).hexdigest()
    return [*_commit(project), ("params.yaml", f"sha256 {digest}, as it was then")]


def _commit(project: Path) -> list[tuple[str, str]]:
    from scmrepo.git import Git

    try:
        with closing(Git(str(project), search_parent_directories=True)) as git:
            commit = git.resolve_commit(git.get_rev())
            staged, unstaged, _ = git.status(untracked_files="no")
            inside = PurePosixPath(project.resolve().relative_to(Path(git.root_dir).resolve()).as_posix())
    except Exception:  # git's backends raise many types, and a page is not to fail for want of a commit
        return [("commit", NO_GIT)]
    edited = {*(path for paths in staged.values() for path in paths), *unstaged}
    return [
        ("commit", f"{commit.hexsha}, checked out when this page was made"),
        ("date of the commit", _date(commit.commit_time, commit.commit_time_offset)),
        ("tracked files edited since", _edits(edited, inside) or "nothing"),
    ]


def _date(seconds: int, offset: int) -> str:
    """A commit's time in its own zone, `offset` seconds east of Greenwich, as git writes it."""
    hours, minutes = divmod(abs(offset) // 60, 60)
    sign = "-" if offset < 0 else "+"
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(seconds + offset))} {sign}{hours:02}{minutes:02}"


def _edits(edited: set[str], inside: PurePosixPath) -> str:
    """The files of the project, but for results, that are not as the commit has them."""
    paths = [PurePosixPath(path) for path in sorted(edited)]
    own = [path.relative_to(inside) for path in paths if path.is_relative_to(inside)]
    told = [str(path) for path in own if path.parts[0] not in _RESULTS and path.name not in _RECORDS]
    more = f" and {len(told) - NAMED} more" if len(told) > NAMED else ""
    return ", ".join(told[:NAMED]) + more
