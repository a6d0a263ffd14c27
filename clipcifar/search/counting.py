"""What many classifiers get right, counted class by class: both kinds of accuracy follow. NumPy alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipcifar.evaluation.balance import ClassSums, Measure, mean_of_classes

_BLOCK_ROWS = 1024  # images at a time
_BLOCK_SCORES = 4_000_000  # at most so many scores at a time, 16 MB


@dataclass(frozen=True)
class Tally:
    """How T candidates and a reference do on the same N images, by class.

    Attributes:
        images: (C,) images of each class.
        hits: (C, T) images that each candidate gets right.
        only_reference: (C, T) images that the reference gets right and the candidate does not.
        only_candidate: (C, T) the other way round.
    """

    images: NDArray[np.int64]
    hits: NDArray[np.int64]
    only_reference: NDArray[np.int64]
    only_candidate: NDArray[np.int64]

    @property
    def n(self) -> int:
        """N."""
        return int(self.images.sum())

    def scores(self, by: Measure) -> NDArray[np.float64]:
        """(T,) accuracies or balanced accuracies of the candidates, in [0, 1]."""
        return scores_of(self.hits, self.images, by)

    def gains(self, by: Measure) -> NDArray[np.float64]:
        """(T,) the same minus that of the reference."""
        return scores_of(self.only_candidate - self.only_reference, self.images, by)

    @property
    def class_sums(self) -> ClassSums:
        """(C, T), the candidates against the reference."""
        gained, changed = self.only_candidate - self.only_reference, self.only_candidate + self.only_reference
        return ClassSums(self.images, self.hits - gained, gained, changed)


def scores_of(hits: NDArray[np.int64], images: NDArray[np.int64], by: Measure) -> NDArray[np.float64]:
    """(T,) accuracies of either kind from (C, T) hits among the images of each class."""
    if by == "balanced_accuracy":
        return mean_of_classes(hits, images)
    return np.asarray(hits.sum(axis=0) / images.sum())


def tally(
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int64],
    weights: NDArray[np.float32],
    *,
    reference: NDArray[np.float32],
) -> Tally:
    """Count what each of T classifiers gets right, alone and against a reference.

    One matrix product does all classifiers of a block at once. Images are taken class by class, so
    that "right" is a comparison of one row of scores with the largest of the others; of equal
    scores the first class wins, as everywhere. Beside a copy of the embeddings, which rows `by_class`
    spare, and the counts, memory depends on neither N nor T.

    Args:
        embeddings: (N, D) float32 unit rows.
        labels: (N,) int64.
        weights: (T, C, D) float32, each classifier's unit rows.
        reference: (C, D) float32 unit rows.
    """
    counts = np.zeros((3, weights.shape[1], len(weights)), dtype=np.int64)
    for part, label, block, right in blocks_of(
        images_by_class(embeddings, labels, weights.shape[1]), weights
    ):
        known = _right((reference @ block.T)[:, None], label)[0]
        counts[:, label, part] += (
            right.sum(axis=1),
            (known & ~right).sum(axis=1),
            (right & ~known).sum(axis=1),
        )
    return Tally(np.bincount(labels, minlength=weights.shape[1]), *counts)


def by_class(labels: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows in the order of their labels: in this order embeddings need no further copy here."""
    return rows[np.argsort(labels[rows], kind="stable")]


def images_by_class(
    embeddings: NDArray[np.float32], labels: NDArray[np.int64], num_classes: int
) -> list[NDArray[np.float32]]:
    """The (n, D) embeddings of each class, in label order."""
    if (labels[1:] < labels[:-1]).any():
        order = by_class(labels, np.arange(len(labels)))
        embeddings, labels = embeddings[order], labels[order]
    return np.split(embeddings, np.searchsorted(labels, range(1, num_classes)))


def blocks_of(
    images: list[NDArray[np.float32]], weights: NDArray[np.float32]
) -> Iterator[tuple[slice, int, NDArray[np.float32], NDArray[np.bool_]]]:
    """Block by block: some of the T classifiers, a class, (n, D) images of it, (T', n) who is right."""
    num_candidates, num_classes, dim = weights.shape
    step = max(1, _BLOCK_SCORES // (num_classes * _BLOCK_ROWS))
    for first in range(0, num_candidates, step):
        part = weights[first : first + step]
        flat = np.ascontiguousarray(part.transpose(1, 0, 2)).reshape(-1, dim)
        for label, own in enumerate(images):
            for start in range(0, len(own), _BLOCK_ROWS):
                block = own[start : start + _BLOCK_ROWS]
                scores = (flat @ block.T).reshape(num_classes, len(part), -1)
                yield slice(first, first + step), label, block, _right(scores, label)


def _right(scores: NDArray[np.float32], label: int) -> NDArray[np.bool_]:
    """(C, T, n) scores of images of one class -> (T, n), whether that class comes first."""
    own, right = scores[label], np.ones(scores.shape[1:], dtype=bool)
    if label:
        right &= own > scores[:label].max(axis=0)
    if label + 1 < len(scores):
        right &= own >= scores[label + 1 :].max(axis=0)
    return right
