"""What `label_errors` finds in a run, as numbers and rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core import files
from clipcifar.evaluation import metrics as numbers, plots
from clipcifar.store.embeddings import Split
from clipcifar.studies.label_errors.confident import Dispute, confident_class, confident_joint, disputes


@dataclass(frozen=True)
class SplitFindings:
    """One split.

    Attributes:
        ids: N sample ids.
        labels: (N,) int64.
        methods: that were asked.
        disputes: the images whose label all of them dispute, ranked.
        joint: (C, C) float64, estimated images by given label and true class.
    """

    ids: list[str]
    labels: NDArray[np.int64]
    methods: list[str]
    disputes: list[Dispute]
    joint: NDArray[np.float64]

    @property
    def estimated(self) -> float:
        """Estimated images with a wrong label."""
        return float(self.joint.sum() - self.joint.trace())


@dataclass(frozen=True)
class Planted:
    """How the method does on labels that were flipped on purpose.

    Attributes:
        n: of them.
        disputed: those that all methods dispute.
        first: those among the first n of the ranking.
    """

    n: int
    disputed: int
    first: int


def of_split(
    probabilities: Mapping[str, NDArray[np.float64]], split: Split, *, num_classes: int
) -> SplitFindings:
    """Rank a split's labels and estimate how many are wrong.

    Args:
        probabilities: by method, (N, C) float64, made without the labels of their rows.
        split: N images.
    """
    mean = np.mean(list(probabilities.values()), axis=0)
    confident = confident_class(mean, split.labels)
    return SplitFindings(
        ids=split.ids,
        labels=split.labels,
        methods=list(probabilities),
        disputes=disputes(probabilities, split.labels),
        joint=confident_joint(confident, split.labels, num_classes=num_classes),
    )


def of_planted(ranked: Sequence[Dispute], flipped: NDArray[np.int64]) -> Planted:
    """How many of the (P,) int64 rows that were flipped are in a ranking, and among its first P."""
    rows = set(flipped.tolist())
    hits = [item.row in rows for item in ranked]
    return Planted(n=len(rows), disputed=sum(hits), first=sum(hits[: len(rows)]))


def metrics(found: Mapping[str, SplitFindings], planted: Planted, *, n_not_converged: int) -> dict[str, Any]:
    """By split the counts and shares, what became of the planted errors, and fits that did not converge."""
    of_splits = {
        name: {
            "n": len(split.labels),
            "n_methods": len(split.methods),
            "n_disputed": len(split.disputes),
            "disputed": len(split.disputes) / len(split.labels),
            "n_confident": sum(item.confident for item in split.disputes),
            "n_estimated": round(split.estimated),
            "estimated": split.estimated / len(split.labels),
        }
        for name, split in found.items()
    }
    return {
        **of_splits,
        "planted": {
            "n": planted.n,
            "disputed": planted.disputed / planted.n,
            "first": planted.first / planted.n,
        },
        "n_not_converged": n_not_converged,
    }


def rows(found: Mapping[str, SplitFindings], *, class_names: list[str]) -> list[dict[str, Any]]:
    """The ranking of every split, one row per disputed label."""
    return [
        {
            "split": name,
            "rank": rank,
            "id": split.ids[item.row],
            "given": class_names[item.given],
            "suggested": class_names[item.suggested],
            "agreeing": item.agreeing,
            "methods": len(split.methods),
            "p_given": item.p_given,
            "p_suggested": item.p_suggested,
            "score": item.score,
            "confident": int(item.confident),
        }
        for name, split in found.items()
        for rank, item in enumerate(split.disputes, start=1)
    ]


def class_rows(found: Mapping[str, SplitFindings], *, class_names: list[str]) -> list[dict[str, Any]]:
    """By split and class: images so labelled, disputed, estimated as wrong, and what is suggested most."""
    result = []
    for name, split in found.items():
        for label, class_name in enumerate(class_names):
            suggested = [item.suggested for item in split.disputes if item.given == label]
            most = int(np.bincount(suggested).argmax()) if suggested else label
            result.append(
                {
                    "split": name,
                    "class": class_name,
                    "n": int((split.labels == label).sum()),
                    "disputed": len(suggested),
                    "estimated": float(split.joint[label].sum() - split.joint[label, label]),
                    "mostly": class_names[most] if suggested else "",
                }
            )
    return result


def write(
    folder: Path,
    found: Mapping[str, SplitFindings],
    planted: Planted,
    *,
    class_names: list[str],
    n_not_converged: int,
) -> None:
    """Write metrics.json, per_class.csv and, where any label is disputed, ranking.csv."""
    files.write_json(
        folder / "metrics.json", numbers.rounded(metrics(found, planted, n_not_converged=n_not_converged))
    )
    plots.write_csv(folder / "per_class.csv", class_rows(found, class_names=class_names))
    ranking = rows(found, class_names=class_names)
    if ranking:
        plots.write_csv(folder / "ranking.csv", ranking)
