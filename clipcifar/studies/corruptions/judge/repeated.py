"""Paired statistics where the same images are seen several times: under corruptions and severities.

The answers about one image are not independent, so the image is what is resampled and tested, with
all its answers together. For one answer an image, everything here is what `compare` computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.evaluation.balance import balanced, class_sums
from clipcifar.evaluation.compare import Paired, of_groups
from clipcifar.evaluation.signs import LEVEL, RESAMPLES, sums_of_groups


def bootstrap_means(values: NDArray[np.floating], *, seed: int = 0) -> NDArray[np.float64]:
    """Means over images that are resampled with replacement.

    A mean depends on a resample only through how often each distinct row is in it; those counts
    are drawn directly, from the multinomial distribution that resampling gives them.

    Args:
        values: (N, Q), what is averaged, one row per image.
        seed: of the bootstrap.

    Returns:
        (`signs.RESAMPLES`, Q).
    """
    rows, counts = np.unique(values, axis=0, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=RESAMPLES)
    return np.asarray(draws @ rows / len(values), dtype=np.float64)


def interval(draws: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % percentile interval of resampled values."""
    low, high = np.quantile(draws, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def paired(
    correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_], copies: NDArray[np.int64] | None = None
) -> Paired:
    """Compare two classifiers on images that both answered R times.

    Args:
        correct_a, correct_b: (R, N) bool, the same answers about the same images.
        copies: (N,), equal where two images are copies; their answers are one group. None where none is one.

    Returns:
        Accuracies are means over all R N answers; `only_a` and `only_b` count the images on which one is
        right more often; the interval and the p value are those of images, each a group of answers.

    Raises:
        DataError: the shapes differ or there is no image.
    """
    if correct_a.shape != correct_b.shape or not correct_a.size:
        raise DataError(f"cannot pair answers {correct_a.shape} with {correct_b.shape}")
    gains = correct_b.sum(axis=0, dtype=np.int64) - correct_a.sum(axis=0, dtype=np.int64)
    counted = Paired(
        n=correct_a.shape[1],
        accuracy_a=float(correct_a.mean()),
        accuracy_b=float(correct_b.mean()),
        difference=float(gains.mean() / len(correct_a)),
        low=0.0,
        high=0.0,
        only_a=int((gains < 0).sum()),
        only_b=int((gains > 0).sum()),
        p_value=1.0,
    )
    groups = sums_of_groups(gains.astype(np.float64), copies)
    judged = of_groups(counted, groups, answers=len(correct_a))
    return replace(judged, n_copies=len(gains) - len(groups))


def paired_by_class(
    correct_a: NDArray[np.bool_],
    correct_b: NDArray[np.bool_],
    labels: NDArray[np.int64],
    *,
    class_names: Sequence[str],
    copies: NDArray[np.int64] | None = None,
) -> Paired:
    """`paired`, with the difference in balanced accuracy where the N images' classes differ in size."""
    a, b = correct_a.mean(axis=0), correct_b.mean(axis=0)
    sums = class_sums(a, b, labels, num_classes=len(class_names), copies=copies)
    return replace(paired(correct_a, correct_b, copies), balanced=balanced(sums, class_names))
