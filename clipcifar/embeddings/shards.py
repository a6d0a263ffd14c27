"""Finished pieces of a long extraction, kept so that a killed run goes on where it stopped.

A shard is one file: a header line (JSON: rows, shape, fingerprint, sha256) and the raw float32
rows. It gets its name only when it is whole and on disk; a damaged one counts as missing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipcifar.core import files, run_lock
from clipcifar.core.files import canonical_json, fault_behind, sha256_of, write_atomically

_DTYPE = "<f4"


class ShardFolder:
    """The shards of one extraction.

    Args:
        root: the scratch folder of all extractions.
        fingerprint: digest of everything that determines the numbers; names this one's folder.
    """

    def __init__(self, root: Path, fingerprint: str) -> None:
        self._folder = root / fingerprint[:32]
        self._fingerprint = fingerprint

    def of(self, rows: NDArray[np.int64]) -> ShardFolder:
        """The shards of some rows alone, which lie in this folder and go with it."""
        return ShardFolder(
            self._folder, sha256_of([self._fingerprint, hashlib.sha256(rows.tobytes()).hexdigest()])
        )

    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder alone; EnvironmentFault when another run does, or it cannot be written."""
        return run_lock.alone(self._folder, doing="extracting the same embeddings")

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
        """Rows start..stop, or None when that shard is missing or fails its check.

        Raises:
            EnvironmentFault: it is there and cannot be read; its rows would be encoded again.
        """
        path = self._path(start, stop)
        try:
            head, _, body = path.read_bytes().partition(b"\n")
            header = json.loads(head)
            shape = tuple(header["shape"])
            wanted = (self._fingerprint, [start, stop], hashlib.sha256(body).hexdigest())
            if (header["fingerprint"], header["rows"], header["sha256"]) != wanted or shape[
                0
            ] != stop - start:
                return None
            return np.frombuffer(body, dtype=_DTYPE).reshape(shape)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            if fault := fault_behind(error, path):
                raise fault from error
            return None

    @property
    def root(self) -> Path:
        """The scratch folder of all extractions."""
        return self._folder.parent

    def missing(self, num_bytes: int) -> int:
        """How many of `num_bytes` of rows are not finished yet."""
        return max(0, num_bytes - sum(path.stat().st_size for path in self._folder.rglob("*.shard")))

    def remove(self) -> None:
        """Delete the shards, once what they were for is safely written."""
        shutil.rmtree(self._folder, ignore_errors=True)


def require_space(
    extractions: Sequence[ShardFolder], num_bytes: int, *, output: Path, known: int = 0
) -> None:
    """Raise EnvironmentFault unless what is missing fits, and all of it once more into a folder `output`.

    Args:
        extractions: of one root, which exists as `output` does.
        num_bytes: of the rows of each.
        known: of all those, the bytes of rows that are read from elsewhere.
    """
    root, missing = extractions[0].root, sum(shards.missing(num_bytes) for shards in extractions)
    missing = max(0, missing - known)
    total = num_bytes * len(extractions)
    if root.stat().st_dev == output.stat().st_dev:
        files.require_space(output, missing + total)
    else:
        files.require_space(root, missing)
        files.require_space(output, total)
