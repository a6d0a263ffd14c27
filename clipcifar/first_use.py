"""Files without a known digest are trusted on first use, as SSH trusts hosts: recorded, a change refused."""

from __future__ import annotations

from pathlib import Path

from clipcifar.errors import DataError
from clipcifar.files import cache_folder, file_sha256, read_json, write_json

RECORD = "known_files.json"


def check(name: str, path: Path) -> None:
    """Record a downloaded file, or compare it with the record.

    Args:
        name: what it was asked for as: repository and file name.
        path: the file.

    Raises:
        DataError: the file is not the one of its first use, or the record cannot be read.
    """
    record = cache_folder() / RECORD
    known = read_json(record) if record.exists() else {}
    if not isinstance(known, dict):
        raise DataError("not a record of known files", where=str(record), fix=f"delete {record}")
    found = file_sha256(path)
    if name not in known:
        write_json(record, {**known, name: found})
    elif known[name] != found:
        raise DataError(
            f"{name} has sha256 {found}, and had {known[name]} when it was first used here",
            where=str(path),
            fix=f"if you trust the new file, delete this line from {record}",
        )
