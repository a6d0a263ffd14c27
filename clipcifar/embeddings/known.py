"""Rows of images that are embedded already, found by what each image is: an image is embedded once.

Where rows depend on their images alone (`second_pass.py`), a manifest has the digest of every image.
Embeddings that differ from the wanted ones in nothing but their dataset then have rows to give, under
whatever name, label and place an image has now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipcifar.core import files
from clipcifar.core.errors import ClipcifarError, DataError
from clipcifar.embeddings import provenance
from clipcifar.embeddings.kept import Kept, Wanted, recorded_objects
from clipcifar.store import container, parts
from clipcifar.store.container import fingerprint_in_file, fingerprint_of
from clipcifar.store.dataset import PreparedSplit
from clipcifar.store.embeddings import CONTENTS
from clipcifar.store.fields import SPLITS
from clipcifar.store.rows import Embeddings


@dataclass(frozen=True)
class Known:
    """Which of N wanted images have a row elsewhere.

    Attributes:
        kept: rows of other embeddings, as they are stored.
        place: (N,) int64, which of those has an image's row; -1 for none.
        row: (N,) int64, which row it is there.
        origins: the embeddings that they are of, as many as were needed.
    """

    kept: list[Embeddings]
    place: NDArray[np.int64]
    row: NDArray[np.int64]
    origins: list[Path] = field(default_factory=list)

    @property
    def unknown(self) -> NDArray[np.int64]:
        """The images that have none, ascending."""
        return np.flatnonzero(self.place < 0)

    @property
    def known(self) -> NDArray[np.int64]:
        """The images that have one, ascending."""
        return np.flatnonzero(self.place >= 0)

    def at(self, images: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows of some images that have one, (n, D) float32 in their order."""
        gathered = np.empty((len(images), self.kept[0].shape[1]), dtype=np.float32)
        for number, rows in enumerate(self.kept):
            here = self.place[images] == number
            if here.any():
                gathered[here] = rows[self.row[images[here]]]
        return gathered

    def joined(self, embedded: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """All N rows in order, a part's worth at a time; those of unknown images come from `embedded`."""
        new = (row for block in embedded for row in block)
        for part in parts.bounds(len(self.place)):
            images = np.arange(part.start, part.stop)
            is_known = self.place[images] >= 0
            block = np.empty((len(images), self.kept[0].shape[1]), dtype=np.float32)
            block[is_known] = self.at(images[is_known])
            for i, row in zip(np.flatnonzero(~is_known), islice(new, int((~is_known).sum())), strict=True):
                block[i] = row
            yield block


def digests_of(split: PreparedSplit) -> NDArray[np.uint8]:
    """What each image is, (N, 32) uint8: sha256 of a file, or of its size in pixels and those."""
    if not split.in_memory:
        try:
            digests = bytes.fromhex(split.content.tobytes().decode())
            return np.frombuffer(digests, dtype=np.uint8).reshape(len(split.content), 32)
        except ValueError as error:
            raise DataError(
                f"the digest of an image file is none: {error}", fix="run `dvc repro prepare`"
            ) from error
    size = repr(split.content.shape[1:]).encode()
    digests = b"".join(hashlib.sha256(size + pixels.tobytes()).digest() for pixels in split.content)
    return np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32)


def contents_of(*splits: PreparedSplit) -> dict[str, NDArray[np.uint8]]:
    """The same of train and test as a manifest keeps it, by the name of the array."""
    return {f"{name}/{CONTENTS}": digests_of(split) for name, split in zip(SPLITS, splits, strict=True)}


def look_up(wanted: Wanted, repository: Path) -> Known | None:
    """Rows of the wanted images in what DVC keeps of the last run and in the user's cache folder.

    Returns:
        None where no image has a row.

    Raises:
        EnvironmentFault: what DVC keeps is there and cannot be read, as of `kept.find`.
    """
    if not wanted.beside:
        return None
    contents = np.concatenate(list(wanted.digests().values()))
    known = Known([], np.full(len(contents), -1), np.zeros(len(contents), dtype=np.int64))
    _take(known, wanted, contents, recorded_objects(wanted, repository))
    for folder in sorted(files.cache_folder("embeddings").glob("*/")):
        if (known.place < 0).any():
            with suppress(ClipcifarError):  # of others, who may use this folder as well
                _take(known, wanted, contents, {Path(path.name): path for path in folder.glob("*.h5")})
    return known if known.kept else None


def _take(known: Known, wanted: Wanted, contents: NDArray[np.uint8], kept: dict[Path, Path]) -> None:
    """Note the rows that whole embeddings have of images that have none yet."""
    if wanted.main not in kept:
        return
    with suppress(DataError):  # damaged, or of before there were contents
        attributes = container.attributes_of(kept[wanted.main])
        determined = fingerprint_in_file(provenance.of_a_row(wanted.attributes), kind=wanted.kind)
        if fingerprint_of(provenance.of_a_row(attributes)) != determined:
            return
        whole = Kept(kept, container.read(kept[wanted.main], kind=wanted.kind))
        hits = [
            np.where(known.place < 0, matches(contents, whole.content.arrays[name]), -1)
            for name in (f"{split}/{CONTENTS}" for split in SPLITS)
            if name in whole.content.arrays
        ]
        if not any((hit >= 0).any() for hit in hits):
            return
        images = whole.images(as_stored=True)
        images.verify()
        known.origins.append(kept[wanted.main])
        for hit, split in zip(hits, (images.train, images.test), strict=True):
            new = (hit >= 0) & (known.place < 0)
            known.place[new], known.row[new] = len(known.kept), hit[new]
            known.kept.append(split.embeddings)


def matches(contents: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.int64]:
    """For each of N digests which of M others is the same, (N,) int64; -1 for none.

    Looked for by the first eight bytes, which sort fast. Others that begin alike and are not the same may
    hide each other: their images are embedded again.

    Raises:
        DataError: the others are not digests.
    """
    if others.ndim != 2 or others.shape[1] != 32 or others.dtype != np.uint8:
        raise DataError(f"expected digests of images, found {others.dtype} {others.shape}")
    if not len(others):
        return np.full(len(contents), -1)
    beginnings, wanted = (
        np.ascontiguousarray(side[:, :8]).view(np.uint64)[:, 0] for side in (others, contents)
    )
    order = np.argsort(beginnings, kind="stable")
    position = np.minimum(np.searchsorted(beginnings, wanted, sorter=order), len(others) - 1)
    nearest = order[position]
    return np.where((others[nearest] == contents).all(axis=1), nearest, -1)
