"""Finished pieces of a long extraction, kept so that a killed run goes on where it stopped.

A shard is one file: a header line (JSON: rows, shape, fingerprint, sha256) and the raw float32
rows. It gets its name only when it is whole and on disk; a damaged one counts as missing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipcifar.backbone.params import EmbedParams
from clipcifar.core import files, run_lock
from clipcifar.core.errors import ConfigError, EnvironmentFault
from clipcifar.core.files import canonical_json, fault_behind, write_atomically
from clipcifar.core.terminal import one_line

_DTYPE = "<f4"


class ShardFolder:
    """The shards of one extraction.

    Args:
        root: the scratch folder of all extractions.
        fingerprint: digest of everything that determines the numbers; names this one's folder.
        first: the row of all that is here row 0, for who has a part of the rows.
    """

    def __init__(self, root: Path, fingerprint: str, *, first: int = 0) -> None:
        self.folder = root / fingerprint[:32]
        self.fingerprint, self._first = fingerprint, first

    def of(self, fingerprint: str) -> ShardFolder:
        """The shards of an extraction that this one needs; they lie in this folder and go with it."""
        return ShardFolder(self.folder, fingerprint)

    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder alone; EnvironmentFault when another run does, or it cannot be written."""
        return run_lock.alone(self.folder, doing="extracting the same embeddings")

    def _path(self, start: int, stop: int) -> Path:
        return self.folder / f"{self._first + start:09d}-{self._first + stop:09d}.shard"

    def write(self, start: int, stop: int, rows: NDArray[np.float32]) -> None:
        """Keep rows start..stop, (stop - start, D) float32."""
        body = np.ascontiguousarray(rows, dtype=_DTYPE).tobytes()
        header = {
            "fingerprint": self.fingerprint,
            "rows": [self._first + start, self._first + stop],
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
            rows = [self._first + start, self._first + stop]
            wanted = (self.fingerprint, rows, hashlib.sha256(body).hexdigest(), stop - start)
            if (header["fingerprint"], header["rows"], header["sha256"], shape[0]) != wanted:
                return None
            return np.frombuffer(body, dtype=_DTYPE).reshape(shape)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            if fault := fault_behind(error, path):
                raise fault from error
            return None

    @property
    def root(self) -> Path:
        """The scratch folder of all extractions."""
        return self.folder.parent

    def finished(self) -> list[range]:
        """The rows of the shards that lie there, by their names; which of them are whole, `read` says."""
        names = (path.stem.split("-") for path in self.folder.glob("*.shard"))
        return [range(int(start), int(stop)) for start, stop in names]

    def missing(self, num_bytes: int) -> int:
        """How many of `num_bytes` of rows are finished neither as shards nor as parts."""
        there = (path for kind in ("*.shard", "*.h5") for path in self.folder.rglob(kind))
        return max(0, num_bytes - sum(path.stat().st_size for path in there))

    def discard(self, rows: range) -> None:
        """Delete the shards of some rows, once their part is written."""
        for shard in self.finished():
            if shard.start in rows:
                with suppress(OSError):
                    self._path(shard.start - self._first, shard.stop - self._first).unlink()

    def remove(self) -> None:
        """Delete the shards, once what they were for is safely written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def scratch_folder(embed: EmbedParams) -> Path:
    """Where finished pieces are kept; of several machines, a folder that all see under one path.

    Raises:
        ConfigError: the folder is named by anything but its whole path, which would be made in the project.
    """
    if embed.engine == "local" or embed.scratch is None:
        return files.cache_folder("extraction")
    if not (shared := Path(embed.scratch)).is_absolute():
        raise ConfigError(
            f"embed.scratch is {one_line(embed.scratch)!r}, expected a whole path",
            where="params.yaml: embed.scratch",
            fix="begin it with /; ~ and $HOME are not expanded, and a URL is no folder",
        )
    return shared


def require_writable(scratch: Path, embed: EmbedParams) -> None:
    """Raise EnvironmentFault when no file can be made in the scratch folder; its key is named."""
    try:
        files.require_writable(scratch)
    except EnvironmentFault as error:
        if embed.engine != "local" and embed.scratch is not None:
            error.where = "params.yaml: embed.scratch"
        raise


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
