"""Choose prompts without fooling oneself.

Every candidate is scored on train images. A greedy ensemble is grown on the same images, and val,
which it has not seen, weighs it against the plain average of all templates. Test is no argument of
anything here: it is asked once, about the one classifier that was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clipcifar.evaluation.balance import Measure
from clipcifar.search.counting import Tally, add_by_class, blocks_of, in_order, scores_of, tally

SHORTLIST = 20  # best single candidates that an ensemble is made of
MAX_MEMBERS = 8
Part = tuple[NDArray[np.float32], NDArray[np.int64]]  # (N, D) embeddings and (N,) labels


@dataclass(frozen=True)
class SearchParams:
    """The `search` section of params.yaml."""

    by: Measure
    """What the search ranks by on train, chooses by on val, and is judged by on test."""


@dataclass(frozen=True)
class Selection:
    """What train and val chose.

    Attributes:
        by: what they chose by; all accuracies here are of this kind.
        singles: all candidates alone on train, against the reference.
        order: (T,) candidates, the best on train first.
        ensemble: members of the greedy ensemble, in the order in which they joined.
        averaged: the candidates in the plain average.
        train_accuracy: of the ensemble as each member joined.
        val_accuracy: of the ensemble, of the plain average, and of the reference.
        kind: which of the two val preferred.
        weights: (C, D) float32 unit rows, the chosen classifier.
    """

    by: Measure
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


def greedy_ensemble(
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int64],
    sums: NDArray[np.float32],
    shortlist: Sequence[int],
    *,
    clashes: Mapping[int, set[int]] | None = None,
    by: Measure = "accuracy",
) -> tuple[list[int], list[float]]:
    """Add the candidate that helps most, until none helps.

    Args:
        embeddings, labels: train, (N, D) float32 unit rows and (N,) int64.
        sums: (T, C, D) float32, sums of sentence embeddings.
        shortlist: candidates that may join; of equally good ones the first joins.
        clashes: for a candidate, those that may not join it.
        by: which accuracy is to grow.

    Returns:
        The members in the order in which they joined, and that accuracy on train with each.
    """
    members: list[int] = []
    accuracies: list[float] = []
    total = np.zeros_like(sums[0])
    embeddings, labels = in_order(embeddings, labels)
    counts, left = np.bincount(labels, minlength=sums.shape[1]), list(shortlist)
    while left and len(members) < MAX_MEMBERS:
        hits = np.zeros((len(counts), len(left)), dtype=np.int64)
        for part, rows, right in blocks_of(embeddings, labels, normalised(total + sums[left])):
            add_by_class(hits[:, part], labels[rows], right)
        scores = scores_of(hits, counts, by)
        best = int(scores.argmax())
        accuracy = float(scores[best])
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
    by: Measure = "accuracy",
) -> Selection:
    """Rank all candidates, grow an ensemble, and weigh it against the plain average.

    Args:
        train, val: (N, D) float32 unit rows and (N,) int64 labels of each.
        sums: (T, C, D) float32, each candidate's sum of sentence embeddings by class.
        reference: (C, D) float32 unit rows, the classifier of the active set.
        averaged: the candidates in the plain average; None for all.
        clashes: for a candidate, those that may not be in an ensemble with it.
        by: what they are ranked, grown and weighed by.
    """
    averaged = list(range(len(sums))) if averaged is None else list(averaged)
    singles = tally(*train, normalised(sums), reference=reference)
    order = np.argsort(-singles.scores(by), kind="stable")
    members, accuracies = greedy_ensemble(*train, sums, order[:SHORTLIST].tolist(), clashes=clashes, by=by)
    ensemble, average = (normalised(sums[chosen].sum(axis=0)) for chosen in (members, averaged))
    on_val = tally(*val, np.stack([ensemble, average, reference]), reference=reference)
    of_ensemble, of_average, of_reference = on_val.scores(by).tolist()
    kind: Literal["ensemble", "average"] = "ensemble" if of_ensemble > of_average else "average"
    return Selection(
        by=by,
        singles=singles,
        order=order,
        ensemble=members,
        averaged=averaged,
        train_accuracy=accuracies,
        val_accuracy={"ensemble": of_ensemble, "average": of_average, "active": of_reference},
        kind=kind,
        weights=ensemble if kind == "ensemble" else average,
    )
