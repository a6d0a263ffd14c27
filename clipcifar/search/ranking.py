"""Choose prompts without fooling oneself.

Every candidate is scored on train images. A greedy ensemble is grown on the same images, and their
templates are weighted by them without a label. Val, which neither has seen, weighs both against the plain
average of all templates and against the active set, which is kept unless another is better there. Test is
no argument of anything here: it is asked once, about the one classifier that was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clipcifar.evaluation.balance import Measure
from clipcifar.methods import prompt_weighting
from clipcifar.search.counting import Tally, hits_of, scores_of, tally
from clipcifar.store.rows import Embeddings

SHORTLIST = 20  # best single candidates that an ensemble is made of
MAX_MEMBERS = 8
WEIGHT_DECIMALS = 4  # of weights that are 1 on average: what params.yaml is to hold is what is tested
Kind = Literal["active", "average", "weighted", "ensemble"]  # of equals on val the first is chosen
Part = tuple[Embeddings, NDArray[np.int64]]  # (N, D) embeddings and (N,) labels


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
        averaged: the candidates in the averages, plain and weighted.
        template_weights: of each of those in the weighted average, 1 on average; 0 leaves it out.
        train_accuracy: of the ensemble as each member joined.
        val_accuracy: by kind; "active" is the reference.
        kind: which of them val preferred.
        weights: (C, D) float32 unit rows, the chosen classifier.
    """

    by: Measure
    singles: Tally
    order: NDArray[np.int64]
    ensemble: list[int]
    averaged: list[int]
    template_weights: list[float]
    train_accuracy: list[float]
    val_accuracy: dict[Kind, float]
    kind: Kind
    weights: NDArray[np.float32]

    @property
    def members(self) -> list[int]:
        """The candidates that the chosen classifier is made of; none where the active set is kept."""
        if self.kind == "weighted":
            return [i for i, weight in zip(self.averaged, self.template_weights, strict=True) if weight]
        return {"active": [], "average": self.averaged, "ensemble": self.ensemble}[self.kind]

    @property
    def member_weights(self) -> list[float] | None:
        """Of each member; None where all count alike."""
        return [weight for weight in self.template_weights if weight] if self.kind == "weighted" else None


def normalised(sums: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows along the last axis scaled to unit length."""
    return np.asarray(sums / np.linalg.norm(sums, axis=-1, keepdims=True), dtype=np.float32)


def greedy_ensemble(
    embeddings: Embeddings,
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
    counts, left = np.bincount(labels, minlength=sums.shape[1]), list(shortlist)
    while left and len(members) < MAX_MEMBERS:
        hits = hits_of(embeddings, labels, normalised(total + sums[left]))
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
    logit_scale: float,
    averaged: Sequence[int] | None = None,
    template_weights: NDArray[np.float64] | None = None,
    clashes: Mapping[int, set[int]] | None = None,
    by: Measure = "accuracy",
) -> Selection:
    """Rank all candidates, grow an ensemble, weight the templates, and let val choose.

    Args:
        train, val: (N, D) float32 unit rows and (N,) int64 labels of each.
        sums: (T, C, D) float32, each candidate's sum of sentence embeddings by class.
        reference: (C, D) float32 unit rows, the classifier of the active set.
        logit_scale: the model's.
        averaged: the candidates in the averages, plain and weighted; None for all.
        template_weights: theirs, where `weighted_by` has given them before.
        clashes: for a candidate, those that may not be in an ensemble with it.
        by: what they are ranked, grown and weighed by.
    """
    averaged = list(range(len(sums))) if averaged is None else list(averaged)
    singles = tally(*train, normalised(sums), reference=reference)
    order = np.argsort(-singles.scores(by), kind="stable")
    members, accuracies = greedy_ensemble(*train, sums, order[:SHORTLIST].tolist(), clashes=clashes, by=by)
    if template_weights is None:
        template_weights = weighted_by(train[0], sums[averaged], logit_scale=logit_scale)
    classifiers: dict[Kind, NDArray[np.float32]] = {
        "active": reference,
        "average": normalised(sums[averaged].sum(axis=0)),
        "weighted": prompt_weighting.weighted(sums[averaged], template_weights),
        "ensemble": normalised(sums[members].sum(axis=0)),
    }
    on_val = tally(*val, np.stack(list(classifiers.values())), reference=reference)
    val_accuracy = dict(zip(classifiers, on_val.scores(by).tolist(), strict=True))
    kind = max(val_accuracy, key=lambda name: round(val_accuracy[name], 12))  # means of shares may round
    return Selection(
        by=by,
        singles=singles,
        order=order,
        ensemble=members,
        averaged=averaged,
        template_weights=template_weights.tolist(),
        train_accuracy=accuracies,
        val_accuracy=val_accuracy,
        kind=kind,
        weights=classifiers[kind],
    )


def weighted_by(images: Embeddings, sums: NDArray[np.float32], *, logit_scale: float) -> NDArray[np.float64]:
    """Weights of candidates by images without labels, as a prompt set holds them: (T,), 1 on average.

    Args:
        images: (N, D) float32 unit rows.
        sums: (T, C, D) float32, each candidate's sum of sentence embeddings by class.
        logit_scale: the model's.
    """
    shares = prompt_weighting.weights(images, normalised(sums), logit_scale=logit_scale)
    return np.round(len(shares) * shares, WEIGHT_DECIMALS)
