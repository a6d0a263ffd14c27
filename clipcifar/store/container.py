"""A checked HDF5 file: named arrays and scalar attributes that cannot change without being noticed.

Two digests are stored with the data. The fingerprint is the sha256 of the attributes, that is of
everything that determined the content; the content digest covers names, shapes, dtypes, bytes and
attributes. A reader refuses links and all but plain arrays that the file holds byte for byte before it
allocates, then checks both. A file carries no time stamp and no host name: equal input gives equal bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import ClipcifarError, DataError, EnvironmentFault
from clipcifar.core.files import Attribute, canonical_json, fault_behind, placing, sha256_of, write_atomically
from clipcifar.store.names import Names
from clipcifar.store.target import through

SCHEMA = 1
CHUNK_ROWS = 1024
MAX_ATTRIBUTE_BYTES = 60_000  # HDF5 keeps an attribute in one object header, 64 KiB at most
_IN_MEMORY = 1 << 24  # bytes of arrays: the file takes three times as much
_DIGESTS = ("fingerprint", "content_digest")


@dataclass(frozen=True)
class Container:
    """What a file holds: arrays by path ("train/labels") and attributes, the digests among them."""

    arrays: Mapping[str, NDArray[Any]]
    attributes: Mapping[str, Attribute]


def encode_strings(strings: Sequence[str]) -> NDArray[np.bytes_]:
    """Fixed-length UTF-8, the only string type a container holds."""
    return Names.of(strings).narrow


def decode_strings(array: NDArray[np.bytes_]) -> list[str]:
    """The inverse of `encode_strings`; DataError when the array holds anything else."""
    return Names.read(array).tolist()


def require(attributes: Mapping[str, Attribute], *, texts: Collection[str], numbers: Collection[str]) -> None:
    """Raise DataError unless the attributes named are there and are text, or numbers."""
    for key in (*texts, *numbers):
        value, expected = attributes.get(key), str if key in texts else (int, float)
        if not isinstance(value, expected) or isinstance(value, bool):
            kind = "text" if key in texts else "a number"
            raise DataError(f"the attribute {key!r} is {value!r}, expected {kind}")


def fingerprint_of(attributes: Mapping[str, Attribute]) -> str:
    """Hex sha256 of the canonical JSON of the attributes, the two digests left out."""
    return sha256_of({key: value for key, value in attributes.items() if key not in _DIGESTS})


def fingerprint_in_file(attributes: Mapping[str, Attribute], *, kind: str) -> str:
    """The fingerprint of a file of that kind whose content these attributes determine."""
    return fingerprint_of({**attributes, "kind": kind, "schema": SCHEMA})


def _content_digest(arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Attribute]) -> str:
    described = {key: value for key, value in attributes.items() if key != "content_digest"}
    digest = hashlib.sha256(canonical_json(described).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(canonical_json([name, array.dtype.str, list(array.shape)]).encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


def write(
    path: Path, *, kind: str, arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Attribute]
) -> str:
    """Write a container atomically and return its content digest.

    HDF5 reports a full disk only on closing, and then by a crash, so it writes to no disk: a small file is
    built in memory, a large one goes `through` a stream.

    Args:
        kind: what the file is ("image embeddings"); a reader asks for the kind it expects.
        arrays: by path, one level of groups at most; numbers, booleans or fixed-length strings.
        attributes: scalars that determined the content.
    """
    described: dict[str, Attribute] = {**attributes, "kind": kind, "schema": SCHEMA}
    described["fingerprint"] = fingerprint_in_file(attributes, kind=kind)
    digest = described["content_digest"] = _content_digest(arrays, described)
    for key, value in described.items():
        if len(str(value).encode()) > MAX_ATTRIBUTE_BYTES:
            raise DataError(f"the attribute {key!r} is too long for HDF5", fix="use fewer or shorter names")
    num_bytes = sum(array.nbytes for array in arrays.values())
    if num_bytes <= _IN_MEMORY:
        with h5py.File("container", "w", driver="core", backing_store=False, track_order=False) as file:
            _fill(file, arrays, described)
            file.flush()
            image = file.id.get_file_image()
        write_atomically(path, image)
        return digest
    with (
        placing(path, num_bytes) as stream,
        through(stream) as target,
        h5py.File(target, "w", track_order=False) as file,
    ):
        _fill(file, arrays, described)
    return digest


def _fill(file: h5py.File, arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Attribute]) -> None:
    for name in sorted(arrays):
        array = arrays[name]
        chunks = (min(CHUNK_ROWS, len(array)), *array.shape[1:]) if array.ndim and array.size else None
        file.create_dataset(name, data=array, chunks=chunks, track_times=False)
    for key in sorted(attributes):
        value = attributes[key]
        file.attrs.create(key, np.bytes_(value.encode() or b"\0") if isinstance(value, str) else value)


@contextmanager
def reading(path: Path, *, kind: str, what: str) -> Iterator[Container]:
    """`read`, and within it let an array that is missing, or is not as it should be, be told of the file.

    Args:
        kind: that the file must be of.
        what: the file is not, then: "image embeddings".

    Raises:
        DataError: as `read`, and for whatever its content is found to lack.
    """
    file = read(path, kind=kind)
    try:
        yield file
    except (KeyError, ValueError, TypeError, OverflowError, DataError) as error:
        raise DataError(f"not {what}: {error}", where=str(path), fix="run `dvc repro`") from error


def read(path: Path, *, kind: str, verified: bool = False) -> Container:
    """Read a container and verify it whole.

    HDF5 is given an open file and no name: by name it asks for a lock, which another process or a file
    system may deny, and refuses a file that this process has open in another way, as a notebook may.

    Args:
        verified: whether the caller has verified this very file before; its bytes are then not hashed again.

    Raises:
        DataError: the file is missing, of another kind, damaged, or built to mislead; nothing is
            allocated for a dataset that the file does not store byte for byte.
        EnvironmentFault: it cannot be read, which says nothing about what it holds.
    """
    try:
        with open(path, "rb") as stream, h5py.File(stream, "r") as file:
            attributes = _read_attributes(file)
            arrays = {  # asarray, because h5py hands out a scalar for an array without dimensions
                name: np.asarray(dataset[()], dtype=dataset.dtype)
                for name, dataset in _checked_datasets(file, os.fstat(stream.fileno()).st_size)
            }
        fingerprint = fingerprint_of(attributes)
        digest = attributes.get("content_digest") if verified else _content_digest(arrays, attributes)
    except ClipcifarError as error:
        error.where = str(path)
        raise
    except MemoryError as error:
        raise EnvironmentFault("out of memory", where=str(path), fix="free some memory") from error
    except FileNotFoundError as error:
        raise DataError(f"there is no {kind} file", where=str(path), fix="run `dvc repro`") from error
    except Exception as error:  # h5py raises many types on damaged input
        raise fault_behind(error, path) or DataError(
            f"not a readable HDF5 file: {error}", where=str(path), fix=_MEND
        ) from error
    if attributes.get("kind") != kind or attributes.get("schema") != SCHEMA:
        raise DataError(
            f"expected {kind}, schema {SCHEMA}; "
            f"found {attributes.get('kind')}, schema {attributes.get('schema')}",
            where=str(path),
            fix=_MEND,
        )
    if attributes.get("fingerprint") != fingerprint:
        raise DataError("the fingerprint does not match the attributes", where=str(path), fix=_MEND)
    if attributes.get("content_digest") != digest:
        raise DataError("the content does not match its digest", where=str(path), fix=_MEND)
    return Container(arrays=arrays, attributes=attributes)


def attributes_of(path: Path) -> dict[str, Attribute]:
    """What a container says of itself, unverified and without its arrays; errors as of `read`."""
    try:
        with open(path, "rb") as stream, h5py.File(stream, "r") as file:
            return _read_attributes(file)
    except Exception as error:  # as in `read`
        raise fault_behind(error, path) or DataError(
            f"not a readable HDF5 file: {error}", where=str(path), fix=_MEND
        ) from error


# Nothing is deleted on one reader's word: the doctor compares file and cache with what DVC recorded.
_MEND = "run `clipcifar doctor`, which names the command that brings it back whole"


def _read_attributes(file: h5py.File) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {}
    for key in file.attrs:
        stored = file.attrs.get_id(key)
        if stored.shape != () or stored.dtype.kind not in "Sifb":
            raise DataError(f"the attribute {key!r} is not a plain scalar", fix=_MEND)
        value = file.attrs[key]
        attributes[key] = value.decode() if isinstance(value, bytes) else value.item()
    return attributes


def _checked_datasets(file: h5py.File, file_size: int) -> list[tuple[str, h5py.Dataset]]:
    """The datasets of a file, each a plain array whose bytes are all stored in this very file."""
    datasets, total = [], 0
    for name, item in _hard_linked(file, prefix="", depth=2):
        unusual = item.is_virtual or item.external or item.compression or item.dtype.kind not in "Sifub"
        if unusual or item.dtype.hasobject or item.id.get_create_plist().get_nfilters():
            raise DataError(f"the dataset {name!r} is not a plain array", fix=_MEND)
        total += item.nbytes  # one array under many names may not add up to more than the file
        if total > file_size or item.id.get_storage_size() < item.nbytes:
            raise DataError(f"the dataset {name!r} claims more data than the file holds", fix=_MEND)
        datasets.append((name, item))
    return datasets


def _hard_linked(group: h5py.Group, *, prefix: str, depth: int) -> list[tuple[str, h5py.Dataset]]:
    datasets: list[tuple[str, h5py.Dataset]] = []
    for key in group:
        name = prefix + key
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise DataError(f"{name!r} is a link to another place", fix=_MEND)
        item = group[key]
        if isinstance(item, h5py.Dataset):
            datasets.append((name, item))
        elif depth > 1 and isinstance(item, h5py.Group):
            datasets += _hard_linked(item, prefix=name + "/", depth=depth - 1)
        else:
            raise DataError(f"{name!r} is neither an array nor a group of arrays", fix=_MEND)
    return datasets
