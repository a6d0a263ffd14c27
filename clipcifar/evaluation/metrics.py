"""Numbers in, numbers out: what the scores of a classifier amount to. NumPy alone.

Metrics are nested dicts of floats and counts, without lists or NaN. Every method has the same keys, and no
key holds the name of a prompt set, so that a diff lines up.

Ties: the predicted class is the first of the highest scores, as `numpy.argmax` picks it, and so are the five
of top-5: scores that tell nothing gain nothing by it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.evaluation.calibration import expected_calibration_error, log_softmax

# DVC shows five digits; more would be float noise in a diff. Of these tables show four, rounded again: one
# number in twenty ends in a digit too high or low, by a hundredth of a point. `n_correct` / `n` is exact.
DECIMALS = 5
FEW_CLASSES = 10  # up to here five guesses are half of them, and top-5 tells next to nothing
Z95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution


def wilson_interval(n_correct: int, n: int) -> tuple[float, float]:
    """95 % confidence interval of a proportion (Wilson 1927), inside [0, 1] even at the ends.

    >>> tuple(round(bound, 4) for bound in wilson_interval(9, 10))
    (0.5958, 0.9821)
    """
    if not 0 <= n_correct <= n or n == 0:
        raise ValueError(f"expected 0 <= n_correct <= n and n > 0, got {n_correct} of {n}")
    share, spread = n_correct / n, Z95**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def accuracy(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Top-1 accuracy of (N, C) scores against (N,) labels, in [0, 1]."""
    return float((scores.argmax(axis=1) == labels).mean())


def top5_accuracy(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """How often the true class is among the five that a stable sort of (N, C) scores puts first, in [0, 1].

    >>> scores = np.array([[5, 4, 3, 2, 1, 1]], dtype=np.float32)
    >>> top5_accuracy(scores, np.array([4])), top5_accuracy(scores, np.array([5]))
    (1.0, 0.0)
    """
    own = scores[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    before = (scores > own) | ((scores == own) & earlier)
    return float((before.sum(axis=1) < 5).mean())


def likelihood(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """How far the confidences of (N, C) logits can be believed: `ece`, and `nll` in nats per image."""
    log_probabilities = log_softmax(scores)
    return {
        "ece": expected_calibration_error(
            np.exp(log_probabilities.max(axis=1)), scores.argmax(axis=1) == labels
        ),
        "nll": float(-log_probabilities[np.arange(len(labels)), labels].mean()),
    }


def calibrated(
    scores: NDArray[np.float32], labels: NDArray[np.int64], *, temperature: float
) -> dict[str, float]:
    """The same after the logits are divided by a temperature that val chose, and that temperature."""
    return {**likelihood(scores / np.float32(temperature), labels), "temperature": temperature}


def metric_keys(class_names: list[str]) -> list[str]:
    """Class names as metric keys: a dot would look like nesting to DVC.

    Raises:
        DataError: two names become the same key.
    """
    keys = [name.replace(".", "_") for name in class_names]
    if len(set(keys)) != len(keys):
        raise DataError("two class names differ only in dots and underscores", fix="rename one of them")
    return keys


def summarise(
    scores: NDArray[np.float32], labels: NDArray[np.int64], *, class_names: list[str]
) -> dict[str, Any]:
    """The metrics of one classifier on one split, the same keys for every method.

    Args:
        scores: (N, C) float32 logits, higher is more likely.
        labels: (N,) int64.
        class_names: C names in label order.

    Returns:
        accuracy, accuracy_ci95.low/high (Wilson), balanced_accuracy, n, n_correct, ece, nll (nats
        per image), top5_accuracy (of more than `FEW_CLASSES`), per_class.<name> (recall; a class without
        images is left out).

    Raises:
        DataError: the shapes do not fit, a label is of no class, or a score is not finite.
    """
    if scores.shape != (len(labels), len(class_names)) or not len(labels):
        raise DataError(f"scores {scores.shape} for {len(labels)} labels of {len(class_names)} classes")
    if not np.isfinite(scores).all():
        raise DataError("a score is not finite")
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise DataError(f"the labels {labels.min()} to {labels.max()} are not of {len(class_names)} classes")
    correct = scores.argmax(axis=1) == labels
    low, high = wilson_interval(int(correct.sum()), len(labels))
    counts = np.bincount(labels, minlength=len(class_names))
    recalls = {
        key: float(correct[labels == label].mean())
        for label, key in enumerate(metric_keys(class_names))
        if counts[label]
    }
    return {
        "accuracy": float(correct.mean()),
        "accuracy_ci95": {"low": low, "high": high},
        "balanced_accuracy": float(np.mean(list(recalls.values()))),
        **likelihood(scores, labels),
        "n": len(labels),
        "n_correct": int(correct.sum()),
        **({"top5_accuracy": top5_accuracy(scores, labels)} if len(class_names) > FEW_CLASSES else {}),
        "per_class": recalls,
    }


def class_rows(
    scores: NDArray[np.float32], labels: NDArray[np.int64], *, class_names: list[str]
) -> list[dict[str, Any]]:
    """One row per class that has images: accuracy within it, its Wilson interval, and the counts.

    Args:
        scores: (N, C) float32 logits.
        labels: (N,) int64.
        class_names: C names in label order.

    Returns:
        Rows of class, accuracy, low, high, n, n_correct, n_predicted (images taken for the class).
    """
    predicted = scores.argmax(axis=1)
    rows = []
    for label, name in enumerate(class_names):
        n, n_correct = int((labels == label).sum()), int(((labels == label) & (predicted == label)).sum())
        if n:
            low, high = wilson_interval(n_correct, n)
            counts = {"n": n, "n_correct": n_correct, "n_predicted": int((predicted == label).sum())}
            rows.append({"class": name, "accuracy": n_correct / n, "low": low, "high": high, **counts})
    return rows


def rounded(metrics: dict[str, Any]) -> dict[str, Any]:
    """The same nested metrics with floats rounded to `DECIMALS`, ready to be written."""
    return {
        key: rounded(value)
        if isinstance(value, dict)
        else round(value, DECIMALS) + 0.0  # never -0.0
        if isinstance(value, float)
        else value
        for key, value in metrics.items()
    }
