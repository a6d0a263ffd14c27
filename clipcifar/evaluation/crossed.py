"""Differences on the same images over several draws of what was learnt from: would others say the same?

Two things vary: which images a method learnt from, and which it is tested on. Every draw is tested on
the same images, so the differences form a table, draws by images, and an interval from the draws alone
would hold for these test images only. The model is that of a crossed design with random rows and
columns, as reader studies use it (Roe and Metz 1997, Academic Radiology 4, page 587): difference = mean +
draw + image + rest. The variance of the mean is estimated by that of the draws' means over their number
plus that of the images' means over theirs. The rest is counted in both, so the estimate errs on the safe
side. Degrees of freedom follow Welch and Satterthwaite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from clipcifar.core.counts import count_of
from clipcifar.core.errors import DataError
from clipcifar.evaluation.compare import LEVEL


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


def crossed(differences: NDArray[np.floating]) -> Crossed:
    """Is the mean of a table of differences other than zero, for other draws and other images alike?

    Args:
        differences: (R, N), such as 1 where only B is right, -1 where only A is, else 0. With R = 1 only
            other images are spoken for.

    Raises:
        DataError: there are fewer than two images.
    """
    num_draws, num_images = differences.shape
    if num_images < 2:
        raise DataError(f"a spread over {count_of(num_images, 'image')} cannot be told", where="split test")
    mean = float(differences.mean())
    of_images = float(differences.mean(axis=0).var(ddof=1)) / num_images
    of_draws = float(differences.mean(axis=1).var(ddof=1)) / num_draws if num_draws > 1 else 0.0
    variance = of_images + of_draws
    if variance == 0:
        return Crossed(mean, mean, mean, 1.0 if mean == 0 else 0.0, num_draws)
    parts = of_images**2 / (num_images - 1) + (of_draws**2 / (num_draws - 1) if num_draws > 1 else 0.0)
    freedom, error = variance**2 / parts, math.sqrt(variance)
    half = float(stdtrit(freedom, 1 - LEVEL / 2)) * error
    p_value = min(1.0, 2 * float(stdtr(freedom, -abs(mean) / error)))
    return Crossed(mean, mean - half, mean + half, p_value, num_draws)
