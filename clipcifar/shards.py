"""Finished pieces of a long extraction, kept so that a killed run goes on where it stopped.

A shard is one file: a header line (JSON: rows, shape, fingerprint, sha256) and the raw float32
rows. It gets its name only when it is whole and on disk; a damaged one counts as missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import numpy as np
from numpy.typing import NDArray

from clipcifar.errors import EnvironmentFault
from clipcifar.files import canonical_json, explained, require_writable, write_atomically

_DTYPE = "<f4"


class ShardFolder:
    """The shards of one extraction.

    Args:
        root: the scratch folder of all extractions.
        fingerprint: digest of everything that determines the numbers; names this one's folder.
    """

    def __init__(self, root: Path, fingerprint: str) -> None:
        self._folder = root / fingerprint[:32]
        self._lock_file = root / f"{fingerprint[:32]}.lock"
        self._holder_file = root / f"{fingerprint[:32]}.holder"
        self._fingerprint = fingerprint

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder alone; the system frees the lock of a process that has died.

        Raises:
            EnvironmentFault: another process holds it, or the folder cannot be written.
        """
        require_writable(self._folder)
        lock = filelock.FileLock(self._lock_file)
        with explained(self._lock_file):
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout as error:  # an OSError too, but one that says more
                raise EnvironmentFault(
                    f"another run is extracting the same embeddings ({self._holder()})",
                    where=str(self._folder),
                    fix="wait for it to end, or end it",
                ) from error
        try:
            with explained(self._holder_file):
                self._holder_file.write_text(str(os.getpid()))
            yield
        finally:
            self._holder_file.unlink(missing_ok=True)
            lock.release()

    def _holder(self) -> str:
        try:
            return f"process {int(self._holder_file.read_text())}"
        except (OSError, ValueError):
            return "process unknown"

    def _path(self, start: int, stop: int) -> Path:
        return self._folder / f"{start:09d}-{stop:09d}.shard"

    def write(self, start: int, stop: int, rows: NDArray[np.float32]) -> None:
        """Keep rows start..stop, (stop - start, D) float32."""
        body = np.ascontiguousarray(rows, dtype=_DTYPE).tobytes()
        header = {
            "fingerprint": self._fingerprint,
            "rows": [start, stop],
            "shape": list(rows.shape),
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        write_atomically(self._path(start, stop), canonical_json(header).encode() + b"\n" + body)

    def read(self, start: int, stop: int) -> NDArray[np.float32] | None:
        """Rows start..stop, or None when that shard is missing or fails its check."""
        try:
            head, _, body = self._path(start, stop).read_bytes().partition(b"\n")
            header = json.loads(head)
            shape = tuple(header["shape"])
            wanted = (self._fingerprint, [start, stop], hashlib.sha256(body).hexdigest())
            if (header["fingerprint"], header["rows"], header["sha256"]) != wanted or shape[
                0
            ] != stop - start:
                return None
            return np.frombuffer(body, dtype=_DTYPE).reshape(shape)
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return None

    def remove(self) -> None:
        """Delete the shards, once what they were for is safely written."""
        shutil.rmtree(self._folder, ignore_errors=True)
