"""The embedded images of a project, with the split that each is in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipcifar.api.opened import IMAGES, SPLITS, Opened, check_name

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
    ids: list[str]
    split: NDArray[np.str_]
    class_names: list[str]


def images_of(opened: Opened, split: str | None) -> Images:
    """The embedded images of one split, or of all where it is None.

    Raises:
        ConfigError: there is no such split, or the embeddings are stale.
        DataError: a file is damaged.
    """
    if split is not None:
        check_name(split, PARTS, what="split")
    with opened.fresh({IMAGES: IMAGES, SPLITS: SPLITS}):
        embedded, val = opened.images(), opened.val()
    train, test = embedded.train, embedded.test
    part = np.array(["train"] * len(train.ids) + ["test"] * len(test.ids), dtype="<U5")
    part[val] = "val"
    rows = np.flatnonzero(part == split) if split else np.arange(len(part))
    ids = train.ids + test.ids
    return Images(
        np.concatenate([train.embeddings, test.embeddings])[rows],
        np.concatenate([train.labels, test.labels])[rows],
        [ids[row] for row in rows.tolist()],
        part[rows],
        embedded.class_names,
    )
