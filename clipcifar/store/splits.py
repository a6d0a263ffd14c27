"""Seeded choices among samples: the train/val split and the small subset for a quick look.

Both rank the samples of a class by the sha256 of seed and sample id. So they do not depend on the
order of the samples, and adding or removing a sample moves at most a few of the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.counts import count_of
from clipcifar.core.errors import DataError
from clipcifar.core.files import Attribute
from clipcifar.core.params import MAX_SEED, Range
from clipcifar.store import container
from clipcifar.store.fields import check_ids
from clipcifar.store.names import Names, positions


@dataclass(frozen=True)
class SplitParams:
    """The `split` section: the share of the official train split that becomes val, and the seed."""

    val_fraction: Annotated[float, Range(0.001, 0.9)]
    seed: Annotated[int, Range(0, MAX_SEED)]


_DRAW_SEED = 0
MAX_NAMED = 10  # classes in a message


class TrainVal(NamedTuple):
    """Row indices into the official train split, both ascending, disjoint and covering it."""

    train: NDArray[np.int64]
    val: NDArray[np.int64]


def ranked(ids: Sequence[str], *, seed: int, purpose: str) -> NDArray[np.int64]:
    """(N,) int64 rows in a seeded order that depends on their ids alone."""
    keys = (hashlib.sha256(f"{purpose}\0{seed}\0{name}".encode()).digest() for name in ids)
    return np.argsort(np.fromiter(keys, dtype="S32", count=len(ids)), kind="stable")


def rows_by_class(labels: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The rows of each class that has any, ascending; classes in the order of their labels."""
    ordered = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[ordered])) + 1
    return iter(np.split(ordered, starts)) if len(labels) else iter(())


def seeded_share(
    labels: NDArray[np.int64], ids: Sequence[str], *, fraction: float, seed: int, purpose: str
) -> NDArray[np.bool_]:
    """(N,) bool: a share of every class, rounded, at least one sample and never all of them.

    Args:
        labels: (N,) int64.
        ids: N unique sample ids.
        purpose: another purpose gives another share for the same seed.
    """
    chosen = np.zeros(len(labels), dtype=bool)
    names = Names.of(ids)
    for rows in rows_by_class(labels):
        count = min(max(1, round(len(rows) * fraction)), len(rows) - 1)
        chosen[rows[ranked(names[rows], seed=seed, purpose=purpose)[:count]]] = True
    return chosen


def stratified_split(
    labels: NDArray[np.int64], ids: Sequence[str], *, class_names: list[str], val_fraction: float, seed: int
) -> TrainVal:
    """Split the official train split into train and val, class by class.

    Args:
        labels: (N,) int64.
        ids: N unique sample ids.
        class_names: C names, for messages.
        val_fraction: share of each class that goes to val, as `seeded_share` has it.
        seed: another seed gives another split.

    Raises:
        DataError: classes have fewer than two samples.
    """
    check_counts(labels, class_names=class_names, parts=("train", "val"))
    is_val = seeded_share(labels, ids, fraction=val_fraction, seed=seed, purpose="val")
    return TrainVal(np.flatnonzero(~is_val), np.flatnonzero(is_val))


def check_counts(labels: NDArray[np.int64], *, class_names: list[str], parts: tuple[str, ...]) -> None:
    """Raise DataError unless every class has an image for each of the parts that are drawn from it."""
    counts = np.bincount(labels, minlength=len(class_names)).tolist()
    few = [f"{name!r} ({n})" for name, n in zip(class_names, counts, strict=True) if n < len(parts)]
    if few:
        raise DataError(
            f"{count_of(len(few), 'class has', 'classes have')} too few images for "
            f"{', '.join(parts[:-1])} and {parts[-1]}: "
            + ", ".join(few[:MAX_NAMED])
            + (", …" if len(few) > MAX_NAMED else ""),
            where="split train",
            fix="add images to them, take the classes out, or give each a folder with images of its own for "
            "train, val and test",
        )


def seeded_subset(
    labels: NDArray[np.int64], ids: Sequence[str], *, max_per_class: int, seed: int
) -> NDArray[np.int64]:
    """At most `max_per_class` rows of every class, ascending; a larger subset holds the smaller.

    Args:
        labels: (N,) int64.
        ids: N unique sample ids.
    """
    names = Names.of(ids)
    chosen = [
        rows[ranked(names[rows], seed=seed, purpose="subset")[:max_per_class]]
        for rows in rows_by_class(labels)
    ]
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)


def drawn(rows: NDArray[np.int64], labels: NDArray[np.int64], *, max_rows: int | None) -> NDArray[np.int64]:
    """At most so many of some rows, always the same ones: of every class its share, and one at least.

    Args:
        rows: (n,) int64 indices into the labels, ascending.
        labels: (N,) int64.
        max_rows: of them, a few more where classes are rare; None for all.

    Returns:
        Those drawn, ascending.
    """
    if max_rows is None or len(rows) <= max_rows:
        return rows
    shuffled = np.random.default_rng(_DRAW_SEED).permutation(rows)
    chosen = [
        shuffled[of_class[: max(1, len(of_class) * max_rows // len(rows))]]
        for of_class in rows_by_class(labels[shuffled])
    ]
    return np.sort(np.concatenate(chosen))


def check_classes(labels: NDArray[np.int64], *, class_names: list[str], split: str) -> None:
    """Raise DataError unless there are two classes at least, and images of every one.

    Args:
        labels: (N,) int64 in 0 to C - 1.
        class_names: C names.
        split: train, val or test, for the message.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    missing = [name for name, count in zip(class_names, counts, strict=True) if not count]
    if not len(labels):
        what = f"there are no {split} images"
    elif missing:
        what = f"no {split} images of {', '.join(missing)}"
    elif len(class_names) < 2:
        what = f"{class_names[0]} is the only class, and there is nothing to tell it from"
    else:
        return
    raise DataError(
        what, where=f"split {split}", fix=f"give every class {split} images, and at least two classes"
    )


def write_splits(path: Path, ids: Sequence[str], rows: TrainVal, *, attributes: dict[str, Attribute]) -> None:
    """Write which of the N train ids are val; `attributes` hold the dataset digest."""
    is_val = np.zeros(len(ids), dtype=np.uint8)
    is_val[rows.val] = 1
    arrays = {"ids": container.encode_strings(ids), "is_val": is_val}
    container.write(path, kind="splits", arrays=arrays, attributes=attributes)


def read_splits(path: Path, ids: Sequence[str], *, dataset_digest: str) -> TrainVal:
    """Read the split and join it by id.

    Args:
        ids: the N sample ids of the rows to be split, in their order.
        dataset_digest: of the dataset that those rows are from.

    Raises:
        DataError: the split is of another dataset, or some id is in one of the two only.
    """
    with container.reading(path, kind="splits", what="a split") as file:
        stored, flags = Names.read(file.arrays["ids"]), file.arrays["is_val"]
        if flags.shape != (len(stored),) or flags.dtype != np.uint8 or flags.max(initial=0) > 1:
            raise DataError(f"is_val is {flags.dtype} {flags.shape} for {len(stored)} images")
        check_ids(stored)
    stored_digest = file.attributes.get("dataset_digest")
    if stored_digest != dataset_digest:
        raise DataError(
            "the split is of another dataset than the embeddings: dataset_digest is "
            f"{stored_digest!r} for the split and {dataset_digest!r} for the embeddings",
            where=str(path),
            fix="run `dvc repro`",
        )
    rows = positions(ids, stored)
    if len(ids) != len(stored) or (rows < 0).any():
        one_sided = sorted([*Names.of(ids)[rows < 0], *stored[positions(stored, ids) < 0]])
        raise DataError(
            "the split is of another dataset than the embeddings: "
            f"only one of them has {one_sided[0]!r}; {len(one_sided)} such ids",
            where=str(path),
            fix="run `dvc repro`",
        )
    val = flags[rows].astype(bool)
    return TrainVal(np.flatnonzero(~val), np.flatnonzero(val))
