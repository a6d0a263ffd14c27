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
from clipcifar.evaluation.compare import LEVEL, RESAMPLES, Paired

_SMALLEST = 1e-12  # p below which the rounding of the transform is all that is left


def bootstrap_means(values: NDArray[np.floating], *, seed: int = 0) -> NDArray[np.float64]:
    """Means over images that are resampled with replacement.

    A mean depends on a resample only through how often each distinct row is in it; those counts
    are drawn directly, from the multinomial distribution that resampling gives them.

    Args:
        values: (N, Q), what is averaged, one row per image.
        seed: of the bootstrap.

    Returns:
        (`compare.RESAMPLES`, Q).
    """
    rows, counts = np.unique(values, axis=0, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=RESAMPLES)
    return np.asarray(draws @ rows / len(values), dtype=np.float64)


def interval(draws: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % percentile interval of resampled values."""
    low, high = np.quantile(draws, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def sign_flip_exact(differences: NDArray[np.int64]) -> float:
    """Two-sided p value of the paired randomisation test (Fisher 1935), exact.

    Where A and B are alike, every image's difference could as well have had the other sign. The
    sum T of independent +-d has the characteristic function prod cos(d t), whose inverse transform
    gives its distribution without drawing; p is the chance that abs(T) is as large as was found.
    Differences of -1, 0 and 1 make it the exact McNemar test.

    Args:
        differences: (N,) whole numbers, B minus A for each image.
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    largest = int(sizes @ counts)
    observed = abs(int(differences.sum()))
    if not observed:
        return 1.0
    length = 1 << (2 * largest + 1).bit_length()  # more than there are sums, and quick to transform
    angles = 2 * np.pi * np.arange(length // 2 + 1) / length
    transform = np.ones(len(angles))
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        transform *= np.cos(size * angles) ** count
    chances = np.fft.irfft(transform, n=length)  # of every sum from 0 to `largest`, then the negative
    return float(np.clip(2 * chances[observed : largest + 1].sum(), _SMALLEST, 1))


def paired(correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_], *, seed: int = 0) -> Paired:
    """Compare two classifiers on images that both answered R times.

    Args:
        correct_a, correct_b: (R, N) bool, the same answers about the same images.
        seed: of the bootstrap.

    Returns:
        Accuracies are means over all R N answers; `only_a` and `only_b` count the images on which
        one is right more often, and `p_value` is that of `sign_flip_exact`.

    Raises:
        DataError: the shapes differ or there is no image.
    """
    if correct_a.shape != correct_b.shape or not correct_a.size:
        raise DataError(f"cannot pair answers {correct_a.shape} with {correct_b.shape}")
    differences = correct_b.sum(axis=0, dtype=np.int64) - correct_a.sum(axis=0, dtype=np.int64)
    low, high = interval(bootstrap_means(differences[:, None] / len(correct_a), seed=seed)[:, 0])
    return Paired(
        n=correct_a.shape[1],
        accuracy_a=float(correct_a.mean()),
        accuracy_b=float(correct_b.mean()),
        difference=float(differences.mean() / len(correct_a)),
        low=low,
        high=high,
        only_a=int((differences < 0).sum()),
        only_b=int((differences > 0).sum()),
        p_value=sign_flip_exact(differences),
    )


def paired_by_class(
    correct_a: NDArray[np.bool_],
    correct_b: NDArray[np.bool_],
    labels: NDArray[np.int64],
    *,
    class_names: Sequence[str],
) -> Paired:
    """`paired`, with the difference in balanced accuracy where the N images' classes differ in size."""
    sums = class_sums(correct_a.mean(axis=0), correct_b.mean(axis=0), labels, num_classes=len(class_names))
    return replace(paired(correct_a, correct_b), balanced=balanced(sums, class_names))
