"""The embedded images of a dataset in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.names import Names

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Images:
    """Images of the dataset, the official train images first.

    Attributes:
        embeddings: (N, D) float32 unit rows.
        labels: (N,) int64 indices into `class_names`.
        ids: N sample ids; of photographs, their paths in the dataset's folder.
        split: (N,) of "train", "val" and "test".
        class_names: C names in label order.
    """

    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]
    ids: Sequence[str] = field(repr=False)  # a notebook would show all of them
    split: NDArray[np.str_]
    class_names: list[str]

    def of(self, split: str) -> Images:
        """Those of one split."""
        rows = np.flatnonzero(self.split == split)
        ids = Names.of(self.ids)[rows]
        return Images(self.embeddings[rows], self.labels[rows], ids, self.split[rows], self.class_names)


def images_of(embedded: ImageEmbeddings, val: NDArray[np.int64], split: str | None = None) -> Images:
    """The images of a file, of one split or all; `val` are rows of its official train images."""
    train, test = embedded.train, embedded.test
    splits = np.array(["train"] * len(train.ids) + ["test"] * len(test.ids), dtype="<U5")
    splits[val] = "val"
    images = Images(
        np.concatenate([train.embeddings, test.embeddings]),
        np.concatenate([train.labels, test.labels]),
        Names.of(train.ids) + test.ids,
        splits,
        embedded.class_names,
    )
    return images if split is None else images.of(split)
