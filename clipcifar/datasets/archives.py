"""A file to download, and unpacking it where it can do no harm."""

from __future__ import annotations

import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from clipcifar.core.errors import DataError
from clipcifar.core.files import explained, fault_behind

MAX_EXPANSION = 100  # unpacked bytes per byte of the archive; photographs hardly expand at all
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    gzip.BadGzipFile,
    EOFError,
    NotImplementedError,  # a zip packed in a way that Python does not know
    RuntimeError,  # an encrypted one
    ValueError,  # a name that no file can have
    FileExistsError,  # a name that occurs twice
    NotADirectoryError,
    IsADirectoryError,
)


@dataclass(frozen=True)
class Archive:
    """A file to download.

    Attributes:
        filename: what it is called on disk.
        url: where it is.
        digest: hex digest that it must have.
        digest_source: where that digest is from.
        algorithm: of the digest.
        folder: where in the unpacked dataset its files belong, relative to its root.
    """

    filename: str
    url: str
    digest: str
    digest_source: str
    algorithm: Literal["sha256", "md5"] = "sha256"
    folder: str = ""


def unpack(archive: Path, folder: Path, *, keep: Callable[[PurePosixPath], bool]) -> None:
    """Unpack the plain files of a tar.gz or zip; links and devices are never made, and none is left out.

    Args:
        archive: the file.
        folder: where to; no file of it is written over.
        keep: which members, by their path in the archive.

    Raises:
        DataError: it is damaged, would write outside of the folder or over a file, holds a link or a
            device, or unpacks to more than `MAX_EXPANSION` times its size.
        EnvironmentFault: the disk is full or cannot be written.
    """
    with explained(folder):
        try:
            room = MAX_EXPANSION * archive.stat().st_size
            with closing(_members(archive, keep)) as members:
                for name, content in members:
                    with content:
                        target = folder / _inside(name)
                        target.parent.mkdir(parents=True, exist_ok=True)
                        with open(target, "xb") as stream:
                            room = _copy(content, stream, room)
        except _DAMAGED as error:
            raise fault_behind(error, archive) or DataError(
                f"cannot be unpacked: {error}", where=str(archive), fix="download it again"
            ) from error
        except DataError as error:
            error.where, error.fix = str(archive), "download it again"
            raise


def _members(
    archive: Path, keep: Callable[[PurePosixPath], bool]
) -> Generator[tuple[PurePosixPath, IO[bytes]], None, None]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                name = PurePosixPath(entry.filename)
                if not entry.is_dir() and keep(name):
                    _require_plain(name, plain=not stat.S_ISLNK(entry.external_attr >> 16))
                    yield name, packed.open(entry)
        return
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            name = PurePosixPath(member.name)
            if not member.isdir() and keep(name):
                _require_plain(name, plain=member.isfile())
                content = tar.extractfile(member)
                assert content is not None  # it is a file
                yield name, content


def _require_plain(name: PurePosixPath, *, plain: bool) -> None:
    if not plain:
        raise DataError(f"{str(name)!r} in it is a link or a device")


def _inside(name: PurePosixPath) -> PurePosixPath:
    if name.is_absolute() or ".." in name.parts or "\\" in str(name) or "\0" in str(name):
        raise DataError(f"{str(name)!r} in it would be written outside of its folder")
    return name


def _copy(content: IO[bytes], stream: IO[bytes], room: int) -> int:
    """Copy all of it; returns the room that is left."""
    while block := content.read(1 << 20):
        room -= len(block)
        if room < 0:
            raise DataError(f"unpacks to more than {MAX_EXPANSION} times its size")
        stream.write(block)
    return room
