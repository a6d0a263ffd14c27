"""Embeddings that may lie in parts on disk: what methods read, whole where few and in blocks where many."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clipcifar.store.parts import PartFolder

_BLOCK_ROWS = 8192  # of a stream: 16 MB of 512 numbers


class Rows:
    """(N, D) float32 rows that lie in parts on disk: of an array, what those that read in blocks need.

    Indexing gives arrays: a slice is read, a list of rows is gathered in its order. A product with a matrix
    goes through block by block, and so holds the product alone.

    Args:
        parts: where they lie.
        rows: (N,) int64, which of all the rows of the parts, ascending.
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, parts: PartFolder, rows: NDArray[np.int64]) -> None:
        self._parts, self._rows = parts, rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return len(self._rows), self._parts.dim

    @property
    def size(self) -> int:
        """N times D."""
        return len(self._rows) * self._parts.dim

    @cached_property
    def _bounds(self) -> list[int]:
        """Where the rows of each part begin among these, and where the last ones end."""
        bounds: list[int] = np.searchsorted(self._rows, self._parts.starts).tolist()
        return bounds

    def subset(self, rows: NDArray[np.int64]) -> Rows:
        """Some of these rows, unread, in their order here whatever that of the argument."""
        return Rows(self._parts, self._rows[np.sort(rows)])

    def split(self, at: int) -> tuple[Embeddings, Embeddings]:
        """The rows before one and those from it on: arrays where there is one part, which is read at once."""
        if len(self._parts) > 1:
            return Rows(self._parts, self._rows[:at]), Rows(self._parts, self._rows[at:])
        everything = self[:]
        return everything[:at], everything[at:]

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """All rows in order, some thousand at a time, each block with where it stands among them."""
        for number, (start, stop) in enumerate(zip(self._bounds, self._bounds[1:], strict=False)):
            for first in range(start, stop, _BLOCK_ROWS):
                block = slice(first, min(first + _BLOCK_ROWS, stop))
                yield block, self._of_part(number, self._rows[block])

    def _of_part(self, number: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows that lie in one part; where they follow each other, without a copy."""
        wanted: Any = rows - self._parts.starts[number]
        if len(wanted) and (np.diff(wanted) == 1).all():
            wanted = slice(int(wanted[0]), int(wanted[-1]) + 1)
        return np.asarray(self._parts.read(number)[wanted])

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        wanted = self._rows[key]
        if wanted.ndim == 0:
            return np.asarray(self[np.array([key])][0])
        numbers = np.searchsorted(self._parts.starts, wanted, side="right") - 1
        if len(numbers) and (numbers == numbers[0]).all():
            return self._of_part(int(numbers[0]), wanted)
        gathered = np.empty((len(wanted), self._parts.dim), dtype=np.float32)
        for number in np.unique(numbers).tolist():
            gathered[numbers == number] = self._of_part(number, wanted[numbers == number])
        return gathered

    def __matmul__(self, matrix: NDArray[Any]) -> NDArray[np.float32]:
        product = np.empty((len(self), *matrix.shape[1:]), dtype=np.float32)
        for block, rows in self.blocks():
            product[block] = rows @ matrix
        return product

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("rows in parts are copied when they become an array")
        rows: NDArray[Any] = self[:]
        return rows.astype(dtype or self.dtype, copy=False)


Embeddings: TypeAlias = NDArray[np.float32] | Rows  # (N, D) float32 unit rows, in memory or in parts


def blocks_of(embeddings: Embeddings) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """All rows with where they stand: those in memory at once, those in parts as `Rows.blocks`."""
    if isinstance(embeddings, Rows):
        yield from embeddings.blocks()
    else:
        yield slice(0, len(embeddings)), embeddings


def taken(embeddings: Embeddings, rows: NDArray[np.int64]) -> Embeddings:
    """Some rows; of those in parts ascending, whatever the order asked for, and unread."""
    return embeddings.subset(rows) if isinstance(embeddings, Rows) else embeddings[rows]


def mean_of(embeddings: Embeddings) -> NDArray[np.float64]:
    """The mean row, (D,) float64."""
    sums = [rows.sum(axis=0, dtype=np.float64) for _, rows in blocks_of(embeddings)]
    return np.asarray(np.sum(sums, axis=0) / len(embeddings))
