"""Choose prompts without fooling oneself.

Every candidate is scored on train images. A greedy ensemble is grown on the same images, and val,
which it has not seen, weighs it against the plain average of all templates. Test is no argument of
anything here: it is asked once, about the one classifier that was chosen. NumPy alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SHORTLIST = 20  # best single candidates that an ensemble is made of
MAX_MEMBERS = 8
_BLOCK_ROWS = 1024  # images at a time
_BLOCK_SCORES = 4_000_000  # at most so many scores at a time, 16 MB
Part = tuple[NDArray[np.float32], NDArray[np.int64]]  # (N, D) embeddings and (N,) labels


@dataclass(frozen=True)
class Tally:
    """How T candidates and a reference do on the same N images.

    Attributes:
        n: N.
        hits: (T,) images that each candidate gets right.
        only_reference: (T,) images that the reference gets right and the candidate does not.
        only_candidate: (T,) the other way round.
    """

    n: int
    hits: NDArray[np.int64]
    only_reference: NDArray[np.int64]
    only_candidate: NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """What train and val chose.

    Attributes:
        singles: all candidates alone on train, against the reference.
        order: (T,) candidates, the best on train first.
        ensemble: members of the greedy ensemble, in the order in which they joined.
        averaged: the candidates in the plain average.
        train_accuracy: of the ensemble as each member joined.
        val_accuracy: of the ensemble, of the plain average, and of the reference.
        kind: which of the two val preferred.
        weights: (C, D) float32 unit rows, the chosen classifier.
    """

    singles: Tally
    order: NDArray[np.int64]
    ensemble: list[int]
    averaged: list[int]
    train_accuracy: list[float]
    val_accuracy: dict[str, float]
    kind: Literal["ensemble", "average"]
    weights: NDArray[np.float32]

    @property
    def members(self) -> list[int]:
        """The candidates that the chosen classifier is made of."""
        return self.ensemble if self.kind == "ensemble" else self.averaged


def normalised(sums: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows along the last axis scaled to unit length."""
    return np.asarray(sums / np.linalg.norm(sums, axis=-1, keepdims=True), dtype=np.float32)


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
    spare, memory depends on neither N nor T.

    Args:
        embeddings: (N, D) float32 unit rows.
        labels: (N,) int64.
        weights: (T, C, D) float32, each classifier's unit rows.
        reference: (C, D) float32 unit rows.
    """
    counts = np.zeros((3, len(weights)), dtype=np.int64)
    for part, label, block, right in _blocks(_classes(embeddings, labels, weights.shape[1]), weights):
        known = _right((reference @ block.T)[:, None], label)[0]
        counts[:, part] += (
            right.sum(axis=1),
            (known & ~right).sum(axis=1),
            (right & ~known).sum(axis=1),
        )
    return Tally(len(labels), *counts)


def by_class(labels: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows in the order of their labels: in this order embeddings need no further copy here."""
    return rows[np.argsort(labels[rows], kind="stable")]


def _classes(
    embeddings: NDArray[np.float32], labels: NDArray[np.int64], num_classes: int
) -> list[NDArray[np.float32]]:
    if (labels[1:] < labels[:-1]).any():
        order = by_class(labels, np.arange(len(labels)))
        embeddings, labels = embeddings[order], labels[order]
    return np.split(embeddings, np.searchsorted(labels, range(1, num_classes)))


def _blocks(
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


def greedy_ensemble(
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int64],
    sums: NDArray[np.float32],
    shortlist: Sequence[int],
    *,
    clashes: Mapping[int, set[int]] | None = None,
) -> tuple[list[int], list[float]]:
    """Add the candidate that helps most, until none helps.

    Args:
        embeddings, labels: train, (N, D) float32 unit rows and (N,) int64.
        sums: (T, C, D) float32, sums of sentence embeddings.
        shortlist: candidates that may join; of equally good ones the first joins.
        clashes: for a candidate, those that may not join it.

    Returns:
        The members in the order in which they joined, and the train accuracy with each.
    """
    members: list[int] = []
    accuracies: list[float] = []
    total = np.zeros_like(sums[0])
    images, left = _classes(embeddings, labels, sums.shape[1]), list(shortlist)
    while left and len(members) < MAX_MEMBERS:
        hits = np.zeros(len(left), dtype=np.int64)
        for part, _, _, right in _blocks(images, normalised(total + sums[left])):
            hits[part] += right.sum(axis=1)
        best = int(hits.argmax())
        accuracy = float(hits[best] / len(labels))
        if accuracies and accuracy <= accuracies[-1]:
            break
        joined = left[best]
        members.append(joined)
        accuracies.append(accuracy)
        total = total + sums[joined]
        excluded = {joined} | (clashes or {}).get(joined, set())
        left = [i for i in left if i not in excluded]
    return members, accuracies


def select(
    train: Part,
    val: Part,
    sums: NDArray[np.float32],
    *,
    reference: NDArray[np.float32],
    averaged: Sequence[int] | None = None,
    clashes: Mapping[int, set[int]] | None = None,
) -> Selection:
    """Rank all candidates, grow an ensemble, and weigh it against the plain average.

    Args:
        train, val: (N, D) float32 unit rows and (N,) int64 labels of each.
        sums: (T, C, D) float32, each candidate's sum of sentence embeddings by class.
        reference: (C, D) float32 unit rows, the classifier of the active set.
        averaged: the candidates in the plain average; None for all.
        clashes: for a candidate, those that may not be in an ensemble with it.
    """
    averaged = list(range(len(sums))) if averaged is None else list(averaged)
    singles = tally(*train, normalised(sums), reference=reference)
    order = np.argsort(-singles.hits, kind="stable")
    members, accuracies = greedy_ensemble(*train, sums, order[:SHORTLIST].tolist(), clashes=clashes)
    ensemble, average = (normalised(sums[chosen].sum(axis=0)) for chosen in (members, averaged))
    on_val = tally(*val, np.stack([ensemble, average, reference]), reference=reference)
    of_ensemble, of_average, of_reference = (on_val.hits / on_val.n).tolist()
    kind: Literal["ensemble", "average"] = "ensemble" if of_ensemble > of_average else "average"
    return Selection(
        singles=singles,
        order=order,
        ensemble=members,
        averaged=averaged,
        train_accuracy=accuracies,
        val_accuracy={"ensemble": of_ensemble, "average": of_average, "active": of_reference},
        kind=kind,
        weights=ensemble if kind == "ensemble" else average,
    )
