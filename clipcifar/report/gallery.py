"""Which test images are worth a look: those that a prompt set wins or loses, and the hardest ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipcifar.evaluation.calibration import log_softmax


@dataclass(frozen=True)
class Flip:
    """One image that exactly one of two classifiers gets right.

    Attributes:
        row: of the image.
        label, said_a, said_b: the true class and what A and B say.
        sure_a, sure_b: their probabilities of what they say, in [0, 1].
    """

    row: int
    label: int
    said_a: int
    said_b: int
    sure_a: float
    sure_b: float


@dataclass(frozen=True)
class Hard:
    """One image that the methods find hard.

    Attributes:
        row: of the image.
        label: the true class.
        mistaken_for: the class that most methods say where they are wrong, or the label itself.
        num_wrong: methods that are wrong.
        probability: of the true class, the mean over the methods, in [0, 1].
    """

    row: int
    label: int
    mistaken_for: int
    num_wrong: int
    probability: float


def flips(
    scores_a: NDArray[np.float32], scores_b: NDArray[np.float32], labels: NDArray[np.int64], *, limit: int
) -> tuple[list[Flip], list[Flip]]:
    """The images that B wins from A and those that it loses, the largest change of mind first.

    Args:
        scores_a, scores_b: (N, C) logits of the same images.
        labels: (N,) int64, the true classes.
        limit: most images of either kind.
    """
    probabilities_a, probabilities_b = (np.exp(log_softmax(scores)) for scores in (scores_a, scores_b))
    said_a, said_b = scores_a.argmax(axis=1), scores_b.argmax(axis=1)
    every = np.arange(len(labels))
    change = probabilities_b[every, labels] - probabilities_a[every, labels]

    def largest(rows: NDArray[np.int64]) -> list[Flip]:
        ordered = rows[np.argsort(-np.abs(change[rows]), kind="stable")][:limit]
        return [
            Flip(
                row,
                int(labels[row]),
                int(said_a[row]),
                int(said_b[row]),
                float(probabilities_a[row].max()),
                float(probabilities_b[row].max()),
            )
            for row in ordered.tolist()
        ]

    right_a, right_b = said_a == labels, said_b == labels
    return largest(np.flatnonzero(right_b & ~right_a)), largest(np.flatnonzero(right_a & ~right_b))


def hardest(
    scores: Mapping[str, NDArray[np.float32]], labels: NDArray[np.int64], *, per_class: int, num_classes: int
) -> dict[int, list[Hard]]:
    """For each class that has images, those whose true class gets the lowest mean probability.

    Args:
        scores: by method, (N, C) logits of the same images.
        labels: (N,) int64, the true classes.
        per_class: most images of a class.
        num_classes: C.
    """
    every = np.arange(len(labels))
    probability = np.mean([np.exp(log_softmax(logits))[every, labels] for logits in scores.values()], axis=0)
    said = np.stack([logits.argmax(axis=1) for logits in scores.values()])
    hard_images: dict[int, list[Hard]] = {}
    for label in range(num_classes):
        rows = np.flatnonzero(labels == label)
        ordered = rows[np.argsort(probability[rows], kind="stable")][:per_class].tolist()
        if ordered:
            hard_images[label] = [_hard(row, label, said[:, row], float(probability[row])) for row in ordered]
    return hard_images


def _hard(row: int, label: int, said: NDArray[np.int64], probability: float) -> Hard:
    wrong = said[said != label]
    mistaken_for = int(np.bincount(wrong).argmax()) if len(wrong) else label
    return Hard(row, label, mistaken_for, len(wrong), probability)
