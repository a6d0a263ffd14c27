"""Files without a known digest are trusted on first use, as SSH trusts hosts: recorded, a change refused."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from clipcifar.core.errors import DataError
from clipcifar.core.files import cache_folder, fault_behind, file_sha256, sha256_of, write_json

RECORD = "known_files.json"


def known_files() -> dict[str, str]:
    """The sha256 of every file on record; DataError when the record is none."""
    record = cache_folder() / RECORD
    try:
        known = json.loads(record.read_bytes()) if record.exists() else {}
    except (OSError, ValueError) as error:
        raise fault_behind(error, record) or _unreadable(record) from error
    if not isinstance(known, dict):
        raise _unreadable(record)
    return known


def _unreadable(record: Path) -> DataError:
    return DataError(
        "the record of downloaded files cannot be read",
        where=str(record),
        fix=f"rm {shlex.quote(str(record))}; every file is then trusted once more",
    )


def check(name: str, path: Path) -> None:
    """Record a downloaded file, or compare it with the record.

    Args:
        name: what it was asked for as: repository and file name.
        path: the file.

    Raises:
        DataError: the file is not the one of its first use, or the record cannot be read.
    """
    _check_digest(name, file_sha256(path), str(path))


def check_names(name: str, filenames: list[str]) -> None:
    """Record which files there are of those that mean something together: one more is a change too."""
    _check_digest(name, sha256_of(sorted(filenames)), name)


def _check_digest(name: str, digest: str, where: str) -> None:
    record, known = cache_folder() / RECORD, known_files()
    if name not in known:
        write_json(record, {**known, name: digest})
    elif known[name] != digest:
        raise DataError(
            f"{name} has sha256 {digest}, and had {known[name]} when it was first used here",
            where=where,
            fix=f"if you trust the new file, delete this line from {record}",
        )
