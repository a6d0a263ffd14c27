"""What every prompt set says of every test image, so that sets can be compared image by image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.files import Attribute
from clipcifar.store import container
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.fields import INHERITED, check_index, class_names_of
from clipcifar.store.predictions import check_scores, write_answers

_PREFIX = "scores/"


@dataclass(frozen=True)
class SetPredictions:
    """Zero-shot scores by prompt set.

    Attributes:
        scores: for each set (N, C) float32 logits.
        labels: (N,) int64.
        ids: N sample ids.
    """

    scores: Mapping[str, NDArray[np.float32]]
    labels: NDArray[np.int64]
    ids: list[str]
    attributes: Mapping[str, Attribute]

    @cached_property
    def predicted(self) -> dict[str, NDArray[np.int64]]:
        """For each set (N,) int64, the predicted classes."""
        return {name: scores.argmax(axis=1) for name, scores in self.scores.items()}


def write(path: Path, scores: Mapping[str, NDArray[np.float32]], images: ImageEmbeddings) -> None:
    """Write the (N, C) scores of all sets on the N test images of `images`."""
    answers = {_PREFIX + name: array for name, array in scores.items()}
    write_answers(path, answers, images, kind="prompt set predictions")


def read(path: Path) -> SetPredictions:
    """Read and verify the file; DataError names what is wrong with it."""
    with container.reading(path, kind="prompt set predictions", what="predictions of sets") as file:
        scores = {
            name.removeprefix(_PREFIX): array
            for name, array in file.arrays.items()
            if name.startswith(_PREFIX)
        }
        labels, ids = file.arrays["labels"], container.decode_strings(file.arrays["ids"])
        container.require(
            file.attributes, texts=(*INHERITED, "images_fingerprint"), numbers=("max_per_class",)
        )
        num_classes = len(class_names_of(file.attributes))
        check_index(labels, num_classes, len(ids))
        for array in scores.values():
            check_scores(array, ids, num_classes=num_classes)
    return SetPredictions(scores, labels, ids, file.attributes)
