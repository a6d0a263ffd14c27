"""Drawing a few labelled images per class, and what the methods of the few-shot study learn from.

A draw ranks the images of a class by the sha256 of seed and sample id, as every seeded choice here does:
the draw of two images per class holds that of one with the same seed. Images to learn from come from the
train part of the split, images to choose hyper-parameters by from its val part, likewise ranked.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.store.embeddings import Split
from clipcifar.store.names import Names
from clipcifar.store.splits import TrainVal, seeded_subset


class Examples(NamedTuple):
    """Labelled images with what zero-shot says of them.

    Attributes:
        embeddings: (N, D) float32 unit rows.
        zero_shot: (N, C) float32 logits.
        labels: (N,) int64.
    """

    embeddings: NDArray[np.float32]
    zero_shot: NDArray[np.float32]
    labels: NDArray[np.int64]

    def part(self, rows: NDArray[np.int64]) -> Examples:
        """Those of some rows."""
        return Examples(self.embeddings[rows], self.zero_shot[rows], self.labels[rows])


class Fold(NamedTuple):
    """Images to learn from, and others to judge by what was learnt."""

    train: Examples
    val: Examples


def check_shots(labels: NDArray[np.int64], rows: TrainVal, *, shots: int, class_names: list[str]) -> None:
    """Raise DataError when a class has fewer train images than the largest draw wants, or no val image."""
    of_train, of_val = (np.bincount(labels[part], minlength=len(class_names)) for part in rows)
    for name, n, n_val in zip(class_names, of_train, of_val, strict=True):
        if n < shots or not n_val:
            raise DataError(
                f"the class {name!r} has {n} train and {n_val} val images, a draw wants {shots} and 1",
                where="split train",
                fix=f"keep few_shot.shots at {n} or less, or add images to the class",
            )


def draw(split: Split, rows: TrainVal, *, shots: int, val_per_class: int | None, seed: int) -> TrainVal:
    """Rows of the official train split: so many images per class of train, and of val to choose by.

    Args:
        split: the official train split.
        rows: its parts; each class has as many images in train as there are shots.
        shots: images per class to learn from.
        val_per_class: images per class to choose by, fewer where there are fewer; None for all of val.
        seed: another seed gives another draw.
    """

    def chosen(part: NDArray[np.int64], per_class: int) -> NDArray[np.int64]:
        ids = Names.of(split.ids)[part]
        return part[seeded_subset(split.labels[part], ids, max_per_class=per_class, seed=seed)]

    val = rows.val if val_per_class is None else chosen(rows.val, val_per_class)
    return TrainVal(chosen(rows.train, shots), val)


def both_ways(split: Split, drawn: TrainVal, *, per_class: int, seed: int) -> list[TrainVal]:
    """The draw, and the same draw turned round: val learnt from, and as many images of train to judge by.

    So every label of the draw that can judge does, for twice as many images to choose by.

    Args:
        split: the official train split.
        drawn: a draw of it with this seed.
        per_class: images per class of train that change places with val, at most all of them.
    """
    ids = Names.of(split.ids)[drawn.train]
    turned = drawn.train[seeded_subset(split.labels[drawn.train], ids, max_per_class=per_class, seed=seed)]
    kept = np.setdiff1d(drawn.train, turned)
    return [drawn, TrainVal(np.union1d(kept, drawn.val), turned)]
