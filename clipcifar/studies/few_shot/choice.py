"""Choosing by a few labelled images, with zero-shot as what is known without them.

The lowest loss on a few dozen images is often a candidate that was lucky there. Breiman, Friedman, Olshen and
Stone 1984, "Classification and Regression Trees", section 3.4.3, take the simplest candidate within one
standard error of the best. Here the simplest is the one that leaves zero-shot least, zero-shot itself being
a candidate of every method that mixes with it; the error is that of paired differences on the same images.

Loss is the negative log likelihood at each candidate's own temperature. Otherwise a candidate whose logits
are larger is preferred for being surer where zero-shot is not sure enough, whether or not it is right more
often. Which of these parts are worth what is told in studies/README.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcifar.evaluation.calibration import fit_temperature, fit_temperatures, log_softmax

Scores = NDArray[np.float32]
_BLOCK_NUMBERS = 2**22  # logits held at once, in float64


class Judged(NamedTuple):
    """How K candidates do on the same N images.

    Attributes:
        losses: (K, N) float64 nats, of each image's label at the candidate's own temperature.
        departures: (K,) float64 nats, mean Kullback-Leibler divergence from the first candidate's
            probabilities, both at their own temperatures.
    """

    losses: NDArray[np.float64]
    departures: NDArray[np.float64]


def pooled(by_fold: Sequence[Sequence[Scores]]) -> list[Scores]:
    """Each candidate's scores on the images of all folds, (N, C), in the order of the folds.

    Args:
        by_fold: for each fold the K candidates' scores on its images.
    """
    return [np.concatenate(parts) for parts in zip(*by_fold, strict=True)]


def judged(candidates: Sequence[Scores], labels: NDArray[np.int64]) -> Judged:
    """What N labelled images say of K candidates' logits, (N, C) each."""
    places, step = np.arange(len(labels)), max(1, _BLOCK_NUMBERS // candidates[0].size)
    losses, departures = [], []
    first = log_softmax(candidates[0] / fit_temperature(candidates[0], labels))
    for start in range(0, len(candidates), step):
        scores = np.stack(candidates[start : start + step]).astype(np.float64)
        scores /= fit_temperatures(scores, labels)[:, None, None]
        log_p = np.stack([log_softmax(of_candidate) for of_candidate in scores])
        losses.append(-log_p[:, places, labels])
        departures.append((np.exp(first) * (first - log_p)).sum(axis=2).mean(axis=1))
    return Judged(np.concatenate(losses), np.concatenate(departures))


def likeliest(candidates: Sequence[Scores], labels: NDArray[np.int64]) -> int:
    """The candidate with the lowest mean loss; of equals the first."""
    return int(judged(candidates, labels).losses.mean(axis=1).argmin())


def nearest(candidates: Sequence[Scores], labels: NDArray[np.int64]) -> int:
    """The candidate that departs least from the first among those within one standard error of the best.

    Args:
        candidates: K logits, (N, C) each, zero-shot's first.
        labels: (N,) int64.
    """
    losses, departures = judged(candidates, labels)
    behind = losses - losses[losses.mean(axis=1).argmin()]
    errors = behind.std(axis=1, ddof=1) / math.sqrt(len(labels))
    within = np.flatnonzero(behind.mean(axis=1) <= errors)  # the best is behind itself by 0, with no error
    return int(within[departures[within].argmin()])
