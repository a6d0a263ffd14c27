"""Where HDF5 writes a file that is too large to be built in memory first."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO


@contextmanager
def through(stream: BinaryIO) -> Iterator[Target]:
    """What HDF5 may take for a file, within which the file is opened and closed.

    HDF5 learns of no failure, from which it would not recover: it is raised when HDF5 has closed. So is an
    interrupt, which h5py may lose when it comes in the midst of a call.

    Args:
        stream: open for writing and reading: of many chunks HDF5 reads the index again.
    """
    target, handler = Target(stream), signal.getsignal(signal.SIGINT)
    comes_here = callable(handler) and threading.current_thread() is threading.main_thread()
    if comes_here:
        signal.signal(signal.SIGINT, lambda *_: target.fail(KeyboardInterrupt()))
    try:
        yield target
    except Exception:  # of HDF5, on what could not be read back
        if target.failed is None:
            raise
    finally:
        if comes_here:
            signal.signal(signal.SIGINT, handler)
    if target.failed is not None:
        raise target.failed


class Target(io.RawIOBase):
    """Attributes:
    failed: what went wrong; nothing is written after it.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._at = self._size = 0  # as HDF5 has it, whatever became of it
        self.failed: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        if self.failed is None:
            self.failed = error.with_traceback(None)  # its frames would hold the file open

    def _try(self, action: Callable[[], object]) -> None:
        if self.failed is None:
            try:
                action()
            except BaseException as error:
                self.fail(error)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._try(lambda: self._stream.seek(self._at))
        return self._at

    def write(self, content: Any, /) -> int:
        self._try(lambda: self._stream.write(content))
        self._at += len(content)
        self._size = max(self._size, self._at)
        return len(content)

    def readinto(self, content: Any, /) -> int:
        view = memoryview(content).cast("B")
        view[:] = bytes(len(view))
        self._try(lambda: self._stream.readinto(view))  # type: ignore[attr-defined]
        self._at += len(view)
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        self._size = self._at if size is None else size
        self._try(lambda: self._stream.truncate(self._size))
        return self._size

    def flush(self) -> None:
        """The stream is flushed by who opened it."""
