"""What files of ours have in common: class names, sample ids, class indices, and what results inherit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.counts import count_of
from clipcifar.core.errors import DataError
from clipcifar.core.files import Attribute, canonical_json
from clipcifar.store.names import Names, is_increasing, positions, repeated

# What says which model and data an image was embedded with; every result inherits it.
INHERITED = ("model", "pretrained", "weights_sha256", "dataset", "dataset_digest", "class_names")
SPLITS = ("train", "test")  # the official ones, by which arrays of both are named
UNIT_TOLERANCE = 1e-4  # float32 rows of 4,096 dimensions stay well inside it
HALF_TOLERANCE = 1e-3  # float16 rows, before they are scaled to unit length again


def class_names_of(attributes: Mapping[str, Attribute]) -> list[str]:
    """The class names, in label order, that a file of ours was written for."""
    try:
        names = json.loads(str(attributes["class_names"]))
    except (ValueError, RecursionError) as error:
        raise DataError(f"the class names cannot be read: {error}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError("the class names are not a list of text")
    return names


def check_ids(ids: Sequence[str]) -> None:
    """Raise DataError when a sample id occurs twice."""
    array = Names.of(ids).array
    if not is_increasing(array) and repeated(array):
        raise DataError("a sample id occurs twice")


def rows_of(wanted: Sequence[str], ids: Sequence[str], *, what: str) -> NDArray[np.int64]:
    """Where each wanted sample id stands among `ids`, (n,) int64.

    Args:
        what: the ids are of, for the message: "the test images".

    Raises:
        DataError: one is not there.
    """
    rows = positions(wanted, ids)
    if len(missing := np.flatnonzero(rows < 0)):
        raise DataError(
            f"{count_of(len(missing), 'image is', 'images are')} not among {what}, "
            f"{wanted[int(missing[0])]!r} for one",
            fix="run `dvc repro`",
        )
    return rows


def check_index(index: NDArray[np.int64], num_classes: int, num_rows: int) -> None:
    """Raise DataError unless the index is (num_rows,) int64 in 0 to num_classes - 1."""
    if index.shape != (num_rows,) or index.dtype != np.int64:
        raise DataError(f"expected {num_rows} int64 class indices, found {index.dtype} {index.shape}")
    if num_rows and not (index.min() >= 0 and index.max() < num_classes):
        raise DataError(f"class indices outside 0 to {num_classes - 1}")


def copies_of(contents: NDArray[Any]) -> NDArray[np.int64] | None:
    """For each of N contents the row of the first that is the same, (N,) int64; None where all differ.

    >>> copies_of(np.array([b"cat", b"dog", b"cat"]))
    array([0, 1, 0])
    """
    if not (groups := repeated(contents)):
        return None
    copies = np.arange(len(contents))
    for rows in groups:
        copies[rows] = rows[0]
    return copies


def check_copies(copies: NDArray[np.int64] | None, num_rows: int) -> None:
    """Raise DataError unless these are what `copies_of` gives of so many."""
    if copies is None:
        return
    rows = np.arange(num_rows)
    if copies.shape != rows.shape or copies.dtype != np.int64:
        raise DataError(
            f"expected {num_rows} int64 rows of first copies, found {copies.dtype} {copies.shape}"
        )
    if not ((copies >= 0) & (copies <= rows)).all() or (copies[copies] != copies).any():
        raise DataError("an image is called a copy of one that is no first copy")


def class_names_attribute(class_names: list[str]) -> str:
    """The class names as one attribute, the inverse of `class_names_of`."""
    return canonical_json(class_names)


def check_embeddings(
    embeddings: NDArray[np.float32], names: Sequence[str], *, what: str, tolerance: float = UNIT_TOLERANCE
) -> None:
    """Raise DataError unless every row is float32, finite and of unit length.

    Args:
        embeddings: (N, D).
        names: N names, for the message.
        what: "image" or "sentence".
        tolerance: of the length.
    """
    if embeddings.ndim != 2 or embeddings.dtype != np.float32 or len(embeddings) != len(names):
        raise DataError(f"expected {len(names)} float32 rows, found {embeddings.dtype} {embeddings.shape}")
    norms = np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings))
    wrong = np.flatnonzero(~(np.abs(norms - 1) <= tolerance))  # also true for NaN
    if len(wrong):
        raise DataError(
            f"the embedding of {what} {names[int(wrong[0])]!r} is not a unit vector "
            f"(norm {norms[wrong[0]]}); " + count_of(len(wrong), "such row"),
            fix=f"check the model's weights and this {what}",
        )
