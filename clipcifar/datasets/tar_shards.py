"""The bytes of shards, on this machine or behind a URL: read by ranges, and never unpacked.

Whoever reads a URL is who the environment says: `AWS_ACCESS_KEY_ID` and the like for s3, ~/.netrc for http.
"""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from clipcifar.core.errors import ClipcifarError, DataError, EnvironmentFault
from clipcifar.core.files import explained, fault_behind
from clipcifar.core.terminal import one_line
from clipcifar.store.members import Members

TRIES = 4  # of each reading over a network
PAUSE_S = 1.0  # before the second try, and twice as long before each other
SILENCE_S = 60.0  # after which a connection counts as broken
PROTOCOLS = {  # with what reads them, where that does not come with us
    **dict.fromkeys(("file", "http", "https"), ""),
    "s3": "--editable '.[s3]'",
    "gs": "gcsfs",
    "az": "adlfs",
}
BLOCK = 8_000_000  # bytes of a shard that are read at once from its beginning to its end
OPEN_SHARDS = 8  # of a process at a time
READ_AGAIN = (
    "run `dvc repro -f prepare`, which reads the shards again; where its list gives its sha256, write its "
    "line anew with `sha256sum` first"
)
_GAP = 65_536  # bytes between two images, headers and labels, that cost less than another request
_PIECE = 64_000_000  # bytes that are read at once, where no image is larger
_USER = re.compile(r"://[^/?#\s]*@")
_QUERY = re.compile(r"\?\S+")


def is_url(place: str) -> bool:
    """Whether a shard is not simply a path."""
    return "://" in place


class ShardFile:
    """One shard, opened.

    Args:
        place: a path, relative to the folder or not, or a URL.
        folder: of the dataset.
        stopped: whether nobody waits for it any more; then nothing is tried again.

    Raises:
        DataError: it is not there.
        EnvironmentFault: it cannot be read, or needs a package that is not installed.
    """

    def __init__(self, place: str, folder: Path, *, stopped: Callable[[], bool] = lambda: False) -> None:
        self._stopped = stopped
        path = folder / place.removeprefix("file://")
        self._remote = is_url(place) and not place.startswith("file://")
        self.where = one_line(place if self._remote else str(path))
        self._file: Any = None
        if self._remote:
            self._file, self.num_bytes = self._tried(lambda: _opened_url(place))
            return
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise DataError("not a file", where=str(path), fix="name a tar file")
            self._file, self.num_bytes = open(path, "rb", buffering=0), status.st_size  # noqa: SIM115
        except OSError as error:
            raise fault_behind(error, path) or self._missing() from error

    def close(self) -> None:
        """Close it."""
        if self._file is not None:
            self._file.close()

    def read(self, start: int, length: int) -> bytes:
        """Bytes of the shard, as many as asked for.

        Raises:
            DataError: there are fewer.
            EnvironmentFault: they cannot be read; over a network, several times.
        """
        if self._remote:
            content = self._tried(lambda: self._read(start, length))
        else:
            with explained(Path(self.where)):
                content = self._read(start, length)
        if len(content) < length:
            raise DataError(
                f"ends at byte {start + len(content):,}, and is to have {start + length:,}: cut off",
                where=self.where,
                fix=READ_AGAIN,
            )
        return bytes(content)

    def _read(self, start: int, length: int) -> bytes:
        self._file.seek(start)
        content: bytes = self._file.read(length)
        while len(content) < length and (more := self._file.read(length - len(content))):
            content += more  # Linux gives 2 GB at a time
        if len(content) < length and self._remote:
            raise OSError("the answer broke off")
        return content

    def _missing(self) -> DataError:
        return DataError("the shard is not there", where=self.where, fix="put it there or list what is there")

    def _tried(self, work: Any) -> Any:
        """What a reading over a network gives, tried again where another moment may help."""
        for attempt in range(TRIES):
            try:
                return work()
            except ClipcifarError:
                raise
            except Exception as error:  # every protocol has errors of its own
                status = getattr(error.__cause__ or error, "status", None)
                gone = isinstance(error, FileNotFoundError) and error.__cause__ is None
                if gone or status in (404, 410):
                    raise self._missing() from error
                refused = isinstance(error, PermissionError) or status in (401, 403)
                if refused or attempt == TRIES - 1 or self._stopped():
                    raise EnvironmentFault(
                        f"{'refused' if refused else 'could not be read'}: {_said(error)}",
                        where=self.where,
                        fix="give your account's keys in the environment, as its provider says"
                        if refused
                        else "see that the network and the server answer, then run again; a server of shards "
                        "must give ranges of a file",
                    ) from error
                time.sleep(PAUSE_S * 2**attempt)
        raise AssertionError("the last try returns or raises")


def _said(error: Exception) -> str:
    """What an error says, without what may be a key: a server may have sent us on to a presigned URL."""
    cause = error.__cause__ or error
    status = getattr(cause, "status", None)
    text = str(cause) if status is None else f"{status} {getattr(cause, 'message', '')}"
    return one_line(_QUERY.sub("?…", _USER.sub("://", text)).strip() or type(cause).__name__)


def _opened_url(place: str) -> tuple[Any, int]:
    protocol, options = place.partition("://")[0], dict[str, Any]()
    if protocol not in PROTOCOLS:
        raise DataError(f"{protocol}:// is not read", where=place, fix=f"use one of {', '.join(PROTOCOLS)}")
    if protocol in ("http", "https"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_S, sock_read=SILENCE_S)
        options = {"client_kwargs": {"trust_env": True, "timeout": timeout}}
    import fsspec

    try:
        files = fsspec.filesystem(protocol, **options)
    except ImportError as error:
        raise EnvironmentFault(
            f"{protocol}:// cannot be read here: {error}",
            where=place,
            fix=f"pip install {PROTOCOLS[protocol]}",
        ) from error
    file = files.open(place, "rb", cache_type="none")  # what is asked for and no more: large pieces
    if file.size is None or not file.seekable():
        file.close()
        raise EnvironmentFault(
            "its server gives no ranges of a file",
            where=place,
            fix="serve the shards with another, or fetch them",
        )
    return file, int(file.size)


class ShardReader:
    """The images of a dataset, by row, for one process: neighbours in a shard come in one piece.

    Args:
        folder: of the dataset.
        members: where they lie.
    """

    def __init__(self, folder: Path, members: Members) -> None:
        self._folder, self._members = folder, members
        self._open: dict[int, ShardFile] = {}

    def read(self, rows: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """The bytes of images, each with its position among the rows, in the order in which they lie.

        Raises:
            DataError: a shard is gone, or is not the one that prepare read.
            EnvironmentFault: it cannot be read.
        """
        shard, offset, size = (
            array[list(rows)].tolist()
            for array in (self._members.shard, self._members.offset, self._members.size)
        )
        run: list[int] = []
        for i in sorted(range(len(rows)), key=lambda i: (shard[i], offset[i])):
            near = run and shard[i] == shard[run[-1]] and offset[i] - offset[run[-1]] - size[run[-1]] <= _GAP
            if run and not (near and offset[i] + size[i] - offset[run[0]] <= _PIECE):
                yield from self._piece(run, shard, offset, size)
                run = []
            run.append(i)
        if run:
            yield from self._piece(run, shard, offset, size)

    def _piece(
        self, run: list[int], shard: list[int], offset: list[int], size: list[int]
    ) -> Iterator[tuple[int, bytes]]:
        start = offset[run[0]]
        length = max(offset[i] + size[i] for i in run) - start
        block = memoryview(self._opened(shard[run[0]]).read(start, length))
        for i in run:
            yield i, bytes(block[offset[i] - start : offset[i] - start + size[i]])

    def _opened(self, number: int) -> ShardFile:
        if number in self._open:
            return self._open[number]
        if len(self._open) == OPEN_SHARDS:
            self._open.pop(next(iter(self._open))).close()
        listed = self._members.shards[number]
        file = ShardFile(listed.place, self._folder)
        if file.num_bytes != listed.num_bytes:
            file.close()
            raise DataError(
                f"has {file.num_bytes:,} bytes, and had {listed.num_bytes:,} when prepare read it "
                f"(sha256 {listed.digest})",
                where=file.where,
                fix=READ_AGAIN,
            )
        self._open[number] = file
        return file

    def close(self) -> None:
        """Close all shards."""
        while self._open:
            self._open.popitem()[1].close()

    __del__ = close  # of a source nobody says when it is done with


def read_member(folder: Path, members: Members, row: int) -> bytes:
    """The bytes of one image; errors as `ShardReader.read` has them."""
    with closing(ShardReader(folder, members)) as reader:
        return next(reader.read([row]))[1]
