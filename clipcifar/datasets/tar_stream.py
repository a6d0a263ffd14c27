"""A tar file read forward, once, with its sha256; what tarfile would take for the end of one is looked at."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any, cast

from clipcifar.core.errors import DataError
from clipcifar.core.terminal import cut, one_line
from clipcifar.datasets.checking import MAX_BYTES
from clipcifar.datasets.tar_shards import BLOCK, ShardFile

_HEADER = 1_000_000  # bytes of the largest header that is read
_MARK = 512  # bytes of a block of a tar; it ends with two that are empty


class TarStream:
    """A shard as tarfile reads it, forward alone, and its sha256."""

    def __init__(self, file: ShardFile) -> None:
        self.digest = hashlib.sha256()
        self.num_bytes = file.num_bytes
        self._file, self._position, self._last = file, 0, b""
        self._block, self._block_start = memoryview(b""), 0

    def tell(self) -> int:
        return self._position

    def read(self, length: int) -> bytes:
        """For tarfile: a header, of a length that the shard itself claims."""
        if not 0 <= length <= _HEADER:
            raise DataError(f"a header of {length:,} bytes at byte {self._position:,}")
        self._last = self.content(length)
        return self._last

    def content(self, length: int) -> bytes:
        """The next bytes; fewer at the end of the shard."""
        return b"".join(self._pieces(length))

    def seek(self, position: int) -> None:
        if position < self._position:
            raise DataError(f"a damaged header before byte {self._position:,}")
        for _ in self._pieces(position - self._position):
            pass

    def _pieces(self, length: int) -> Iterator[memoryview]:
        while length > 0:
            if self._position == self._block_start + len(self._block):
                if not (more := min(BLOCK, self.num_bytes - self._position)):
                    return
                self._block_start = self._position
                self._block = memoryview(self._file.read(self._position, more))
                self.digest.update(self._block)
            within = self._position - self._block_start
            piece = self._block[within : within + length]
            self._position += len(piece)
            length -= len(piece)
            yield piece

    def finish(self) -> None:
        """Read what lies behind the last member.

        Raises:
            DataError: it is not the end of a tar. tarfile takes all these for one.
        """
        if len(self._last) < _MARK:
            raise DataError("cut off: it lacks the empty blocks that end a tar")
        if any(self._last):
            raise DataError(f"a damaged header before byte {self._position:,}")
        for piece in self._pieces(self.num_bytes):
            if bytes(piece).count(0) != len(piece):
                raise DataError(
                    "more lies behind its end, as in tars that were joined: join them by `tar -A`"
                )


def members_of(stream: TarStream) -> Iterator[tarfile.TarInfo]:
    """The members of a shard one by one, none of which reaches beyond its end or is too large.

    Raises:
        DataError: it is no tar file, or is damaged.
    """
    try:
        tar: Any = tarfile.TarFile(
            fileobj=cast(IO[bytes], stream), encoding="utf-8", errors="surrogateescape"
        )
        while (member := tar.next()) is not None:
            tar.members.clear()  # else it keeps all of them
            shown = cut(one_line(member.name), 200)
            if not 0 <= member.size <= MAX_BYTES:
                limit = "less than none" if member.size < 0 else f"more than {MAX_BYTES:,}"
                raise DataError(f"{shown} is to have {member.size:,} bytes, {limit}; not read")
            if member.offset_data + member.size > stream.num_bytes:
                raise DataError(f"cut off within {shown}")
            yield member
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        # tarfile calls itself for the header behind a long name's, so that many of those exhaust its stack
        raise DataError(f"no tar file, or a damaged one, at byte {stream.tell():,}: {error}") from error


def shard_sha256(place: str, folder: Path) -> str:
    """Hex sha256 of a shard; errors as `ShardFile` has them."""
    digest = hashlib.sha256()
    with closing(ShardFile(place, folder)) as file:
        for start in range(0, file.num_bytes, BLOCK):
            digest.update(file.read(start, min(BLOCK, file.num_bytes - start)))
    return digest.hexdigest()
