"""The prepared dataset: pixels, or for a folder the digests of its files, with labels, ids and classes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.core.files import Attribute, canonical_json
from clipcifar.store import container
from clipcifar.store.fields import SPLITS, check_ids, check_index, class_names_attribute, class_names_of
from clipcifar.store.members import Members, shards_of
from clipcifar.store.names import Names, blocks_of, json_of

OWN_VAL = "val images are those that the dataset has as such"  # a note: none were drawn from train


@dataclass(frozen=True)
class PreparedSplit:
    """One official split.

    Attributes:
        content: (N, H, W, 3) uint8 pixels, or (N,) hex sha256 of image files as fixed-length bytes.
        labels: (N,) int64.
        ids: N sample ids; for files, their paths relative to the folder.
        members: where the files lie, if they are members of tar files and no files of their own.
    """

    content: NDArray[Any]
    labels: NDArray[np.int64]
    ids: Sequence[str]
    members: Members | None = None

    @property
    def in_memory(self) -> bool:
        """Whether `content` is pixels."""
        return self.content.dtype == np.uint8

    @property
    def digests(self) -> Names:
        """N hex sha256 of image files, where `content` is those."""
        return Names(self.content)

    @property
    def contents(self) -> NDArray[np.bytes_]:
        """What two copies of an image have in common: (N,) digests of pixels or of files."""
        if self.in_memory:
            return np.array([hashlib.sha256(pixels.tobytes()).digest() for pixels in self.content], "S32")
        return self.content

    def __add__(self, other: PreparedSplit) -> PreparedSplit:
        return PreparedSplit(
            np.concatenate([self.content, other.content]),
            np.concatenate([self.labels, other.labels]),
            Names.of(self.ids) + other.ids,
            self.members + other.members if self.members and other.members else None,
        )

    def take(self, rows: NDArray[np.int64]) -> PreparedSplit:
        """The split with these rows only."""
        members = self.members and self.members.take(rows)
        return PreparedSplit(self.content[rows], self.labels[rows], Names.of(self.ids)[rows], members)


@dataclass(frozen=True)
class Prepared:
    """Both official splits and the class names in label order; `digest` covers those.

    Attributes:
        max_per_class: 0 for all.
        left_out: how many files or images of which kind were not used.
        notes: what else there is to know about the images, a sentence each.
    """

    train: PreparedSplit
    test: PreparedSplit
    class_names: list[str]
    name: str
    max_per_class: int
    digest: str
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def counted(kinds: Mapping[str, int]) -> str:
    """How many of which kind in words, the most frequent kind first."""
    ordered = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{n:,} {kind}" for kind, n in ordered)


def digest_of(train: PreparedSplit, test: PreparedSplit, class_names: list[str]) -> str:
    """Hex sha256 over pixels or file digests, labels, ids and class names, not over where they lie."""
    digest = hashlib.sha256(canonical_json(class_names).encode())
    for split in (train, test):
        shape = canonical_json(list(split.content.shape)).encode()
        for text in chain((b"[",), json_of(Names.of(split.ids)), (b",",), json_of(split.labels)):
            digest.update(text)  # the canonical JSON of ids, labels and shape, and never the whole of it
        digest.update(b"," + shape + b"]")
        digest.update(np.ascontiguousarray(split.content).data if split.content.size else b"")
    return digest.hexdigest()


def write_dataset(
    path: Path,
    train: PreparedSplit,
    test: PreparedSplit,
    *,
    class_names: list[str],
    name: str,
    max_per_class: int,
    left_out: Mapping[str, int] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Write the prepared dataset, as `Prepared` describes it, and return its digest."""
    arrays: dict[str, NDArray[Any]] = {}
    for split_name, split in zip(SPLITS, (train, test), strict=True):
        arrays[f"{split_name}/content"] = split.content
        arrays[f"{split_name}/labels"] = split.labels
        arrays[f"{split_name}/ids"] = container.encode_strings(split.ids)
        arrays.update(split.members.arrays(split_name) if split.members else {})
    attributes: dict[str, Attribute] = {
        "dataset": name,
        "max_per_class": max_per_class,
        "class_names": class_names_attribute(class_names),
        "dataset_digest": digest_of(train, test, class_names),
        "left_out": canonical_json(left_out or {}),
        "notes": canonical_json(list(notes)),
    }
    container.write(path, kind="dataset", arrays=arrays, attributes=attributes)
    return str(attributes["dataset_digest"])


def _lead_out(ids: Names) -> bool:
    """Whether a relative path leads out of the folder that it is relative to."""
    for block in blocks_of(ids.array):
        odd = block[np.char.startswith(block, b"/") | (np.char.find(block, b"..") >= 0)]
        paths = [PurePosixPath(sample_id) for sample_id in Names(odd)]
        if any(path.is_absolute() or ".." in path.parts for path in paths):
            return True
    return False


def _check(part: PreparedSplit, *, num_classes: int) -> None:
    """Raise DataError unless content, labels and ids are of the same images, and ids stay in their folder."""
    pixels = part.in_memory and part.content.ndim == 4 and part.content.shape[3] == 3
    digests = part.content.dtype == "S64" and part.content.ndim == 1
    if not (pixels or digests) or len(part.content) != len(part.ids):
        raise DataError(f"content {part.content.dtype} {part.content.shape} for {len(part.ids)} images")
    check_index(part.labels, num_classes, len(part.ids))
    check_ids(part.ids)
    if digests and _lead_out(Names.of(part.ids)):
        raise DataError("an image lies outside the folder")


def read_dataset(path: Path) -> Prepared:
    """Read and verify a prepared dataset; DataError names what is wrong with the file."""
    with container.reading(path, kind="dataset", what="a prepared dataset") as file:
        shards = shards_of(file.arrays)
        train, test = (
            PreparedSplit(
                content=file.arrays[f"{split}/content"],
                labels=file.arrays[f"{split}/labels"],
                ids=(ids := Names.read(file.arrays[f"{split}/ids"])),
                members=Members.read(file.arrays, split, shards, num_rows=len(ids)),
            )
            for split in SPLITS
        )
        class_names = class_names_of(file.attributes)
        for part in (train, test):
            _check(part, num_classes=len(class_names))
        return Prepared(
            train,
            test,
            class_names,
            name=str(file.attributes["dataset"]),
            max_per_class=int(file.attributes["max_per_class"]),
            digest=str(file.attributes["dataset_digest"]),
            left_out={str(kind): int(n) for kind, n in _said(file.attributes, "left_out", {}).items()},
            notes=[str(note) for note in _said(file.attributes, "notes", [])],
        )


def _said(attributes: Mapping[str, Attribute], name: str, nothing: Any) -> Any:
    """An attribute that files of before it came do not have."""
    try:
        said = json.loads(str(attributes.get(name, canonical_json(nothing))))
    except RecursionError as error:
        raise DataError(f"{name} cannot be read: {error}") from error
    if not isinstance(said, type(nothing)):
        raise DataError(f"{name} is no {type(nothing).__name__}")
    return said
