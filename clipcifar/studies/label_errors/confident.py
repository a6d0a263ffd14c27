"""Labels that no method believes: a ranking, and an estimate of how many are wrong.

Confident learning: Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in
Dataset Labels", https://arxiv.org/abs/1911.00068. It asks only for probabilities that were made
without the label in question. A classifier's own confident mistakes look the same to it, so the
estimate is of labels and classifier together: an upper guess where the classifier is weak.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.counts import count_of
from clipcifar.core.errors import DataError
from clipcifar.evaluation.calibration import log_softmax

_TOLERANCE = 1e-6  # cleanlab's, of a comparison of probabilities


@dataclass(frozen=True)
class Dispute:
    """An image whose label every method disputes.

    Attributes:
        row: of the image.
        given, suggested: its label, and the class with the highest mean probability besides.
        agreeing: methods that predict the suggested class.
        p_given, p_suggested: mean probabilities over the methods, in [0, 1].
        confident: whether the confident joint counts it as another class.
    """

    row: int
    given: int
    suggested: int
    agreeing: int
    p_given: float
    p_suggested: float
    confident: bool

    @property
    def score(self) -> float:
        """How much less likely the given label is, in [-1, 1]: what the list is ranked by."""
        return self.p_suggested - self.p_given


def probabilities(
    scores: Mapping[str, NDArray[np.float32]], temperatures: Mapping[str, float]
) -> dict[str, NDArray[np.float64]]:
    """(N, C) probabilities by method, from logits divided by the temperature that val chose."""
    return {
        name: np.exp(log_softmax(logits / np.float32(temperatures[name]))) for name, logits in scores.items()
    }


def confident_class(mean: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The class that each image confidently belongs to, -1 where it is none (equations 1 and 2 there).

    An image belongs to a class whose probability reaches the mean probability of that class among
    the images labelled so; of several, to the most probable.

    Args:
        mean: (N, C) float64 probabilities made without the labels of their rows.
        labels: (N,) int64; every class must occur.

    Raises:
        DataError: a class has no image.
    """
    reaching = np.where(mean >= _thresholds(mean, labels), mean, -1.0)
    return np.where(reaching.max(axis=1) >= 0, reaching.argmax(axis=1), -1)


def _thresholds(mean: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(C,) mean probability of each class among the images labelled so; DataError where a class has none."""
    counts = np.bincount(labels, minlength=mean.shape[1])
    if not counts.all():
        raise DataError(
            f"{count_of(int((counts == 0).sum()), 'class has', 'classes have')} no image",
            fix="give every class images",
        )
    own = mean[np.arange(len(labels)), labels]
    return np.asarray(np.bincount(labels, own, minlength=mean.shape[1]) / counts)


def label_issues(mean: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The (N,) images that cleanlab 2.9 counts in `num_label_issues`, by its default "off_diagonal".

    Those that are confidently of another class, and more probably of another class than of their own.
    Where several classes reach their thresholds it takes the most probable of all classes, of the paper's
    equation 1 the most probable of those; and it compares with a tolerance.

    Args:
        mean: (N, C) float64 probabilities made without the labels of their rows.
        labels: (N,) int64; every class must occur.

    Raises:
        DataError: a class has no image.
    """
    reached = mean >= np.maximum(_thresholds(mean, labels), 2 * _TOLERANCE) - _TOLERANCE
    confident = np.where(reached.sum(axis=1) > 1, mean.argmax(axis=1), reached.argmax(axis=1))
    favoured = mean.copy()
    favoured[np.arange(len(labels)), labels] += _TOLERANCE  # a tie goes to the label
    issues = reached.any(axis=1) & (confident != labels) & (favoured.argmax(axis=1) != labels)
    return np.asarray(issues)


def confident_joint(
    confident: NDArray[np.int64], labels: NDArray[np.int64], *, num_classes: int
) -> NDArray[np.float64]:
    """Estimated images by given label and true class, (C, C) float64, rows summing to the labels' counts.

    The counts of confident images, each row scaled to all images of its label (equation 3 there). A
    label without any confident image is taken as right.
    """
    known = confident >= 0
    counted = np.zeros((num_classes, num_classes))
    np.add.at(counted, (labels[known], confident[known]), 1)
    empty = counted.sum(axis=1) == 0
    counted[empty, empty] = 1
    return np.asarray(counted * (np.bincount(labels, minlength=num_classes) / counted.sum(axis=1))[:, None])


def disputes(probabilities: Mapping[str, NDArray[np.float64]], labels: NDArray[np.int64]) -> list[Dispute]:
    """The images whose label every method disputes, the least believed label first.

    Args:
        probabilities: by method, (N, C) float64, made without the labels of their rows.
        labels: (N,) int64.
    """
    said = np.stack([of_method.argmax(axis=1) for of_method in probabilities.values()])
    mean = np.mean(list(probabilities.values()), axis=0)
    rows = np.flatnonzero((said != labels).all(axis=0))
    others = mean[rows].copy()
    others[np.arange(len(rows)), labels[rows]] = -1
    suggested, confident = others.argmax(axis=1), confident_class(mean, labels)
    disputed = [
        Dispute(
            row=int(row),
            given=int(labels[row]),
            suggested=int(other),
            agreeing=int((said[:, row] == other).sum()),
            p_given=float(mean[row, labels[row]]),
            p_suggested=float(mean[row, other]),
            confident=bool(confident[row] >= 0 and confident[row] != labels[row]),
        )
        for row, other in zip(rows, suggested, strict=True)
    ]
    return sorted(disputed, key=lambda item: -item.score)  # stable: rows in order where scores are equal


def plant(
    labels: NDArray[np.int64], *, share: float, num_classes: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels of which a share, at least one, is flipped to another class, each equally likely.

    Returns:
        (N,) int64 labels, and the rows that were flipped, ascending.
    """
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(labels), max(1, round(share * len(labels))), replace=False))
    flipped = labels.copy()
    flipped[rows] = (labels[rows] + rng.integers(1, num_classes, len(rows))) % num_classes
    return flipped, rows
