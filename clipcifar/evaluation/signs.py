"""Is a paired difference more than chance: exact tests that flip signs, and an interval to match.

Two classifiers that see the same images are compared image by image: only the images on which exactly one
of them is right ("discordant") can tell them apart. Were the two alike, either could as well have been
right there, so each image's difference could as well have had the other sign (Fisher 1935). McNemar's exact
test is that for differences of one: a binomial test of the discordant images against a fair coin.

Answers that are not independent, as those about copies of one image are, make one group, and the group's
sign is flipped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from clipcifar.evaluation.metrics import Z95

LEVEL = 0.05
RESAMPLES = 10_000  # of bootstraps, for what has no closed form
_SMALLEST = 1e-12  # p below which the rounding of the transform is all that is left


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided p value of the exact McNemar test (McNemar 1947).

    >>> round(mcnemar_exact(100, 130), 3)
    0.056
    """
    return mcnemar_exact_each(np.array([only_a]), np.array([only_b]))[0]


def mcnemar_exact_each(only_a: NDArray[np.int64], only_b: NDArray[np.int64]) -> list[float]:
    """The same for many pairs of counts at once; a fair coin's two tails are equally likely."""
    tail = bdtr(np.minimum(only_a, only_b), only_a + only_b, 0.5)  # scipy.stats takes half a second to import
    return [float(p) for p in np.clip(2 * tail, np.finfo(np.float64).tiny, 1.0)]  # never 0, however sure


def sign_flip_exact(gains: NDArray[np.int64]) -> float:
    """Two-sided p value of the paired randomisation test, exact.

    The sum T of independent +-d has the characteristic function prod cos(d t), whose inverse transform
    gives its distribution without drawing; p is the chance that abs(T) is as large as was found.
    Gains of -1, 0 and 1 make it the exact McNemar test.

    Args:
        gains: (G,) whole numbers, B minus A of each group of answers.
    """
    sizes, counts = np.unique(np.abs(gains[gains != 0]), return_counts=True)
    observed = abs(int(gains.sum()))
    if not observed:
        return 1.0
    if sizes.tolist() == [1]:
        return mcnemar_exact(int((gains < 0).sum()), int((gains > 0).sum()))
    largest = int(sizes @ counts)
    length = 1 << (2 * largest + 1).bit_length()  # more than there are sums, and quick to transform
    angles = 2 * np.pi * np.arange(length // 2 + 1) / length
    transform = np.ones(len(angles))
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        transform *= np.cos(size * angles) ** count
    chances = np.fft.irfft(transform, n=length)  # of every sum from 0 to `largest`, then the negative
    return float(np.clip(2 * chances[observed : largest + 1].sum(), _SMALLEST, 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979): adjusted p values, in the order given, each in [0, 1]."""
    adjusted = np.zeros(len(p_values))
    worst = 0.0
    for rank, i in enumerate(np.argsort(p_values, kind="stable")):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = worst
    return [float(p) for p in adjusted]


def sums_of_groups(values: NDArray[np.float64], copies: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """(N,) values to (G,) sums, one of each group of copies; None where no image has a copy.

    Args:
        copies: (N,), equal where two images are copies of a third or of each other.
    """
    if copies is None:
        return values
    _, group = np.unique(copies, return_inverse=True)
    return np.asarray(np.bincount(group, weights=values), dtype=np.float64)


def paired_interval(
    *, n: int, gained: float, squared: float, groups: int, changed: int
) -> tuple[float, float]:
    """95 % interval of a paired difference of two proportions.

    Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based
    on paired data", Journal of Educational and Behavioral Statistics 37, pages 479-488: one image is added to
    those that only A gets right and one to those that only B does, so that no discordant image is no
    certainty, and the variance is that of the adjusted shares. Where answers come in groups, what varies is a
    group: two of the mean size are added, with gains as those that differ have, or of their whole size where
    none does. By enumeration, widened as in `agreeing`, it covers 0.945 and more from a hundred images on
    where both win some, 0.937 where nearly all that differ go one way, and 0.928 at the least of twenty.

    Args:
        n: answers of either side.
        gained: what B gets right more than A.
        squared: the sum over groups of their squared gains; without groups the discordant images.
        groups: G; without groups n.
        changed: groups with a gain that is not 0; without groups the discordant images.
    """
    size = n / groups
    total, added = n + 2 * size, squared / changed if changed else size**2
    centre = gained / total
    variance = (squared + 2 * added - gained**2 / (groups + 2)) / total**2
    half = Z95 * math.sqrt(variance)
    return max(-1.0, centre - half), min(1.0, centre + half)


def interval_of_groups(gains: NDArray[np.float64], *, n: int) -> tuple[float, float]:
    """`paired_interval` of (G,) gains of groups that hold n answers together."""
    gained, squared, changed = float(gains.sum()), float(gains @ gains), int((gains != 0).sum())
    return paired_interval(n=n, gained=gained, squared=squared, groups=len(gains), changed=changed)


def agreeing(low: float, high: float, *, difference: float, p_value: float) -> tuple[float, float]:
    """An interval that says what its test says: whether no difference at all may be the truth.

    It touches 0 where it would leave 0 out and the test does not, or hold 0 inside and the test excludes it;
    of images without copies the latter does not happen.

    >>> agreeing(0.001, 0.02, difference=0.01, p_value=0.06)
    (0.0, 0.02)
    """
    if p_value >= LEVEL:
        return min(low, 0.0), max(high, 0.0)
    return (max(low, 0.0), high) if difference > 0 else (low, min(high, 0.0))
