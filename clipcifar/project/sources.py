"""Has a file or folder that no stage makes changed since a stage ran: code, photographs, weights?

What is small is hashed. Of what is large names, sizes and times are looked at, and DVC, which remembers what
it has hashed, is asked only where these say that something may have changed.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from pathlib import Path

from clipcifar.project import dvc_project
from clipcifar.project.lockfile import File

SMALL = 32_000_000  # bytes, hashed in less than 0.1 s


def changed(repository: Path, path: str, recorded: File) -> bool:
    """Whether a source is not what dvc.lock records of it; one that is absent on this machine is not told.

    Args:
        repository: the folder of dvc.lock.
        path: of the source, absolute or relative to it.
        recorded: what a stage ran on.
    """
    source = repository / path
    try:
        files = list(_files(source, _ignored(repository)))
        states = [os.stat(file) for file in files]
        if not files:
            return False
        if (len(files), sum(state.st_size for state in states)) == (recorded.count, recorded.size):
            if recorded.size <= SMALL:
                if _digest(source, files) == recorded.digest:
                    return False
            elif max(state.st_ctime_ns for state in states) < (repository / "dvc.lock").stat().st_mtime_ns:
                return False
    except OSError:
        return False  # what cannot be read, the stage will tell
    return dvc_project.differs_from(repository, path, recorded.digest)


def _digest(source: Path, files: list[str]) -> str:
    if source.is_file():
        return dvc_project.md5(source)
    members = {Path(file).relative_to(source).as_posix(): dvc_project.md5(Path(file)) for file in files}
    return dvc_project.digest_of_members(members)


def _files(source: Path, is_ignored: re.Pattern[str]) -> Iterator[str]:
    if source.is_file():
        yield str(source)
    for folder, folders, names in os.walk(source):
        folders[:] = [name for name in folders if not is_ignored.match(name)]
        yield from (os.path.join(folder, name) for name in names if not is_ignored.match(name))


def _ignored(repository: Path) -> re.Pattern[str]:
    """The names in .dvcignore; where it holds other patterns, DVC is asked more often."""
    path = repository / ".dvcignore"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.removeprefix("\\").removesuffix("/") for line in lines if line and not line.startswith("#")]
    return re.compile("|".join(fnmatch.translate(name) for name in names) or r"\Z.")
