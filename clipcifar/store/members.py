"""Where images lie that are members of tar files: which shard, from which byte on, how many bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.store import container

_ROWS = ("shard", "offset", "size")


class Shard(NamedTuple):
    """A tar file: its path relative to the dataset's folder, or an absolute one, or a URL; and what it is."""

    place: str
    num_bytes: int
    digest: str  # hex sha256 of the file


@dataclass(frozen=True)
class Members:
    """N members of shards.

    Attributes:
        shards: all shards of the dataset, whatever the split.
        shard: (N,) int32 positions among them.
        offset: (N,) int64, of the first byte of each in its shard.
        size: (N,) int32, in bytes.
    """

    shards: Sequence[Shard]
    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    size: NDArray[np.int32]

    @staticmethod
    def of(shards: Sequence[Shard], places: Sequence[int]) -> Members:
        """Those at N places, each a shard's position, an offset and a size: 3 N numbers."""
        columns = np.asarray(places, dtype=np.int64).reshape(-1, 3).T
        return Members(shards, columns[0].astype(np.int32), columns[1].copy(), columns[2].astype(np.int32))

    def __add__(self, other: Members) -> Members:
        rows = ((getattr(self, name), getattr(other, name)) for name in _ROWS)
        return Members(self.shards, *(np.concatenate(pair) for pair in rows))

    def take(self, rows: NDArray[np.int64]) -> Members:
        """These rows only."""
        return Members(self.shards, self.shard[rows], self.offset[rows], self.size[rows])

    def alone(self) -> Members:
        """With none but their own shards, for who is sent some of many; not to be joined to others."""
        used, shard = np.unique(self.shard, return_inverse=True)
        own = [self.shards[number] for number in used.tolist()]
        return Members(own, shard.astype(np.int32), self.offset, self.size)

    def arrays(self, split: str) -> dict[str, NDArray[Any]]:
        """As a container holds them."""
        return {
            "shards/places": container.encode_strings([shard.place for shard in self.shards]),
            "shards/num_bytes": np.array([shard.num_bytes for shard in self.shards], dtype=np.int64),
            "shards/digests": container.encode_strings([shard.digest for shard in self.shards]),
            **{f"{split}/{name}": getattr(self, name) for name in _ROWS},
        }

    @staticmethod
    def read(
        arrays: Mapping[str, NDArray[Any]], split: str, shards: Sequence[Shard] | None, *, num_rows: int
    ) -> Members | None:
        """Those of a split in a container, whose shards `shards_of` gives; None where there are none.

        Raises:
            DataError: they lie outside of their shards.
        """
        if shards is None:
            return None
        num_bytes = arrays["shards/num_bytes"]
        members = Members(shards, *(arrays[f"{split}/{name}"] for name in _ROWS))
        columns = (members.shard, members.offset, members.size)
        kinds = " ".join(str(column.dtype) for column in (*columns, num_bytes))
        if kinds != "int32 int64 int32 int64" or {column.shape for column in columns} != {(num_rows,)}:
            raise DataError(f"the places in shards are not those of {num_rows} images")
        if any((column < 0).any() for column in columns) or (members.shard >= len(shards)).any():
            raise DataError("an image lies in no shard")
        if (members.offset > num_bytes[members.shard] - members.size).any():
            raise DataError("an image lies outside of its shard")
        return members


def shards_of(arrays: Mapping[str, NDArray[Any]]) -> list[Shard] | None:
    """All shards of a dataset in a container; None where its images are no members."""
    if "shards/places" not in arrays:
        return None
    places, digests = (container.decode_strings(arrays[f"shards/{key}"]) for key in ("places", "digests"))
    sizes = arrays["shards/num_bytes"].tolist()
    return [Shard(*shard) for shard in zip(places, sizes, digests, strict=True)]
