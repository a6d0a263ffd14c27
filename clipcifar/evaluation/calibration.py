"""Does a confidence of 80 % mean right in 80 % of cases? Guo et al. 2017, https://arxiv.org/abs/1706.04599.

NumPy alone. A temperature divides the logits before the softmax: it changes confidences and never
which class is predicted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError

BINS = 15  # as in Guo et al.
_SMALLEST, _LARGEST = 1e-3, 1e3  # the range that is searched
_HALVINGS = 40  # of the range on a log scale: far below the five digits that are written


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability diagram: mean confidence and accuracy of its n images, n > 0."""

    confidence: float
    accuracy: float
    n: int


def log_softmax(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Row-wise log probabilities, (N, C) float64, safe for large scores."""
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _bin_index(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.minimum((confidence * BINS).astype(np.int64), BINS - 1)


def expected_calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    """Mean gap between confidence and accuracy over equal-width bins, weighted by bin size.

    Args:
        confidence: (N,) highest predicted probability, in (0, 1].
        correct: (N,) whether the prediction was right.
    """
    gaps = np.bincount(_bin_index(confidence), weights=confidence - correct, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def reliability(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> list[Bin]:
    """The bins of a reliability diagram that hold any image, lowest confidence first.

    Args:
        scores: (N, C) logits.
        labels: (N,) int64.
    """
    confidence = np.exp(log_softmax(scores).max(axis=1))
    correct, index = scores.argmax(axis=1) == labels, _bin_index(confidence)
    return [
        Bin(float(confidence[inside].mean()), float(correct[inside].mean()), int(inside.sum()))
        for inside in (index == i for i in range(BINS))
        if inside.any()
    ]


def fit_temperature(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """The temperature with the lowest negative log likelihood, in [0.001, 1000].

    The labels are smoothed by 1 / (N + 1): where a method is right on all of val, the plain likelihood
    would make it infinitely sure (Platt 1999 smooths his targets for the same reason). The
    likelihood is convex in the inverse temperature b, with derivative mean(E_p[z] - E_target[z])
    where p = softmax(b z); its root is found by bisection of log b.

    Args:
        scores: (N, C) logits of images that the method did not learn from.
        labels: (N,) int64.

    Raises:
        DataError: there is no image.
    """
    return float(fit_temperatures(scores[None], labels)[0])


def fit_temperatures(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(K,) the same for each of K methods, at once; scores are (K, N, C)."""
    if not len(labels):
        raise DataError("no image to fit a temperature on", where="split val")
    centred = scores.astype(np.float64) - scores.max(axis=2, keepdims=True)
    smoothing = 1 / (len(labels) + 1)
    of_labels = centred[:, np.arange(len(labels)), labels].mean(axis=1)
    target = (1 - smoothing) * of_labels + smoothing * centred.mean(axis=(1, 2))
    low, high = (np.full(len(scores), np.log(1 / end)) for end in (_LARGEST, _SMALLEST))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        weights = np.exp(np.exp(middle)[:, None, None] * centred)
        expected = (weights * centred).sum(axis=2) / weights.sum(axis=2)
        rises = expected.mean(axis=1) > target
        low, high = np.where(rises, low, middle), np.where(rises, middle, high)
    return np.asarray(np.exp(-(low + high) / 2))
