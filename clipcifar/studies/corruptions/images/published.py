"""The published CIFAR-10-C: its archive, or the folder that was unpacked from it, read in place.

Hendrycks and Dietterich 2019, https://zenodo.org/records/2535967. One array a corruption: the 10,000
test images five times over, mildest first, in the official order. Nothing is unpacked or unpickled:
the header of an array is read and checked, and its pixels are mapped from where they lie.
"""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from clipcifar.core import first_use
from clipcifar.core.errors import ConfigError, DataError
from clipcifar.core.files import explained, fault_behind, file_sha256
from clipcifar.core.params import suggestion
from clipcifar.studies.corruptions.images.generated import SEVERITIES
from clipcifar.studies.corruptions.images.kinds import PUBLISHED

NAME = "CIFAR-10-C"
ARCHIVE_SHA256 = "c72763e101c723b7c507b96205f7e938912a5d587376173b825850cf3cb876a7"
DIGEST_SOURCE = "tensorflow/datasets, url_checksums/cifar10_corrupted.txt; not checked at the origin"
TEST_IMAGES, SIDE = 10_000, 32
_LABELS = "labels"
_HEADER_BYTES = 4096  # of an .npy header; a real one has 128


@dataclass(frozen=True)
class Published:
    """The arrays of CIFAR-10-C, still on disk.

    Attributes:
        images: by corruption, (5 N, 32, 32, 3) uint8.
        labels: (5 N,) integers.
        digests: by corruption, the sha256 of what it was read from.
    """

    images: dict[str, NDArray[np.uint8]]
    labels: NDArray[np.integer]
    digests: dict[str, str]


def open_published(path: Path, names: tuple[str, ...] | None, *, num_images: int = TEST_IMAGES) -> Published:
    """Open the arrays of some corruptions, or of all that are there.

    The archive has a known digest. The files of a folder have none that anyone published: they are
    trusted on first use, and a later change is refused.

    Args:
        path: CIFAR-10-C.tar, or a folder with labels.npy and a file for each corruption.
        names: of the corruptions; None for all there.
        num_images: N, test images of each severity.

    Raises:
        ConfigError: there is no corruption of a name.
        DataError: a file is missing, is not what it should be, or has changed; a link leads to no file.
    """
    for name in names or ():
        if name not in PUBLISHED:
            raise ConfigError(
                f"{NAME} has no corruption {name!r}",
                where="params.yaml: corruptions.names",
                fix=suggestion(name, PUBLISHED),
            )
    with explained(path):
        parts = _in_folder(path, names or PUBLISHED) if path.is_dir() else _in_archive(path)
    wanted = names or tuple(name for name in PUBLISHED if name in parts)
    missing = [name for name in (*wanted, _LABELS) if name not in parts]
    if missing or not wanted:
        raise DataError(
            f"there is no {' and no '.join(f'{name}.npy' for name in missing or PUBLISHED[:1])}",
            where=str(path),
            fix=f"unpack {NAME}.tar there, or set corruptions.names to what is there",
        )
    rows = SEVERITIES * num_images
    shape = (rows, SIDE, SIDE, 3)
    images = {name: _mapped(parts[name], shape, kinds=(np.dtype(np.uint8),)) for name in wanted}
    integers = tuple(np.dtype(kind) for kind in ("u1", "<i4", "<i8"))
    labels = _mapped(parts[_LABELS], (rows,), kinds=integers)
    return Published(images, labels, {name: parts[name].digest for name in wanted})


@dataclass(frozen=True)
class _Part:
    """Where an array lies: `size` bytes from `start` on in a file, and the digest of what it is from."""

    path: Path
    start: int
    size: int
    digest: str
    name: str


def _in_folder(folder: Path, names: tuple[str, ...]) -> dict[str, _Part]:
    parts = {}
    for name in (*names, _LABELS):
        path = folder / f"{name}.npy"
        if path.is_symlink() and not path.is_file():  # left out, it would make the study smaller
            raise DataError(
                f"{path.name} is a link that leads to no file: {path.readlink()}",
                where=str(path),
                fix="put the file there, remove the link, or run `dvc checkout` where DVC made it",
            )
        if path.is_file():  # or a link to one, as DVC makes them; what it holds is checked all the same
            first_use.check(f"{NAME}/{path.name}", path)
            parts[name] = _Part(path, 0, path.stat().st_size, file_sha256(path), str(path))
    return parts


def _in_archive(archive: Path) -> dict[str, _Part]:
    digest = file_sha256(archive)
    if digest != ARCHIVE_SHA256:
        raise DataError(
            f"{archive.name} has sha256 {digest}, expected {ARCHIVE_SHA256} ({DIGEST_SOURCE})",
            where=str(archive),
            fix="download it again, or unpack it and give the folder",
        )
    parts = {}
    with tarfile.open(archive, "r:") as tar:
        for member in tar:
            name = PurePosixPath(member.name)
            if member.isfile() and not member.issparse() and name.suffix == ".npy":
                where = f"{archive}: {member.name}"
                parts[name.stem] = _Part(archive, member.offset_data, member.size, digest, where)
    return parts


def _mapped(part: _Part, shape: tuple[int, ...], *, kinds: tuple[np.dtype[Any], ...]) -> NDArray[Any]:
    """The array of a part, mapped; DataError unless header and size are exactly what they must be."""
    try:
        with open(part.path, "rb") as stream:
            stream.seek(part.start)
            stored_shape, fortran, kind = _header(stream)
            start = stream.tell()
        if stored_shape != shape or fortran or kind not in kinds:
            order = " in Fortran order" if fortran else ""
            raise ValueError(f"expected {shape} of {kinds[0]}, found {stored_shape} of {kind}{order}")
        size = start - part.start + int(np.prod(shape)) * kind.itemsize
        if size != part.size:
            raise ValueError(f"expected {size:,} bytes, found {part.size:,}")
    except Exception as error:  # NumPy raises many types on a header that is none
        raise fault_behind(error, part.path) or DataError(
            f"not an array of {NAME}: {error}", where=part.name, fix=f"take it from {NAME}.tar again"
        ) from error
    return np.memmap(part.path, dtype=kind, mode="r", offset=start, shape=shape)


def _header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of an .npy file; a ValueError says what is wrong with it."""
    version = npy.read_magic(stream)
    if version == (1, 0):
        return npy.read_array_header_1_0(stream, max_header_size=_HEADER_BYTES)
    if version == (2, 0):
        return npy.read_array_header_2_0(stream, max_header_size=_HEADER_BYTES)
    raise ValueError(f"version {version} of the .npy format")


def official_rows(ids: Sequence[str], labels: NDArray[np.int64], published: Published) -> NDArray[np.int64]:
    """Which of the N images of a severity some test images are.

    Args:
        ids: of the test images, "test/00012" for the thirteenth.
        labels: their classes.

    Returns:
        Their positions in the official order.

    Raises:
        DataError: the labels of the two do not agree in every severity.
    """
    rows = np.array([int(sample_id.removeprefix("test/")) for sample_id in ids], dtype=np.int64)
    by_severity = np.asarray(published.labels).reshape(SEVERITIES, -1)
    if rows.max() >= by_severity.shape[1] or (by_severity[:, rows] != labels).any():
        raise DataError(
            f"the labels of {NAME} are not those of the test images",
            where="corruptions.path",
            fix=f"take labels.npy from {NAME}.tar again",
        )
    return rows
