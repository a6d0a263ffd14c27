"""Differences on the same images over several draws of what was learnt from: would others say the same?

Two things vary: which images a method learnt from, or the seed it was trained with, and which it is
tested on. Every draw is tested on the same images, so the differences form a table, draws by images, and
an interval from the draws alone would hold for these test images only. The model is that of a crossed
design with random rows and columns, as reader studies use it (Roe and Metz 1997, Academic Radiology 4,
page 587): difference = mean + draw + image + rest. The variance of the mean is estimated by that of the
draws' means over their number plus that of the images' means over theirs, V = V_draws + V_images. The
rest is counted in both, so the estimate errs on the safe side.

Of three draws V_draws is hardly known, and one that comes out too small must not pass for knowledge: the
quantile of the mean over sqrt(V) is that of Cochran and Cox (Experimental Designs, 1950), the average of
both parts' t quantiles weighted by V_draws and V_images. Where nothing differs it claims 2 to 5 % with
three draws, and 6 % at worst with two; degrees of freedom by Welch and Satterthwaite for the sum of both
claim up to 8 % with three draws and 13 % with two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from clipcifar.core.counts import count_of
from clipcifar.core.errors import DataError
from clipcifar.evaluation.signs import LEVEL


@dataclass(frozen=True)
class Spread:
    """Values over draws: mean, standard deviation (n - 1) and the 95 % t interval of the mean.

    Of a single value the deviation is 0 and the interval is the value.
    """

    mean: float
    deviation: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Part:
    """What one thing that varies adds to the variance of a mean, and its degrees of freedom."""

    variance: float
    freedom: float


@dataclass(frozen=True)
class Crossed:
    """A mean difference with its 95 % interval over draws and images, and its two-sided p value."""

    difference: float
    low: float
    high: float
    p_value: float
    n_draws: int


def spread(values: NDArray[np.float64]) -> Spread:
    """Mean and spread of (R,) values, one per draw."""
    mean, n = float(values.mean()), len(values)
    if n == 1:
        return Spread(mean, 0.0, mean, mean, 1)
    deviation = float(values.std(ddof=1))
    half = float(stdtrit(n - 1, 1 - LEVEL / 2)) * deviation / math.sqrt(n)
    return Spread(mean, deviation, mean - half, mean + half, n)


def crossed(differences: NDArray[np.floating], *, copies: NDArray[np.int64] | None = None) -> Crossed:
    """Is the mean of a table of differences other than zero, for other draws and other images alike?

    Args:
        differences: (R, N), such as 1 where only B is right, -1 where only A is, else 0. With R = 1 only
            other images are spoken for.
        copies: (N,), equal where two images are exact copies, which vary together; None where none is one.

    Raises:
        DataError: there are fewer than two images.
    """
    mean = float(differences.mean())
    of_draws = of_means([differences.mean(axis=1)])
    images = of_images(differences.mean(axis=0), copies=copies)
    return Crossed(*told(mean, images, of_draws), len(differences))


def of_images(differences: NDArray[np.floating], *, copies: NDArray[np.int64] | None = None) -> Part:
    """The part of the images.

    Args:
        differences: (N,), of every image.
        copies: (N,), equal where two images are exact copies, which vary together; None where none is one.

    Raises:
        DataError: there are fewer than two images.
    """
    _, group = np.unique(np.arange(len(differences)) if copies is None else copies, return_inverse=True)
    sums = np.bincount(group, weights=differences - differences.mean())
    if len(sums) < 2:
        raise DataError(f"a spread over {count_of(len(sums), 'image')} cannot be told", where="split test")
    variance = len(sums) / (len(sums) - 1) * float((sums**2).sum()) / len(differences) ** 2
    return Part(variance, len(sums) - 1)


def of_means(samples: Sequence[NDArray[np.floating]]) -> Part:
    """The part of a sum of independent means, by Welch and Satterthwaite.

    Args:
        samples: (R,) values each; of a single value no spread is known, and none is counted.
    """
    parts = [
        (float(values.var(ddof=1)) / len(values), len(values) - 1) for values in samples if len(values) > 1
    ]
    variance = sum(part for part, _ in parts)
    squares = sum(part**2 / freedom for part, freedom in parts)
    return Part(variance, variance**2 / squares if squares else 1.0)


def told(mean: float, *parts: Part) -> tuple[float, float, float, float]:
    """A mean, its 95 % interval and its two-sided p value against zero, which agree."""
    variance = sum(part.variance for part in parts)
    if variance == 0:
        return mean, mean, mean, 1.0 if mean == 0 else 0.0

    def quantile(p_value: float) -> float:
        return -sum(part.variance * float(stdtrit(part.freedom, p_value / 2)) for part in parts) / variance

    error = math.sqrt(variance)
    half = quantile(LEVEL) * error
    low, high = -230.0, 0.0  # of log p; below 1e-100 SciPy's quantile loses its way
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if quantile(math.exp(middle)) > abs(mean) / error else (low, middle)
    return mean, mean - half, mean + half, math.exp(high)
