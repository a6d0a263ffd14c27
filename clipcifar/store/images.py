"""Image embeddings on disk: a folder of parts, the rows of train and then those of test, and their manifest.

The manifest holds labels, ids and copies, and which parts there are with the digest of each; it is written
last. One part is read at once, and then embeddings are arrays. Of several, rows are read when they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.counts import count_of
from clipcifar.core.errors import DataError
from clipcifar.core.files import Attribute, explained
from clipcifar.store import container
from clipcifar.store.embeddings import COPIES, IMAGES_KIND, ImageEmbeddings, Split
from clipcifar.store.fields import (
    INHERITED,
    SPLITS,
    check_copies,
    check_embeddings,
    check_ids,
    check_index,
    class_names_of,
)
from clipcifar.store.names import Names
from clipcifar.store.parts import (
    PartFolder,
    Parts,
    Storage,
    parts_beyond,
    write_parts,
)
from clipcifar.store.rows import Embeddings, Rows, blocks_of

MANIFEST = "manifest.h5"


class Listed(NamedTuple):
    """What a manifest says of a split's images, as `Split` has it."""

    labels: NDArray[np.int64]
    ids: Sequence[str]
    copies: NDArray[np.int64] | None

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], name: str) -> Listed:
        ids = Names.read(arrays[f"{name}/ids"])
        return cls(arrays[f"{name}/labels"], ids, arrays.get(f"{name}/{COPIES}"))

    def check(self, attributes: Mapping[str, Attribute]) -> None:
        check_index(self.labels, len(class_names_of(attributes)), len(self.ids))
        check_ids(self.ids)
        check_copies(self.copies, len(self.ids))

    def with_rows(self, rows: Embeddings) -> Split:
        return Split(rows, *self)


def listing(train: Split | Listed, test: Split | Listed) -> dict[str, NDArray[Any]]:
    """Labels, ids and copies of both splits, as a manifest keeps them, by the name of the array."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, split in zip(SPLITS, (train, test), strict=True):
        arrays[f"{name}/labels"] = split.labels
        arrays[f"{name}/ids"] = container.encode_strings(split.ids)
        if split.copies is not None:
            arrays[f"{name}/{COPIES}"] = split.copies
    return arrays


def write_images(
    folder: Path,
    *,
    train: Split,
    test: Split,
    attributes: Mapping[str, Attribute],
    storage: Storage = "float32",
) -> None:
    """Write image embeddings; `attributes` hold what determined them, class names included."""
    for split in (train, test):
        Listed(split.labels, split.ids, split.copies).check(attributes)
        if not isinstance(split.embeddings, Rows):  # which were checked when they were read
            check_embeddings(split.embeddings, split.ids, what="image")
    parts = write_parts(
        folder,
        (rows for split in (train, test) for _, rows in blocks_of(split.embeddings)),
        storage=storage,
    )
    write_manifest(folder, listing(train, test), parts, attributes=attributes)


def write_manifest(
    folder: Path, listing: Mapping[str, NDArray[Any]], parts: Parts, *, attributes: Mapping[str, Attribute]
) -> None:
    """Say whose the parts in a folder are, once all are there; others that lie there are removed.

    Args:
        listing: what `listing` gives of both splits, whose rows the parts hold.
        parts: what there is to say of them.
        attributes: what determined the embeddings.
    """
    arrays = {**listing, **parts.arrays}
    container.write(folder / MANIFEST, kind=IMAGES_KIND, arrays=arrays, attributes=attributes)
    for path in parts_beyond(folder, len(parts.counts)):
        with explained(path):
            path.unlink()


def read_images(
    path: Path, *, part_of: Callable[[str], Path] | None = None, as_stored: bool = False
) -> ImageEmbeddings:
    """Read and verify image embeddings; rows in several parts are read, and verified, when they are used.

    Args:
        path: of their folder, or of their manifest.
        part_of: where a part lies, by its name; None for beside the manifest.
        as_stored: of rows, as `PartFolder` has it.

    Raises:
        DataError: names the file and what is wrong with it.
        EnvironmentFault: it cannot be read.
    """
    manifest = path / MANIFEST if path.is_dir() else path
    with container.reading(manifest, kind=IMAGES_KIND, what="image embeddings") as file:
        arrays, attributes = file.arrays, file.attributes
        container.require(attributes, texts=INHERITED, numbers=("logit_scale", "max_per_class"))
        train, test = (Listed.of(arrays, name) for name in SPLITS)
        for listed in (train, test):
            listed.check(attributes)
        parts, n = Parts.of(arrays), len(train.ids) + len(test.ids)
        if sum(parts.counts) != n:
            raise DataError(f"{count_of(sum(parts.counts), 'row')} for {count_of(n, 'image')}")
    if part_of is None:
        _refuse_others(manifest.parent, len(parts.counts))
    place = part_of or manifest.parent.joinpath
    check = partial(_check_rows, train.ids, test.ids)
    folder = PartFolder(place, parts, check=check, as_stored=as_stored)
    rows = Rows(folder, np.arange(n)).split(len(train.ids))
    return ImageEmbeddings(train.with_rows(rows[0]), test.with_rows(rows[1]), attributes)


def _refuse_others(folder: Path, number: int) -> None:
    if others := parts_beyond(folder, number):
        raise DataError(
            f"{others[0].name} is none of the {count_of(number, 'part')} of these embeddings",
            where=str(others[0]),
            fix="remove it, or run `dvc checkout`",
        )


def _check_rows(
    train: Sequence[str], test: Sequence[str], rows: NDArray[np.float32], first: int, tolerance: float
) -> None:
    stop, n = first + len(rows), len(train)
    ids = Names.of(train[first:stop]) + test[max(first - n, 0) : max(stop - n, 0)]
    check_embeddings(rows, ids, what="image", tolerance=tolerance)
