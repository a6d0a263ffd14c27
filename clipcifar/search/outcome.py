"""What a search for prompts found, in words and rows: `data/ranking.json` and the bar plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.counts import count_of
from clipcifar.evaluation.balance import ClassSums, balanced, sign_flip_bound
from clipcifar.evaluation.calibration import fit_temperature
from clipcifar.evaluation.compare import Comparison, Paired, as_metrics, compare, from_counts
from clipcifar.evaluation.signs import LEVEL, holm, mcnemar_exact_each
from clipcifar.evaluation.verdict import verdict
from clipcifar.methods import zero_shot
from clipcifar.search.candidates import Candidate, as_set
from clipcifar.search.counting import Tally, tally
from clipcifar.search.ranking import Part, Selection
from clipcifar.store.embeddings import ImageEmbeddings

SHOWN = 30  # rows of the bar plot


@dataclass(frozen=True)
class Gains:
    """How much more accurate than the active set the chosen classifier is on each split, by what chose it."""

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
    """What a person calls the chosen classifier, where it is not the active set."""
    num_members = len(selection.members)
    if selection.kind != "ensemble":
        how = {"average": "plain", "weighted": "weighted"}[selection.kind]
        return f"the {how} average of {count_of(num_members, 'template')}"
    return f"the ensemble of {num_members} templates" if num_members > 1 else "the best single template"


def _whole(counts: Tally, row: int) -> Paired:
    """One candidate against the reference, in accuracy."""
    n, right, gained, changed, _ = counts.class_sums
    sums = ClassSums(n, right[:, row], gained[:, row], changed[:, row])
    whole = from_counts(
        counts.n,
        n_correct_a=int(sums.right.sum()),
        only_a=int(counts.only_reference[:, row].sum()),
        only_b=int(counts.only_candidate[:, row].sum()),
    )
    return replace(whole, balanced=balanced(sums, [""] * len(n)))


def candidate_rows(candidates: Sequence[Candidate], selection: Selection) -> list[dict[str, Any]]:
    """All candidates, the best on train first.

    Returns:
        Rows of template, sets, accuracy, difference from the active set (both in 0..1, on train),
        and p_holm corrected over all candidates: of accuracy exact McNemar, of balanced accuracy what
        `sign_flip_bound` says that it is at most.
    """
    singles = selection.singles
    if selection.by == "accuracy":
        alone = mcnemar_exact_each(singles.only_reference.sum(axis=0), singles.only_candidate.sum(axis=0))
    else:
        alone = sign_flip_bound(singles.class_sums).tolist()
    p_values = holm(alone)
    accuracies, differences = singles.scores(selection.by), singles.gains(selection.by)
    return [
        {
            "template": candidates[i].label,
            "sets": candidates[i].sets,
            "accuracy": float(accuracies[i]),
            "difference": float(differences[i]),
            "p_holm": p_values[i],
        }
        for i in selection.order.tolist()
    ]


def plot_rows(candidates: Sequence[Candidate], selection: Selection) -> list[dict[str, Any]]:
    """The best candidates with the interval of their difference from the active set, in points, on train."""
    singles, rows = selection.singles, []
    labels = [candidates[i].label for i in selection.order[:SHOWN].tolist()]
    for i in selection.order[:SHOWN].tolist():
        whole = _whole(singles, i)
        paired = whole.balanced if selection.by == "balanced_accuracy" and whole.balanced else whole
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
        asked: the whole of that comparison, in what the search went by.
        gains: over the active set, split by split.
        shown_on_val: whether it is shown to be better on val, which weighed it.
    """

    scores: NDArray[np.float32]
    temperature: float
    comparison: Comparison
    asked: Paired
    gains: Gains
    shown_on_val: bool

    @property
    def shown_on_test(self) -> bool:
        """Whether it is shown to be better on test."""
        return _is_better(self.asked)


def _is_better(paired: Paired) -> bool:
    return paired.p_value < LEVEL and paired.difference > 0


def judge(
    selection: Selection,
    images: ImageEmbeddings,
    train: Part,
    val_rows: NDArray[np.int64],
    *,
    reference: NDArray[np.float32],
) -> Judgement:
    """Ask test, once, about what train and val have chosen; the active set, where kept, equals itself.

    Args:
        train, val_rows: what the selection was made on, of val its rows of the official train split.
        reference: (C, D) float32 unit rows, the classifier of the active set.
    """
    by, copies = selection.by, images.train.copies
    val, val_copies = images.train.part(val_rows), None if copies is None else copies[val_rows]
    gain_on_train = float(tally(*train, selection.weights[None], reference=reference).gains(by)[0])
    test = images.test.embeddings, images.test.labels
    (val_scores, on_val), (test_scores, comparison) = (
        _asked(selection, images, part, reference=reference, copies=of_part)
        for part, of_part in ((val, val_copies), (test, images.test.copies))
    )
    asked = comparison.overall
    if selection.kind == "active":  # one classifier: there is no chance in that nothing differs
        asked = replace(asked, low=0.0, high=0.0)
    gains = Gains(gain_on_train, on_val.overall.difference, asked.difference)
    temperature = fit_temperature(val_scores, val[1])
    return Judgement(test_scores, temperature, comparison, asked, gains, _is_better(on_val.overall))


def _asked(
    selection: Selection,
    images: ImageEmbeddings,
    part: Part,
    *,
    reference: NDArray[np.float32],
    copies: NDArray[np.int64] | None,
) -> tuple[NDArray[np.float32], Comparison]:
    """The logits that the chosen classifier gives a part, and how it compares with the active set there."""
    active, chosen = (
        zero_shot.logits(part[0], weights, logit_scale=images.logit_scale)
        for weights in (reference, selection.weights)
    )
    said = active.argmax(axis=1), chosen.argmax(axis=1), part[1]
    comparison = compare(*said, class_names=images.class_names, copies=copies, by=selection.by)
    return chosen, comparison


def metrics(selection: Selection, judgement: Judgement) -> dict[str, Any]:
    """What the search adds to the metrics of the classifier that it chose."""
    asked, gains = judgement.asked, judgement.gains
    return {
        "selected": {"n_templates": len(selection.members), "n_candidates": len(selection.order)},
        "gain": gains.as_metrics(),
        "vs_active": {**as_metrics(asked), "p_value": asked.p_value},
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

    Returns:
        Of them `set` is the chosen prompts as params.yaml has them, None where the active set is kept.
    """
    gains, is_kept = judgement.gains, selection.kind == "active"
    chosen = f"the active set {active}" if is_kept else name_of(selection)
    said = verdict(judgement.comparison, name_a=active, name_b=chosen)
    members = [candidates[i] for i in selection.members]
    return {
        "active": active,
        "kind": selection.kind,
        "chosen": chosen,
        "by": selection.by,
        "verdict": f"The search keeps {chosen}: val prefers no other prompts." if is_kept else said,
        "shown": {"val": judgement.shown_on_val, "test": judgement.shown_on_test},
        "n": {"train": selection.singles.n, "test": judgement.comparison.overall.n},
        "gain": gains.as_metrics(),
        "val_accuracy": selection.val_accuracy,
        "ensemble": [
            {"template": candidates[i].label, "train_accuracy": accuracy}
            for i, accuracy in zip(selection.ensemble, selection.train_accuracy, strict=True)
        ],
        "set": None
        if is_kept
        else as_set(members, class_names=class_names, dataset=dataset, weights=selection.member_weights),
        "best": plot_rows(candidates, selection),
        "candidates": candidate_rows(candidates, selection),
    }
