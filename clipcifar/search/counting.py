"""What many classifiers get right, counted class by class: both kinds of accuracy follow. NumPy alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipcifar.evaluation.balance import ClassSums, Measure, mean_of_classes
from clipcifar.store.rows import Embeddings, blocks_of

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
    embeddings: Embeddings,
    labels: NDArray[np.int64],
    weights: NDArray[np.float32],
    *,
    reference: NDArray[np.float32],
) -> Tally:
    """Count what each of T classifiers gets right, alone and against a reference.

    One matrix product does all classifiers of a block on a block of images of whatever classes, so that a
    thousand classes of a few images cost no more than ten of many. Beside a copy of the embeddings, which
    rows `by_class` spare, and the counts, memory depends on neither N nor T.

    Args:
        embeddings: (N, D) float32 unit rows.
        labels: (N,) int64.
        weights: (T, C, D) float32, each classifier's unit rows.
        reference: (C, D) float32 unit rows.
    """
    counts = np.zeros((3, weights.shape[1], len(weights)), dtype=np.int64)
    for block, images in blocks_of(embeddings):
        ordered, of_block = in_order(images, labels[block])
        known = np.concatenate([right[0] for _, _, right in rights_of(ordered, of_block, reference[None])])
        for part, rows, right in rights_of(ordered, of_block, weights):
            for count, told in zip(counts, (right, known[rows] & ~right, right & ~known[rows]), strict=True):
                add_by_class(count[:, part], of_block[rows], told)
    return Tally(np.bincount(labels, minlength=weights.shape[1]), *counts)


def hits_of(
    embeddings: Embeddings, labels: NDArray[np.int64], weights: NDArray[np.float32]
) -> NDArray[np.int64]:
    """(C, T) images of each class that each of T classifiers gets right; arguments as of `tally`."""
    hits = np.zeros((weights.shape[1], len(weights)), dtype=np.int64)
    for block, images in blocks_of(embeddings):
        ordered, of_block = in_order(images, labels[block])
        for part, rows, right in rights_of(ordered, of_block, weights):
            add_by_class(hits[:, part], of_block[rows], right)
    return hits


def by_class(labels: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows in the order of their labels: in this order embeddings need no further copy here."""
    return rows[np.argsort(labels[rows], kind="stable")]


def in_order(
    embeddings: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The same images in the order of their labels."""
    if (labels[1:] < labels[:-1]).any():
        order = by_class(labels, np.arange(len(labels)))
        embeddings, labels = embeddings[order], labels[order]
    return embeddings, labels


def rights_of(
    embeddings: NDArray[np.float32], labels: NDArray[np.int64], weights: NDArray[np.float32]
) -> Iterator[tuple[slice, slice, NDArray[np.bool_]]]:
    """Block by block: some of the T classifiers, n of the N images, (T', n) who is right."""
    num_candidates, num_classes, dim = weights.shape
    step = max(1, _BLOCK_SCORES // (num_classes * min(_BLOCK_ROWS, max(1, len(labels)))))
    for first in range(0, num_candidates, step):
        part = weights[first : first + step]
        flat = np.ascontiguousarray(part.transpose(1, 0, 2)).reshape(-1, dim)
        for start in range(0, len(labels), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            scores = (flat @ embeddings[rows].T).reshape(num_classes, len(part), -1)
            yield slice(first, first + step), rows, _right(scores, labels[rows])


def _right(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(C, T, n) scores, which are overwritten, and (n,) labels -> (T, n), whether that class comes first."""
    images = np.arange(len(labels))
    own = scores[labels, :, images].T
    scores[labels, :, images] = -np.inf
    others = scores.max(axis=0)
    right = own > others
    drawn, image = np.nonzero(own == others)  # of equal scores the first class wins
    earlier = np.arange(len(scores))[:, None] < labels[image]
    right[drawn, image] = ~((scores[:, drawn, image] == own[drawn, image]) & earlier).any(axis=0)
    return np.asarray(right)


def add_by_class(counts: NDArray[np.int64], labels: NDArray[np.int64], told: NDArray[np.bool_]) -> None:
    """Add to (C, T) counts, class by class, what is told of n images in label order: (n,) and (T, n)."""
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    counts[labels[starts]] += np.add.reduceat(told, starts, axis=1, dtype=np.int64).T
