"""What nobody can read in a folder of files, found before anybody waits for it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from clipcifar.core.counts import count_of
from clipcifar.core.errors import DataError
from clipcifar.core.files import explained
from clipcifar.core.terminal import one_line

MAX_REPORTED = 20


def shortened(lines: list[str], *, of: int | None = None) -> list[str]:
    """The first `MAX_REPORTED` lines, and how many more there are: of all, where these are the first ones."""
    more = (len(lines) if of is None else of) - MAX_REPORTED
    return lines[:MAX_REPORTED] + ([f"and {more} more"] if more > 0 else [])


def check_hashable(root: Path) -> None:
    """Refuse a folder that DVC could not hash.

    DVC opens everything under a dependency: at a pipe it would wait for ever, and at a dead link or a
    name that is not UTF-8 it stops without saying what to do. Links to folders it does not follow.

    Raises:
        DataError: names every such file.
        EnvironmentFault: a folder cannot be listed.
    """
    odd: list[str] = []
    folders = [os.fspath(root)]
    with explained(root):
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if problem := _unhashable(entry):
                        odd.append(f"{one_line(os.path.relpath(entry.path, root))}: {problem}")
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
    if odd:
        raise DataError(
            f"{count_of(len(odd), 'file')} cannot be read by DVC:\n    "
            + "\n    ".join(shortened(sorted(odd))),
            where=str(root),
            fix="where DVC made the links, run `dvc checkout`; else remove or rename them",
        )


def _unhashable(entry: os.DirEntry[str]) -> str:
    """What keeps DVC from reading a directory entry; nothing for plain files and for folders."""
    return unreadable(entry) if is_utf8(entry.name) else "its name is not UTF-8"


def is_utf8(name: str) -> bool:
    """Whether the bytes of a file name are UTF-8; Python keeps others as halves of characters."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def unreadable(entry: os.DirEntry[str]) -> str:
    """Why an entry is neither a file nor a folder, nor a link to one; nothing where it is."""
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        if not entry.is_symlink():
            raise
        return f"a symbolic link that leads nowhere: {error.strerror}"
    return "" if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "not a file: a pipe, a socket or a device"
