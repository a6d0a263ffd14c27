"""Where HDF5 writes a file that is too large to be built in memory first."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, BinaryIO


class Target(io.RawIOBase):
    """What HDF5 takes for a file; it learns of no failure, from which it would not recover.

    Args:
        stream: open for writing; of what it has written HDF5 reads nothing.

    Attributes:
        failed: what went wrong, to be raised when HDF5 has closed; nothing was written after it.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.failed: BaseException | None = None

    def _do(self, action: Callable[[], Any], otherwise: int) -> int:
        if self.failed is not None:
            return otherwise
        try:
            return action() or 0
        except BaseException as error:  # an interrupt, too: it is raised when HDF5 has closed
            self.failed = error
            return otherwise

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._do(lambda: self._stream.seek(offset, whence), offset)

    def write(self, content: Any, /) -> int:
        return self._do(lambda: self._stream.write(content), len(content))

    def truncate(self, size: int | None = None, /) -> int:
        return self._do(lambda: self._stream.truncate(size), size or 0)

    def flush(self) -> None:
        """The stream is flushed by who opened it."""
