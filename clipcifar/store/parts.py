"""Embedding rows in parts: a folder of containers of at most `PART_ROWS` rows, read as a stream.

A container that is built in memory takes three times its rows, so many rows are many containers. Which
they are, in which order, is for a manifest to say (`store/images.py`), with the content digest of each: a
part that is damaged, missing, doubled or swapped with another is named. A part is verified when it is read
first, and again when its file has changed since.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.core.files import Attribute
from clipcifar.store import container
from clipcifar.store.fields import HALF_TOLERANCE, UNIT_TOLERANCE

PART_ROWS = 65_536
PART_KIND = "part of image embeddings"
Storage = Literal["float32", "float16"]
_KEPT = 2  # parts last read: of a product of rows with rows, one of each side
_MEND = "run `dvc checkout`, or `dvc repro` where nobody has it any more"
# Of (n, D) rows, which row of all they start with, and how far from 1 their lengths may be; raises DataError.
Check = Callable[[NDArray[np.float32], int, float], None]


@dataclass(frozen=True)
class Parts:
    """What a manifest says of the parts, in their order.

    Attributes:
        counts: rows of each.
        digests: content digest of each.
        dim: D.
    """

    counts: list[int]
    digests: list[str]
    dim: int

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a manifest keeps of it."""
        return {
            "parts/counts": np.array(self.counts, dtype=np.int64),
            "parts/digests": container.encode_strings(self.digests),
            "parts/dim": np.array(self.dim, dtype=np.int64),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Parts:
        """The inverse of `arrays`; KeyError or DataError where a manifest lacks some of it."""
        counts, dim = arrays["parts/counts"], arrays["parts/dim"]
        digests = container.decode_strings(arrays["parts/digests"])
        if counts.shape != (len(digests),) or counts.dtype != np.int64 or (counts < 1).any():
            raise DataError(f"{len(digests)} digests for parts {counts.dtype} {counts.shape}")
        return cls(counts.tolist(), digests, int(dim))


def bounds(num_rows: int) -> list[range]:
    """The rows of each part of so many."""
    return [range(i, min(i + PART_ROWS, num_rows)) for i in range(0, num_rows, PART_ROWS)]


def part_name(number: int) -> str:
    """The file of a part, counted from 0."""
    return f"part-{number:05d}.h5"


def parts_beyond(folder: Path, number: int) -> list[Path]:
    """Files in a folder that are called as parts, and are none of so many."""
    known = {part_name(i) for i in range(number)}
    return sorted(path for path in folder.glob("part-*.h5") if path.name not in known)


def write_part(folder: Path, rows: NDArray[np.float32], *, number: int, storage: Storage = "float32") -> str:
    """Write one part and return its content digest.

    Args:
        rows: (n, D) float32 unit rows, at most `PART_ROWS`.
        number: of the part, counted from 0.
        storage: float16 halves the file and moves a cosine by up to 5e-5; rows are scaled to unit length
            again when they are read.
    """
    attributes: dict[str, Attribute] = {"number": number}
    arrays = {"embeddings": rows.astype(storage, copy=False)}
    return container.write(folder / part_name(number), kind=PART_KIND, arrays=arrays, attributes=attributes)


def write_parts(
    folder: Path, blocks: Iterable[NDArray[np.float32]], *, storage: Storage = "float32"
) -> Parts:
    """Write rows as they come, (n, D) float32 at a time, into parts of `PART_ROWS`; holds one part."""
    counts: list[int] = []
    digests, dim = [], 0
    for rows in _repacked(blocks):
        dim = rows.shape[1]
        if len(rows):
            digests.append(write_part(folder, rows, number=len(counts), storage=storage))
            counts.append(len(rows))
    return Parts(counts, digests, dim)


def _repacked(blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """The same rows, `PART_ROWS` at a time."""
    held: list[NDArray[np.float32]] = []
    for block in blocks:
        for first in range(0, max(len(block), 1), PART_ROWS):
            held.append(block[first : first + PART_ROWS])
            if sum(map(len, held)) >= PART_ROWS:
                together = np.concatenate(held)
                yield together[:PART_ROWS]
                held = [together[PART_ROWS:]]
    if held:
        yield np.concatenate(held)


class PartFolder:
    """The parts of one set of embeddings.

    Args:
        path_of: the file of a part, by its name.
        parts: what the manifest says of them.
        check: of the rows of a part that is read first.
        as_stored: whether rows of float16 are left as they are instead of being scaled to unit length.
    """

    def __init__(
        self, path_of: Callable[[str], Path], parts: Parts, *, check: Check, as_stored: bool = False
    ) -> None:
        self._as_stored = as_stored
        self._path_of, self._digests, self.dim, self._check = path_of, parts.digests, parts.dim, check
        self.starts: NDArray[np.int64] = np.cumsum([0, *parts.counts], dtype=np.int64)
        self._verified: dict[int, tuple[int, ...]] = {}
        self._kept: dict[int, NDArray[np.float32]] = {}

    def __len__(self) -> int:
        return len(self._digests)

    def read(self, number: int) -> NDArray[np.float32]:
        """The rows of a part, (n, D) float32, of unit length as nearly as they are stored.

        Raises:
            DataError: the part is missing, damaged, or another than the manifest names.
            EnvironmentFault: it is there and cannot be read.
        """
        path = self._path_of(part_name(number))
        state = _state(path)
        is_verified = state is not None and self._verified.get(number) == state
        rows = self._kept.pop(number, None) if is_verified else None
        if rows is None:
            rows = self._read_file(path, number, verified=is_verified)
        if state is not None:
            self._verified[number] = state
        while len(self._kept) >= _KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[number] = rows
        return rows

    def _read_file(self, path: Path, number: int, *, verified: bool) -> NDArray[np.float32]:
        if not os.path.lexists(path):
            raise DataError(f"part {number + 1} of {len(self)} is missing", where=str(path), fix=_MEND)
        try:
            file = container.read(path, kind=PART_KIND, verified=verified)
        except DataError as error:  # it names the file, which is counted from 0
            error.what = f"part {number + 1} of {len(self)}: {error.what}"
            raise
        stored: NDArray[Any] = file.arrays.get("embeddings", np.empty(0))
        shape = (int(self.starts[number + 1] - self.starts[number]), self.dim)
        if file.attributes["content_digest"] != self._digests[number]:
            other = file.attributes.get("number")
            what = (
                f"expected part {number + 1} of {len(self)}, found part {other + 1}"
                if isinstance(other, int) and other != number
                else f"part {number + 1} of {len(self)} is of other embeddings than the manifest"
            )
            raise DataError(what, where=str(path), fix=_MEND)
        if stored.shape != shape or stored.dtype not in (np.float32, np.float16):
            what = f"part {number + 1} holds {stored.dtype} {stored.shape}, and the manifest says {shape}"
            raise DataError(what, where=str(path), fix=_MEND)
        rows = stored.astype(np.float32, copy=False)
        is_half = stored.dtype == np.float16
        if not verified:
            try:
                self._check(rows, int(self.starts[number]), HALF_TOLERANCE if is_half else UNIT_TOLERANCE)
            except DataError as error:
                error.where = str(path)
                raise
        if is_half and not self._as_stored:
            rows /= np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
        return rows


def _state(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is written or replaced; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
