"""Sentence -> embedding, kept between runs in SQLite: a pure accelerator, safe to delete at any time.

Every row carries a digest over key, sentence and bytes, so a damaged row is a missing row; a
damaged file is replaced by an empty one.
"""

from __future__ import annotations

import hashlib
import shlex
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError, EnvironmentFault
from clipcifar.core.terminal import note

_TABLE = (
    "CREATE TABLE IF NOT EXISTS memo "
    "(key TEXT, sentence TEXT, row BLOB, digest BLOB, PRIMARY KEY (key, sentence))"
)
_BUSY_S = 30.0
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _digest(key: str, sentence: str, row: bytes) -> bytes:
    parts = [part.encode() for part in (key, sentence)]
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts) + row).digest()


def count(path: Path) -> tuple[int, int]:
    """How many rows of a memo file are whole, and how many damaged.

    Raises:
        DataError: the file as a whole is no memo.
        EnvironmentFault: it is locked, or cannot be read; what it holds may be whole.
    """
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY_S)) as connection:
            rows = connection.execute("SELECT key, sentence, row, digest FROM memo")
            whole = [
                isinstance(row, bytes) and digest == _digest(key, sentence, row)
                for key, sentence, row, digest in rows
            ]
    except (sqlite3.DatabaseError, UnicodeDecodeError, TypeError, AttributeError) as error:
        if isinstance(error, sqlite3.DatabaseError) and _code(error) not in (*_DAMAGED, sqlite3.SQLITE_ERROR):
            raise EnvironmentFault(
                f"the memo cannot be read now: {error}",
                where=str(path),
                fix="wait for whoever works with it, or see that its disk answers",
            ) from error
        raise DataError(
            f"the memo cannot be read, its sentences will be embedded again: {error}",
            where=str(path),
            fix=f"rm {shlex.quote(str(path))}",
        ) from error
    return sum(whole), len(whole) - sum(whole)


def _code(error: Exception) -> int:
    """SQLite's primary result code; 0 where Python raised the error itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


class Memo:
    """The memo of one model.

    Args:
        path: the SQLite file, made when missing.
        key: a digest of everything but the sentence that determines an embedding.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            self._path.open("xb").close()  # SQLite would let nobody else write it, whatever umask and ACL say
        connection = sqlite3.connect(self._path, timeout=_BUSY_S)
        connection.execute(_TABLE)
        return connection

    def get(self, sentences: list[str]) -> dict[str, NDArray[np.float32]]:
        """The known sentences, each with its (D,) float32 embedding; unknown ones are left out.

        A memo that cannot be asked now is done without, and that is said: it is the quicker way for most
        sentences, and none that a run must wait for.
        """
        known = {}
        try:
            with closing(self._connect()) as connection:
                for sentence in sentences:
                    query = "SELECT row, digest FROM memo WHERE key = ? AND sentence = ?"
                    hit = connection.execute(query, (self._key, sentence)).fetchone()
                    if hit and isinstance(hit[0], bytes) and hit[1] == _digest(self._key, sentence, hit[0]):
                        known[sentence] = np.frombuffer(hit[0], dtype="<f4")
        except (sqlite3.DatabaseError, UnicodeDecodeError, OSError) as error:
            # SQLite quotes damaged text in its message, which may be no text.
            if isinstance(error, UnicodeDecodeError) or _code(error) in _DAMAGED:
                with suppress(OSError):
                    self._path.unlink(missing_ok=True)
            else:
                note(f"embedding without the memo {self._path}: {error}")
            return {}
        return known

    def put(self, embeddings: Mapping[str, NDArray[np.float32]]) -> None:
        """Add sentences with their (D,) float32 embeddings; failing to is not an error."""
        rows = []
        for sentence, embedding in embeddings.items():
            row = embedding.astype("<f4").tobytes()
            rows.append((self._key, sentence, row, _digest(self._key, sentence, row)))
        try:
            with closing(self._connect()) as connection, connection:
                connection.executemany("INSERT OR REPLACE INTO memo VALUES (?, ?, ?, ?)", rows)
        except (sqlite3.DatabaseError, UnicodeDecodeError, OSError):
            return
