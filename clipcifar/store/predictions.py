"""Predictions on disk: what one method, or every prompt set, says of every test image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.core.files import Attribute
from clipcifar.store import container
from clipcifar.store.embeddings import COPIES, ImageEmbeddings
from clipcifar.store.fields import INHERITED, check_copies, check_ids, check_index, class_names_of, copies_of
from clipcifar.store.names import Names

_OPTIONAL = ("device", "precision", "storage")
_FITTED = {"temperature"}  # on val, which a dataset may lack
SEEDS = "by_seed"
_PREFIX = "scores/"  # of a prompt set's name


@dataclass(frozen=True)
class Predictions:
    """The scores of one method on the test images.

    Attributes:
        scores: (N, C) float32 logits.
        labels: (N,) int64.
        ids: N sample ids.
        copies: as `embeddings.Split` has them.
        by_seed: (R, N) int64, the classes that each seed of a trained head predicts, the one whose scores
            these are among them; None of a method without seeds, and of a file of before they were kept.
    """

    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    ids: Sequence[str] = field(repr=False)  # a notebook would show all of them
    attributes: Mapping[str, Attribute]
    copies: NDArray[np.int64] | None = None
    by_seed: NDArray[np.int64] | None = None

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) int64, the predicted classes."""
        return np.asarray(self.scores.argmax(axis=1))


@dataclass(frozen=True)
class SetPredictions:
    """Zero-shot scores by prompt set.

    Attributes:
        scores: for each set (N, C) float32 logits.
        labels: (N,) int64.
        ids: N sample ids.
        copies: as `embeddings.Split` has them.
    """

    scores: Mapping[str, NDArray[np.float32]]
    labels: NDArray[np.int64]
    ids: Sequence[str]
    attributes: Mapping[str, Attribute]
    copies: NDArray[np.int64] | None = None

    @cached_property
    def predicted(self) -> dict[str, NDArray[np.int64]]:
        """For each set (N,) int64, the predicted classes."""
        return {name: scores.argmax(axis=1) for name, scores in self.scores.items()}


def inherited(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """The attributes that say which model, data and libraries a result belongs to."""
    versions = [key for key in attributes if key in _OPTIONAL or key.startswith("version_")]
    return {
        **{key: attributes[key] for key in (*INHERITED, "max_per_class")},
        **{key: attributes[key] for key in versions},
        "images_fingerprint": attributes["fingerprint"],
    }


def write_answers(
    path: Path,
    answers: Mapping[str, NDArray[Any]],
    images: ImageEmbeddings,
    *,
    kind: str,
    rows: NDArray[np.int64] | None = None,
    attributes: Mapping[str, Attribute] | None = None,
) -> None:
    """Write what was said of test images, beside their labels and ids and all that a result inherits.

    Args:
        answers: scores or predicted classes, by name.
        images: the embeddings that they were computed from.
        kind: of the file.
        rows: (N,) int64, the test images that were asked about; None for all.
        attributes: what else determined the answers.
    """
    labels, ids, copies = images.test.labels, images.test.ids, images.test.copies
    if rows is not None:
        labels, ids = labels[rows], Names.of(ids)[rows]
        copies = copies_of(copies[rows]) if copies is not None else None
    container.write(
        path,
        kind=kind,
        arrays={
            **answers,
            "labels": labels,
            "ids": container.encode_strings(ids),
            **({} if copies is None else {COPIES: copies}),
        },
        attributes={**inherited(images.attributes), **(attributes or {})},
    )


def write_set_predictions(
    path: Path, scores: Mapping[str, NDArray[np.float32]], images: ImageEmbeddings
) -> None:
    """Write the (N, C) scores of all sets on the N test images of `images`."""
    answers = {_PREFIX + name: array for name, array in scores.items()}
    write_answers(path, answers, images, kind="prompt set predictions")


def check_scores(scores: NDArray[np.float32], ids: Sequence[str], *, num_classes: int) -> None:
    """Raise DataError unless these are finite (N, C) float32 scores of N images with ids of their own."""
    if scores.dtype != np.float32 or scores.shape != (len(ids), num_classes) or not len(ids):
        raise DataError(
            f"expected float32 scores ({len(ids)}, {num_classes}), found {scores.dtype} {scores.shape}"
        )
    if not np.isfinite(scores).all():
        raise DataError("a score is not finite")
    check_ids(ids)


def seeds_array(by_seed: NDArray[np.int64], *, num_classes: int) -> NDArray[np.unsignedinteger]:
    """(R, N) predicted classes in the smallest type that holds every class."""
    return by_seed.astype(np.min_scalar_type(num_classes - 1))


def _as_classes(stored: NDArray[Any]) -> NDArray[np.int64]:
    if stored.dtype.kind != "u" or stored.ndim != 2:
        raise DataError(f"expected the classes that each seed predicts, found {stored.dtype} {stored.shape}")
    return stored.astype(np.int64)


def _check_seeds(by_seed: NDArray[np.int64], predicted: NDArray[np.int64], *, num_classes: int) -> None:
    """Raise DataError unless these are (R, N) classes, and what is predicted is what some seed says."""
    for said in by_seed:
        check_index(said, num_classes, len(predicted))
    if not (by_seed == predicted).all(axis=1).any():
        raise DataError("the scores are of none of the seeds")


def read_predictions(path: Path) -> Predictions:
    """Read and verify a predictions file; DataError names what is wrong with it."""
    with container.reading(path, kind="predictions", what="predictions") as file:
        predictions = Predictions(
            scores=file.arrays["scores"],
            labels=file.arrays["labels"],
            ids=Names.read(file.arrays["ids"]),
            attributes=file.attributes,
            copies=file.arrays.get(COPIES),
            by_seed=_as_classes(file.arrays[SEEDS]) if SEEDS in file.arrays else None,
        )
        container.require(
            file.attributes,
            texts=(*INHERITED, "images_fingerprint"),
            numbers=("max_per_class", *_FITTED.intersection(file.attributes)),
        )
        num_classes = len(class_names_of(file.attributes))
        check_scores(predictions.scores, predictions.ids, num_classes=num_classes)
        check_index(predictions.labels, num_classes, len(predictions.ids))
        check_copies(predictions.copies, len(predictions.ids))
        if predictions.by_seed is not None:
            _check_seeds(predictions.by_seed, predictions.predicted, num_classes=num_classes)
        if not float(file.attributes.get("temperature", 1)) > 0:
            raise DataError(f"the temperature is {file.attributes['temperature']}")
    return predictions


def read_set_predictions(path: Path) -> SetPredictions:
    """Read and verify the file; DataError names what is wrong with it."""
    with container.reading(path, kind="prompt set predictions", what="predictions of sets") as file:
        scores = {
            name.removeprefix(_PREFIX): array
            for name, array in file.arrays.items()
            if name.startswith(_PREFIX)
        }
        labels, ids = file.arrays["labels"], Names.read(file.arrays["ids"])
        copies = file.arrays.get(COPIES)
        container.require(
            file.attributes, texts=(*INHERITED, "images_fingerprint"), numbers=("max_per_class",)
        )
        num_classes = len(class_names_of(file.attributes))
        check_index(labels, num_classes, len(ids))
        check_copies(copies, len(ids))
        for array in scores.values():
            check_scores(array, ids, num_classes=num_classes)
    return SetPredictions(scores, labels, ids, file.attributes, copies)
