"""What a search for prompts found, in words and rows: `data/ranking.json` and the bar plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.evaluation.calibration import fit_temperature
from clipcifar.evaluation.compare import (
    Comparison,
    as_metrics,
    compare,
    from_counts,
    holm,
    mcnemar_exact_each,
)
from clipcifar.evaluation.verdict import verdict
from clipcifar.methods import zero_shot
from clipcifar.search.candidates import Candidate, as_set
from clipcifar.search.ranking import Part, Selection, Tally, tally
from clipcifar.store.embeddings import ImageEmbeddings

SHOWN = 30  # rows of the bar plot


@dataclass(frozen=True)
class Gains:
    """How many images more than the active set the chosen classifier gets right, as a share of each split."""

    train: float
    val: float
    test: float

    @property
    def optimism(self) -> float:
        """What was lost from train to test: luck in the choice, and chance between the two samples."""
        return self.train - self.test

    def as_metrics(self) -> dict[str, float]:
        """All of them under the keys of the metrics file."""
        return {**asdict(self), "optimism": self.optimism}


def name_of(selection: Selection) -> str:
    """What a person calls the chosen classifier."""
    num_members = len(selection.members)
    if selection.kind == "average":
        return f"the plain average of {num_members} templates"
    return f"the ensemble of {num_members} templates" if num_members > 1 else "the best single template"


def gain(counts: Tally, row: int = 0) -> float:
    """The difference of one candidate from the reference, as a share of the images."""
    return float(counts.only_candidate[row] - counts.only_reference[row]) / counts.n


def candidate_rows(candidates: Sequence[Candidate], selection: Selection) -> list[dict[str, Any]]:
    """All candidates, the best on train first.

    Returns:
        Rows of template, sets, accuracy, difference from the active set (both in 0..1, on train),
        and p_holm, exact McNemar corrected over all candidates.
    """
    singles = selection.singles
    p_values = holm(mcnemar_exact_each(singles.only_reference, singles.only_candidate))
    return [
        {
            "template": candidates[i].label,
            "sets": candidates[i].sets,
            "accuracy": float(singles.hits[i] / singles.n),
            "difference": gain(singles, i),
            "p_holm": p_values[i],
        }
        for i in selection.order.tolist()
    ]


def plot_rows(candidates: Sequence[Candidate], selection: Selection) -> list[dict[str, Any]]:
    """The best candidates with the interval of their difference from the active set, in points, on train."""
    singles, rows = selection.singles, []
    labels = [candidates[i].label for i in selection.order[:SHOWN].tolist()]
    for i in selection.order[:SHOWN].tolist():
        only_a, only_b = int(singles.only_reference[i]), int(singles.only_candidate[i])
        paired = from_counts(
            singles.n, n_correct_a=int(singles.hits[i]) - only_b + only_a, only_a=only_a, only_b=only_b
        )
        label, held_by = candidates[i].label, candidates[i].sets[0]
        rows.append(
            {
                "template": f"{label} ({held_by})" if labels.count(label) > 1 else label,
                "set": held_by,
                "accuracy": paired.accuracy_b,
                "points": 100 * paired.difference,
                "low": 100 * paired.low,
                "high": 100 * paired.high,
            }
        )
    return rows


@dataclass(frozen=True)
class Judgement:
    """The chosen classifier on test.

    Attributes:
        scores: (N, C) float32 logits of the N test images.
        temperature: fitted on val.
        comparison: with the active set, on test.
        gains: over the active set, split by split.
    """

    scores: NDArray[np.float32]
    temperature: float
    comparison: Comparison
    gains: Gains


def judge(
    selection: Selection, images: ImageEmbeddings, train: Part, val: Part, *, reference: NDArray[np.float32]
) -> Judgement:
    """Ask test, once, about what train and val have chosen.

    Args:
        train, val: what the selection was made on.
        reference: (C, D) float32 unit rows, the classifier of the active set.
    """
    on_train, on_val = (
        gain(tally(*part, selection.weights[None], reference=reference)) for part in (train, val)
    )
    val_scores, test_scores, active_scores = (
        zero_shot.logits(embeddings, weights, logit_scale=images.logit_scale)
        for embeddings, weights in (
            (val[0], selection.weights),
            (images.test.embeddings, selection.weights),
            (images.test.embeddings, reference),
        )
    )
    comparison = compare(
        active_scores.argmax(axis=1),
        test_scores.argmax(axis=1),
        images.test.labels,
        class_names=images.class_names,
    )
    gains = Gains(on_train, on_val, comparison.overall.difference)
    return Judgement(test_scores, fit_temperature(val_scores, val[1]), comparison, gains)


def metrics(selection: Selection, judgement: Judgement) -> dict[str, Any]:
    """What the search adds to the metrics of the classifier that it chose."""
    overall, gains = judgement.comparison.overall, judgement.gains
    return {
        "selected": {"n_templates": len(selection.members), "n_candidates": len(selection.order)},
        "gain": gains.as_metrics(),
        "vs_active": {**as_metrics(overall), "p_value": overall.p_value},
    }


def as_data(
    candidates: Sequence[Candidate],
    selection: Selection,
    judgement: Judgement,
    *,
    active: str,
    class_names: list[str],
    dataset: str,
) -> dict[str, Any]:
    """Everything about the search in plain dicts and lists, the chosen prompt set among it.

    Args:
        candidates: those that `selection` counts.
        active: the active set's name.
        class_names: C names in label order.
        dataset: the dataset's registry name.
    """
    chosen, gains = name_of(selection), judgement.gains
    return {
        "active": active,
        "kind": selection.kind,
        "chosen": chosen,
        "verdict": verdict(judgement.comparison, name_a=active, name_b=chosen),
        "n": {"train": selection.singles.n, "test": judgement.comparison.overall.n},
        "gain": gains.as_metrics(),
        "val_accuracy": selection.val_accuracy,
        "ensemble": [
            {"template": candidates[i].label, "train_accuracy": accuracy}
            for i, accuracy in zip(selection.ensemble, selection.train_accuracy, strict=True)
        ],
        "set": as_set([candidates[i] for i in selection.members], class_names=class_names, dataset=dataset),
        "best": plot_rows(candidates, selection),
        "candidates": candidate_rows(candidates, selection),
    }
