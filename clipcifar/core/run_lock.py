"""One run at a time on one piece of scratch work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from clipcifar.core.accounts import owner_of
from clipcifar.core.errors import EnvironmentFault
from clipcifar.core.files import explained, host, require_writable
from clipcifar.core.processes import is_running
from clipcifar.core.terminal import one_line


@contextmanager
def alone(folder: Path, *, doing: str) -> Iterator[None]:
    """Hold a folder alone; the system frees the lock of a process that has died.

    Args:
        folder: of the work; the lock lies beside it.
        doing: what another holder is at, for the message: "extracting the same embeddings".

    Raises:
        EnvironmentFault: another process holds it, or the folder cannot be written.
    """
    lock_file, holder_file = folder.with_name(f"{folder.name}.lock"), _holder_file(folder)
    require_writable(folder)
    lock = filelock.FileLock(lock_file)
    with explained(lock_file):
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout as error:  # an OSError too, but one that says more
            raise EnvironmentFault(
                f"another run is {doing} (process {_told(folder)}{_of_whom(holder_file)})",
                where=str(folder),
                fix="end it, which loses no finished work, or wait until it has ended; then run again",
            ) from error
    try:
        with explained(holder_file):
            holder_file.unlink(missing_ok=True)  # a killed run's, which may be another account's
            holder_file.write_text(f"{os.getpid()} {host()}")
        yield
    finally:
        with suppress(OSError):
            holder_file.unlink(missing_ok=True)
        lock.release()


def holder(folder: Path) -> int | None:
    """The process that holds a folder now, as far as its note tells; nothing is locked or changed.

    Of a process on another machine that shares the folder, nobody here can say whether it has died.
    """
    process, where = _noted(folder)
    return process if process is not None and (where != host() or is_running(process)) else None


def _holder_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.holder")


def _of_whom(holder_file: Path) -> str:
    """Whose the holder is, where that is another account."""
    with suppress(OSError):
        if os.name == "posix" and holder_file.stat().st_uid != os.geteuid():
            return f" of {owner_of(holder_file)}"
    return ""


def _told(folder: Path) -> str:
    process, where = _noted(folder)
    return f"{process or 'unknown'}" + ("" if where == host() else f" on {where}")


def _noted(folder: Path) -> tuple[int | None, str]:
    """A process and the machine that it is on; a note without a machine is of an earlier version, here."""
    with suppress(OSError, ValueError):
        noted, _, where = _holder_file(folder).read_text().partition(" ")
        if (process := int(noted)) > 0:  # zero and less are groups of processes
            return process, one_line(where) or host()
    return None, host()
