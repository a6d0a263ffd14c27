"""What `label_errors` finds in a run, as numbers and rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core import files
from clipcifar.core.counts import count_of
from clipcifar.datasets.twins import Twins
from clipcifar.evaluation import plots
from clipcifar.evaluation.metrics import rounded
from clipcifar.store.embeddings import ImageEmbeddings, Split
from clipcifar.studies.label_errors import certain
from clipcifar.studies.label_errors.confident import (
    Dispute,
    confident_class,
    confident_joint,
    disputes,
    label_issues,
)

Probabilities = Mapping[str, NDArray[np.float64]]  # by method, (N, C)
COUNTS = (
    "The two counts differ: the confident joint carries the shares among the confident images of a label "
    "over to all images of that label; cleanlab's counts single images that are confidently of another "
    "class, and more probably of another than of their own."
)
CAUTION = (
    "A disputed label is a reason to look, not an error: a weak model disputes what it cannot see, and its "
    "own confident mistakes count in the estimate as wrong labels do."
)


@dataclass(frozen=True)
class SplitFindings:
    """One split.

    Attributes:
        ids: N sample ids.
        labels: (N,) int64.
        methods: that were asked.
        disputes: the images whose label all of them dispute, ranked.
        joint: (C, C) float64, estimated images by given label and true class.
        issues: (N,) bool, the images that cleanlab's `num_label_issues` counts.
    """

    ids: Sequence[str]
    labels: NDArray[np.int64]
    methods: list[str]
    disputes: list[Dispute]
    joint: NDArray[np.float64]
    issues: NDArray[np.bool_]

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


@dataclass(frozen=True)
class Findings:
    """Both splits by name, the planted errors, copies of images, and fits that did not converge."""

    splits: Mapping[str, SplitFindings]
    planted: Planted
    copies: Twins
    n_not_converged: int


def measure(
    of_train: Probabilities,
    of_test: Probabilities,
    images: ImageEmbeddings,
    *,
    planted: Planted,
    copies: Twins,
    n_not_converged: int,
) -> Findings:
    """Rank the labels of both splits and estimate how many are wrong.

    Args:
        of_train, of_test: by method, (N, C) float64, made without the labels of their rows.
        planted: of labels that were flipped on purpose.
        copies: images that are there more than once.
        n_not_converged: fits that did not.
    """
    num_classes = len(images.class_names)
    splits = {
        "train": of_split(of_train, images.train, num_classes=num_classes),
        "test": of_split(of_test, images.test, num_classes=num_classes),
    }
    return Findings(splits, planted, copies, n_not_converged)


def of_split(probabilities: Probabilities, split: Split, *, num_classes: int) -> SplitFindings:
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
        issues=label_issues(mean, split.labels),
    )


def of_planted(ranked: Sequence[Dispute], flipped: NDArray[np.int64]) -> Planted:
    """How many of the (P,) int64 rows that were flipped are in a ranking, and among its first P."""
    rows = set(flipped.tolist())
    hits = [item.row in rows for item in ranked]
    return Planted(n=len(rows), disputed=sum(hits), first=sum(hits[: len(rows)]))


def as_metrics(findings: Findings) -> dict[str, Any]:
    """Counts and shares by split, labels that contradict, the planted errors, fits that did not converge."""
    planted = findings.planted
    of_splits = {
        name: {
            "n": len(split.labels),
            "n_methods": len(split.methods),
            "n_disputed": len(split.disputes),
            "disputed": len(split.disputes) / len(split.labels),
            "n_confident": sum(item.confident for item in split.disputes),
            "n_estimated": round(split.estimated),
            "estimated": split.estimated / len(split.labels),
            "n_label_issues": int(split.issues.sum()),
            "label_issues": float(split.issues.mean()),
        }
        for name, split in findings.splits.items()
    }
    return {
        **of_splits,
        "two_classes": certain.as_metrics(findings.copies),
        "planted": {
            "n": planted.n,
            "disputed": planted.disputed / planted.n,
            "first": planted.first / planted.n,
        },
        "n_not_converged": findings.n_not_converged,
    }


def rows(splits: Mapping[str, SplitFindings], *, class_names: list[str]) -> list[dict[str, Any]]:
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
        for name, split in splits.items()
        for rank, item in enumerate(split.disputes, start=1)
    ]


def class_rows(splits: Mapping[str, SplitFindings], *, class_names: list[str]) -> list[dict[str, Any]]:
    """By split and class: images so labelled, disputed, estimated as wrong, and what is suggested most."""
    result = []
    for name, split in splits.items():
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
                    "label_issues": int(split.issues[split.labels == label].sum()),
                    "mostly": class_names[most] if suggested else "",
                }
            )
    return result


def verdicts(findings: Findings) -> list[str]:
    """What was found, a sentence each."""
    sentences, planted = [certain.sentence(findings.copies)], findings.planted
    for name, split in findings.splits.items():
        n, methods = len(split.labels), len(split.methods)
        asked = "both methods" if methods == 2 else f"all {methods} methods"
        sentences.append(
            f"{name.capitalize()}: {asked} dispute {len(split.disputes):,} of {count_of(n, 'label')} "
            f"({100 * len(split.disputes) / n:.2f} %); the confident joint puts wrong labels and "
            f"confident mistakes of the methods together at {split.estimated:,.0f} "
            f"({100 * split.estimated / n:.2f} %), and cleanlab's num_label_issues counts "
            f"{split.issues.sum():,} ({100 * split.issues.mean():.2f} %)."
        )
    sentences.append(
        f"Of {count_of(planted.n, 'train label')} flipped on purpose to a random class, all methods dispute "
        f"{planted.disputed:,} ({100 * planted.disputed / planted.n:.0f} %), and the first {planted.n:,} of "
        f"the ranking hold {planted.first:,}. Real errors are between similar classes, and harder."
    )
    return [*sentences, COUNTS, CAUTION]


def write(folder: Path, findings: Findings, *, class_names: list[str]) -> None:
    """Write metrics.json, per_class.csv and, where they have rows, ranking.csv and two_classes.csv."""
    files.write_json(folder / "metrics.json", rounded(as_metrics(findings)))
    plots.write_csv(folder / "per_class.csv", class_rows(findings.splits, class_names=class_names))
    if ranking := rows(findings.splits, class_names=class_names):
        plots.write_csv(folder / "ranking.csv", ranking)
    if contradicting := certain.rows(findings.copies, class_names=class_names):
        plots.write_csv(folder / "two_classes.csv", contradicting)
