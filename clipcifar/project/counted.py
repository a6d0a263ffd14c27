"""Which files of a folder DVC counts: not those that .dvcignore names, such as desktops and editors leave."""

from __future__ import annotations

import fnmatch
import os
import re
from pathlib import Path


def files_in(folder: Path, repository: Path) -> list[str]:
    """The regular files in a folder and below, as paths that begin with it.

    Args:
        folder: of data or code; of a file, or of nothing, there are none.
        repository: the project's root, whose .dvcignore is read.
    """
    is_ignored, files = _ignored(repository), []
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_ignored.match(name)]
        paths = (os.path.join(at, name) for name in names if not is_ignored.match(name))
        files += [path for path in paths if os.path.isfile(path)]
    return files


def has_dead_links(path: Path) -> bool:
    """Whether a file, or one in a folder, is a link that leads nowhere, as into a cache that was moved."""
    inside = (os.path.join(at, name) for at, _, names in os.walk(path) for name in names)
    return any(os.path.islink(file) and not os.path.exists(file) for file in (str(path), *inside))


def _ignored(repository: Path) -> re.Pattern[str]:
    """The names in .dvcignore; where it holds other patterns, DVC counts fewer files than are named here."""
    path = repository / ".dvcignore"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.removeprefix("\\").removesuffix("/") for line in lines if line and not line.startswith("#")]
    return re.compile("|".join(fnmatch.translate(name) for name in names) or r"\Z.")
