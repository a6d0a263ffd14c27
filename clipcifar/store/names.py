"""Sample ids by the million: the bytes that a file keeps them as, text only where somebody looks at one.

Ten million ids of 36 characters are 360 MB as a container holds them and 900 MB as a list of text. What is
asked of all of them (which stand twice, where others stand, their digest) is asked of the bytes, in blocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.core.files import canonical_json

BLOCK = 65_536  # names that are text at once


class Names(Sequence[str]):
    """N texts as one array, in most respects a list: equal to a list of the same texts, added to others.

    An array of rows, or a slice, gives the names of those rows.

    Args:
        array: (N,) fixed-length bytes, each of them UTF-8.
    """

    def __init__(self, array: NDArray[np.bytes_]) -> None:
        self.array = array

    @classmethod
    def of(cls, names: Sequence[str]) -> Names:
        """The same names; those that are an array already as they are."""
        if isinstance(names, Names):
            return names
        gathered = Gathered()
        for name in names:
            gathered.append(name.encode())
        return cls(gathered.array())

    @classmethod
    def read(cls, array: NDArray[Any]) -> Names:
        """What a file holds; DataError where that is anything but text."""
        if array.ndim != 1 or array.dtype.kind != "S":
            raise DataError(f"expected strings, found {array.dtype} {array.shape}")
        for block in blocks_of(array):
            if not block.tobytes().isascii():
                try:
                    b"\n".join(block.tolist()).decode()
                except UnicodeDecodeError as error:
                    raise DataError(f"a string is not UTF-8: {error}") from error
        return cls(array)

    @property
    def narrow(self) -> NDArray[np.bytes_]:
        """The array, as narrow as the longest name allows: equal names are equal bytes in a file."""
        width = max((int(np.char.str_len(block).max()) for block in blocks_of(self.array)), default=0) or 1
        return self.array.astype(f"S{width}", copy=False)

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, key: int | np.integer[Any]) -> str: ...
    @overload
    def __getitem__(self, key: slice | NDArray[Any]) -> Names: ...
    def __getitem__(self, key: Any) -> str | Names:
        item = self.array[key]
        return Names(item) if isinstance(item, np.ndarray) else item.decode()

    def __iter__(self) -> Iterator[str]:
        for block in blocks_of(self.array):
            for name in block.tolist():
                yield name.decode()

    def tolist(self) -> list[str]:
        """All of them as text."""
        return list(self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool((self.array == name.encode()).any())

    def __add__(self, other: Sequence[str]) -> Names:
        return Names(np.concatenate([self.array, Names.of(other).array]))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Names):
            return len(self) == len(other) and bool((self.array == other.array).all())
        if isinstance(other, list | tuple):
            return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as a list has none

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("names are copied when they become text")
        text = np.char.decode(self.array, "utf-8")
        return text if dtype is None else text.astype(dtype)

    def __repr__(self) -> str:
        return f"Names({self[:3].tolist()}{' and more' if len(self) > 3 else ''}, {len(self)} in all)"


class Gathered:
    """Bytes that come one after another, by the block an array: no object is kept of each."""

    def __init__(self) -> None:
        self._blocks: list[NDArray[np.bytes_]] = []
        self._pending: list[bytes] = []

    def __len__(self) -> int:
        return sum(map(len, self._blocks)) + len(self._pending)

    def append(self, item: bytes) -> None:
        self._pending.append(item)
        if len(self._pending) == BLOCK:
            self._close()

    def _close(self) -> None:
        width = max(map(len, self._pending), default=0) or 1
        self._blocks.append(np.array(self._pending, dtype=f"S{width}"))
        self._pending = []

    def array(self) -> NDArray[np.bytes_]:
        """(N,) all of them, as wide as the longest; nothing can be added afterwards."""
        self._close()
        whole = np.empty(len(self), dtype=f"S{max(block.itemsize for block in self._blocks)}")
        stop = len(whole)
        while self._blocks:  # each block goes as soon as it is copied
            block = self._blocks.pop()
            whole[stop - len(block) : stop] = block
            stop -= len(block)
        return whole


def blocks_of(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """An array, `BLOCK` rows at a time."""
    for first in range(0, len(array), BLOCK):
        yield array[first : first + BLOCK]


def is_increasing(strings: NDArray[np.bytes_]) -> bool:
    """Whether each comes after the one before, as the sorted paths of a folder do; then none is twice."""
    return all((block[1:] > block[:-1]).all() for block in _overlapping(strings))


def _overlapping(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for first in range(0, len(array), BLOCK):
        yield array[first : first + BLOCK + 1]


def repeated(*arrays: NDArray[Any]) -> list[NDArray[np.int64]]:
    """Which of some byte strings, or integers, there are more than once.

    Args:
        arrays: counted as one, one after another; each (n,).

    Returns:
        For each such string the rows where it stands, ascending; the one that stands first comes first.
    """
    keys = np.concatenate([np.zeros(0, np.int64), *map(_keys, arrays)])
    ordered = np.sort(keys)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    starts = np.cumsum([0, *map(len, arrays)])
    groups: dict[Any, list[int]] = {}
    for row in np.flatnonzero(np.isin(keys, twice)).tolist() if len(twice) else ():  # by hash alone
        of = int(np.searchsorted(starts, row, side="right")) - 1
        groups.setdefault(arrays[of][row - starts[of]], []).append(row)
    return [np.array(rows, dtype=np.int64) for rows in groups.values() if len(rows) > 1]


def _keys(array: NDArray[Any]) -> NDArray[np.int64]:
    """(n,) int64, equal for equal items and hardly ever else: Python's hashes, which nobody can aim at."""
    keys = np.empty(len(array), dtype=np.int64)
    for first, block in enumerate(blocks_of(array)):
        keys[first * BLOCK : first * BLOCK + len(block)] = [hash(item) for item in block.tolist()]
    return keys


def positions(wanted: Sequence[str], names: Sequence[str]) -> NDArray[np.int64]:
    """Where each wanted name stands among names, none of them twice, (n,) int64; -1 where it does not."""
    a, b = Names.of(wanted), Names.of(names)
    if a == b:
        return np.arange(len(a))
    if not len(b):
        return np.full(len(a), -1, dtype=np.int64)
    order = np.argsort(b.array, kind="stable")  # sorted names take a twentieth of the time
    rows = order[np.minimum(np.searchsorted(b.array, a.array, sorter=order), len(b) - 1)]
    return np.where(b.array[rows] == a.array, rows, -1)


def json_of(values: Names | NDArray[Any]) -> Iterator[bytes]:
    """The canonical JSON of a list, in blocks."""
    yield b"["
    for first in range(0, len(values), BLOCK):
        text = canonical_json(values[first : first + BLOCK].tolist())
        yield (f",{text[1:-1]}" if first else text[1:-1]).encode()
    yield b"]"


def json_sha256(names: Sequence[str]) -> str:
    """Hex sha256 of the canonical JSON of a list of names."""
    digest = hashlib.sha256()
    for block in json_of(Names.of(names)):
        digest.update(block)
    return digest.hexdigest()
